"""`examples/`: written by `edgeopt new example`, inside what is built, and run; and `edgeopt new recipe`."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY_PLUGIN, TINY_RECIPE
from typer.testing import CliRunner, Result

import edgeopt
from edgeopt.cli import app
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import read_recipe
from edgeopt.scaffold.examples import examples

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NAMES = sorted(readme.parent.name for readme in EXAMPLES.glob("*/README.md"))


def command(*arguments: object) -> Result:
    """Runs `edgeopt ARGUMENTS` in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# ---- written where the user wants them -------------------------------------------------------------------------------


def test_all_folders_are_examples_and_listed() -> None:
    assert [folder.name for folder in sorted(EXAMPLES.iterdir()) if folder.is_dir()] == NAMES
    listed = command("new", "example").stdout.splitlines()
    assert [line.split()[0] for line in listed] == NAMES
    assert all(len(line.split(maxsplit=1)) == 2 for line in listed)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_written_once(name: str, tmp_path: Path) -> None:
    assert command("new", "example", name, "--out", tmp_path / "here").exit_code == 0
    folder = tmp_path / "here" / name
    assert [path.name for path in folder.parent.iterdir()] == [name]
    assert (folder / "README.md").read_text() == (EXAMPLES / name / "README.md").read_text()
    assert not [path for path in folder.rglob("*") if path.name in {"__pycache__", "runs"}]
    (folder / "README.md").write_text("changed")
    again = command("new", "example", name, "--out", tmp_path / "here")
    assert again.exit_code == 2 and "exists already" in again.output
    assert (folder / "README.md").read_text() == "changed"


def test_an_example_brings_all_that_its_readme_names(tmp_path: Path) -> None:
    """The files in its table are there, also those that it shares with another example."""
    for name in NAMES:
        command("new", "example", name, "--out", tmp_path)
        readme = (tmp_path / name / "README.md").read_text()
        _head, table, rest = readme.partition("| file | is |\n|---|---|\n")
        for row in rest.partition("\n\n")[0].splitlines() if table else ():
            for file in re.findall(r"`([^`]+)`", row.split("|")[1]):
                assert (tmp_path / name / file).is_file(), file


def test_an_example_that_there_is_not(tmp_path: Path) -> None:
    done = command("new", "example", "raspberry", "--out", tmp_path)
    assert done.exit_code == 2 and "raspberry-pi" in done.output
    done = command("new", "example", "zoo", "--out", tmp_path)
    assert done.exit_code == 2 and all(name in done.output for name in NAMES)
    assert not list(tmp_path.iterdir())


