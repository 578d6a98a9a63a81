"""The documentation says what the code does: its commands, recipes, links and examples are tried."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from edgeopt.cli import app
from edgeopt.describe import reference as describe
from edgeopt.plugins import hookspecs
from edgeopt.plugins.declarations import PLUGIN_TYPES
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import Recipe, parse_recipe

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md", *ROOT.glob("examples/*/README.md")])
HOOKS = [name for name in vars(hookspecs) if name.startswith("edgeopt_")]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [text for name, text in fenced if name == language]


def own_plugins():
    return [entry for entry in load_registry() if entry.origin.name == "edgeopt"]


# ---- the reference -------------------------------------------------------------------------------------------------


def test_reference_is_up_to_date():
    written = (DOCS / "reference.md").read_text(encoding="utf-8")
    assert written == describe.reference_page(own_plugins()), "run `python -m edgeopt.describe docs/reference.md`"


def test_reference_has_every_hook_plugin_and_option():
    page = (DOCS / "reference.md").read_text(encoding="utf-8")
    assert len(HOOKS) == len(PLUGIN_TYPES)
    for hook in HOOKS:
        assert f"### `{hook}`" in page
    entries = own_plugins()
    assert {entry.plugin.kind for entry in entries} == {kind.kind for kind in PLUGIN_TYPES}
    for entry in entries:
        section = page.partition(f"### `{entry.plugin.name}`\n")[2]
        assert entry.plugin.summary in section
        for option in entry.plugin.options.model_fields:
            assert f"| `{option}` |" in page
    for model in (Recipe, *describe.CORE_TABLES.values()):
        for name, field in model.model_fields.items():
            assert f"`{field.alias or name}`" in page or f"`[{name}]`" in page


def test_reference_can_be_written_from_the_command_line(tmp_path):
    target = tmp_path / "reference.md"
    subprocess.run([sys.executable, "-m", "edgeopt.describe", target], check=True, timeout=60)
    assert target.read_text(encoding="utf-8").startswith("# Reference")


# ---- pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_index():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    """Each `edgeopt ...` line of a shell block names a command and options that there are."""
    root = get_command(app)
    for line in "\n".join(blocks(page, "sh") + blocks(page, "")).splitlines():
        if not line.startswith("edgeopt "):
            continue
        command, rest = root, shlex.split(line, comments=True)[1:]
        while rest and rest[0] in getattr(command, "commands", {}):
            command, rest = command.commands[rest[0]], rest[1:]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in rest if word.startswith("-")} <= known | {"--help"}, line
        assert rest or command is not root, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_can_run(page, tmp_path, monkeypatch):
    """Recipes of the documentation pass `check` where their images are."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for name in ("daisy", "tulip"):
        for index in range(20):
            path = tmp_path / "flowers" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (index, 0, 0)).save(path)
    for block in blocks(page, "toml"):
        values = tomllib.loads(block)
        if "exports" in values and "schema" in values:
            make_plan(parse_recipe(values), load_registry())


def test_exit_codes_are_documented():
    from edgeopt.errors import ExitCode

    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    for code in ExitCode:
        assert f"| {int(code)} |" in text


def test_python_of_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = DOCS / "tutorial.md"
    (recipe,) = [block for block in blocks(page, "toml") if 'name = "digits"' in block]
    Path("digits.toml").write_text(recipe)
    (program,) = blocks(page, "python")
    exec(compile(program, "tutorial.md", "exec"), {})
    assert "data: digits" in capsys.readouterr().out


# ---- the plugin guide ----------------------------------------------------------------------------------------------

CONTRACTS = {
    "edgeopt_datasets": ("DatasetContract", "bars", {"image_size": 16}),
    "edgeopt_models": ("ModelContract", "small", {"width": 8}),
    "edgeopt_quantizers": ("QuantizerContract", "xnnpack-coarse", {"linear": False}),
    "edgeopt_passes": ("PassContract", "zero-small-weights", {"share": 0.3}),
    "edgeopt_exporters": ("ExporterContract", "torch-program", {}),
    "edgeopt_readers": ("ReaderContract", "colour-weights", {}),
    "edgeopt_probes": ("ProbeContract", "noise", {"seed": 3}),
    "edgeopt_tasks": ("TaskContract", "level", {"close": 0.05}),
    "edgeopt_devices": ("DeviceContract", "other-python", {"python": sys.executable}),
}

#: What a reader of the guide reads: a contract cannot know how such a file is made.
WRITE = """
    @classmethod
    def write(cls, folder):
        file = folder / "model.colours"
        file.write_text('{"weights": [[1.0, 0.0, 0.5], [0.0, 1.0, -0.5]]}')
        return file
"""


#: What a network that knows the level of these images would answer.
ANSWERS = """
    targets = pytest.fixture(lambda self: [0.1, 0.9, 0.3, 0.7, 0.5, 0.2])
    outputs = pytest.fixture(lambda self: (np.array([[0.1], [0.9], [0.3], [0.7], [0.5], [0.2]], dtype=np.float32),))
"""


@pytest.mark.timeout(600)
def test_plugins_of_the_guide_keep_their_contracts(tmp_path):
    """The guide has a whole plugin file for each hook; all of them pass what the guide says they must."""
    tests = ["from pathlib import Path", "import numpy as np", "import pytest", "import edgeopt.testing as kit"]
    code = blocks(DOCS / "plugins.md", "python")
    assert set(CONTRACTS) == set(HOOKS)
    for hook, (contract, name, options) in CONTRACTS.items():
        (example,) = [block for block in code if f"def {hook}()" in block]
        file = tmp_path / f"{hook}.py"
        file.write_text(example)
        tests += [
            f"class Test_{hook}(kit.{contract}):",
            f"    name, options, plugin_files = {name!r}, {options!r}, (Path({str(file)!r}),)",
            {"ReaderContract": WRITE, "TaskContract": ANSWERS}.get(contract, ""),
        ]
    (tmp_path / "test_guide.py").write_text("\n".join(tests) + "\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "test_guide.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stdout[-5000:]


def test_other_python_of_the_guide_is_right():
    """The shorter examples: an option model with a reference, and contract classes."""
    code = blocks(DOCS / "plugins.md", "python")
    for block in code:
        if not any(f"def {hook}()" in block for hook in HOOKS):
            names: dict[str, object] = {"__name__": "guide"}
            exec(compile(block, "plugins.md", "exec"), names)
            assert any(isinstance(value, type) for name, value in names.items() if name.startswith(("My", "Test")))
