"""Hugging Face data sets on this machine: Parquet, Arrow, image folders."""

import datetime as dt
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TINY_PLUGIN, TINY_RECIPE
from PIL import Image

from edgeopt.data.cache import load_data
from edgeopt.data.prepare import prepare
from edgeopt.errors import DataChangedError, DataError
from edgeopt.plugins import RawDataset
from edgeopt.progress import Silent
from edgeopt_huggingface.found import find_source
from edgeopt_huggingface.hub import current_commit
from edgeopt_huggingface.options import HuggingFaceOptions, SplitNames

CLASSES = ("cat", "dog", "owl")
IMAGES = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def encoded(count: int = 60) -> list[bytes]:
    return [png(image) for image in IMAGES[:count]]


def hub_format(folder: Path, **splits: int) -> Path:
    """Parquet files as on the hub: an Image column and a ClassLabel column."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    (folder / "data").mkdir(parents=True)
    for name, count in splits.items():
        rows = {
            "image": [{"bytes": data, "path": f"{name}-{index}.png"} for index, data in enumerate(encoded(count))],
            "label": [index % 3 for index in range(count)],
        }
        datasets.Dataset.from_dict(rows, features=features).to_parquet(
            folder / "data" / f"{name}-00000-of-00001.parquet"
        )
    return folder


def load(given: HuggingFaceOptions) -> RawDataset:
    return find_source(given).load()


def fingerprint(given: HuggingFaceOptions) -> str:
    return find_source(given).fingerprint()


def options(source: Path, **given: Any) -> HuggingFaceOptions:
    return HuggingFaceOptions(source=str(source), image_size=8, **given)


def error(given: HuggingFaceOptions) -> str:
    with pytest.raises(DataError) as caught:
        load(given)
    return str(caught.value)


def test_parquet_as_on_the_hub(tmp_path: Path) -> None:
    given = options(hub_format(tmp_path / "pets", train=60, test=12))
    raw = load(given)
    assert raw.classes == CLASSES
    assert {name: len(images) for name, images in raw.splits.items()} == {"train": 60, "test": 12}
    assert raw.splits["train"].labels.tolist() == [index % 3 for index in range(60)]
    np.testing.assert_array_equal(np.asarray(raw.splits["train"][7]), IMAGES[7])


def test_some_classes_are_kept_by_name_in_their_given_order(tmp_path: Path) -> None:
    given = options(hub_format(tmp_path / "pets", train=60), classes=("owl", "cat"))
    (tmp_path / "out").mkdir()
    values = prepare(load(given), given, tmp_path / "out", Silent())
    assert values.classes == ("owl", "cat")
    bundle = load_data(tmp_path / "out", given, lambda: load(given))
    for split in (bundle.test, bundle.training.train):
        for pixels, label in zip(split.pixels(slice(None)), split.labels, strict=True):
            (index,) = [index for index, image in enumerate(IMAGES) if np.array_equal(image, pixels)]
            assert CLASSES[index % 3] == ("owl", "cat")[label]


@pytest.mark.parametrize("kind", ["bytes", "paths"])
@pytest.mark.parametrize("labels", ["text", "numbers"])
def test_a_parquet_file_with_columns_of_ones_own(tmp_path: Path, kind: str, labels: str) -> None:
    images: list[Any] = encoded(30)
    if kind == "paths":
        (tmp_path / "files").mkdir()
        for index, data in enumerate(images):
            (tmp_path / "files" / f"{index}.png").write_bytes(data)
        images = [f"files/{index}.png" for index in range(30)]
    names = [("owl", "cat")[index % 2] if labels == "text" else (10, 9)[index % 2] for index in range(30)]
    pq.write_table(pa.table({"photo": images, "animal": names}), tmp_path / "mine.parquet")
    raw = load(options(tmp_path / "mine.parquet", image_column="photo", label_column="animal"))
    assert raw.classes == (("cat", "owl") if labels == "text" else ("9", "10"))
    assert raw.splits["train"].labels.tolist() == [1, 0] * 15
    np.testing.assert_array_equal(np.asarray(raw.splits["train"][3]), IMAGES[3])


def test_an_image_folder(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("test", 30)):
        for index in range(start, start + 12):
            folder = tmp_path / "pets" / split / CLASSES[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{index}.png").write_bytes(png(IMAGES[index]))
    raw = load(options(tmp_path / "pets"))
    assert raw.classes == ("cat", "dog")
    assert {name: len(images) for name, images in raw.splits.items()} == {"train": 12, "test": 12}
    for images in raw.splits.values():
        for index in range(12):
            image = np.asarray(images[index])
            (place,) = [place for place, known in enumerate(IMAGES) if np.array_equal(known, image)]
            assert place % 2 == images.labels[index]


@pytest.mark.parametrize("splits", [{"train": 30}, {"train": 30, "validation": 9}])
def test_a_folder_that_save_to_disk_left(tmp_path: Path, splits: dict[str, int]) -> None:
    found = datasets.load_dataset(str(hub_format(tmp_path / "pets", **splits)))
    (found if len(splits) > 1 else found["train"]).save_to_disk(tmp_path / "saved")
    raw = load(options(tmp_path / "saved"))
    assert {name: len(images) for name, images in raw.splits.items()} == splits
    np.testing.assert_array_equal(np.asarray(raw.splits["train"][7]), IMAGES[7])


def test_splits_are_chosen_by_their_names(tmp_path: Path) -> None:
    pets = hub_format(tmp_path / "pets", train=30, test=12)

    def found(**names: str) -> dict[str, int]:
        raw = load(options(pets, split_names=SplitNames(**names)))
        return {name: len(images) for name, images in raw.splits.items()}

    assert found() == {"train": 30, "test": 12}
    assert found(validation="test", test="none") == {"train": 30, "validation": 12}
    assert found(train="test", test="none") == {"train": 12}
    text = error(options(pets, split_names=SplitNames(validation="tests")))
    assert "no split 'tests'" in text and "'test'" in text


def test_columns_that_are_not_there_or_hold_something_else(tmp_path: Path) -> None:
    pets = hub_format(tmp_path / "pets", train=9)
    text = error(options(pets, image_column="imag", label_column="breed"))
    assert "no column 'imag'" in text and "did you mean 'image'" in text and "Set image_column" in text
    assert "no column 'breed'" in text and "Set label_column" in text
    assert "does not hold images" in error(options(pets, image_column="label"))
    pq.write_table(pa.table({"image": encoded(3), "label": [0.5, 1.5, 2.5]}), tmp_path / "floats.parquet")
    assert "column 'label' holds float" in error(options(tmp_path / "floats.parquet"))


def test_a_image_that_is_not_one_is_named(tmp_path: Path) -> None:
    rows = {"image": [*encoded(29), b"hello"], "label": [index % 2 for index in range(30)]}
    pq.write_table(pa.table(rows), tmp_path / "mine.parquet")
    given = options(tmp_path / "mine.parquet")
    with pytest.raises(DataError, match=r"image 29 of split 'train' of .* cannot be read: not an image"):
        prepare(load(given), given, tmp_path, Silent())
    skipping = options(tmp_path / "mine.parquet", on_error="skip")
    assert len(prepare(load(skipping), skipping, tmp_path, Silent()).skipped) == 1


def test_missing_labels_are_explained(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": encoded(4), "label": ["a", "b", None, "a"]}), tmp_path / "mine.parquet")
    given = options(tmp_path / "mine.parquet")
    with pytest.raises(DataError, match="1 labels of the train split are not one of the 2 classes"):
        prepare(load(given), given, tmp_path, Silent())


@pytest.mark.parametrize("kind", ["empty-folder", "broken-file"])
def test_a_source_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    source = tmp_path / ("mine.parquet" if kind == "broken-file" else "folder")
    if kind == "broken-file":
        source.write_bytes(b"hello")
    else:
        source.mkdir()
    text = error(options(source))
    assert f"{source} cannot be loaded" in text and "hint" in text


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    code = (
        "from edgeopt_huggingface.found import HuggingFaceOptions, find_source\n"
        "from edgeopt.errors import DataError\n"
        "try:\n    find_source(HuggingFaceOptions(source='nobody/nothing')).load()\n"
        "except DataError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=environment, check=True
    )
    assert "nobody/nothing cannot be loaded" in done.stdout
    assert "download it and give source the path" in done.stdout


COMMITS = ("a" * 40, "b" * 40)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A hub on this machine that knows at which commit each revision stands, and which token was sent."""
    commits = {"main": COMMITS[0], "v1": COMMITS[1]}

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            commits["token"] = self.headers.get("Authorization", "")
            name, _, revision = self.path.removeprefix("/api/datasets/").partition("/revision/")
            known = name == "own/pets" and revision in commits
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"sha": commits[revision]}).encode() if known else b"not found")

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    yield commits
    server.shutdown()
    server.server_close()


