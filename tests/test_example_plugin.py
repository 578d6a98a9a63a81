"""Packages of others, installed with pip into an environment of their own: the examples, and what `edgeopt new plugin`
writes.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeopt.plugins.declarations import PLUGIN_TYPES
from edgeopt.plugins.registry import load_registry
from edgeopt.scaffold import KINDS, write_plugin_package

EXAMPLES = Path(__file__).parents[1] / "examples"
EXAMPLE, RUNTIME = EXAMPLES / "edgeopt-example-plugin", EXAMPLES / "edgeopt-example-runtime"


class Environment:
    """A fresh virtual environment that sees this one's packages, so that torch is not installed again."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        (packages,) = folder.rglob("site-packages")
        lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
        (packages / "parent.pth").write_text("\n".join(lines) + "\n")

    def install(self, *packages: Path) -> None:
        """Installs packages and nothing that they depend on."""
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", "--no-index"]
        subprocess.run([*pip, "--no-deps", "--no-build-isolation", *packages], check=True, timeout=400)

    def run(self, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Runs `python ARGUMENTS`."""
        command = [str(self.python), *map(str, arguments)]
        settings = os.environ | {"COLUMNS": "200", "PYTEST_ADDOPTS": ""}
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=400, check=False, env=settings)

    def edgeopt(self, *arguments: object, cwd: Path) -> str:
        """Runs `edgeopt ARGUMENTS` and returns what it prints; fails with all of it."""
        done = self.run("-m", "edgeopt", *arguments, cwd=cwd)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout


@dataclass(frozen=True)
class Installed:
    """The examples and a package of each kind, by names of folders in `folder`; building leaves files behind there."""

    environment: Environment
    folder: Path
    packages: tuple[str, ...]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("packages")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", ".pytest_cache", "runs")
    sources = [shutil.copytree(each, folder / each.name, ignore=ignored) for each in (EXAMPLE, RUNTIME)]
    registry = load_registry()
    written = [write_plugin_package(f"edgeopt-{kind}-of-faces", folder, registry, kind) for kind in KINDS]
    environment = Environment(folder / "venv")
    environment.install(*sources, *written)
    return Installed(environment, folder, tuple(package.name for package in (*sources, *written)))


@dataclass(frozen=True)
class Outcome:
    """What a package's own tests said: how many passed, and the messages of those that did not."""

    passed: int
    failures: tuple[str, ...]


@pytest.fixture(scope="module")
def tested(installed: Installed) -> dict[str, Outcome]:
    """The outcome of each package's tests. All run in one process, so that torch is imported once."""
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir=.")
    done = installed.environment.run(*command, "--junitxml=tests.xml", *installed.packages, cwd=installed.folder)
    assert done.returncode in (0, 1), done.stdout[-4000:] + done.stderr[-4000:]  # 1: some test failed
    cases = list(ET.parse(installed.folder / "tests.xml").iter("testcase"))
    return {package: _outcome([case for case in cases if package in _of(case)]) for package in installed.packages}


def _of(case: ET.Element) -> str:
    """Where a test comes from: its module's path with dots, or the module itself where it cannot be imported."""
    return case.get("classname") or case.get("name") or ""


def _outcome(cases: list[ET.Element]) -> Outcome:
    failures = [f"{_of(case)}\n{bad.text}" for case in cases for bad in case if bad.tag in {"failure", "error"}]
    return Outcome(sum(len(case) == 0 for case in cases), tuple(failures))


def test_example_is_not_installed_here():
    assert not [entry for entry in load_registry() if "example" in entry.origin.name]


def test_packages_are_listed(installed: Installed) -> None:
    printed = installed.environment.edgeopt("plugins", cwd=installed.folder)
    listed = {tuple(row.split()[:2]) for row in printed.splitlines()}
    assert {("dataset", "drawn-shapes"), ("pass", "coarse-weights"), ("exporter", "example-numpy")} <= listed
    assert {(kind, f"{kind}-of-faces") for kind in KINDS} <= listed
    assert "edgeopt-example-plugin 0.1.0" in printed
    shown = installed.environment.edgeopt("plugins", "show", "coarse-weights", cwd=installed.folder)
    assert "values = 31" in shown


@pytest.mark.parametrize("recipe", ["edgeopt-example-plugin/shapes.toml", "edgeopt-example-runtime/digits.toml"])
def test_recipe_of_an_example_is_right(installed: Installed, recipe: str) -> None:
    assert "nothing wrong" in installed.environment.edgeopt("check", recipe, cwd=installed.folder)


@pytest.mark.timeout(600)
def test_example_passes_its_own_tests(tested: dict[str, Outcome]) -> None:
    assert not tested[EXAMPLE.name].failures
    assert tested[EXAMPLE.name].passed > 20


@pytest.mark.timeout(600)
def test_example_of_a_runtime_keeps_its_contract_in_150_lines(tested: dict[str, Outcome]) -> None:
    assert not tested[RUNTIME.name].failures
    assert tested[RUNTIME.name].passed > 15
    assert sum(len(file.read_text().splitlines()) for file in RUNTIME.rglob("*.py")) <= 150


def test_what_is_written_is_for_every_kind():
    assert set(KINDS) == {kind.kind for kind in PLUGIN_TYPES}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_passes_its_own_tests(tested: dict[str, Outcome], kind: str) -> None:
    outcome = tested[f"edgeopt-{kind}-of-faces"]
    assert not outcome.failures
    assert outcome.passed > 5


def test_what_is_written_has_no_lint(installed: Installed) -> None:
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "E,F,B,S,RUF,D1,ARG", "--ignore", "D104"]
    written = [package for package in installed.packages if package not in (EXAMPLE.name, RUNTIME.name)]
    done = subprocess.run(
        [*ruff, *written], capture_output=True, text=True, timeout=60, check=False, cwd=installed.folder
    )
    assert done.returncode == 0, done.stdout
