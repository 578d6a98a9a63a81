"""What the commands do when nothing is wrong; whole runs are in tests/end_to_end."""

import json
import sys
import tomllib
from pathlib import Path

import pytest
from report.sample import make_report

from edgeopt import __version__
from edgeopt.cli import complete
from edgeopt.errors import ExportError, WorkerError
from edgeopt.pipeline.request import RunResult
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.gates import Gates
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import parse_recipe


def test_version(cli):
    assert cli("--version").stdout == f"edgeopt {__version__}\n"


# ---- check ---------------------------------------------------------------------------------------------------------


def test_check_shows_stages_and_files(cli, tiny_recipe, tiny_plugin_file, tmp_path):
    result = cli("check", tiny_recipe, "--plugin", tiny_plugin_file, "--out", "results")
    assert result.exit_code == 0
    assert "data: stripes" in result.stdout
    assert "to do" in result.stdout
    assert "  results/tiny/npz/baseline/model.npz\n  results/tiny/npz/optimized/model.npz\n" in result.stdout
    assert not (tmp_path / "results").exists()


def test_check_shows_classes_and_counts(cli, tiny_plugin_file, tmp_path):
    for split, count in (("Training", 3), ("Testing", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for index in range(count):
                (tmp_path / "pets" / split / name / f"{index}.png").write_bytes(b"never read")
    (tmp_path / "pets" / "Training" / "cat" / "7.heic").write_bytes(b"never read")
    (tmp_path / "pets.toml").write_text(
        'schema = 1\nname = "pets"\n[dataset]\nuse = "image-folder"\npath = "pets"\n'
        '[model]\nuse = "linear"\n[[exports]]\nuse = "npz"\n'
    )
    result = cli("check", "pets.toml", "--plugin", tiny_plugin_file)
    assert result.exit_code == 0, result.stderr
    assert "train  6 of 2 classes: cat 3, dog 3" in result.stdout
    assert "test   4 of 2 classes: cat 2, dog 2" in result.stdout
    assert "1 file was left out of Training/cat/" in result.stdout


def test_check_takes_overrides(cli, tiny_recipe, tiny_plugin_file):
    result = cli("check", tiny_recipe, "--plugin", tiny_plugin_file, "--set", "name=other", "--set", "baseline=false")
    assert "other/npz/optimized/model.npz" in result.stdout
    assert "baseline/model.npz" not in result.stdout


def test_check_reports_all_problems_at_once(cli, tiny_recipe, tiny_plugin_file):
    overrides = ("--set", "dataset.image_sise=3", "--set", "passes.1.steps=-4", "--set", "model.use=lineal")
    result = cli("check", tiny_recipe, "--plugin", tiny_plugin_file, *overrides)
    assert result.exit_code == 2
    assert "did you mean 'image_size'" in result.stderr
    assert "did you mean 'linear'" in result.stderr
    assert "passes.1.steps" in result.stderr
    assert result.stderr.endswith("3 problems\n")


# ---- run and report ------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(monkeypatch):
    """Lets `edgeopt run` end with a hand-made report, and the given failures."""

    def finish(report, failures=()):
        given = []

        def run(request, _console):
            given.append(request)
            return RunResult(report, Path("runs/sample"), tuple(failures))

        monkeypatch.setattr("edgeopt.pipeline.runner.run", run)
        return given

    return finish


def test_run_prints_the_report_and_where_it_is(cli, finished):
    report = make_report()
    given = finished(report)
    result = cli("run", "r.toml", "--set", "seed=3", "--smoke", "--fresh", "--out", "o", "--plugin", "p.py", "--locked")
    (request,) = given
    assert not request.measure_again
    assert report.recipe.name in result.stdout
    assert "runs/sample/report.html" in result.stdout
    assert (request.recipe, request.overrides, request.plugin_files) == (Path("r.toml"), ("seed=3",), (Path("p.py"),))
    assert request.smoke and request.fresh and request.locked and request.out == Path("o")


def test_run_that_measures_again(cli, finished):
    given = finished(make_report())
    cli("run", "r.toml", "--measure-again")
    (request,) = given
    assert request.measure_again and not request.fresh


def test_run_with_a_missed_gate(cli, finished):
    report = make_report(gates=Gates(accuracy=0.5, size_ratio=50.0))
    finished(report)
    result = cli("run", "r.toml")
    missed = [gate.message for gate in report.gates if not gate.passed]
    assert result.exit_code == 3
    assert result.stderr.splitlines() == missed
    assert len(missed) == 2  # one a file that is optimized
    assert "runs/sample/report.html" in result.stdout


@pytest.mark.parametrize(
    ("failures", "code"),
    [
        ([ExportError("operator 'a' is unknown"), ExportError("operator 'b' is unknown")], 2),
        ([ExportError("operator 'a' is unknown"), WorkerError("crashed", "log.txt")], 1),
    ],
)
def test_run_with_a_failed_file_prints_the_report_and_fails(cli, finished, failures, code):
    finished(make_report(), failures)
    result = cli("run", "r.toml")
    assert result.exit_code == code
    assert "runs/sample/report.html" in result.stdout
    assert ("operator 'a' is unknown" in result.stderr) == (code == 2)


def test_report_of_a_finished_run(cli, tmp_path):
    report = make_report()
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "report.json").write_text(report.to_json())
    for named in ("sample", "sample/report.json"):
        result = cli("report", named)
        assert result.exit_code == 0
        assert report.recipe.name in result.stdout
        assert "sample/report.html" in result.stdout


def test_report_opens_the_page(cli, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    (tmp_path / "report.json").write_text(make_report().to_json())
    assert cli("report", ".", "--open").exit_code == 0
    assert opened == [(tmp_path / "report.html").as_uri()]


def test_report_of_no_run(cli, tmp_path):
    assert cli("report", "nosuch").exit_code == 2
    (tmp_path / "report.json").write_text("{}")
    assert cli("report", ".").exit_code == 2


# ---- plugins -------------------------------------------------------------------------------------------------------


def test_plugins_lists_every_plugin(cli, tiny_plugin_file):
    result = cli("plugins", "--plugin", tiny_plugin_file)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    for entry in load_registry([tiny_plugin_file]):
        assert any(line.split()[:2] == [entry.plugin.kind, entry.plugin.name] for line in lines)


def test_plugins_of_one_kind(cli, tiny_plugin_file):
    result = cli("plugins", "--kind", "exporter", "--plugin", tiny_plugin_file)
    assert "npz" in result.stdout
    assert "stripes" not in result.stdout
    wrong = cli("plugins", "--kind", "exporters")
    assert wrong.exit_code == 2
    assert "did you mean 'exporter'" in wrong.stderr


@pytest.mark.parametrize("source", ["def (", "import nosuchmodule", "raise SystemError('odd')", "x = 1"])
def test_a_broken_distribution_is_reported_and_nothing_more(cli, tmp_path, monkeypatch, source):
    (tmp_path / "broken_thing.py").write_text(source)
    info = tmp_path / "broken_thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-thing\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgeopt]\nbroken = broken_thing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    result = cli("plugins")
    assert result.exit_code == 0
    assert "what it is" in result.stdout
    assert "plugin 'broken' of broken-thing 1.0 cannot be loaded" in result.stderr
    sys.modules.pop("broken_thing", None)


def test_show_prints_toml_that_a_recipe_takes(cli, tiny_plugin_file, registry):
    shown = "".join(
        cli("plugins", "show", name, "--plugin", tiny_plugin_file).stdout
        for name in ("stripes", "linear", "round-weights", "npz")
    )
    make_plan(parse_recipe({"name": "pasted", **tomllib.loads(shown)}), registry)
    assert "# grid steps a unit (integer, 1 to 4096)\nsteps = 64\n" in shown


def test_show_shows_all_plugins_of_a_name(cli, tmp_path):
    both = tmp_path / "both.py"
    both.write_text(
        "import edgeopt\n"
        "from edgeopt.plugins import ModelPlugin, Options, PassPlugin\n"
        "@edgeopt.hookimpl\n"
        "def edgeopt_models():\n"
        "    return [ModelPlugin('twin', 'A model.', Options, build=lambda options, data: None)]\n"
        "@edgeopt.hookimpl\n"
        "def edgeopt_passes():\n"
        "    return [PassPlugin('twin', 'A pass.', Options, apply=lambda state, options, context: state)]\n"
    )
    shown = cli("plugins", "show", "twin", "--plugin", both).stdout
    assert tomllib.loads(shown) == {"model": {"use": "twin"}, "passes": [{"use": "twin"}]}


def test_show_of_an_unknown_plugin(cli, tiny_plugin_file):
    result = cli("plugins", "show", "stripe", "--plugin", tiny_plugin_file)
    assert result.exit_code == 2
    assert "did you mean 'stripes'" in result.stderr


# ---- doctor, schema, new -------------------------------------------------------------------------------------------


def test_doctor_lists_what_edgeopt_stands_on(cli):
    result = cli("doctor")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    (torch,) = [line for line in lines if line[:2] == ["torch", "core"]]
    assert torch[3] == "2.13.0"
    for word in ("cores", "memory", "flatc", "browser", "ssh", "adb"):
        assert any(line and line[0] == word for line in lines)


def test_doctor_says_what_a_missing_tool_is_for(cli, monkeypatch, tmp_path):
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho OpenSSH_9.2 >&2\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EDGEOPT_BROWSER", "nobrowser")
    said = " ".join(cli("doctor").stdout.split())
    assert "browser nobrowser not found, for the exporters onnx-web and litert-web" in said
    assert "ssh OpenSSH_9.2" in said
    assert "adb not found, for telephones as devices" in said


def test_doctor_names_the_command_for_a_missing_extra(cli, monkeypatch):
    import importlib
    import importlib.metadata

    def version(name, real=importlib.metadata.version):
        if name in ("timm", "onnxscript"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name == "torchao" else real(name)

    # not by its dotted name: `edgeopt.cli.doctor` is the command, or the module, whichever came last
    monkeypatch.setattr(importlib.import_module("edgeopt.cli.doctor"), "version", version)
    result = cli("doctor")
    assert result.exit_code == 0
    assert "the extra 'onnx' lacks onnxscript\n    pip install 'edgeopt[onnx]'\n" in result.stdout
    assert "the extra 'timm' lacks timm\n    pip install 'edgeopt[timm]'\n" in result.stdout
    assert "torchao 1.0 is not what was tested (0.18.0)" in result.stdout


def test_doctor_fails_when_edgeopt_cannot_work(cli, monkeypatch):
    import importlib
    import importlib.metadata

    def version(name, real=importlib.metadata.version):
        if name == "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    # not by its dotted name: `edgeopt.cli.doctor` is the command, or the module, whichever came last
    monkeypatch.setattr(importlib.import_module("edgeopt.cli.doctor"), "version", version)
    result = cli("doctor")
    assert result.exit_code == 2
    assert "cannot work without torch" in result.stderr


def test_schema_to_a_file_is_what_is_printed(cli, tmp_path):
    assert cli("schema", "--output", "recipe.schema.json").exit_code == 0
    written = json.loads((tmp_path / "recipe.schema.json").read_text())
    assert written == json.loads(cli("schema").stdout)
    assert written["properties"]["dataset"]


@pytest.mark.parametrize(
    "name", ["Faces", "faces_", "1faces", "a--b", "", "..", "a/b", "class", "json", "torch", "edgeopt"]
)
def test_new_plugin_refuses_names(cli, tmp_path, name):
    result = cli("new", "plugin", name)
    assert result.exit_code == 2
    assert result.stderr.count("\n") >= 2  # what is wrong, and what to do
    assert not list(tmp_path.iterdir())


def test_new_plugin_overwrites_nothing(cli, tmp_path):
    (tmp_path / "edgeopt-faces").mkdir()
    result = cli("new", "plugin", "edgeopt-faces")
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["edgeopt-faces"]
    assert not list((tmp_path / "edgeopt-faces").iterdir())


# ---- completion ----------------------------------------------------------------------------------------------------


def test_completion_offers_recipes_and_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "one.toml").touch()
    (tmp_path / "recipes" / "two.txt").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "my.toml").touch()
    assert complete.recipes("") == ["my.toml", "recipes/"]
    assert complete.recipes("rec") == ["recipes/"]
    assert complete.recipes("recipes/") == ["recipes/one.toml"]
    assert complete.recipes("nosuch/") == []
    assert complete.runs("") == ["recipes/"]


def test_completion_offers_plugins():
    names = {name for name, _ in complete.plugin_names("")}
    assert names == {entry.plugin.name for entry in load_registry()}
    assert complete.plugin_kinds("q") == ["quantizer"]


def test_the_shell_can_ask_for_completions(cli, monkeypatch, tmp_path):
    (tmp_path / "my.toml").touch()
    monkeypatch.setenv("_EDGEOPT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "edgeopt check m")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert "my.toml" in cli().stdout


def test_a_schema_into_a_folder_and_a_run_where_nothing_can_be_made(cli, tiny_recipe, tiny_plugin_file, tmp_path):
    said = cli("schema", "--output", ".")
    assert said.exit_code == 2
    assert "is a folder, not a file" in said.output
    if not Path("/proc").is_dir():
        return
    said = cli("run", tiny_recipe, "--plugin", tiny_plugin_file, "--out", "/proc/nowhere")
    assert said.exit_code == 2
    assert "cannot be made there" in said.output and "--out" in said.output
