"""What `edgeopt clean` takes, and what it never does."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from edgeopt.errors import StorageError
from edgeopt.pipeline.clean import Choice, clean, look
from edgeopt.pipeline.folder import RunFolder
from edgeopt.pipeline.record import RunRecord
from edgeopt.workers.contents import EntryKind
from edgeopt.workers.holders import at_work, nobody_starts
from edgeopt.workers.layout import Record
from edgeopt.workers.store import Store

USED, UNUSED, OLD = "aa" + "0" * 62, "bb" + "1" * 62, "cc" + "2" * 62
ALL = {USED, UNUSED, OLD}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Results of three stages; a run refers to the first, and the third is forty days old."""
    out = tmp_path / "runs"
    store = Store(out / ".store")
    for key, label in ((USED, "train"), (UNUSED, "data: digits"), (OLD, "ptq")):
        store.compute(key, lambda folder: (folder / "file").write_bytes(b"x" * 1000) and {}, label)
    folder = store.find(OLD).folder  # type: ignore[union-attr]
    replace(Record.of(folder), finished=time.time() - 40 * 86_400).write(folder)  # type: ignore[type-var]
    (out / "digits").mkdir()
    RunRecord({"pass-0-train": USED}).write(out / "digits")
    return out


def there(out: Path) -> set[str]:
    return {folder.name for folder in (out / ".store").glob("??/*")}


def edgeopt(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeopt", "clean", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False
    )


def test_what_no_run_refers_to_goes_and_a_dry_run_takes_nothing(out: Path) -> None:
    found = look(out, Choice())
    assert {each.entry.key for each in found.going} == {UNUSED, OLD}
    assert {each.entry.key: each.used_by for each in found.found}[USED] == ("digits",)
    assert there(out) == ALL
    assert len(clean(out, Choice()).removed) == 2
    assert there(out) == {USED}
    assert Store(out / ".store").find(USED) is not None
    assert not clean(out, Choice()).going


def test_age_and_all(out: Path) -> None:
    assert {each.entry.key for each in look(out, Choice(older_than_s=30 * 86_400)).going} == {OLD}
    assert {each.entry.key for each in look(out, Choice(used_too=True)).going} == ALL
    clean(out, Choice(used_too=True))
    assert there(out) == set()
    assert not list((out / ".store/locks").iterdir())
    assert (out / "digits/run.json").exists()


def test_what_a_living_run_holds_stays(out: Path) -> None:
    with at_work(out / ".store", [UNUSED], "run of 'other'"):
        found = {each.entry.key: each for each in look(out, Choice()).found}
        assert (found[UNUSED].goes, found[OLD].goes) == (False, True)
        assert "run of 'other'" in found[UNUSED].held_by
        Store(out / ".store").compute("dd" + "3" * 62, lambda folder: {})  # made since: the run may have made it
        clean(out, Choice())
        assert there(out) == {USED, UNUSED, "dd" + "3" * 62}
        with pytest.raises(StorageError, match=r"at work on .*: run of 'other'"):
            clean(out, Choice(used_too=True))
    clean(out, Choice())
    assert there(out) == {USED}


def test_what_the_run_before_made_stays_until_another_of_its_name_has_ended(out: Path) -> None:
    folder = RunFolder.begin(out / "digits", {"pass-0-train": UNUSED})
    RunFolder.begin(out / "digits", {"pass-0-train": "ee" + "4" * 62})  # killed as well
    clean(out, Choice())
    assert there(out) == {USED, UNUSED}
    folder.end({"pass-0-train": UNUSED})
    clean(out, Choice())
    assert there(out) == {UNUSED}


