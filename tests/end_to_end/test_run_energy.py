"""The energy of an image as a figure of a run: measured here and on devices, shown, and bounded by gates."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import TINY_PLUGIN, TINY_RECIPE
from metered_plugin import make_meter, quick
from typer.testing import CliRunner

import edgeopt
from edgeopt.cli import app
from edgeopt.errors import RecipeError
from edgeopt.measure.energy import SYSTEM, find_meter
from edgeopt.pipeline import runner, timed_file
from edgeopt.plugins.registry import Registry
from edgeopt.recipe.plan import Plan, make_plan
from edgeopt.recipe.read import read_recipe
from edgeopt.report.figures import millijoules
from edgeopt.report.reading import read_report
from edgeopt.report.schema import Report
from edgeopt.tuning.goals import figures_of

pytestmark = pytest.mark.usefixtures("imports_done_once")

PLUGINS = [TINY_PLUGIN, Path(__file__).parents[1] / "metered_plugin.py"]
METERED = (
    TINY_RECIPE.replace('"tiny"\n', '"metered"\nbaseline = false\n')
    .replace('use = "npz"', 'use = "metered"\nmillijoules = 10')
    .replace("[measure]", "[measure]\nenergy = true\ndevice_images = 5")
)
DEVICES = """
[[devices]]
use = "board"
name = "pi"

[[devices]]
use = "board"
name = "dark"
has_meter = false

[gates]
energy_mj = 50

[gates.devices.pi]
energy_mj = 5

