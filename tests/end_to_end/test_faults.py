"""A disk that is full, read-only or loses bits under a run: one message or the right bytes, and the right bytes afterwards.

`python benchmarks/faults.py` does this and more, with kills, at every write; see docs/reliability.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import TINY_PLUGIN, TINY_RECIPE

import edgeopt
from edgeopt.errors import ResourceError, StorageError
from edgeopt.workers.layout import RECORD, Record

pytestmark = pytest.mark.usefixtures("imports_done_once")

DAMAGED = {"data": "train-pixels.npy", "fit-stripes": "module.pt", "program": "program.pt2", "export": "model.npz"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tmp_path_factory.mktemp("faults") / "recipe.toml"
    recipe.write_text(TINY_RECIPE.replace('name = "tiny"', 'name = "tiny"\nbaseline = false'))
    return recipe


@pytest.fixture(scope="module")
def undisturbed(recipe: Path) -> Path:
    """The folder of results of a run that nothing disturbed."""
    run(recipe, recipe.parent / "undisturbed")
    return recipe.parent / "undisturbed"


def run(recipe: Path, out: Path) -> None:
    result = edgeopt.run(recipe, out=out, plugin_files=[TINY_PLUGIN])
    for failure in result.failures:
        raise failure


def made(out: Path) -> dict[str, str]:
    """The digests of the files that a run makes alike each time."""
    names = ("npz/optimized/model.npz", "npz/optimized/card.json", "answers.npz", "lock.toml", "samples/0.png")
    return {name: hashlib.sha256((out / "tiny" / name).read_bytes()).hexdigest() for name in names}


def require_whole_results(out: Path) -> None:
    for record in (out / ".store").glob(f"??/*/{RECORD}"):
        found = Record.of(record.parent)
        assert found is not None and found.is_whole(record.parent) and found.has_bytes(record.parent)


@contextmanager
def small_disk(folder: Path, size_kb: int) -> Iterator[Callable[[str], None]]:
    """A disk in memory at `folder`; gives what mounts it anew with other options."""
    folder.mkdir()

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)

    mount(f"size={size_kb}k")
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


needs_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="disks are mounted as root")


@needs_root
def test_a_disk_that_is_full_and_grows(recipe: Path, undisturbed: Path, tmp_path: Path) -> None:
    out, size_kb, messages = tmp_path / "disk", 8, 0
    with small_disk(out, size_kb) as mounted:
        while True:
            try:
                run(recipe, out)
                break
            except StorageError as error:
                assert "the disk is full" in str(error)
            messages += 1
            require_whole_results(out)
            size_kb += 56
            mounted(f"size={size_kb}k")
        assert messages >= 4
        assert made(out) == made(undisturbed)


@needs_root
def test_a_disk_that_is_read_only(recipe: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "disk"
    with small_disk(out, 8 << 10) as mounted:
        mounted("ro")
        with pytest.raises(StorageError, match="no permission to write"):
            run(recipe, out)
        mounted("rw")
        shutil.copytree(undisturbed, out, dirs_exist_ok=True)
        mounted("ro")
        with pytest.raises(StorageError, match="no permission to write"):
            run(recipe, out)
        mounted("rw")
        run(recipe, out)
        assert made(out) == made(undisturbed)


@pytest.mark.parametrize("stage", DAMAGED)
def test_a_bit_that_a_disk_lost(stage: str, recipe: Path, undisturbed: Path, tmp_path: Path) -> None:
    """What was made of the damaged result is gone, so that it is needed."""
    out = tmp_path / "runs"
    shutil.copytree(undisturbed, out)
    results = sorted((out / ".store").glob(f"??/*/{RECORD}"), key=lambda record: record.stat().st_mtime_ns)
    labels = [json.loads(record.read_text())["label"] for record in results]
    place = max(number for number, label in enumerate(labels) if label.startswith(stage))
    for later in results[place + 1 :]:
        shutil.rmtree(later.parent)
    file = results[place].with_name(DAMAGED[stage])
    before, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    shutil.rmtree(out / "tiny")
    run(recipe, out)
    require_whole_results(out)
    assert made(out) == made(undisturbed)


def test_data_that_alone_is_damaged(recipe: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Nothing is to be made of it, and the lock tells of it."""
    out = tmp_path / "runs"
    shutil.copytree(undisturbed, out)
    (data,) = [each for each in (out / ".store").glob(f"??/*/{RECORD}") if '"label": "data' in each.read_text()]
    data.write_text("{}")
    run(recipe, out)
    require_whole_results(out)
    assert made(out) == made(undisturbed)


def test_a_worker_that_the_system_ends(
    recipe: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killing = tmp_path / "killing.py"
    killing.write_text(
        "import os, runpy, edgeopt, dataclasses\n"
        f"TINY = runpy.run_path({str(TINY_PLUGIN)!r})\n"
        "@edgeopt.hookimpl\n"
        "def edgeopt_exporters():\n"
        "    (npz,) = TINY['edgeopt_exporters']()\n"
        "    yield dataclasses.replace(npz, name='killed', export=lambda *_: os.kill(os.getpid(), 9))\n"
    )
    result = edgeopt.run(
        recipe, overrides=["exports.0.use=killed"], out=tmp_path / "runs", plugin_files=[TINY_PLUGIN, killing]
    )
    (failure,) = result.failures
    assert isinstance(failure, ResourceError)
    assert "ended by SIGKILL" in str(failure)
    assert result.report.rows[0].error == str(failure) or "SIGKILL" in (result.report.rows[0].error or "")
