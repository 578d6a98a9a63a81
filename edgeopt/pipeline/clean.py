"""`edgeopt clean`: what lies in a store, who refers to it, and the removal of what nobody needs.

A run's folder refers to the results that it was made of, in its `run.json`. What a run at work holds is never taken.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeopt.errors import StorageError
from edgeopt.pipeline.record import references
from edgeopt.pipeline.runner import store_of
from edgeopt.workers.contents import Entry, EntryKind, entries, remove, remove_idle_locks, require_store
from edgeopt.workers.holders import Holder, nobody_starts


@dataclass(frozen=True)
class Choice:
    """What is asked for: what no run refers to, with `used_too` all; with `older_than_s` only what is older."""

    older_than_s: float = 0.0
    used_too: bool = False


@dataclass(frozen=True)
class Stored:
    """Something in the store, the run folders that refer to it, the living run that holds it, and whether it goes."""

    entry: Entry
    age_s: float
    used_by: tuple[str, ...]
    held_by: str
    goes: bool


@dataclass(frozen=True)
class Cleaning:
    """What a cleaning found in a store, the largest first, and what of it was removed."""

    root: Path
    found: tuple[Stored, ...]
    removed: tuple[Stored, ...] = ()

    @property
    def going(self) -> tuple[Stored, ...]:
        """What goes, or would go."""
        return tuple(each for each in self.found if each.goes)


def look(out: Path, choice: Choice) -> Cleaning:
    """What lies in the store below `out`, and what of it `clean` would remove. Removes nothing.

    Raises `StorageError` where there is no store, and for what is used too while a run is at work on it.
    """
    root = store_of(out).root
    require_store(root)
    with nobody_starts(root) as holders:
        working = holders
    return Cleaning(root, _judged(out, root, list(entries(root)), working, choice))


def clean(out: Path, choice: Choice) -> Cleaning:
    """Removes what `look` says that goes, but for what is being made at this instant; raises as it does."""
    root = store_of(out).root
    require_store(root)
    there = list(entries(root))  # before the gate is shut: a large store takes a while to look at
    with nobody_starts(root) as holders:
        found = Cleaning(root, _judged(out, root, there, holders, choice))
        removed = tuple(each for each in found.going if remove(each.entry, root))
        if not holders:
            remove_idle_locks(root)
    return replace(found, removed=removed)


def _judged(
    out: Path, root: Path, there: Sequence[Entry], holders: Sequence[Holder], choice: Choice
) -> tuple[Stored, ...]:
    if choice.used_too and holders:
        raise StorageError(
            f"at work on {root}: {', '.join(holder.what for holder in holders)}",
            hint="wait until that has ended, or leave --all out",
        )
    used, now = references(out), time.time()
    found = [_judge(entry, used, holders, choice, now) for entry in there]
    return tuple(sorted(found, key=lambda each: (-each.entry.size_bytes, each.entry.path)))


def _judge(
    entry: Entry, used: Mapping[str, Sequence[str]], holders: Sequence[Holder], choice: Choice, now: float
) -> Stored:
    used_by = tuple(used.get(entry.key, ()))
    held = next((each.what for each in holders if entry.key in each.keys or entry.made >= each.since), "")
    is_needed = bool(used_by) and entry.kind in (EntryKind.RESULT, EntryKind.CHECKPOINTS)
    age_s = now - entry.made
    goes = not held and age_s >= choice.older_than_s and (choice.used_too or not is_needed)
    return Stored(entry, age_s, used_by, held, goes)
