"""Results are whole or not there, whoever writes them and whatever happens."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from pathlib import Path

import pytest

from edgeopt.arrays import Json
from edgeopt.errors import PluginBugError, StorageError
from edgeopt.files import place, storage_errors, write_aside
from edgeopt.workers.contents import EntryKind, entries
from edgeopt.workers.store import Result, Store

KEY = "ab" + "0" * 62


def make(text: str = "x"):  # type: ignore[no-untyped-def]
    def write(folder: Path) -> dict[str, object]:
        (folder / "file.txt").write_text(text)
        return {"said": text}

    return write


def record_of(result: Result) -> dict[str, object]:
    return dict(json.loads((result.folder / "result.json").read_text()))


def test_a_result_is_made_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert store.find(KEY) is None
    first = store.compute(KEY, make("one"))
    second = store.compute(KEY, make("two"))
    assert first.values == second.values == {"said": "one"}
    assert (second.folder / "file.txt").read_text() == "one"


@pytest.mark.parametrize("damage", ["truncate", "remove", "cut", "list", "null", "words"])
def test_a_damaged_result_does_not_count(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    result = store.compute(KEY, make())
    match damage:
        case "truncate":
            (result.folder / "file.txt").write_text("")
        case "remove":
            (result.folder / "file.txt").unlink()
        case "cut":
            (result.folder / "result.json").write_text("{")
        case "list":
            (result.folder / "result.json").write_text("[]")
        case "null":
            (result.folder / "result.json").write_text(json.dumps({**record_of(result), "files": None}))
        case "words":
            (result.folder / "result.json").write_text(json.dumps({**record_of(result), "finished": "yesterday"}))
    assert [entry.kind for entry in entries(tmp_path)] == [EntryKind.DAMAGED]
    assert store.find(KEY) is None
    assert store.compute(KEY, make("new")).values == {"said": "new"}


@pytest.mark.parametrize("file", ["file.txt", "result.json"])
def test_a_bit_that_a_disk_lost_is_found(tmp_path: Path, file: str) -> None:
    """Size and time are as they were."""
    result = Store(tmp_path).compute(KEY, make("text"))
    damaged = result.folder / file
    before = damaged.stat()
    damaged.write_bytes(damaged.read_bytes().replace(b"text", b"tezt"))
    os.utime(damaged, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Store(tmp_path).find(KEY) is None
    assert Store(tmp_path, trusts=True).compute(KEY, make("new")).values == {"said": "new"}


def test_results_that_changed_places_are_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    some, other = (store.compute(key, make(key[:4])) for key in (KEY, "cd" + KEY[2:]))
    aside = tmp_path / "aside"
    for source, target in ((some.folder, aside), (other.folder, some.folder), (aside, other.folder)):
        source.rename(target)
    assert store.find(some.key) is None
    assert store.compute(other.key, make("new")).values == {"said": "new"}


def test_files_that_changed_places_are_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    some, other = (store.compute(key, make(key[:4])).folder / "file.txt" for key in (KEY, "cd" + KEY[2:]))
    text = some.read_text()
    some.write_text(other.read_text())
    other.write_text(text)
    assert store.find(KEY) is None


def test_a_result_of_an_earlier_version_counts(tmp_path: Path) -> None:
    result = Store(tmp_path).compute(KEY, make())
    record = record_of(result)
    for name in ("digests", "digest", "key"):
        del record[name]
    (result.folder / "result.json").write_text(json.dumps(record))
    found = Store(tmp_path).find(KEY)
    assert found is not None and found.values == result.values


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
def test_a_clock_that_jumps_makes_nothing_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """Of a fresh run all that it made counts, and nothing of what was there."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - jump_s)
    Store(tmp_path).compute(KEY, make("old"))
    monkeypatch.setattr(time, "time", lambda: now)
    fresh = Store(tmp_path).anew([KEY])
    assert fresh.find(KEY) is None
    monkeypatch.setattr(time, "time", lambda: now - 2 * abs(jump_s))
    fresh.compute(KEY, make("new"))
    found = fresh.find(KEY)
    assert found is not None and found.values == {"said": "new"}


def test_a_failed_stage_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> dict[str, object]:
        (folder / "half").write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.compute(KEY, fail)
    assert store.find(KEY) is None
    assert not list((tmp_path / "pending").iterdir())


