"""Fixtures for all tests: a tiny, complete set of plugins in one file, so that whole runs take seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from edgeopt.plugins.registry import Registry, load_registry

settings.register_profile("edgeopt", deadline=None)  # the machine's load is not a property of the code
settings.load_profile("edgeopt")

TINY_PLUGIN = Path(__file__).parent / "tiny_plugin.py"

TINY_RECIPE = """\
schema = 1
name = "tiny"

[dataset]
use = "stripes"
image_size = 16

[model]
use = "linear"

[[passes]]
use = "fit-stripes"

[[passes]]
use = "round-weights"
steps = 64

[[exports]]
use = "npz"

[measure]
threads = 1
warmup = 1
runs = 5
rounds = 1
"""


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The installed plugins and the tiny ones."""
    return load_registry([TINY_PLUGIN])


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a recipe's text to a file of its own."""

    def write(text: str, name: str = "recipe.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def tiny_recipe(write_recipe: Callable[[str], Path]) -> Path:
    """A whole recipe that runs in seconds with the tiny plugins."""
    return write_recipe(TINY_RECIPE)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the tiny recipe, which stands two folders above it."""
    import edgeopt  # light, and yet not for tests of what is imported

    folder = tmp_path_factory.mktemp("finished")
    (folder / "recipe.toml").write_text(TINY_RECIPE)
    return edgeopt.run(folder / "recipe.toml", out=folder / "runs", plugin_files=[TINY_PLUGIN]).folder
