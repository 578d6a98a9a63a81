"""Plugins are found, told apart, and refused by name where two answer to one thing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgeopt.errors import PluginBugError, PluginError, RecipeError
from edgeopt.pipeline.runner import check
from edgeopt.plugins import ExporterPlugin, PassPlugin, ReaderPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve

PASS = '    yield PassPlugin("mine", "Mine.", Options, apply=lambda state, options, context: state)\n'
HEAD = "import edgeopt\nfrom edgeopt.plugins import *\n\n\n"


@pytest.fixture
def plugin_file(tmp_path):
    def write(text: str, name: str = "mine.py") -> Path:
        (tmp_path / name).write_text(HEAD + text)
        return tmp_path / name

    return write


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts a package with one plugin module in front of Python's path."""

    def install(text: str, name: str = "edgeopt-mine") -> None:
        folder = tmp_path / name
        info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir(parents=True)
        module = name.replace("-", "_") + "_module"
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[edgeopt]\n{name} = {module}\n")
        (folder / f"{module}.py").write_text(HEAD + text)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def hook(kind: str, *lines: str) -> str:
    return f"@edgeopt.hookimpl\ndef edgeopt_{kind}():\n" + "".join(f"    {line}\n" for line in lines) + "\n\n"


def test_a_declaration_may_be_of_a_class_that_extends_its_kind(plugin_file):
    text = "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Mine(PassPlugin):\n    extra: str = 'x'\n\n\n"
    line = 'yield Mine("mine", "Mine.", Options, apply=lambda state, options, context: state, extra="more")'
    registry = load_registry([plugin_file(text + hook("passes", line))])
    plugin = registry.get(PassPlugin, "mine")
    assert plugin.extra == "more"
    assert registry.origin(plugin).name.endswith("mine.py")
    assert resolve(PassPlugin, "mine", {}, registry).plugin is plugin
    assert plugin in [entry.plugin for entry in registry]


def test_a_hook_of_a_newer_edgeopt_is_told_and_the_rest_loaded(plugin_file):
    file = plugin_file(hook("passes", PASS.strip()) + hook("dreams", "yield 1"))
    registry = load_registry([file])
    assert registry.get(PassPlugin, "mine")
    (problem,) = [problem for problem in registry.problems if "mine.py" in problem.message]
    assert "'edgeopt_dreams'" in problem.message
    assert "newer edgeopt" in problem.hint


def test_a_misspelt_hook_is_told_what_was_meant(plugin_file):
    file = plugin_file(hook("passes", PASS.strip()) + hook("exporter", "yield 1"))
    (problem,) = [problem for problem in load_registry([file]).problems if "mine.py" in problem.message]
    assert "did you mean 'edgeopt_exporters'?" in problem.hint


def test_a_hook_that_says_it_is_optional_is_not_told(plugin_file):
    newer = hook("dreams", "yield 1").replace("hookimpl", "hookimpl(optionalhook=True)")
    assert not load_registry([plugin_file(hook("passes", PASS.strip()) + newer)]).problems


def test_a_file_without_hooks_is_named(plugin_file):
    with pytest.raises(PluginError, match=r"mine\.py declares nothing"):
        load_registry([plugin_file("x = 1\n")])


def test_a_file_given_twice_is_one(plugin_file):
    file = plugin_file(hook("passes", PASS.strip()))
    assert load_registry([file, file]).get(PassPlugin, "mine")


def test_a_hook_that_gives_nothing_is_an_error_of_its_file(plugin_file):
    with pytest.raises(PluginError, match="edgeopt_passes gave nothing"):
        load_registry([plugin_file(hook("passes", "return None"))])


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise ValueError('broken')", "ValueError: broken"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x =", "SyntaxError: "),
    ],
)
def test_a_package_that_cannot_be_loaded_is_kept_with_its_cause(installed, line, cause):
    installed(line + "\n")
    (problem,) = [problem for problem in load_registry().problems if "edgeopt-mine 1.2" in problem.message]
    assert cause in problem.message
    assert load_registry().get(PassPlugin, "ptq")


READER = 'yield ReaderPlugin("{0}", "Reads.", Options, read=lambda path, options: None, suffixes=(".abc", ".{0}"))'
EXPORTER = (
    'yield ExporterPlugin("{0}", "Writes.", Options, export=lambda *_: None, open=lambda *_: None, runtime="r", '
    'suffix=".x", format="abc", framework="{1}")'
)


