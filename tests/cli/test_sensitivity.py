"""`edgeopt sensitivity`: what it writes, what it prints, what it refuses."""

import csv

import pytest

from edgeopt.pipeline.runner import check
from edgeopt.plugins.handed import hand_over, handed
from edgeopt.sensitivity import page as shown
from edgeopt.sensitivity.allocation import read_allocation
from edgeopt.sensitivity.run import PlannedScan, SensitivityRequest, plan_scan
from edgeopt.sensitivity.scan_settings import ScanSettings
from edgeopt.sensitivity.table import Cell, Measure, Scan, Verdict

pytestmark = pytest.mark.usefixtures("imports_done_once")


@pytest.fixture
def sensitivity(cli, tiny_recipe, tiny_plugin_file):
    return lambda *arguments: cli("sensitivity", tiny_recipe, "--plugin", tiny_plugin_file, *arguments)


def test_a_scan_from_the_recipe_to_its_files(sensitivity, tmp_path):
    result = sensitivity("--of", "bits", "--levels", "2, 8 4", "--threshold", "0.1")
    assert result.exit_code == 0, result.stderr
    folder = tmp_path / "runs" / "tiny" / "sensitivity-bits"
    assert "fit-stripes" in result.stderr
    assert "round-weights" not in result.stderr  # it optimizes: the float model is what comes before
    header, *_ = result.stdout.splitlines()
    assert header.split() == ["layer", "8", "4", "2", "recommended"]
    for name in ("sensitivity.csv", "allocation.toml", "sensitivity.html"):
        assert f"sensitivity-bits/{name}" in result.stdout
        assert (folder / name).exists()
    rows = list(csv.DictReader((folder / "sensitivity.csv").open()))
    assert [(row["layer"], row["bits"]) for row in rows] == [("1", "8"), ("1", "4"), ("1", "2")]
    for name in ("sensitivity.csv", "allocation.toml"):
        (level,) = read_allocation(folder / name, "bits", lambda level: None).levels.values()
        assert level == next(float(row["bits"]) for row in rows if row["recommended"])
    assert "Heat map" in (folder / "sensitivity.html").read_text()

    again = sensitivity("--of", "bits", "--levels", "8 4 2", "--threshold", "0.1", "--workers", "1")
    assert again.stdout == result.stdout
    assert "done" not in again.stderr, "an equal scan is looked up"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--of", "bitz"), "did you mean 'bits'"),
        (("--of", "bits", "--levels", "9 4"), "9 is not from 2 to 8"),
        (("--of", "bits", "--levels", "4.5"), "not a whole number"),
        (("--of", "sparsity", "--levels", "0.5 much"), "'much' is not a number"),
        (("--of", "sparsity", "--levels", "1"), "1 is not from 0.01 to 0.99"),
        (("--of", "bits", "--set", "probe.inputz=8"), "did you mean 'inputs'"),
        (("--of", "bits", "--measure", "loss"), "no such measure"),
        (("--of", "bits", "--certainty", "0"), "above 0"),
        (("--of", "bits", "--threshold", "-1"), "0 or more"),
        (("--of", "bits", "--workers", "0"), "1 or more"),
        (("--of", "bits", "--set", "passes.0.epoch=1"), "did you mean 'epochs'"),
    ],
)
def test_mistakes_are_told_before_anything_runs(sensitivity, tmp_path, arguments, message):
    result = sensitivity(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "runs").exists()


BROKEN_PROBE = """
from edgeopt.plugins import Levels, Options, ProbePlugin, hookimpl

class Probe:
    layers = ("1",)
    def change(self, layer, level):
        return 1 / 0

@hookimpl
def edgeopt_probes():
    levels = Levels((0.5,), 0.1, 0.9, untouched=0.0)
    yield ProbePlugin("dividing", "Divides.", Options, prepare=lambda *_: Probe(), levels=levels)
"""


