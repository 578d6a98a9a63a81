"""edgeopt: one recipe, every edge runtime, numbers you can trust.

The public names are loaded when they are first used, so that `edgeopt --help` stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgeopt.hookspecs import hookimpl as hookimpl
    from edgeopt.plan import Plan as Plan
    from edgeopt.recipe import Recipe as Recipe
    from edgeopt.recipe import read_recipe as read_recipe
    from edgeopt.runner import RunResult as RunResult
    from edgeopt.runner import check as check
    from edgeopt.runner import run as run

_WHERE = {
    "hookimpl": "edgeopt.hookspecs",
    "Plan": "edgeopt.plan",
    "Recipe": "edgeopt.recipe",
    "read_recipe": "edgeopt.recipe",
    "RunResult": "edgeopt.runner",
    "check": "edgeopt.runner",
    "run": "edgeopt.runner",
}

__all__ = ["Plan", "Recipe", "RunResult", "__version__", "check", "hookimpl", "read_recipe", "run"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'edgeopt' has no attribute {name!r}")
    from importlib import import_module  # only when a public name is first used

    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