def test_two_readers_of_one_ending_are_refused_by_name(plugin_file):
    files = [plugin_file(hook("readers", READER.format(name)), f"{name}.py") for name in ("one", "two")]
    registry = load_registry(files)
    with pytest.raises(PluginError, match=r"two readers open files that end in '\.abc': 'one' of .*'two' of"):
        registry.reader(".ABC")
    assert registry.reader(".one") is registry.get(ReaderPlugin, "one")
    assert registry.reader(".none") is None
    assert any("'.abc'" in problem.message for problem in registry.problems)


def test_two_exporters_of_one_format_are_refused_by_name(plugin_file):
    files = [
        plugin_file(hook("exporters", EXPORTER.format(name, framework)), f"{name}.py")
        for name, framework in (("one", "torch"), ("two", "torch"), ("three", "keras"))
    ]
    registry = load_registry(files)
    with pytest.raises(PluginError, match=r"two exporters of torch models write the format 'abc': 'one' of .*'two' of"):
        registry.exporter("abc", "torch")
    assert registry.exporter("abc", "keras") is registry.get(ExporterPlugin, "three")


def test_no_two_of_edgeopts_own_plugins_clash():
    assert not load_registry().problems


def test_convert_refuses_what_two_plugins_claim(plugin_file, tmp_path):
    from edgeopt.conversion.plan import ConversionRequest, make_conversion

    files = [plugin_file(hook("readers", READER.format(name)), f"{name}.py") for name in ("one", "two")]
    (tmp_path / "model.abc").touch()
    with pytest.raises(PluginError, match="two readers open"):
        make_conversion(ConversionRequest(str(tmp_path / "model.abc"), "onnx"), load_registry(files))


WRONG_OPTIONS = """from pydantic import Field


class MyOptions(Options):
    pattern: str = Field("a", pattern="(", description="x")


"""


def test_options_that_pydantic_cannot_use_are_told_before_they_are_asked_for(plugin_file, installed):
    text = WRONG_OPTIONS + hook("passes", PASS.strip().replace("Options", "MyOptions"))
    with pytest.raises(PluginError, match=r"pass 'mine' of .*mine\.py: its options cannot be used: SchemaError"):
        load_registry([plugin_file(text)])
    installed(text)
    (problem,) = load_registry().problems
    assert "pass 'mine' of edgeopt-mine 1.2: its options cannot be used" in problem.message


@pytest.mark.parametrize("annotation", ["list[Use[QuantizerPlugin]]", "Table", "Table | None"])
def test_a_reference_that_would_not_be_looked_up_is_refused_by_name(plugin_file, annotation):
    text = f"""class Table(Options):
    quantizer: Use[QuantizerPlugin] = Field(None, description="x")


class MyOptions(Options):
    inner: {annotation} = Field(None, description="x")


"""
    line = PASS.strip().replace("Options", "MyOptions")
    with pytest.raises(PluginError, match="referred to inside option inner"):
        load_registry([plugin_file("from pydantic import Field\n\n\n" + text + hook("passes", line))])


@pytest.mark.parametrize(
    ("line", "new"),
    [
        ("from edgeopt.plugin import PassPlugin", "edgeopt.plugins"),
        ("from edgeopt import settings", "edgeopt.plugins"),
        ("import edgeopt.program", "edgeopt.networks.capture"),
    ],
)
def test_a_former_module_is_told_by_its_new_name(plugin_file, line, new):
    with pytest.raises(PluginError, match=f"import from '{new}'"):
        load_registry([plugin_file(f"{line}\n")])


def test_every_former_name_leads_to_a_module_and_names_none_of_today():
    from importlib import import_module
    from importlib.machinery import PathFinder

    import edgeopt
    from edgeopt.plugins.former_names import FORMER

    for former, new in FORMER.items():
        assert PathFinder.find_spec(former, edgeopt.__path__) is None, f"{former} is there"
        import_module(new)
    for former in ("edgeopt.plugin", "edgeopt.program"):
        with pytest.raises(ModuleNotFoundError, match="any more"):
            import_module(former)


def test_a_bug_in_what_a_plugin_checks_names_the_plugin(plugin_file, tmp_path):
    body = (
        'yield ExporterPlugin("mine", "Files.", Options, export=print, open=print, runtime="mine", '
        'suffix=".mine", check=lambda options, numerics: [1 / 0])'
    )
    file = plugin_file(hook("exporters", body))
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'schema = 1\nname = "r"\n[dataset]\nuse = "fake"\n[model]\nuse = "torchvision"\narch = "resnet18"\n'
        '[[exports]]\nuse = "mine"\n'
    )
    with pytest.raises(PluginBugError, match="check of exporter 'mine': ZeroDivisionError"):
        check(recipe, plugin_files=[file])


