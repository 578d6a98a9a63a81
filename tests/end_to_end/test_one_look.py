"""A run plans once and looks at its data set once: what the parent finds, its workers are handed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_PLUGIN, TINY_RECIPE
from PIL import Image
from typer.testing import CliRunner

import edgeopt
from edgeopt.cli import app
from edgeopt.conversion.plan import ConversionRequest, convert
from edgeopt.data.cache import load_data, opener
from edgeopt.data.prepare import prepare, prepare_found
from edgeopt.errors import DataChangedError
from edgeopt.plugins import RawDataset
from edgeopt.plugins.handed import hand_over, handed
from edgeopt.plugins.registry import load_registry
from edgeopt.progress import Silent
from edgeopt.recipe.plan import Plan
from edgeopt.sensitivity.run import SensitivityRequest, measure_sensitivity
from edgeopt.workers.pool import Workers
from edgeopt_images.found import FoundFolder, find_folder
from edgeopt_images.options import ImageFolderOptions

pytestmark = pytest.mark.usefixtures("imports_done_once")

# options in a hook: nothing imports them by name. `look` notes each time that the data set or its fingerprint is asked
LOOKING = """
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from edgeopt.plugins import DatasetOptions, DatasetPlugin, DataSurvey, RawDataset, digest, hookimpl

def images():
    import numpy as np
    from edgeopt.data.images import ArrayImages
    labels = np.arange(90) % 3
    pixels = np.random.default_rng(0).integers(0, 255, (90, 16, 16), dtype=np.uint8)
    pixels[:, :6] //= (1 + labels[:, None, None]).astype(np.uint8)
    return RawDataset(("left", "top", "middle"), {"train": ArrayImages(pixels, labels)})

@dataclass(frozen=True)
class Found:
    seen: str

    def fingerprint(self):
        return digest(self.seen)

    def survey(self):
        return DataSurvey({"train": {"left": 30, "top": 30, "middle": 30}})

    def load(self):
        return images()

def note(options, what):
    with Path(options.notes).open("a") as file:
        file.write(what + "\\n")

@hookimpl
def edgeopt_datasets():
    class Options(DatasetOptions):
        notes: str = Field("", description="where to note each look")

    def look(options):
        note(options, "look")
        return Found("stripes")

    def fingerprint(options):
        note(options, "fingerprint")
        return "the same" if "changing" not in options.notes else Path(options.notes).read_text()

    def load(options):
        note(options, "load")
        return images()

    yield DatasetPlugin("looked-at", "Looks.", Options, find=look)
    yield DatasetPlugin("asked", "Is asked.", Options, load=load, fingerprint=fingerprint)
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "looking.py").write_text(LOOKING)
    text = TINY_RECIPE.replace('use = "stripes"', f'use = "looked-at"\nnotes = "{tmp_path}/notes.txt"')
    text += '[[exports]]\nuse = "npz"\nname = "again"\n'
    (tmp_path / "recipe.toml").write_text(
        text.replace("[measure]", "", 1).replace("threads = 1\nwarmup = 1\nruns = 5\nrounds = 1\n", "")
    )
    return tmp_path / "recipe.toml"


def plugins(recipe: Path) -> list[Path]:
    return [TINY_PLUGIN, recipe.parent / "looking.py"]


def notes(recipe: Path) -> list[str]:
    return (recipe.parent / "notes.txt").read_text().split()


def test_a_run_with_four_files_looks_once(recipe: Path) -> None:
    result = edgeopt.run(recipe, smoke=True, out=recipe.parent / "runs", plugin_files=plugins(recipe))
    assert (len(result.report.rows), result.failures) == (4, ())
    assert notes(recipe) == ["look"]
    jobs = recipe.parent / "runs/.store/jobs"
    assert not list(jobs.iterdir()), "what was handed over goes with the run"


def test_check_looks_once_for_fingerprint_and_survey(recipe: Path) -> None:
    files = [part for file in plugins(recipe) for part in ("--plugin", str(file))]
    shown = CliRunner().invoke(app, ["check", str(recipe), *files], prog_name="edgeopt")
    assert "90 of 3 classes" in shown.stdout
    assert notes(recipe) == ["look"]


def test_a_scan_looks_once(recipe: Path) -> None:
    measure_sensitivity(
        recipe,
        SensitivityRequest("light", (0.5,)),
        smoke=True,
        out=recipe.parent / "runs",
        plugin_files=plugins(recipe),
    )
    assert notes(recipe) == ["look"]


def test_a_data_set_that_is_only_asked_is_asked_again_where_it_is_read(recipe: Path) -> None:
    text = recipe.read_text().replace("looked-at", "asked")
    recipe.write_text(text)
    edgeopt.run(recipe, smoke=True, out=recipe.parent / "runs", plugin_files=plugins(recipe))
    assert notes(recipe) == ["fingerprint", "fingerprint", "load"]
    recipe.write_text(text.replace("notes.txt", "changing.txt"))
    (recipe.parent / "changing.txt").touch()
    with pytest.raises(DataChangedError, match="changed while the run was working"):
        edgeopt.run(recipe, smoke=True, out=recipe.parent / "runs", plugin_files=plugins(recipe))


