"""Large libraries come in without what they would import in passing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys

import pytest

from edgeopt.plugins import without_packages


def test_packages_are_hidden_for_a_while(monkeypatch):
    monkeypatch.delitem(sys.modules, "tomllib", raising=False)
    with without_packages("tomllib", "rich", "json"):
        with pytest.raises(ImportError):
            importlib.import_module("tomllib")
        assert importlib.util.find_spec("tomllib") is None
        assert importlib.import_module("json") is sys.modules["json"], "what was there stays"
        assert importlib.metadata.version("pluggy")
    assert importlib.import_module("tomllib").loads("a = 1") == {"a": 1}


def test_distributions_are_hidden_too_and_come_back_after_an_error(monkeypatch):
    monkeypatch.delitem(sys.modules, "filelock", raising=False)
    with pytest.raises(ZeroDivisionError), without_packages("filelock"):
        with pytest.raises(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version("filelock")
        raise ZeroDivisionError
    assert importlib.metadata.version("filelock")
    assert "filelock" not in sys.modules


@pytest.mark.parametrize(
    ("module", "libraries"),
    [
        ("edgeopt_lightning._imports", ("scipy", "transformers", "matplotlib")),
        ("edgeopt_tensorflow.runtime", ("jax", "sklearn", "pandas", "matplotlib")),
    ],
)
def test_frameworks_bring_no_libraries_that_nobody_uses(module, libraries):
    code = f"import sys, {module}; print(sorted({set(libraries)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout == "[]\n", done.stdout + done.stderr