DEFAULT = """
from typing import Annotated
from pydantic import Field
from edgeopt.plugins import AsTable, QuantizerPlugin, Use

class Rounding(Options):
    quantizer: Annotated[Use[QuantizerPlugin], AsTable] = Field({default}, description="numerics")

"""


@pytest.mark.parametrize("default", ['"xnnpackk"', '{"use": "xnnpackk"}'])
def test_a_default_that_names_no_plugin_is_an_error_of_its_author(plugin_file, default):
    line = 'yield PassPlugin("mine", "Mine.", Rounding, apply=lambda state, options, context: state)'
    file = plugin_file(DEFAULT.replace("{default}", default) + hook("passes", line))
    with pytest.raises(
        PluginError, match=r"pass 'mine' of .*mine\.py: the default of its option 'quantizer'"
    ) as caught:
        load_registry([file])
    (problem,) = caught.value.problems
    assert "'xnnpackk', and there is no quantizer of that name" in problem.message
    assert problem.hint == "did you mean 'xnnpack'?"
    load_registry([plugin_file(DEFAULT.replace("{default}", default.replace("kk", "k")) + hook("passes", line))])


def test_an_installed_plugin_whose_default_names_no_plugin_is_told_and_blamed(installed, tmp_path):
    line = 'yield PassPlugin("mine", "Mine.", Rounding, apply=lambda state, options, context: state)'
    installed(DEFAULT.replace("{default}", '"gone"') + hook("passes", line))
    registry = load_registry()
    told = "pass 'mine' of edgeopt-mine 1.2: the default of its option 'quantizer' is 'gone'"
    assert [problem for problem in registry.problems if problem.message.startswith(told)]
    with pytest.raises(RecipeError) as caught:
        resolve(PassPlugin, "mine", {}, registry)
    (problem,) = caught.value.problems
    assert problem.message.startswith(told)
    assert resolve(PassPlugin, "mine", {"quantizer": "xnnpack"}, registry).options.quantizer.plugin.name == "xnnpack"


def test_a_default_that_a_broken_package_may_bring_is_not_called_wrong(installed):
    line = 'yield PassPlugin("mine", "Mine.", Rounding, apply=lambda state, options, context: state)'
    installed(DEFAULT.replace("{default}", '"gone"') + hook("passes", line))
    installed("raise ImportError('gone')\n", "edgeopt-other")
    assert not any("default of its option" in problem.message for problem in load_registry().problems)


@pytest.mark.parametrize(
    "how", ["load=print, fingerprint=lambda options: 'same', survey=count", "find=lambda _: Found()"]
)
def test_a_bug_in_what_a_data_set_tells_of_itself_names_the_plugin(plugin_file, tmp_path, how):
    lines = (
        "def count(_): return 1 / 0",
        "class Found:",
        "    def fingerprint(self): return 'same'",
        "    survey = count",
        f'yield DatasetPlugin("faces", "Faces.", DatasetOptions, {how})',
    )
    file = plugin_file("from edgeopt.plugins import DatasetOptions, DatasetPlugin\n" + hook("datasets", *lines))
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'schema = 1\nname = "r"\n[dataset]\nuse = "faces"\n[model]\nuse = "torchvision"\narch = "resnet18"\n'
        '[[exports]]\nuse = "onnx"\n'
    )
    plan = check(recipe, plugin_files=[file])
    with pytest.raises(PluginBugError, match="survey of dataset 'faces': ZeroDivisionError"):
        plan.survey()


def test_what_cannot_be_loaded_is_told_where_it_may_be_what_was_meant(plugin_file):
    misspelt = hook("exporter", "yield 1")  # a hook of exporters, so no pass is missing for it
    registry = load_registry([plugin_file(hook("passes", PASS.strip()) + misspelt)])
    with pytest.raises(PluginError) as caught:
        registry.get(PassPlugin, "other")
    assert not any("mine.py" in problem.message for problem in caught.value.problems)
    with pytest.raises(PluginError) as caught:
        registry.get(ExporterPlugin, "other")
    assert any("mine.py" in problem.message for problem in caught.value.problems)
