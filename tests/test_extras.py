"""`benchmarks/extras.py` installs every extra by itself, which takes long; here stands that it misses none and that its recipes hold."""

import importlib.util
import sys
from pathlib import Path

import pytest
import tomli_w
from typer.testing import CliRunner

from edgeopt.cli import app

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load_extras():
    spec = importlib.util.spec_from_file_location("extras", BENCHMARKS / "extras.py")
    sys.modules["extras"] = module = importlib.util.module_from_spec(spec)  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


extras = load_extras()


def test_every_extra_has_a_smoke_run():
    assert set(extras.SMOKES) == set(extras.extras())
    assert extras.extras()[-1] == "all"


@pytest.mark.parametrize("extra", [name for name, smoke in extras.SMOKES.items() if smoke])
def test_recipe_of_a_smoke_run_holds(extra, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEOPT_BROWSER", sys.executable)  # files for web pages want one, which nothing opens here
    extras.write_data(extra, tmp_path)
    Path("recipe.toml").write_text(tomli_w.dumps(extras.SMOKES[extra].recipe(extra)))
    checked = CliRunner().invoke(app, ["check", "recipe.toml", "--plugin", str(extras.PLUGIN)])
    assert checked.exit_code == 0, checked.output


def test_a_command_that_fails_is_said_with_its_last_line(tmp_path):
    environment = extras.Environment.__new__(extras.Environment)
    environment.python, environment.work = sys.executable, tmp_path
    assert environment.run("-c", "print('hello')") == "ok"
    assert environment.run("-c", "import sys; print('no room'); sys.exit(3)") == "exit 3: no room"
    assert not extras.Row("onnx", 1, 1.0, 1.0, "ok", "exit 3: no room").works
    assert not extras.Row("onnx", 1, 1.0, 1.0, "ok").works