def test_a_killed_run_holds_nothing(out: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom edgeopt.workers.holders import at_work\n"
        f"with at_work(Path({str(out / '.store')!r}), [{UNUSED!r}], 'run'):\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert list((out / ".store/holders").glob("*.json"))
    clean(out, Choice())
    assert there(out) == {USED}
    assert not list((out / ".store/holders").iterdir())


def test_a_run_waits_for_a_cleaning_to_end(out: Path) -> None:
    begun = threading.Event()

    def begin() -> None:
        with at_work(out / ".store", [UNUSED], "run"):
            begun.set()

    with nobody_starts(out / ".store") as holders:
        thread = threading.Thread(target=begin)
        thread.start()
        assert not begun.wait(0.3)
        assert not holders
    assert begun.wait(20)
    thread.join()


def test_a_stage_that_is_being_made_stays(out: Path) -> None:
    with FileLock(out / ".store/locks" / f"{UNUSED}.lock"):  # as a run of an edgeopt that names no holders
        assert {each.entry.key for each in clean(out, Choice()).removed} == {OLD}
    assert there(out) == {USED, UNUSED}


def test_leftovers_and_damaged_results_go_and_checkpoints_of_a_run_stay(out: Path) -> None:
    store = out / ".store"
    (Store(store).find(USED).folder / "file").write_bytes(b"")  # type: ignore[union-attr]
    for folder in (f"pending/{UNUSED}-{'e' * 32}", f"pending/{'f' * 32}", f"work/{OLD}", f"work/{USED}"):
        (store / folder).mkdir(parents=True)
        (store / folder / "checkpoint").write_bytes(b"x" * 500)
    kinds = {each.entry.path.relative_to(store).as_posix(): each for each in look(out, Choice()).found}
    assert kinds[f"aa/{USED}"].entry.kind is EntryKind.DAMAGED and kinds[f"aa/{USED}"].goes
    assert kinds[f"pending/{'f' * 32}"].entry.kind is EntryKind.HALF
    assert kinds[f"work/{OLD}"].goes and not kinds[f"work/{USED}"].goes
    clean(out, Choice())
    assert (there(out), not list((store / "pending").iterdir())) == (set(), True)
    assert [folder.name for folder in (store / "work").iterdir()] == [USED]


def test_nothing_that_is_not_of_the_store_is_touched(out: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    store = out / ".store"
    for place in ("notes", "zz", f"bb/{OLD}", "bb/short"):  # other names, and a key on another shelf
        (store / place).mkdir(parents=True)
        (store / place / "file").write_text("mine")
    (store / "bb" / ("bb" + "9" * 62)).symlink_to(precious)
    (store / "dd").symlink_to(precious)
    clean(out, Choice(used_too=True))
    assert (precious / "file").read_text() == "mine"
    for place in ("notes", "zz", f"bb/{OLD}", "bb/short"):
        assert (store / place / "file").read_text() == "mine"


def test_a_folder_without_a_store_is_refused(tmp_path: Path, out: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(StorageError, match="there is no store"):
            look(folder, Choice())
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / ".store").symlink_to(out / ".store")
    with pytest.raises(StorageError, match="there is no store"):
        clean(linked, Choice())
    assert not (tmp_path / ".store").exists()


def test_the_command(out: Path) -> None:
    shown = edgeopt("--dry-run", cwd=out.parent)
    assert (shown.returncode, there(out)) == (0, ALL), shown.stderr
    lines = {
        line.split("  ")[-2].strip(): line for line in shown.stdout.splitlines() if line.startswith(("goes", "st"))
    }
    assert lines["train"].startswith("stays") and lines["train"].endswith("(digits)")
    assert lines["ptq"].startswith("goes") and "40 d" in lines["ptq"] and lines["ptq"].endswith("(no run)")
    assert "would be removed: 2 entries" in shown.stdout
    refused = edgeopt(cwd=out.parent)
    assert (refused.returncode, there(out)) == (2, ALL)
    assert "--yes" in refused.stderr
    for arguments, message in ((("--older-than", "soon"), "30d"), (("--out", "elsewhere"), "--out")):
        wrong = edgeopt("--yes", *arguments, cwd=out.parent)
        assert (wrong.returncode, there(out)) == (2, ALL)
        assert message in wrong.stderr
    done = edgeopt("--yes", cwd=out.parent)
    assert (done.returncode, there(out)) == (0, {USED}), done.stderr
    assert "removed: 2 entries" in done.stdout


def test_a_run_that_ends_while_a_cleaning_looks_is_passed_over(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with at_work(out / ".store", [USED], "run"):
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
        with nobody_starts(out / ".store") as holders:
            assert holders == ()


def test_what_goes_while_it_is_looked_at_is_passed_over(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run at work finishes results, and a study removes folders of trials."""
    (out / ".store/pending" / f"{'ab' * 32}-{'0' * 32}").mkdir(parents=True)
    there = Path.is_dir

    def goes(path: Path) -> bool:
        was_there = there(path)
        if "-" in path.name or path == out / "digits":
            shutil.rmtree(path, ignore_errors=True)
        return was_there

    monkeypatch.setattr(Path, "is_dir", goes)
    assert {each.entry.key for each in look(out, Choice()).found} == ALL
