"""edgeopt: one recipe, every edge runtime, numbers you can trust.

These are the names for people who use edgeopt from Python; those for authors of plugins are in `edgeopt.plugins`. Names
are loaded when they are first used, so that `edgeopt --help` stays fast.
"""

from __future__ import annotations

from edgeopt._version import __version__

TYPE_CHECKING = False  # as type checkers know it: `typing` itself is not imported before Ctrl-C is looked after

if TYPE_CHECKING:
    from typing import Any

    from edgeopt.bench.whole_recipe import run as run
    from edgeopt.comparison.compare import compare as compare
    from edgeopt.comparison.schema import Limits as Limits
    from edgeopt.comparison.schema import RunComparison as RunComparison
    from edgeopt.conversion.plan import ConversionRequest as ConversionRequest
    from edgeopt.conversion.plan import ConversionResult as ConversionResult
    from edgeopt.conversion.plan import convert as convert
    from edgeopt.errors import UserError as UserError
    from edgeopt.pipeline.request import RunResult as RunResult
    from edgeopt.pipeline.runner import check as check
    from edgeopt.plugins.hookspecs import hookimpl as hookimpl
    from edgeopt.recipe.plan import Plan as Plan
    from edgeopt.recipe.read import Recipe as Recipe
    from edgeopt.recipe.read import read_recipe as read_recipe
    from edgeopt.report.schema import Report as Report
    from edgeopt.sensitivity.run import SensitivityRequest as SensitivityRequest
    from edgeopt.sensitivity.run import SensitivityResult as SensitivityResult
    from edgeopt.sensitivity.run import measure_sensitivity as measure_sensitivity

_WHERE = {
    "ConversionRequest": "edgeopt.conversion.plan",
    "ConversionResult": "edgeopt.conversion.plan",
    "Limits": "edgeopt.comparison.schema",
    "Plan": "edgeopt.recipe.plan",
    "Recipe": "edgeopt.recipe.read",
    "Report": "edgeopt.report.schema",
    "RunComparison": "edgeopt.comparison.schema",
    "RunResult": "edgeopt.pipeline.request",
    "SensitivityRequest": "edgeopt.sensitivity.run",
    "SensitivityResult": "edgeopt.sensitivity.run",
    "UserError": "edgeopt.errors",
    "check": "edgeopt.pipeline.runner",
    "compare": "edgeopt.comparison.compare",
    "convert": "edgeopt.conversion.plan",
    "hookimpl": "edgeopt.plugins.hookspecs",
    "measure_sensitivity": "edgeopt.sensitivity.run",
    "read_recipe": "edgeopt.recipe.read",
    "run": "edgeopt.bench.whole_recipe",
}

__all__ = [*_WHERE, "__version__"]  # noqa: PLE0604 -- the same names, once


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'edgeopt' has no attribute {name!r}")
    from importlib import import_module  # only when a public name is first used

    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