def test_a_plan_is_handed_on_whole(recipe: Path) -> None:
    """Options without an importable name, lines for errors, keys: all is as the parent has it."""
    plan = edgeopt.check(recipe, overrides=["passes.0.epochs=2"], plugin_files=plugins(recipe))
    hand_over(plan, recipe.parent / "plan", plan.registry)
    read = handed(Plan, recipe.parent / "plan")
    assert read.stages == plan.stages
    assert read.recipe == plan.recipe
    assert read.resolved() == plan.resolved()
    assert read.recipe.locate("dataset", "notes") == plan.recipe.locate("dataset", "notes")
    assert str(read.recipe.locate("passes", 0, "epochs")) == "--set passes.0.epochs=2"
    assert {entry.plugin.name for entry in read.registry} < {
        entry.plugin.name for entry in load_registry(plugins(recipe))
    }


# ---- folders of images ---------------------------------------------------------------------------------------------


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(12):
            shade = 20 * index + (7 if name == "cat" else 0)
            Image.new("RGB", (9, 9), (shade, index, 7)).save(tmp_path / "pets" / name / f"{index}.png")
    return tmp_path / "pets"


def look_again() -> RawDataset:
    raise AssertionError("looked again")


def test_splits_that_are_not_cached_are_read_without_another_look(pets: Path, tmp_path: Path) -> None:
    options = ImageFolderOptions(path=pets, image_size=8)
    found = find_folder(options)
    (tmp_path / "out").mkdir()
    prepare_found(found, look_again, options, tmp_path / "out", Silent(), cache_bytes=0)

    data = load_data(tmp_path / "out", options, opener(tmp_path / "out", look_again))
    for split in (data.training.train, data.test, pickle.loads(pickle.dumps(data.test))):
        assert split.pixels(range(len(split))).shape == (len(split), 8, 8, 3)


def test_what_was_found_is_kept_for_splits_alone_that_are_read_again(pets: Path, tmp_path: Path) -> None:
    options = ImageFolderOptions(path=pets, image_size=8)
    kept = {}
    for cache_bytes in (0, 1_000_000):
        folder = tmp_path / str(cache_bytes)
        folder.mkdir()
        prepare_found(find_folder(options), look_again, options, folder, Silent(), cache_bytes=cache_bytes)
        kept[cache_bytes] = (folder / "found.pickle").exists()
    assert kept == {0: True, 1_000_000: False}


def test_an_image_that_changes_while_the_run_works_is_an_error(pets: Path, tmp_path: Path) -> None:
    for on_error in ("stop", "skip"):
        options = ImageFolderOptions(path=pets, image_size=8, on_error=on_error)
        found: FoundFolder = pickle.loads(pickle.dumps(find_folder(options)))
        Image.new("RGB", (30, 30), (1, 2, 3)).save(pets / "dog" / "3.png")
        (tmp_path / on_error).mkdir()
        with pytest.raises(DataChangedError, match="png changed while the run was working"):
            prepare(found.load(), options, tmp_path / on_error, Silent())


def test_a_conversion_looks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = TINY_PLUGIN.parent
    monkeypatch.setenv("PYTHONPATH", str(tests), prepend=os.pathsep)  # workers find the module in which it is saved
    plugin_files = [str(tests / "converting_plugin.py"), str(tmp_path / "looking.py")]
    (tmp_path / "looking.py").write_text(LOOKING)
    (tmp_path / "abacus").mkdir()
    weight = np.random.default_rng(0).standard_normal((3, 3 * 8 * 8)).astype(np.float32)
    np.save(tmp_path / "abacus/weight.npy", weight)
    request = ConversionRequest(
        str(tmp_path / "abacus/weight.npy"),
        "npz",
        dataset="looked-at",
        overrides=(f"dataset.notes={tmp_path}/notes.txt",),
        plugin_files=tuple(plugin_files),
    )
    assert convert(request, tmp_path / "out.npz").agreement == 1.0
    assert (tmp_path / "notes.txt").read_text().split() == ["look"]


def test_what_a_killed_run_handed_over_goes_when_another_begins(tmp_path: Path) -> None:
    listener = lambda worker, event: None  # noqa: E731
    left = tmp_path / "jobs/123-abc"
    left.mkdir(parents=True)
    (left / "plan.pickle").touch()
    left.with_name("123-abc.lock").touch()
    with Workers(tmp_path / "jobs", tmp_path / "log", listener) as first:
        assert not left.exists()
        with Workers(tmp_path / "jobs", tmp_path / "log", listener) as second:
            assert first.folder.is_dir() and second.folder.is_dir() and first.folder != second.folder
        assert first.folder.is_dir()
    assert not list((tmp_path / "jobs").iterdir())
