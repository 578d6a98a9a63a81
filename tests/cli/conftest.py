"""Runs commands in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgeopt.cli import app

Cli = Callable[..., Result]


@pytest.fixture
def tiny_plugin_file() -> Path:
    """The file of the tiny plugins, for `--plugin`."""
    return Path(__file__).parents[1] / "tiny_plugin.py"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs `edgeopt ARGUMENTS` in an empty folder; bug reports go there as well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="edgeopt")

    return run