def test_what_was_made_in_an_example_stays_there(tmp_path: Path) -> None:
    copying = runpy.run_path(str(ROOT / "edgeopt" / "scaffold" / "copying.py"))
    source = Path(shutil.copytree(EXAMPLES / "single-file-plugin", tmp_path / "source"))
    for made in ("images/a.png", "runs/parts/report.json", "__pycache__/parts.pyc", "parts.pt", "labels.csv"):
        (source / made).parent.mkdir(parents=True, exist_ok=True)
        (source / made).touch()
    copying["copy_example"](source, tmp_path / "target")
    kept = {path.name for path in (tmp_path / "target").rglob("*")}
    assert kept == {path.name for path in (EXAMPLES / "single-file-plugin").iterdir()} - {"__pycache__"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel holds, in `lib`, and what a source distribution lists, in `SOURCES.txt`."""
    folder = tmp_path_factory.mktemp("built")
    steps = ["egg_info", "--egg-base", folder, "build_py", "--build-lib", folder / "lib"]
    command = [sys.executable, "setup.py", "--quiet", *steps]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=True)
    shutil.copy(folder / "edgeopt.egg-info" / "SOURCES.txt", folder)
    return folder


def test_the_examples_travel_in_wheel_and_source_distribution(built: Path, tmp_path: Path) -> None:
    inside = built / "lib" / "edgeopt" / "scaffold" / "examples"
    listed = set((built / "SOURCES.txt").read_text().splitlines())
    assert {"setup.py", "MANIFEST.in", "edgeopt/scaffold/copying.py", "edgeopt/scaffold/recipe.toml.j2"} <= listed
    for example in examples():
        command("new", "example", example.name, "--out", tmp_path / "checkout")
        for file in (path for path in example.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            place = file.relative_to(example.folder)
            if (tmp_path / "checkout" / example.name / place).exists():  # not what was made there
                assert (inside / example.name / place).read_bytes() == file.read_bytes()
                assert f"examples/{example.name}/{place.as_posix()}" in listed
    path = os.pathsep.join(map(str, (built / "lib", ROOT / "plugins")))
    program = "from edgeopt.scaffold.examples import examples, write_example; print(examples()[0].folder.parent)"
    program += f"; write_example('jetson', __import__('pathlib').Path({str(tmp_path / 'wheel')!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(inside)
    same = [
        sorted(path.relative_to(tmp_path / each).as_posix() for path in (tmp_path / each / "jetson").rglob("*"))
        for each in ("wheel", "checkout")
    ]
    assert same[0] == same[1]
    assert "jetson/service.py" in same[0]


# ---- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe",
    [
        each
        for each in sorted(EXAMPLES.rglob("*.toml"))
        if "[dataset]" in each.read_text()
        and "plugin" not in str(each)
        and not (each.parent / "pyproject.toml").exists()
    ],
    ids=lambda recipe: recipe.parent.name,
)
def test_recipes_of_examples_are_right(recipe: Path) -> None:
    make_plan(read_recipe(recipe), load_registry())


def test_a_new_recipe_is_one_that_check_accepts(tmp_path: Path) -> None:
    """Of the quantizers, one that all runtimes take; comments in every table."""
    from PIL import Image

    for name in ("daisy", "tulip"):
        for number in range(8):
            (tmp_path / "flower images" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "flower images" / name / f"{number}.png")
    given = {
        "plain": [],
        "flowers": ["--data", tmp_path / "flower images", "--model", "timm:tinynet_a", "--runtime", "tflite"],
        "four": [f"--runtime={each}" for each in ("executorch", "tflite", "onnx", "tensorrt")],
        "board": ["--runtime", "tensorrt", "--model", "resnet18"],
    }
    for name, arguments in given.items():
        done = command("new", "recipe", name, "--out", tmp_path, *arguments)
        assert done.exit_code == 0, done.output
        checked = command("check", tmp_path / f"{name}.toml")
        assert checked.exit_code == 0 and "nothing wrong" in checked.output
    recipes = {name: tomllib.loads((tmp_path / f"{name}.toml").read_text()) for name in given}
    assert recipes["flowers"]["model"] == {"use": "timm", "arch": "tinynet_a"}
    assert [recipe["passes"][1]["quantizer"] for recipe in recipes.values()] == [
        "xnnpack",
        "xnnpack",
        "xnnpack-symmetric",
        "xnnpack-symmetric",
    ]
    assert [each["use"] for each in recipes["four"]["exports"]] == ["executorch", "tflite", "onnx", "tensorrt"]
    again = command("new", "recipe", "plain", "--out", tmp_path)
    assert again.exit_code == 2 and "plain.toml exists already" in again.output


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["My Recipe", "--runtime", "onx"], ["cannot be the name of a recipe", "did you mean 'onnx'"]),
        (["a", "--model", "mobilenet_v3_smal"], ["arch", "mobilenet_v3_small"]),
        (["a", "--model", "tim:tinynet_a"], ["no model plugin 'tim'", "did you mean 'timm'"]),
        (["a", "--data", "no-such-folder"], ["no-such-folder does not exist"]),
        (["a", "--model", 'x"y'], ["arch"]),
    ],
)
def test_a_new_recipe_that_check_would_refuse_is_not_written(
    arguments: list[str], messages: list[str], tmp_path: Path
) -> None:
    done = command("new", "recipe", *arguments, "--out", tmp_path)
    assert done.exit_code == 2
    assert all(message in done.output for message in messages), done.output
    assert not list(tmp_path.iterdir())


# ---- run -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes an example, and makes its folder the present one, from which its modules are imported."""

    def write(name: str) -> Path:
        command("new", "example", name, "--out", tmp_path)
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setattr(sys, "path", [str(tmp_path / name), *sys.path])
        return tmp_path / name

    return write


def tiny_recipe(folder: Path) -> Path:
    """The tiny recipe, which names the file of its plugins itself."""
    folder.mkdir(exist_ok=True)
    shutil.copy(TINY_PLUGIN, folder)
    own = f'baseline = false\nplugins = ["{TINY_PLUGIN.name}"]\n'
    (folder / "tiny.toml").write_text(TINY_RECIPE.replace("[dataset]", f"{own}[dataset]", 1))
    return folder / "tiny.toml"


@pytest.mark.usefixtures("imports_done_once")
def test_the_sweep_from_python(example: Callable[[str], Path], tmp_path: Path) -> None:
    example("python-api")
    sweep = importlib.import_module("sweep")
    results = sweep.sweep(tiny_recipe(tmp_path / "tiny"), "passes.1.steps", (64, 2), tmp_path / "runs")
    assert [result.folder.name for result in results.values()] == ["tiny-64", "tiny-2"]
    _head, *lines = sweep.table(results).splitlines()
    assert [line.split()[0] for line in lines] == ["64", "2"]
    assert all("% (" in line and line.endswith(" ms") for line in lines)
    assert sweep.smallest(results) in results
    (names,) = {tuple(stage for stage in edgeopt.check(sweep.RECIPE).stages)}
    assert f"pass-1-{edgeopt.check(sweep.RECIPE).passes[1].plugin.name}" in names
    assert "weight_bits" in edgeopt.check(sweep.RECIPE).passes[1].options.model_fields


@pytest.mark.usefixtures("imports_done_once")
def test_the_plugins_in_one_file(example: Callable[[str], Path], tmp_path: Path) -> None:
    folder = example("single-file-plugin")
    refused = command("check", "recipe.toml")
    assert refused.exit_code == 2
    assert "recipe.toml:10: there is no table" in refused.output and "recipe.toml:17: checkpoint" in refused.output
    files = importlib.import_module("make_files")
    files.write_images(folder)
    files.train(folder)
    whole = [f"dataset.path={folder / 'labels.csv'}", f"model.weights={folder / 'parts.pt'}"]  # for forks of elsewhere
    result = edgeopt.run("recipe.toml", overrides=["baseline=false", *whole], out=tmp_path / "runs")
    assert not result.failures
    (row,) = result.report.rows
    assert row.test_accuracy > 0.9, "the weights of the checkpoint, on images that they never saw"
    assert row.agreement >= 0.9
    (clipped,) = (record for record in result.report.passes if record.name == "clip-outliers")
    assert clipped.facts["clipped_weights"] > 0
    lock = tomllib.loads((result.folder / "lock.toml").read_text())
    assert lock["plugins"]["model parts-net"].startswith("parts.py sha256:")


def test_the_file_of_plugins_imports_nothing_heavy() -> None:
    program = "import sys, parts; print(*{'torch', 'numpy', 'PIL'} & sys.modules.keys())"
    folder = EXAMPLES / "single-file-plugin"
    done = subprocess.run([sys.executable, "-Bc", program], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# ---- the gate of CI --------------------------------------------------------------------------------------------------

SHIM = """#!/bin/sh
printf '%s\\n' "$@" > "$DOOR/asked"
exit "$(cat "$DOOR/answered")"
"""


class Repository:
    """A repository with the example's gate and the tiny recipe; `edgeopt` is answered by this process, which has torch
    imported already.
    """

    def __init__(self, folder: Path, gate: Path) -> None:
        self.folder, self.door = folder, folder.parent / "door"
        self.recipe = tiny_recipe(folder / "recipes")
        shutil.copy(gate, folder)
        self.door.mkdir()
        for end in ("asked", "answered"):
            os.mkfifo(self.door / end)
        (self.door / "edgeopt").write_text(SHIM)
        (self.door / "edgeopt").chmod(0o755)
        (self.door / "python3").symlink_to(sys.executable)
        self.git("init", "--quiet", "--initial-branch=main")
        (folder / ".gitignore").write_text("runs/\n")
        self.commit()

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *who, *arguments], cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout

    def commit(self) -> None:
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "change")

    def really(self, *arguments: str) -> int:
        """Runs `edgeopt ARGUMENTS`: with a whole path for forks, and with the exporter of the files that are timed."""
        if "--smoke" in arguments:
            return 0  # other tests do that
        more = {"run": ["--out", self.folder / "runs"], "compare": ["--plugin", TINY_PLUGIN]}
        done = command(*arguments, *more.get(arguments[0], []))
        print(done.output)
        return done.exit_code

    def judge(self, recipe: str, before: str, *, pretends: bool = False) -> tuple[int, list[str]]:
        """The exit status of the gate, and the commands that it gave; where it `pretends`, all of them are well."""
        environment = os.environ | {"DOOR": str(self.door), "PATH": f"{self.door}{os.pathsep}{os.environ['PATH']}"}
        given = []
        with subprocess.Popen(["sh", "gate.sh", recipe, before], cwd=self.folder, env=environment) as running:
            asked = os.open(self.door / "asked", os.O_RDONLY | os.O_NONBLOCK)
            while running.poll() is None:
                arguments = self.read(asked).splitlines()
                if arguments:
                    given.append(arguments[0])
                    status = 0 if pretends else self.really(*arguments)
                    (self.door / "answered").write_text(f"{status}\n")
            os.close(asked)
        return running.returncode, given

    @staticmethod
    def read(asked: int) -> str:
        time.sleep(0.01)
        try:
            return os.read(asked, 1 << 16).decode()
        except BlockingIOError:  # somebody has opened it, and not written yet
            return ""


