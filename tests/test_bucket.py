"""Results behind an address: whole or not there, whoever put them and whatever happened to them."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from edgeopt.workers.bucket import Bucket, BucketError, DamagedError
from edgeopt.workers.store import Result, Store

KEY = "ab" + "0" * 62


def silent(count: int, total: int) -> None:
    """Nobody looks."""


@pytest.fixture
def result(tmp_path: Path) -> Result:
    def make(folder: Path) -> dict[str, object]:
        (folder / "card.json").write_text("{}")
        (folder / "parts").mkdir()
        (folder / "parts" / "weights.bin").write_bytes(bytes(range(256)) * 9_000)  # more than two pieces
        return {"said": "text"}

    return Store(tmp_path / "here").compute(KEY, make, "a stage")


@pytest.fixture(params=["file", "memory"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    (tmp_path / "shared").mkdir()
    places = {"file": f"file://{tmp_path}/shared", "memory": f"memory://{tmp_path.name}/shared/"}
    return Bucket(places[request.param]).tried()


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_one_machine_put_another_has(bucket: Bucket, result: Result, tmp_path: Path) -> None:
    there = Store(tmp_path / "there")
    told: list[tuple[int, int]] = []
    fetch = lambda folder: bucket.fetch(KEY, folder, lambda *each: told.append(each))  # noqa: E731
    assert not bucket.has(KEY) and there.bring(KEY, fetch) is None
    bucket.put(KEY, result.folder, silent)
    assert bucket.has(KEY)
    brought = there.bring(KEY, fetch)
    assert brought is not None and brought.values == result.values and brought.seconds == result.seconds
    assert files_of(brought.folder) == files_of(result.folder)
    assert Store(tmp_path / "there").find(KEY) is not None
    size = 256 * 9_000 + 2
    assert sum(count for count, _ in told) == size and {total for _, total in told} == {size}
    assert len(told) > 3, "a piece at a time"
    assert not list((tmp_path / "there" / "pending").iterdir())


def test_what_is_there_already_is_not_fetched(result: Result, tmp_path: Path) -> None:
    def fetch(folder: Path) -> bool:
        raise AssertionError(folder)

    assert Store(tmp_path / "here").bring(KEY, fetch) is not None


@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "gone", "record", "another's", "outside"])
def test_what_was_damaged_is_not_used(shared: Path, result: Result, tmp_path: Path, damage: str) -> None:
    bucket = Bucket(str(shared))
    bucket.put(KEY, result.folder, silent)
    (large, *_) = [file for file in shared.iterdir() if file.stat().st_size > 1000]
    record, key = shared / f"{KEY}.json", KEY
    match damage:
        case "flip":
            large.write_bytes(large.read_bytes().replace(b"\1\2", b"\1\3", 1))
        case "cut":
            large.write_bytes(large.read_bytes()[:-1])
        case "longer":
            large.write_bytes(large.read_bytes() + b"x")
        case "gone":
            large.unlink()
        case "record":
            record.write_bytes(record.read_bytes()[:-5])
        case "another's":
            key = "cd" + KEY[2:]
            record.rename(shared / f"{key}.json")
        case "outside":
            values = json.loads(record.read_text())
            del values["digest"]
            for name in ("files", "digests"):
                values[name] = {f"../{name}": value for name, value in values[name].items()}
            record.write_text(json.dumps(values))
    there = Store(tmp_path / "there")
    with pytest.raises(DamagedError, match=r"weights\.bin|its record"):
        there.bring(key, lambda folder: bucket.fetch(key, folder, silent))
    assert there.find(key) is None and not list((tmp_path / "there" / "pending").iterdir())
    bucket.put(KEY, result.folder, silent)
    assert there.bring(KEY, lambda folder: bucket.fetch(KEY, folder, silent)) is not None, "it was put again"


def test_two_that_put_a_result_at_once_do_not_mix(shared: Path, result: Result, tmp_path: Path) -> None:
    """The second one puts its files while the first one's record is there."""

    def make(folder: Path) -> dict[str, object]:
        (folder / "card.json").write_text("[]")
        return {"said": "other"}

    other = Store(tmp_path / "other").compute(KEY, make)
    bucket = Bucket(str(shared))
    bucket.put(KEY, result.folder, silent)
    first = (shared / f"{KEY}.json").read_bytes()
    bucket.put(KEY, other.folder, silent)
    second = (shared / f"{KEY}.json").read_bytes()
    for number, record, said in ((1, first, "text"), (2, second, "other")):
        (shared / f"{KEY}.json").write_bytes(record)
        brought = Store(tmp_path / str(number)).bring(KEY, lambda folder: bucket.fetch(KEY, folder, silent))
        assert brought is not None and brought.values == {"said": said}


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_what_a_kill_left_is_no_result(shared: Path, result: Result, tmp_path: Path) -> None:
    script = f"""
import os, pathlib, signal
from edgeopt.workers.bucket import Bucket
moved = []
def tell(count, total):
    moved.append(count)
    if len(moved) == 3:  # the second piece of the second file
        os.kill(os.getpid(), signal.SIGKILL)
Bucket("file://{shared}").put("{KEY}", pathlib.Path("{result.folder}"), tell)
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL and list(shared.iterdir())
    bucket, there = Bucket(f"file://{shared}"), Store(tmp_path / "there")
    assert not bucket.has(KEY) and there.bring(KEY, lambda folder: bucket.fetch(KEY, folder, silent)) is None
    bucket.put(KEY, result.folder, silent)
    assert there.bring(KEY, lambda folder: bucket.fetch(KEY, folder, silent)) is not None


class Failing(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """A host whose objects cannot be seen by who may not list them."""

    protocol = "forbidding"
    cachable = False

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        return fsspec.filesystem("memory").open(path, mode)

    def info(self, path: str, **_: Any) -> Any:
        raise PermissionError("Access Denied\nby policy")


@pytest.mark.parametrize(
    ("address", "message", "hint"),
    [
        ("nowhere://bucket/folder", "Protocol not known: nowhere", "s3://BUCKET/FOLDER"),
        ("file:///nowhere/at/all", "is not there", "edgeopt makes no buckets"),
        ("forbidding://bucket", "PermissionError: Access Denied\n", "read, write and list"),
        ("ftp://me:secret@127.0.0.1:9/x", "the bucket ftp://127.0.0.1:9/x cannot be used: Connection", "connection"),
    ],
)
def test_one_that_cannot_be_used_says_why_and_what_to_do(address: str, message: str, hint: str) -> None:
    fsspec.register_implementation("forbidding", Failing, clobber=True)
    with pytest.raises(BucketError, match=message) as error:
        Bucket(address).tried()
    (problem,) = error.value.problems
    assert hint in (problem.hint or "") and "secret" not in str(error.value)


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="it is here")
def test_the_package_of_an_address_is_named() -> None:
    with pytest.raises(BucketError, match=r"the bucket gs://bucket needs a package: .*gcsfs") as error:
        Bucket("gs://bucket").tried()
    assert "pip" in (error.value.problems[0].hint or "")
