"""What the machine does to edgeopt is told as such: nobody's bug, with what to do."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_worker import SmallJob

from edgeopt.errors import PluginBugError, ResourceError, StorageError, UserError, WorkerError
from edgeopt.files import storage_errors
from edgeopt.plugins.blame import blamed
from edgeopt.workers.machine_faults import machine_fault
from edgeopt.workers.pool import Workers

HERE = Path(__file__).parent


def system_error(number: int, file: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), file) if file else OSError(number, os.strerror(number))


def caused(error: Exception, cause: Exception) -> Exception:
    """An error as one that was raised from another."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (system_error(errno.ENOSPC), StorageError, "the disk is full"),
        (system_error(errno.EROFS, "/data/x"), StorageError, "no permission to write /data/x"),
        (system_error(errno.EIO, "/data/x"), StorageError, "/data/x cannot be reached: Input/output error"),
        (system_error(errno.ESTALE, "/data/x"), StorageError, "/data/x cannot be reached"),
        (system_error(errno.EMFILE, "/data/x"), ResourceError, "too many files are open"),
        (system_error(errno.ENOMEM), ResourceError, "the memory has run out"),
        (MemoryError(), ResourceError, "the memory has run out: MemoryError"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), ResourceError, "CUDA out of memory"),
        (RuntimeError("can't start new thread"), ResourceError, "can't start new thread"),
        (ImportError("libx.so: failed to map segment from shared object"), ResourceError, "failed to map segment"),
        (caused(ValueError("no pages"), MemoryError()), ResourceError, "the memory has run out"),
        (caused(PluginBugError("apply: RuntimeError"), MemoryError()), ResourceError, "the memory has run out"),
        (caused(UserError("no images"), MemoryError()), None, ""),
        (caused(WorkerError("no sign of life"), ResourceError("killed")), None, ""),
        (system_error(errno.ENOENT, "/data/x"), None, ""),
        (RuntimeError("OpenBLAS error: Memory allocation still failed"), ResourceError, "the memory has run out"),
        (ValueError("out of range"), None, ""),
    ],
)
def test_faults_of_the_machine_are_known(error: Exception, kind: type[UserError] | None, message: str) -> None:
    fault = machine_fault(error)
    if kind is None:
        assert fault is None
    else:
        assert type(fault) is kind
        assert message in str(fault)
        assert fault.problems[0].hint


def test_no_plugin_is_blamed_for_them() -> None:
    class Plugin:
        kind, name = "pass", "mine"

    with pytest.raises(ResourceError, match="memory has run out"), blamed(Plugin(), "apply"):
        raise MemoryError
    with pytest.raises(PluginBugError, match="apply of pass 'mine'"), blamed(Plugin(), "apply"):
        raise ValueError("a bug")


def test_a_disk_that_fails_is_told_inside_and_outside_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be reached"), storage_errors(tmp_path, inside=tmp_path):
        raise system_error(errno.EIO)
    with pytest.raises(FileNotFoundError), storage_errors(tmp_path, inside=tmp_path):
        raise system_error(errno.ENOENT, "/data/x")


def test_a_writer_that_does_not_say_that_its_folder_has_gone(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not there any more"), storage_errors(tmp_path / "gone"):
        raise RuntimeError("Parent directory does not exist.")


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workers:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")])))
    return Workers(tmp_path / "jobs", tmp_path / "log.txt", lambda *_: None)


@pytest.mark.parametrize(
    ("do", "kind", "message"),
    [
        ("full-disk", StorageError, "the disk is full"),
        ("gone", StorageError, "plan.pickle is not there, or cannot be made there"),
        ("no-memory", ResourceError, "the memory has run out: DefaultCPUAllocator"),
        ("no-memory-natively", ResourceError, "the memory has run out"),
        ("killed", ResourceError, "the process was ended by SIGKILL, and not by edgeopt"),
    ],
)
def test_what_a_worker_meets_is_no_bug(
    do: str, kind: type[UserError], message: str, workers: Workers, tmp_path: Path
) -> None:
    with workers, pytest.raises(kind, match=message):
        workers.run(SmallJob(do, tmp_path), do)


def test_a_log_that_takes_nothing_hides_no_error(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "log.txt").symlink_to("/dev/full")
    with workers, pytest.raises(StorageError, match="the disk is full"):
        workers.run(SmallJob("full-disk", tmp_path), "full-disk")


def test_files_for_workers_that_cannot_be_written(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "jobs").touch()
    with pytest.raises(StorageError, match="is a file, not a folder"), workers:
        pass


def test_time_for_which_a_run_was_stopped_is_no_silence_of_its_workers(tmp_path: Path) -> None:
    (tmp_path / "seconds").write_text("0.5")
    code = (
        "from pathlib import Path\nfrom small_worker import SmallJob\nfrom edgeopt.workers.pool import Workers\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "with Workers(folder / 'jobs', folder / 'log.txt', lambda *_: None) as workers:\n"
        "    workers.run(SmallJob('compute', folder), 'compute', limit_s=4.0)\n"
    )
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
    parent = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
    while not (pids := [int(file.stem) for file in tmp_path.glob("*.pid")]):
        assert parent.poll() is None
        time.sleep(0.01)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in (parent.pid, *pids):
            os.kill(pid, number)
        time.sleep(5.0 if number == signal.SIGSTOP else 0.0)
    assert parent.wait(60) == 0
