"""The page of results: written from whole runs of shipped recipes, and from nothing else."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeopt.errors import UserError
from edgeopt.options import to_json
from edgeopt.plugins import Score, ScoreKind
from edgeopt.plugins.declarations import DatasetPlugin, ExporterPlugin, ModelPlugin, PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.recipe.read import read_recipe
from edgeopt.report.schema import DatasetSummary, Environment, RecipeSummary, Report, Row
from edgeopt.types import Role

ROOT = Path(__file__).parents[1]
RECIPE = "shapes/mobilenetv2_sparse_half"


@pytest.fixture(scope="module")
def results() -> Any:
    spec = importlib.util.spec_from_file_location("results", ROOT / "benchmarks/results.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["results"] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


def report_of(recipe: str) -> Report:
    """A report as a whole run of a shipped recipe would leave it."""
    registry = load_registry()
    read = read_recipe(ROOT / "recipes" / f"{recipe}.toml")

    def written(kind: Any, step: Any) -> dict[str, Any]:
        return {"use": step.use, **to_json(resolve(kind, step.use, step.options, registry).options)}

    return Report(
        edgeopt="0.1.0",
        recipe=RecipeSummary(
            name=read.name,
            seed=read.seed,
            resolved={
                "dataset": written(DatasetPlugin, read.dataset),
                "model": written(ModelPlugin, read.model),
                "passes": [written(PassPlugin, step) for step in read.passes],
                "exports": [written(ExporterPlugin, step) for step in read.exports],
            },
        ),
        dataset=DatasetSummary(
            name="shapes",
            classes=tuple("abcdefghijkl"),
            splits={"train": 3780, "test": 900},
            fingerprint="f",
            preprocessing={"image_size": 48},
        ),
        environment=Environment(
            python="3.11", platform="Linux", machine="x86_64", processor="a processor", cores=2, commit="abc123"
        ),
        rows=(
            Row(
                runtime="onnxruntime",
                export="onnx",
                file="onnx/model.onnx",
                precision="float32",
                role=Role.OPTIMIZED,
                test_accuracy=0.912,
                accuracy_interval=(0.89, 0.93),
                size_bytes=9_000_000,
                compressed_bytes=4_600_000,
            ),
        ),
        finished="2030-01-02T03:04:05+00:00",
    )


def _entries(results: Any) -> list[str]:
    systems = results.read_published(results.PUBLISHED).values()
    return [entry for experiments in systems for each in experiments for entry in each.recipes]


def left(report: Report, folder: Path) -> Path:
    """A folder of results with this run."""
    run = folder / report.recipe.name
    run.mkdir(parents=True)
    (run / "report.json").write_text(report.to_json())
    return folder


def test_the_shipped_page_is_what_the_command_writes(results: Any) -> None:
    page = results.page(results.read_published(results.PUBLISHED), results.read_kept(results.KEPT))
    assert results.PAGE.read_text() == page, "run `python benchmarks/results.py`"


def test_every_recipe_of_the_page_is_there_and_every_repeated_experiment_on_it(results: Any) -> None:
    experiments = [each for system in results.read_published(results.PUBLISHED).values() for each in system]
    named = {recipe for each in experiments for recipe in each.recipes}
    names = [results.shipped_recipe(entry).name for entry in named]
    assert len(set(names)) == len(names)  # a run of one would overwrite that of the other
    mirrors = {
        file.relative_to(ROOT / "recipes").with_suffix("").as_posix() for file in (ROOT / "recipes").glob("*/*.toml")
    }
    assert mirrors <= named


def test_a_whole_run_comes_onto_the_page_and_stays(results: Any, tmp_path: Path) -> None:
    runs = left(report_of(RECIPE), tmp_path / "runs")
    places = ["--kept", str(tmp_path / "kept.json"), "--page", str(tmp_path / "page.md")]
    results.main(["--runs", str(runs), *places])
    written = (tmp_path / "page.md").read_text()
    assert "| onnx, float32 | 91.20 % | 9.00 MB |  | 89.0 to 93.0 %, 4.60 MB compressed |" in written
    assert "data: shapes, 12 classes at 48 px, 3780 training and 900 test images" in written
    assert "a processor, 2 cores; commit abc123; 2030-01-02" in written
    assert "1 of " in written and "not run" in written
    results.main(["--runs", str(tmp_path / "elsewhere"), *places])
    assert (tmp_path / "page.md").read_text() == written
    assert list(json.loads((tmp_path / "kept.json").read_text())) == [RECIPE]


def test_scores_of_other_tasks_stand_beside_their_files(results: Any) -> None:
    report = report_of(RECIPE)
    score = Score(0.43, (0.4, 0.46), 400, ScoreKind("map", "mAP"))
    row = replace(report.rows[0], test_accuracy=None, accuracy_interval=None, scores=(score,))
    (figure,) = results.read_run(replace(report, rows=(row,))).figures
    assert figure.accuracy is None and figure.note.startswith("mAP 43.0 %, 40.0 % to 46.0 %")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda report: replace(report, smoke=True), "it is a smoke run"),
        (
            lambda report: _with(report, "passes", 0, {"epochs": 1}),
            "passes.0.epochs was 1, the recipe has 30",
        ),
        (lambda report: _with(report, "dataset", None, {"limit": 100}), "dataset.limit was 100, the recipe has None"),
        (lambda report: _with(report, "exports", 0, {"use": "tflite"}), "exports.0 uses tflite, the recipe onnx"),
        (lambda report: _with(report, "passes", None, []), "number of passes was 0, the recipe has 2"),
        (lambda report: replace(report, recipe=replace(report.recipe, seed=3)), "seed was 3, the recipe has 17"),
    ],
)
def test_a_run_that_was_cut_short_or_changed_is_not_taken(
    changed: Any, said: str, results: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = left(changed(report_of(RECIPE)), tmp_path)
    assert results.collect(runs, [RECIPE], load_registry()) == {}
    assert f"was not taken: {said}" in capsys.readouterr().out


def test_a_recipe_with_other_bits_is_an_entry_of_its_own(results: Any, tmp_path: Path) -> None:
    (entry,) = [
        each for each in _entries(results) if each.startswith("shapes/resnet18_ptq_4bit --set") and "=6" in each
    ]
    report = report_of(entry.partition(" ")[0])
    renamed = replace(report, recipe=replace(report.recipe, name="resnet18-shapes-ptq-6bit"))
    six = _with(renamed, "passes", 1, {"weight_bits": 6, "activation_bits": 6})
    assert set(results.collect(left(six, tmp_path / "six"), _entries(results), load_registry())) == {entry}
    assert results.collect(left(renamed, tmp_path / "four"), [entry], load_registry()) == {}


def test_what_has_no_run_yet_is_run_and_taken_at_once(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern, runs = "shapes/mobilenetv2_sparse_[2h]*", tmp_path / "runs"
    left(report_of(RECIPE), runs)
    asked: list[str] = []
    ran: list[str] = []

    def run(recipe: Any, out: Path, console: Any) -> None:
        page = (tmp_path / "page.md").read_text()
        assert page.count("a processor") == 1 + len(ran), "each run is on the page before the next begins"
        asked.append(recipe.name)
        if recipe.name == "mobilenetv2-shapes-sparse-2-4":
            raise UserError("no room")
        ran.append(recipe.name)
        left(report_of(recipe.name.replace("mobilenetv2-shapes-", "shapes/mobilenetv2_").replace("-", "_")), out)

    monkeypatch.setattr(results.edgeopt, "run", run)
    places = ["--kept", str(tmp_path / "kept.json"), "--page", str(tmp_path / "page.md")]
    results.main(["--runs", str(runs), "--run", pattern, *places])
    assert sorted(asked) == ["mobilenetv2-shapes-sparse-2-4", "mobilenetv2-shapes-sparse-27"], "half was there"
    assert "was not run: no room" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "kept.json").read_text())) == 2
    with pytest.raises(SystemExit, match="no recipe"):
        results.main(["--runs", str(runs), "--run", "nothing/*", *places])


def test_where_data_stands_changes_nothing(results: Any, tmp_path: Path) -> None:
    recipe = "cifar10/mobilenetv2_ptq"
    report = _with(report_of(recipe), "dataset", None, {"root": "/elsewhere", "download": True})
    assert set(results.collect(left(report, tmp_path), [recipe], load_registry())) == {recipe}


def test_a_broken_report_is_told_and_passed_over(
    results: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/report.json").write_text("{")
    assert results.collect(tmp_path, [RECIPE], load_registry()) == {}
    assert "broken/report.json was not taken: not a report" in capsys.readouterr().out


def test_a_run_whose_teacher_is_not_there_is_told_and_passed_over(
    results: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = report_of(RECIPE)
    passes = [report.recipe.resolved["passes"][0], {"use": "distill"}]
    taught = _with(report, "passes", None, passes)
    taught = replace(taught, recipe=replace(taught.recipe, name="mobilenetv2-shapes-distilled"))
    assert results.collect(left(taught, tmp_path), ["shapes/mobilenetv2_distilled"], load_registry()) == {}
    assert "was not taken: " in (told := capsys.readouterr().out)
    assert "runs/resnet50-shapes-ptq" in told


def _with(report: Report, table: str, index: int | None, values: Any) -> Report:
    """The report of a run with other options."""
    resolved = json.loads(json.dumps(report.recipe.resolved))
    if isinstance(values, list):
        resolved[table] = values
    else:
        (resolved[table] if index is None else resolved[table][index]).update(values)
    return replace(report, recipe=replace(report.recipe, resolved=resolved))


def test_an_option_that_came_after_the_run_stands_at_its_default(
    results: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def before_the_option(recipe: str) -> Report:
        report = report_of(recipe)
        model = {name: value for name, value in report.recipe.resolved["model"].items() if name != "zero_init_residual"}
        resolved = {**report.recipe.resolved, "model": model}
        return replace(report, recipe=replace(report.recipe, resolved=resolved))

    unaware = left(before_the_option(RECIPE), tmp_path / "unaware")
    assert set(results.collect(unaware, [RECIPE], load_registry())) == {RECIPE}
    asked = "shapes/resnet50_ptq"
    assert results.collect(left(before_the_option(asked), tmp_path / "asked"), [asked], load_registry()) == {}
    assert "model.zero_init_residual was None, the recipe has True" in capsys.readouterr().out
