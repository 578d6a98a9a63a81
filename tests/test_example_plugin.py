"""Packages of others, installed with pip into environments of their own: the example, and what `edgeopt new plugin`
writes.
"""

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

from edgeopt.plugins.declarations import PLUGIN_TYPES
from edgeopt.plugins.registry import load_registry
from edgeopt.scaffold import KINDS, write_plugin_package

EXAMPLE = Path(__file__).parents[1] / "examples" / "edgeopt-example-plugin"


class Environment:
    """A fresh virtual environment that sees this one's packages, so that torch is not installed again."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        (packages,) = folder.rglob("site-packages")
        lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
        (packages / "parent.pth").write_text("\n".join(lines) + "\n")

    def install(self, package: Path) -> None:
        """Installs a package and nothing that it depends on."""
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", "--no-index"]
        subprocess.run([*pip, "--no-deps", "--no-build-isolation", package], check=True, timeout=200)

    def run(self, *arguments: object, cwd: Path) -> str:
        """Runs `python ARGUMENTS` and returns what it prints; fails with all of it."""
        command = [str(self.python), *map(str, arguments)]
        settings = os.environ | {"COLUMNS": "200", "PYTEST_ADDOPTS": ""}
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=250, check=False, env=settings)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The example installed, and a copy of its sources to work in: building leaves files behind."""
    folder = tmp_path_factory.mktemp("example")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", ".pytest_cache", "runs")
    sources = shutil.copytree(EXAMPLE, folder / "sources", ignore=ignored)
    environment = Environment(folder / "venv")
    environment.install(sources)
    return environment, sources


def test_example_is_not_installed_here():
    assert not [entry for entry in load_registry() if "example" in entry.origin.name]


def test_example_is_listed(example):
    environment, sources = example
    listed = environment.run("-m", "edgeopt", "plugins", cwd=sources)
    for line in ("dataset  drawn-shapes", "pass  coarse-weights"):
        kind, name = line.split()
        assert [kind, name] in [row.split()[:2] for row in listed.splitlines()]
    assert "edgeopt-example-plugin 0.1.0" in listed
    assert "values = 31" in environment.run("-m", "edgeopt", "plugins", "show", "coarse-weights", cwd=sources)


def test_example_recipe_is_right(example):
    environment, sources = example
    assert "nothing wrong" in environment.run("-m", "edgeopt", "check", "shapes.toml", cwd=sources)


@pytest.mark.timeout(600)
def test_example_passes_its_own_tests(example):
    environment, sources = example
    printed = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=sources)
    assert "passed" in printed
    assert "failed" not in printed


def test_what_is_written_is_for_every_kind():
    assert set(KINDS) == {kind.kind for kind in PLUGIN_TYPES}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_passes_its_own_tests(tmp_path, kind):
    package = write_plugin_package("edgeopt-faces", tmp_path, load_registry(), kind)
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "E,F,B,S,RUF,D1,ARG", "--ignore", "D104"]
    subprocess.run([*ruff, "."], check=True, timeout=60, cwd=package)
    environment = Environment(tmp_path / "venv")
    environment.install(package)
    assert "faces" in environment.run("-m", "edgeopt", "plugins", cwd=tmp_path)
    printed = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=package)
    assert "passed" in printed
    assert "failed" not in printed
