"""Shards as WebDataset has them: here and behind an address, larger than the cache, and what is wrong with them."""

import io
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from shard_files import shard

from edgeopt.data.cache import StreamedSplit, epoch_order, load_data
from edgeopt.data.prepare import prepare, prepare_found
from edgeopt.errors import DataChangedError, DataError
from edgeopt.progress import Silent
from edgeopt.types import RawDataset
from edgeopt_images import shard_images
from edgeopt_images.options import WebDatasetOptions
from edgeopt_images.plugin import edgeopt_datasets
from edgeopt_images.shard_files import expanded

PLUGIN = next(each for each in edgeopt_datasets() if each.name == "webdataset")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def png(index: int, edge: int = 12) -> bytes:
    held = io.BytesIO()
    random = np.random.default_rng(index)
    Image.fromarray(random.integers(0, 256, (edge, edge, 3), dtype=np.uint8)).save(held, "PNG")
    return held.getvalue()


def samples(first: int, count: int, classes: int = 3) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for index in range(first, first + count):
        files |= {f"s/{index:06}.cls": str(index % classes).encode(), f"s/{index:06}.seg.PNG": png(index)}
    return {name.replace(".seg.PNG", ".png"): content for name, content in files.items()}


def write(folder: Path, shards: int = 4, each: int = 30) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        (folder / f"train-{number:04}.tar").write_bytes(shard(samples(number * each, each)))
    return str(folder / f"train-{{0000..{shards - 1:04}}}.tar")


def message(**given: object) -> str:
    with pytest.raises(DataError) as caught:
        PLUGIN.find(WebDatasetOptions(**given)).load()
    return str(caught.value)


def test_shards_have_counts_splits_and_a_fingerprint_as_other_data_sets(tmp_path: Path) -> None:
    train = write(tmp_path / "shards")
    (tmp_path / "test.tar").write_bytes(shard({"README.md": b"x", **samples(900, 9)}))
    options = WebDatasetOptions(
        train=train, test=str(tmp_path / "te?t.tar"), class_names=("ant", "bee", "cow"), image_size=12
    )
    found = PLUGIN.find(options)
    assert found.survey().counts == {
        "train": {"ant": 40, "bee": 40, "cow": 40},
        "test": {"ant": 3, "bee": 3, "cow": 3},
    }
    raw = found.load()
    image = raw.splits["train"][61]
    assert image.tobytes() == Image.open(io.BytesIO(png(61))).tobytes() and raw.splits["train"].labels[61] == 61 % 3
    assert raw.splits["train"].name_of(61).endswith("train-0002.tar: s/000061")
    values = prepare(raw, options, tmp_path, Silent())
    assert values.splits["test"].count == 9 and sum(each.count for each in values.splits.values()) == 129
    assert found.fingerprint() == PLUGIN.find(options).fingerprint()
    (tmp_path / "test.tar").write_bytes(shard(samples(900, 12)))
    assert PLUGIN.find(options).fingerprint() != found.fingerprint()
    with pytest.raises(DataChangedError):
        raw.splits["test"][0]


def colour_of(split: StreamedSplit) -> dict[bytes, int]:
    return {split.pixels([index])[0].tobytes(): int(split.labels[index]) for index in range(len(split))}