[gates.devices.dark]
energy_mj = 50
"""
METHOD = "RAPL: package-0, idle subtracted"


@dataclass(frozen=True)
class Made:
    """A run of a recipe on a machine with a meter, by the command."""

    recipe: Path
    folder: Path
    exit_code: int
    told: str
    stderr: str

    @property
    def report(self) -> Report:
        return read_report(self.folder)

    def again(self) -> Report:
        return edgeopt.run(self.recipe, out=self.folder.parent, plugin_files=PLUGINS).report


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("metered")
    recipe, out = folder / "metered.toml", folder / "runs"
    recipe.write_text(METERED + DEVICES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SYSTEM, str(make_meter(folder / "sys")))
        patch.setattr(timed_file, "find_meter", lambda: quick(find_meter()))
        plugins = [word for file in PLUGINS for word in ("--plugin", str(file))]
        done = CliRunner().invoke(app, ["run", str(recipe), "--out", str(out), *plugins])
    return Made(recipe, out / "metered", done.exit_code, done.stdout, done.stderr)


def test_energy_is_measured_here_and_on_devices(made: Made) -> None:
    """The meter counts calls that warm the file up as well, so that a little more than 10 mJ is told of an image."""
    (row,) = made.report.rows
    pi, dark = made.report.devices
    for energy in (row.energy, pi.files[0].energy):
        assert energy is not None
        assert 10 <= energy.mj_per_image <= 30
        assert energy.method == METHOD
    assert dark.files[0].error is None and dark.files[0].energy is None
    assert dark.files[0].energy_problem == "this machine shows no meter: no RAPL, no INA3221, no battery"
    sentence = (
        f"dark: the energy of an image in metered float32 (optimized) is not known: {dark.files[0].energy_problem}"
    )
    assert [each for each in made.report.verdicts if "energy" in each] == [f"{sentence} (--measure-again asks again)."]


def test_a_gate_that_is_missed_or_has_no_figure_ends_the_run_with_3(made: Made) -> None:
    gates = {gate.device: gate for gate in made.report.gates}
    assert [(device, gate.passed) for device, gate in gates.items()] == [(None, True), ("pi", False), ("dark", False)]
    assert made.exit_code == 3
    figure = gates["pi"].figure
    assert figure is not None and figure == made.report.devices[0].files[0].energy.mj_per_image  # type: ignore[union-attr]
    assert f"was missed: {gates['pi'].figure_text} (limit ≤ 5.00 mJ)" in gates["pi"].message
    assert gates["dark"].figure is None
    assert "this machine shows no meter" in gates["dark"].message
    assert gates["dark"].message in " ".join(made.stderr.split())


def test_terminal_page_and_report_tell_it_with_its_method(made: Made) -> None:
    (row,) = made.report.rows
    assert row.energy is not None
    figure = millijoules(row.energy.mj_per_image)
    assert f"energy of an image by {METHOD}" in made.told and figure.removesuffix(" mJ") in made.told
    page = (made.folder / "report.html").read_text()
    assert page.count(f"Energy of an image by {METHOD}") == 2  # here and on pi; dark has no column
    assert figure in page.replace("\u00a0", " ")
    values = json.loads((made.folder / "report.json").read_text())
    assert values["rows"][0]["energy"]["method"] == METHOD


def test_what_was_measured_is_kept_while_the_machine_has_a_meter(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SYSTEM, str(made.folder.parents[1] / "sys"))
    monkeypatch.setattr(timed_file, "find_meter", lambda: pytest.fail("nothing is measured again"))
    assert made.again().rows == made.report.rows
    monkeypatch.setenv(SYSTEM, "/nowhere")
    with pytest.raises(RecipeError, match="no meter"):
        made.again()


def test_a_study_reads_the_energy_of_its_device(made: Made) -> None:
    (row,) = made.report.rows
    assert row.energy is not None
    assert figures_of(made.report, None).energy_mj == row.energy.mj_per_image
    assert figures_of(made.report, "pi").energy_mj == made.report.gates[1].figure
    assert figures_of(made.report, "dark").energy_mj is None


# ---- before anything is run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("added", "line", "message", "hint"),
    [
        ("[measure]\nenergy = true", "energy = true", "measure.energy: this machine shows no meter", "docs/bench.md"),
        ('[measure]\nenergy = "devices"', "energy =", "there are none", "add a [[devices]] table"),
        ('[measure]\nenergy = "yes"', "energy =", "write true, false or \"devices\", and not 'yes'", ""),
        (
            "[gates]\nenergy_mj = 5",
            "energy_mj",
            "gates.energy_mj: the energy of an image is not measured on this",
            "true",
        ),
        (
            '[[devices]]\nuse = "local"\n\n[gates.devices.local]\nenergy_mj = 5',
            "energy_mj",
            "gates.devices.local.energy_mj: the energy of an image is not measured there",
            '"devices"',
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_with_its_line(
    added: str, line: str, message: str, hint: str, write_recipe: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SYSTEM, "/nowhere")
    text = TINY_RECIPE.partition("[measure]")[0] + added + "\n"
    number = next(at for at, each in enumerate(text.splitlines(), 1) if each.startswith(line))
    recipe = write_recipe(text)
    with pytest.raises(RecipeError) as error:
        runner.check(recipe, plugin_files=PLUGINS)
    (problem,) = error.value.problems
    assert message in problem.message
    assert hint in (problem.hint or "")
    assert problem.location is not None and (problem.location.file, problem.location.line) == (str(recipe), number)


def test_energy_of_devices_alone_needs_no_meter_here(
    write_recipe: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SYSTEM, "/nowhere")
    text = METERED.replace("energy = true", 'energy = "devices"') + DEVICES.replace("[gates]\nenergy_mj = 50\n", "")
    measure = runner.check(write_recipe(text), plugin_files=PLUGINS).measure
    assert (measure.energy_here, measure.energy_there) == (False, True)


def test_only_what_is_measured_depends_on_it(
    registry: Registry, write_recipe: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SYSTEM, str(make_meter(tmp_path / "sys")))
    device = '\n[[devices]]\nuse = "local"\n'

    def keys(*overrides: str) -> tuple[Plan, dict[str, str]]:
        plan = make_plan(read_recipe(write_recipe(TINY_RECIPE + device), overrides), registry)
        return plan, {name: stage.key for name, stage in plan.stages.items()}

    plan, before = keys()
    told = json.dumps(plan.resolved())
    assert "energy" not in told
    for asked, others in (("true", {"measure"}), ('"devices"', set())):
        _, after = keys(f"measure.energy={asked}")
        assert {name for name in before if before[name] != after[name]} == {"device-local", "report", *others}
    assert keys("measure.energy=false")[1] == before