@pytest.mark.usefixtures("imports_done_once")
def test_the_gate_of_ci(example: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = example("ci") / "gate.sh"
    (tmp_path / "repository").mkdir()
    repository = Repository(tmp_path / "repository", gate)
    monkeypatch.chdir(repository.folder)
    recipe = "recipes/tiny.toml"

    (repository.folder / "recipes" / "new.toml").write_text(repository.recipe.read_text().replace('"tiny"', '"new"'))
    assert repository.judge("recipes/new.toml", "main", pretends=True) == (0, ["check", "run", "run"])

    repository.recipe.write_text(repository.recipe.read_text().replace("steps = 64", "stepps = 64"))
    assert repository.judge(recipe, "main") == (2, ["check"])

    repository.recipe.write_text(repository.recipe.read_text().replace("stepps = 64", "steps = 1"))
    assert repository.judge(recipe, "main") == (3, ["check", "run", "run", "run", "compare"])
    assert (repository.folder / "compare-tiny.html").is_file()
    assert repository.git("worktree", "list").count("\n") == 1, "nothing is left behind"


def test_the_workflow_calls_the_gate_for_what_changed() -> None:
    import yaml

    workflow = yaml.safe_load((EXAMPLES / "ci" / ".github" / "workflows" / "recipes.yml").read_text())
    triggers = workflow[True]  # YAML 1.1 reads the key `on` so
    assert triggers["pull_request"]["paths"][0] == "recipes/**"
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    script = next(step["run"] for step in job["steps"] if "gate.sh" in step.get("run", ""))
    done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (EXAMPLES / "ci" / "requirements.txt").is_file()