def test_the_commit_of_a_hub_data_set_is_in_the_fingerprint(hub: dict[str, str]) -> None:
    def printed(**given: Any) -> str:
        return fingerprint(HuggingFaceOptions(source="own/pets", **given))

    before = printed()
    assert printed() == before != printed(revision="v1")
    assert hub["token"] == "Bearer hf_mine"
    hub["main"] = "c" * 40
    assert printed() != before
    assert current_commit("own/pets", "d" * 40) == "d" * 40  # a commit needs no question
    assert current_commit("own/gone", None) is None


def test_what_is_loaded_is_the_commit_of_the_fingerprint(
    hub: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pets = hub_format(tmp_path / "pets", train=9)
    asked, real = [], datasets.load_dataset

    def load_dataset(source: str, config: str | None, revision: str | None) -> Any:
        asked.append(revision)
        return real(str(pets), config)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load(HuggingFaceOptions(source="own/pets")).warnings == ()
    assert load(HuggingFaceOptions(source="own/pets", revision="v1")).warnings == ()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "would not be noticed; name a commit" in load(HuggingFaceOptions(source="own/pets")).warnings[0]
    cached = tmp_path / "home" / "datasets" / "own___pets" / "default" / "0.0.0" / COMMITS[1]
    without = fingerprint(HuggingFaceOptions(source="own/pets"))
    cached.mkdir(parents=True)
    assert f'revision = "{COMMITS[1]}"' in load(HuggingFaceOptions(source="own/pets")).warnings[0]
    assert fingerprint(HuggingFaceOptions(source="own/pets")) != without
    assert asked == [COMMITS[0], COMMITS[1], None, None]


@pytest.mark.parametrize(
    ("labels", "held"),
    [
        ([[0, 1], [2], [0]] * 4, "lists"),
        ([[0, 0, 1], [1, 0, 0], [0, 1, 0]] * 4, "lists"),
        ([["cat"], ["dog"], ["owl"]] * 4, "lists"),
        ([{"x": 1, "y": "cat"}] * 12, "dictionaries (x, y)"),
        ([b"cat", b"dog", b"owl"] * 4, "bytes"),
        ([dt.date(2026, 1, day + 1) for day in range(12)], "dates"),
        ([dt.datetime(2026, 1, day + 1, tzinfo=dt.UTC) for day in range(12)], "dates or times"),
        ([0.5, 1.5, 2.5] * 4, "float64 values"),
    ],
    ids=["several", "one-hot", "lists of one", "dictionaries", "bytes", "dates", "times", "floats"],
)
def test_labels_that_are_not_one_of_each_image_are_refused(labels: list[Any], held: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": encoded(12), "label": labels}), tmp_path / "labels.parquet")
    text = error(options(tmp_path / "labels.parquet"))
    assert "column 'label'" in text and held in text and "set label_column" in text


def test_the_fingerprint_follows_files_or_the_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pets = hub_format(tmp_path / "pets", train=9)
    before = fingerprint(options(pets))
    assert fingerprint(options(pets)) == before
    os.utime(next((pets / "data").iterdir()), ns=(1, 1))
    assert fingerprint(options(pets)) != before
    hub = [HuggingFaceOptions(source="a/b", revision=revision) for revision in (None, "one", "two")]
    assert len({fingerprint(each) for each in hub}) == 3
    for missing in (str(tmp_path / "gone"), "./gone", "gone.parquet"):
        with pytest.raises(DataError, match="does not exist"):
            fingerprint(HuggingFaceOptions(source=missing))


NOTE_LOOKS = """
import os, sys

def note(event, arguments):
    if event == "os.scandir" and str(arguments[0]) == os.environ["LOOKED_AT"]:
        frame, modules = sys._getframe(), set()
        while frame:
            modules.add(frame.f_globals.get("__name__"))
            frame = frame.f_back
        if modules & {"edgeopt.data.walk", "edgeopt.fingerprint"}:  # the library looks for its files by itself
            with open(os.environ["NOTES"], "a") as file:
                file.write("look\\n")

sys.addaudithook(note)
"""


def test_a_run_looks_at_the_files_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pets = hub_format(tmp_path / "pets", train=60)
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(NOTE_LOOKS)  # Python imports it in every process
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hook"), prepend=os.pathsep)
    monkeypatch.setenv("LOOKED_AT", str(pets))
    monkeypatch.setenv("NOTES", str(tmp_path / "notes.txt"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(TINY_RECIPE.replace('use = "stripes"', f'use = "hugging-face"\nsource = "{pets}"'))
    command = [sys.executable, "-m", "edgeopt", "run", str(recipe), "--smoke", "--plugin", str(TINY_PLUGIN)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "runs")], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "notes.txt").read_text().split() == ["look"]


def test_a_file_that_changes_before_it_is_read_is_an_error(tmp_path: Path) -> None:
    found = find_source(options(hub_format(tmp_path / "pets", train=9)))
    os.utime(next((tmp_path / "pets/data").iterdir()), ns=(1, 1))
    with pytest.raises(DataChangedError, match=r"train-00000-of-00001\.parquet changed while the run was working"):
        found.load()