def test_older_results_do_not_count(tmp_path: Path) -> None:
    Store(tmp_path).compute(KEY, make("old"))
    fresh = Store(tmp_path, not_before=time.time())
    assert fresh.find(KEY) is None
    assert fresh.compute(KEY, make("new")).values == {"said": "new"}
    assert fresh.find(KEY) is not None


def test_work_outlives_a_failure_and_ends_with_the_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.work_dir(KEY) / "checkpoint").write_text("epoch 3")
    assert (store.work_dir(KEY) / "checkpoint").read_text() == "epoch 3"
    store.compute(KEY, make())
    assert not (tmp_path / "work" / KEY).exists()


def test_two_at_once_take_turns(tmp_path: Path) -> None:
    made = []

    def slow(folder: Path) -> dict[str, object]:
        made.append(1)
        time.sleep(0.3)
        return make()(folder)

    threads = [threading.Thread(target=Store(tmp_path).compute, args=(KEY, slow)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_what_killed_runs_left_is_swept_after_a_day(tmp_path: Path) -> None:
    old, new = tmp_path / "pending" / "old", tmp_path / "pending" / "new"
    old.mkdir(parents=True)
    new.mkdir()
    os.utime(old, (0, 0))
    Store(tmp_path).sweep()
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "no permission"),
        (errno.ENOTDIR, "is a file, not a folder"),
    ],
)
def test_the_systems_errors_say_what_to_do(number: int, message: str, tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, object]:
        raise OSError(number, os.strerror(number), str(folder / "file"))

    with pytest.raises(StorageError, match=message) as caught:
        Store(tmp_path).compute(KEY, fail)
    assert "--out" in (caught.value.problems[0].hint or "")


def test_a_writer_that_does_not_say_why_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError), storage_errors(tmp_path):
        raise RuntimeError("PytorchStreamWriter failed writing file")
    monkeypatch.setattr("edgeopt.files._is_full", lambda path: True)
    for error in (RuntimeError("PytorchStreamWriter failed writing file"), PluginBugError("apply: RuntimeError: file")):
        with pytest.raises(StorageError, match="disk is full"), storage_errors(tmp_path):
            raise error


def test_placing_copies_once(tmp_path: Path) -> None:
    source, target = tmp_path / "a" / "model", tmp_path / "b" / "model"
    source.parent.mkdir()
    source.write_text("1")
    place(source, target)
    inode = target.stat().st_ino
    place(source, target)
    assert target.stat().st_ino == inode
    target.write_text("edited")
    assert source.read_text() == "1"
    place(source, target)
    assert target.read_text() == "1"
    before = target.stat()
    target.write_text("2")  # as a disk may change it
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    place(source, target)
    assert target.read_text() == "1"


def test_writing_aside_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_aside(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_aside(path, "\ud800")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]
    write_aside(path, json.dumps({}).encode())
    assert path.read_text() == "{}"


def test_a_sweep_leaves_what_a_living_run_makes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    dead = tmp_path / "pending" / f"{'cd' * 32}-1"
    dead.mkdir(parents=True)
    os.utime(dead, (0, 0))

    def make_for_days(folder: Path) -> dict[str, object]:
        os.utime(folder, (0, 0))
        Store(tmp_path).sweep()
        (folder / "file.txt").write_text("x")
        return {}

    result = store.compute(KEY, make_for_days)
    assert (result.folder / "file.txt").read_text() == "x"
    assert not dead.exists()


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "denied", "/data/image.jpg"), FileExistsError(17, "x")]
)
def test_an_error_of_a_plugin_on_its_own_files_is_its_own(tmp_path: Path, error: OSError) -> None:
    def fail(folder: Path) -> dict[str, object]:
        raise error

    with pytest.raises(type(error)) as raised:
        Store(tmp_path).compute(KEY, fail)
    assert raised.value is error


def test_a_large_file_is_read_only_where_it_was_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeopt.workers import layout

    monkeypatch.setattr(layout, "_LARGE_BYTES", 10)
    store = Store(tmp_path / "store")

    def make(folder: Path) -> dict[str, Json]:
        (folder / "pixels").write_bytes(bytes(20))
        return {}

    file = store.compute("a" * 64, make).folder / "pixels"
    read = []
    digest = layout.file_digest
    monkeypatch.setattr(layout, "file_digest", lambda path: (read.append(path), digest(path))[1])
    assert store.find("a" * 64) is not None
    assert not read
    file.write_bytes(bytes(19) + b"x")
    assert store.find("a" * 64) is None
    assert read == [file]
