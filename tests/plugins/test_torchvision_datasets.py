"""CIFAR-10 in its own file format, and noise."""

import os
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cifar10_files import PER_FILE, write_cifar10
from pydantic import ValidationError

from edgeopt.data.cache import load_data
from edgeopt.data.prepare import prepare
from edgeopt.errors import DataError
from edgeopt.progress import Silent
from edgeopt_torchvision.compat import import_torchvision
from edgeopt_torchvision.datasets import CIFAR10_CLASSES
from edgeopt_torchvision.options import CIFAR10_FILES, CIFAR10_FOLDER, Cifar10Options, FakeOptions
from edgeopt_torchvision.plugin import fingerprint_cifar10, fingerprint_fake, load_cifar10, load_fake


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_small_file_in_the_published_format(tmp_path: Path, protocol: int) -> None:
    batches = write_cifar10(tmp_path, protocol)
    raw = load_cifar10(Cifar10Options(root=tmp_path, verify=False))
    assert raw.classes == CIFAR10_CLASSES
    assert {name: len(images) for name, images in raw.splits.items()} == {"train": 5 * PER_FILE, "test": PER_FILE}
    image = raw.splits["train"][PER_FILE + 3]
    expected = batches["data_batch_2"]["data"][3]
    assert image.shape == (32, 32, 3)
    for channel in range(3):
        np.testing.assert_array_equal(image[..., channel].ravel(), expected[1024 * channel :][:1024])
    assert raw.splits["train"].labels[PER_FILE + 3] == batches["data_batch_2"]["labels"][3]


def test_torchvision_reads_the_same_from_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path)
    source = import_torchvision().datasets.CIFAR10
    monkeypatch.setattr(source, "_check_integrity", lambda _: True)
    monkeypatch.setattr(source, "_load_meta", lambda self: setattr(self, "classes", list(CIFAR10_CLASSES)))
    raw = load_cifar10(Cifar10Options(root=tmp_path, verify=False))
    for name, train in (("train", True), ("test", False)):
        theirs = source(str(tmp_path), train=train)
        np.testing.assert_array_equal(raw.splits[name].images, theirs.data)
        assert raw.splits[name].labels.tolist() == theirs.targets


def test_prepared_validation_is_drawn_and_test_is_kept(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    options = Cifar10Options(root=tmp_path, verify=False, image_size=32, classes=("ship", "cat"))
    raw = load_cifar10(options)
    (tmp_path / "out").mkdir()
    values = prepare(raw, options, tmp_path / "out", Silent())
    assert values.splits["test"].per_class == {"ship": 2, "cat": 2}
    bundle = load_data(tmp_path / "out", options, lambda: raw)
    assert sorted(bundle.test.labels) == [0, 0, 1, 1]
    kept = raw.splits["test"]
    expected = {
        kept[index].tobytes() for index in range(len(kept)) if CIFAR10_CLASSES[kept.labels[index]] in ("ship", "cat")
    }
    assert {pixels.tobytes() for pixels in bundle.test.pixels(slice(None))} == expected


def test_names_are_those_of_torchvision() -> None:
    source = import_torchvision().datasets.CIFAR10
    assert source.base_folder == CIFAR10_FOLDER
    assert tuple(name for name, _ in source.train_list + source.test_list) == CIFAR10_FILES


def test_missing_files_are_found_by_check(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data_batch_1 is missing") as caught:
        fingerprint_cifar10(Cifar10Options(root=tmp_path))
    assert "download = true" in str(caught.value) and CIFAR10_FOLDER in str(caught.value)
    assert fingerprint_cifar10(Cifar10Options(root=tmp_path, download=True)) == "cifar10"
    with pytest.raises(ValidationError, match="needs verify"):
        Cifar10Options(root=tmp_path, download=True, verify=False)


def test_files_of_ones_own_do_not_pass_for_the_published_ones(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    with pytest.raises(DataError, match="data_batch_1 is not the file that CIFAR-10's authors published") as caught:
        load_cifar10(Cifar10Options(root=tmp_path))
    assert "verify = false" in str(caught.value)


def test_the_fingerprint_of_ones_own_files_follows_them(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    options = Cifar10Options(root=tmp_path, verify=False)
    before = fingerprint_cifar10(options)
    os.utime(tmp_path / CIFAR10_FOLDER / "test_batch", ns=(1, 1))
    assert fingerprint_cifar10(options) != before


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("kind", ["code", "text", "empty", "other-shape", "no-labels"])
def test_a_file_that_is_not_a_batch_is_named_and_runs_nothing(tmp_path: Path, kind: str) -> None:
    write_cifar10(tmp_path)
    mark = tmp_path / "mark"
    contents = {
        "code": pickle.dumps({"data": Payload(mark), "labels": []}),
        "text": b"hello",
        "empty": b"",
        "other-shape": pickle.dumps({"data": np.zeros((3, 7), np.uint8), "labels": [1, 2, 3]}),
        "no-labels": pickle.dumps({"data": np.zeros((3, 3072), np.uint8)}),
    }
    (tmp_path / CIFAR10_FOLDER / "data_batch_3").write_bytes(contents[kind])
    with pytest.raises(DataError, match="data_batch_3 is not a CIFAR-10 batch") as caught:
        load_cifar10(Cifar10Options(root=tmp_path, verify=False))
    assert not mark.exists()
    assert kind != "code" or "mkdir" in str(caught.value)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server on this machine that gives the files of `tmp_path`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_download_is_unpacked_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: str) -> None:
    write_cifar10(tmp_path / "source")
    archive = tmp_path / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "source" / CIFAR10_FOLDER, CIFAR10_FOLDER)
    torchvision = import_torchvision()
    source = torchvision.datasets.CIFAR10
    md5 = torchvision.datasets.utils.calculate_md5
    monkeypatch.setattr(source, "url", f"{served}/cifar.tar.gz")
    monkeypatch.setattr(source, "tgz_md5", md5(str(archive)))
    for listed in ("train_list", "test_list"):
        files = [[name, md5(str(tmp_path / "source" / CIFAR10_FOLDER / name))] for name, _ in getattr(source, listed)]
        monkeypatch.setattr(source, listed, files)
    raw = load_cifar10(Cifar10Options(root=tmp_path / "data", download=True))
    assert len(raw.splits["train"]) == 5 * PER_FILE

    monkeypatch.setattr(source, "url", f"{served}/gone.tar.gz")
    with pytest.raises(DataError, match="CIFAR-10 cannot be downloaded"):
        load_cifar10(Cifar10Options(root=tmp_path / "other", download=True))


def test_noise_repeats_with_its_seed(tmp_path: Path) -> None:
    options = FakeOptions(images=60, class_count=3, drawn_size=16, image_size=16)
    raw, again = load_fake(options), load_fake(options)
    other = load_fake(options.model_copy(update={"seed": 1}))
    assert raw.classes == ("class-0", "class-1", "class-2")
    assert set(raw.splits["train"].labels) == {0, 1, 2}
    np.testing.assert_array_equal(raw.splits["train"].images, again.splits["train"].images)
    np.testing.assert_array_equal(raw.splits["train"].labels, again.splits["train"].labels)
    assert (raw.splits["train"].images != other.splits["train"].images).any()
    assert raw.splits["train"].images.shape == (60, 16, 16, 3)
    values = prepare(raw, options, tmp_path, Silent())
    assert values.duplicates == {"validation": 0, "test": 0}
    assert fingerprint_fake(options)