def test_a_bug_in_a_probe_names_its_plugin(sensitivity, tmp_path):
    (tmp_path / "dividing.py").write_text(BROKEN_PROBE)
    result = sensitivity("--plugin", "dividing.py", "--of", "dividing", "--smoke")
    assert result.exit_code == 1
    assert "change of probe 'dividing': ZeroDivisionError: division by zero" in " ".join(result.stderr.split())


def test_what_changes_the_result_changes_its_key(tiny_recipe, tiny_plugin_file):
    plan = check(tiny_recipe, plugin_files=[tiny_plugin_file])

    def key(**changes):
        options = changes.pop("options", ())
        return plan_scan(
            plan, SensitivityRequest("bits", changes.pop("levels", (8, 4)), options, ScanSettings(**changes))
        ).key

    assert key() == key(levels=(4, 8, 8)) == key(workers=3)
    others = [
        key(levels=(8,)),
        key(threshold=0.02),
        key(measure=Measure.LOGITS),
        key(stop_early=False),
        key(options=("probe.inputs=8",)),
    ]
    assert len({key(), *others}) == 6


def test_a_scan_is_handed_on_whole(tiny_recipe, tiny_plugin_file, tmp_path):
    plan = check(tiny_recipe, plugin_files=[tiny_plugin_file])
    request = SensitivityRequest(
        "bits", (8.0, 4.0), ("probe.inputs=8",), ScanSettings(measure=Measure.LOGITS, workers=2)
    )
    planned = plan_scan(plan, request)
    hand_over(planned, tmp_path / "scan", plan.registry)
    read = handed(PlannedScan, tmp_path / "scan")
    assert (read.request, read.levels, read.key) == (planned.request, planned.levels, planned.key)
    assert (read.probe.plugin.name, read.probe.options) == ("bits", planned.probe.options)


# ---- figures -------------------------------------------------------------------------------------------------------


def table(*cells, threshold=0.01, measure=Measure.ACCURACY):
    return Scan("sparsity", measure, threshold, 0.01, 0.0, 100, 0.9, cells)


def test_figures_say_what_is_certain():
    scan = table(
        Cell("<a>", 0.5, -0.004, -0.004, -0.004, 100, Verdict.PASSES),
        Cell("<a>", 0.7, 0.002, -0.01, 0.009, 60, Verdict.PASSES),
        Cell("<a>", 0.9, 0.3, 0.12, 0.6, 20, Verdict.FAILS),
        Cell("b", 0.5, 0.2, 0.15, 0.4, 40, Verdict.FAILS),
        Cell("b", 0.7, 0.3, 0.01, 0.6, 20, Verdict.SKIPPED),
        Cell("b", 0.9, 0.7, 0.7, 0.7, 100, Verdict.FAILS),
    )
    first, second = shown.shown_layers(scan)
    assert [cell.text for cell in first.cells] == ["−0.4", "≤ 0.9", "≥ 12.0"]
    assert [cell.text for cell in second.cells] == ["≥ 15.0", "–", "70.0"]
    assert [cell.chosen for cell in first.cells] == [False, True, False]
    assert (first.recommended, second.recommended) == ("0.7", "untouched")
    assert [cell.tone for cell in first.cells] == ["hit", "hit", "miss"]
    assert [cell.tone for cell in second.cells] == ["miss", "skipped", "miss"], "what was not judged is no failure"
    assert first.cells[2].share > second.cells[0].share
    assert shown.summary(scan) == "Recommended: 0.7 for 1 layer, untouched for 1 layer."
    assert shown.savings(scan) == pytest.approx(1 - 340 / 600)
    page = shown.render_page(scan, "mine")
    assert "&lt;a&gt;" in page
    assert "<a>" not in page
    assert page.count("✓</td>") == 1


def test_figures_without_a_threshold():
    scan = table(Cell("a", 0.5, 0.0123, 0.01, None, 50, Verdict.NONE), threshold=None, measure=Measure.LOGITS)
    (layer,) = shown.shown_layers(scan)
    assert layer.cells[0].text == "0.012"
    assert layer.recommended == "–"
    assert "sensitivity to sparsity" in shown.render_page(scan, "mine")