def test_what_is_larger_than_the_cache_is_read_as_it_stands(tmp_path: Path) -> None:
    """The same images, labels, splits and fingerprint as with a cache; read from front to back."""
    train = write(tmp_path / "shards")
    options = WebDatasetOptions(train=train, image_size=12, window=8)
    found = PLUGIN.find(options)
    asked: list[int] = []

    class Watched(shard_images.ShardImages):
        def __getitem__(self, index: int) -> object:
            asked.append(index)
            return super().__getitem__(index)

    raw = found.load()
    images = raw.splits["train"]
    watched = RawDataset(raw.classes, {"train": Watched(**vars(images))})
    prepared = {}
    for name, cache_bytes in (("cached", 10**9), ("streamed", 0)):
        (tmp_path / name).mkdir()
        asked.clear()
        prepared[name] = prepare(watched, options, tmp_path / name, Silent(), cache_bytes=cache_bytes)
        back = [before for before, after in pairwise(asked[16:]) if after < before - 32]
        assert len(back) <= 4, "each of four splits from front to back"
    assert prepared["cached"].fingerprint == prepared["streamed"].fingerprint
    assert not prepared["streamed"].splits["train"].cached
    bundles = [load_data(tmp_path / name, options, found.load) for name in prepared]
    for one, other in zip(
        *((each.training.train, each.training.validation, each.test) for each in bundles), strict=True
    ):
        assert one.labels.tolist() == other.labels.tolist()
        assert one.pixels(slice(None)).tobytes() == other.pixels(slice(None)).tobytes()

    split = bundles[1].training.train
    order = epoch_order(split, 7)
    assert sorted(order) == list(range(len(split)))
    assert order.tolist() == epoch_order(split, 7).tolist() != epoch_order(split, 8).tolist()
    places = split.indices[order]
    shards = places // 30
    runs = [shards[0], *(after for before, after in pairwise(shards) if before != after)]
    assert set(runs) == {0, 1, 2, 3} and len(runs) <= 4 + 3 * 8, "file by file, mixed where two meet"
    assert any(before > after for before, after in pairwise(places) if before // 30 == after // 30)
    for number in range(4):
        mine = places[shards == number]
        assert np.abs(np.argsort(np.argsort(mine)) - np.arange(len(mine))).max() <= 8


def test_an_unreadable_image_leaves_no_hole_in_the_cache(tmp_path: Path) -> None:
    files = samples(0, 60)
    files["s/000007.png"] = b"none"
    files["s/000058.png"] = files["s/000058.png"][:40]
    (tmp_path / "a.tar").write_bytes(shard(files))
    options = WebDatasetOptions(train=str(tmp_path / "a.tar"), image_size=12, on_error="skip")
    found = PLUGIN.find(options)
    prepared = {}
    for name, cache_bytes in (("cached", 10**9), ("streamed", 0)):
        (tmp_path / name).mkdir()
        prepared[name] = prepare_found(found, found.load, options, tmp_path / name, Silent(), cache_bytes=cache_bytes)
        assert len(prepared[name].skipped) == 2 and "a.tar: s/000007" in "".join(prepared[name].skipped)
    one, other = (load_data(tmp_path / name, options, found.load).training.train for name in prepared)
    assert one.pixels(slice(None)).tobytes() == other.pixels(slice(None)).tobytes()
    with pytest.raises(DataError, match=r"a\.tar: s/000\d\d\d cannot be read"):
        prepare(found.load(), options.model_copy(update={"on_error": "stop"}), tmp_path, Silent())


@pytest.fixture
def host() -> Iterator[fsspec.AbstractFileSystem]:
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/edge", recursive=True)


def test_shards_behind_an_address_are_fetched_in_blocks(
    tmp_path: Path, host: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        host.pipe_file(f"/edge/train-{number}.tar", shard(samples(number * 50, 50)))
    options = WebDatasetOptions(train="memory://edge/train-{0..2}.tar", image_size=12, window=8)
    found = PLUGIN.find(options)
    assert found.survey() is None, "nothing is fetched for it"
    fetched: list[int] = []
    cat_file = type(host).cat_file
    monkeypatch.setattr(
        type(host),
        "cat_file",
        lambda self, path, start, end: fetched.append(end - start) or cat_file(self, path, start, end),
    )
    raw = found.load()
    images = raw.splits["train"]
    blocks = shard_images.Blocks(block_bytes=20_000, held=2)
    near = shard_images.ShardImages(**{**vars(images), "blocks": blocks})
    assert [near[index].tobytes() for index in range(150)] == [
        Image.open(io.BytesIO(png(index))).tobytes() for index in range(150)
    ]
    total = sum(info["size"] for info in host.ls("/edge"))
    assert len(fetched) < 60 and sum(fetched) < 1.5 * total, "a block at a time"
    assert len(blocks._blocks) <= 2
    assert found.survey().counts == {"train": {"0": 50, "1": 50, "2": 50}}, "known from now on"
    fetched.clear()
    for index in (3, 140, 70):
        near[index]
    assert max(fetched) < 2000, "one image here and there is fetched alone"
    globbed = WebDatasetOptions(train="memory://edge/*.tar", image_size=12)
    assert PLUGIN.find(globbed).fingerprint() == found.fingerprint()
    assert "memory://edge/train-7.tar" in message(train="memory://edge/train-{0..7}.tar") or "train-3.tar" in message(
        train="memory://edge/train-{0..7}.tar"
    )


def test_every_bad_sample_is_named_or_counted(tmp_path: Path) -> None:
    files = samples(0, 40)
    del files["s/000003.cls"], files["s/000009.png"]
    files["s/000011.cls"] = b"\xff\xfe"
    (tmp_path / "a.tar").write_bytes(shard(files))
    cut = shard(samples(40, 40))
    (tmp_path / "b.tar").write_bytes(cut[: len(cut) // 2])
    train = str(tmp_path / "{a,b}.tar")
    said = message(train=train)
    for what in ("sample s/000003", "s/000009", "has no image", "has no .cls", "s/000011", "b.tar is cut short"):
        assert what in said
    options = WebDatasetOptions(train=train, on_error="skip", image_size=12)
    raw = PLUGIN.find(options).load()
    assert "samples were left out of the shards; the first: sample s/000003" in raw.warnings[0]
    assert 37 + 15 < len(raw.splits["train"]) <= 37 + 22


def test_labels_in_json_and_texts(tmp_path: Path) -> None:
    files = {}
    for index in range(12):
        files[f"{index}.jpeg"] = png(index)
        files[f"{index}.json"] = json.dumps({"species": ["elk", "yak"][index % 2], "more": 1}).encode()
    (tmp_path / "a.tar").write_bytes(shard(files))
    given = {"train": str(tmp_path / "a.tar"), "label_key": "json"}
    assert PLUGIN.find(WebDatasetOptions(**given, label_field="species")).load().classes == ("elk", "yak")
    assert "its JSON has no 'label'" in message(**given)


def test_shards_that_are_not_there_or_none(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar at all" * 100)
    (tmp_path / "b.tar.gz").write_bytes(b"")
    said = message(
        train=str(tmp_path / "t-{00..01}.tar"), test=str(tmp_path / "b.tar.gz"), validation=str(tmp_path / "*.x")
    )
    assert "t-00.tar does not exist" in said and "b.tar.gz is compressed" in said and "no file is called as" in said
    assert "a.tar cannot be read" in message(train=str(tmp_path / "a.tar"))
    write(tmp_path / "s", 1)
    said = message(train=str(tmp_path / "s/*.tar"), class_names=("a", "b"))
    assert "labels 2 are none of 0 to 1" in said
    assert "is no range" in message(train="t-{9..1}.tar")
    assert expanded("a{0..2}{x,y}")[:3] == ["a0x", "a0y", "a1x"] and expanded("t-{08..10}")[-1] == "t-10"
    with pytest.raises(ValidationError):
        WebDatasetOptions(train="a.tar", window=0)


def test_a_training_on_shards_that_was_killed_ends_with_the_same_weights(tmp_path: Path) -> None:
    from training_samples import Steps, make_context, make_net, make_state, weights_of

    from edgeopt_lightning.options import TrainOptions
    from edgeopt_lightning.train import train_model

    options = WebDatasetOptions(train=write(tmp_path / "shards", 3, 20), image_size=12, window=10)
    found = PLUGIN.find(options)
    prepare(found.load(), options, tmp_path, Silent(), cache_bytes=0)
    data = load_data(tmp_path, options, found.load).training
    assert isinstance(data.train, StreamedSplit) and data.train.window == 10

    def killed() -> None:
        raise RuntimeError("killed")

    how = TrainOptions(epochs=3, batch_size=8)
    whole = train_model(make_state(make_net()), how, make_context(tmp_path / "whole", data))
    with pytest.raises(RuntimeError, match="killed"):
        train_model(make_state(make_net()), how, make_context(tmp_path / "half", data, progress=Steps(9, killed)))
    resumed = train_model(make_state(make_net()), how, make_context(tmp_path / "half", data))
    assert weights_of(resumed.model) == weights_of(whole.model)
