"""`--help` and `check` stay quick: what they import is checked, as times depend on the machine."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HEAVY = {
    "torch",
    "torchvision",
    "lightning",
    "numpy",
    "sklearn",
    "datasets",
    "timm",
    "onnx",
    "onnxruntime",
    "executorch",
}
HEAVY |= {"matplotlib", "PIL", "pandas", "tensorflow"}
NOT_FOR_HELP = HEAVY | {
    "pydantic",
    "pluggy",
    "markdown_it",
    "pygments",
    "asyncio",
    "edgeopt.plugins.declarations",
    "edgeopt.plugins.registry",
}


def imported_by(*arguments: str) -> set[str]:
    """The modules that are loaded when the command ends."""
    program = (
        "import sys\n"
        f"sys.argv = ['edgeopt', *{arguments!r}]\n"
        "from edgeopt.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print('MODULES', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.rpartition("MODULES")[2].split())


def test_help_imports_nothing_but_typer():
    modules = imported_by("--help")
    assert "typer" in modules
    assert not modules & NOT_FOR_HELP
    assert not [name for name in modules if name.endswith(".plugin")]


@pytest.mark.parametrize("command", ["run", "check"])
def test_help_of_a_command_imports_no_plugin(command):
    modules = imported_by(command, "--help")
    assert not modules & (HEAVY | {"pluggy", "edgeopt.plugins.declarations", "edgeopt.plugins.registry"})


def test_check_imports_nothing_heavy(tiny_recipe, tiny_plugin_file):
    assert not imported_by("check", str(tiny_recipe), "--plugin", str(tiny_plugin_file)) & HEAVY


def test_plugins_imports_nothing_heavy():
    assert not imported_by("plugins") & HEAVY


@pytest.mark.parametrize("module", ["typer", "pydantic", "tomllib"])
def test_ctrl_c_while_the_command_line_is_imported_is_one_line(module, tmp_path):
    (tmp_path / f"{module}.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, "-m", "edgeopt", "check", "recipe.toml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_the_command_begins_where_ctrl_c_is_caught():
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["scripts"] == {"edgeopt": "edgeopt.__main__:main"}
