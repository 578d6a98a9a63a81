"""`edgeopt clean`. Writes with typer alone, as `check` does."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from edgeopt.cli.help import colour
from edgeopt.errors import Problem, UserError
from edgeopt.pipeline.clean import Choice, Stored, clean, look
from edgeopt.report.figures import size
from edgeopt.workers.contents import EntryKind

_SHOWN = 40
_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
_AGE = re.compile(r"(\d+(?:\.\d+)?)([mhdw])")


def clean_store(out: Path, *, older_than: str | None, everything: bool, dry_run: bool, yes: bool) -> None:
    """Shows what lies in the store below `out`, asks, and removes what no run refers to.

    Raises `UserError` for an age that is none, for a folder without a store, and where nobody can be asked.
    """
    choice = Choice(_seconds(older_than) if older_than else 0.0, everything)
    found = look(out, choice)
    _say(*_table(found.found))
    going = found.going
    total = sum(each.entry.size_bytes for each in found.found)
    _say(f"{found.root}: {_counted(len(found.found))}, {size(total)}")
    if not going:
        _say("nothing to remove" if everything else "nothing to remove: see --all for what runs refer to")
        return
    freed = f"{_counted(len(going))}, {size(sum(each.entry.size_bytes for each in going))}"
    if dry_run:
        _say(f"would be removed: {freed}")
        return
    if not yes and not _agreed(freed):
        _say("nothing was removed")
        return
    removed = clean(out, choice).removed
    _say(f"removed: {_counted(len(removed))}, {size(sum(each.entry.size_bytes for each in removed))}")


def _agreed(freed: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError(Problem(f"nobody can be asked whether to remove {freed}", "say --yes, or look with --dry-run"))
    return typer.confirm(f"remove {freed}?")


def _table(found: Sequence[Stored]) -> list[str]:
    """A line for each of the largest: what becomes of it, its size and age, what it is, and who needs it."""
    lines = []
    for each in found[:_SHOWN]:
        state = typer.style("goes ", fg="yellow") if each.goes else typer.style("stays", fg="green")
        lines.append(
            f"{state}  {size(each.entry.size_bytes):>9}  {_age(each.age_s):>5}  {_what(each)}  {_needed(each)}"
        )
    if len(found) > _SHOWN:
        rest = found[_SHOWN:]
        lines.append(f"and {_counted(len(rest))} more, {size(sum(each.entry.size_bytes for each in rest))}")
    return lines


def _what(each: Stored) -> str:
    entry = each.entry
    kind = "" if entry.kind is EntryKind.RESULT else str(entry.kind)
    return ", ".join(part for part in (entry.label, kind) if part) or "a result without a name"


def _needed(each: Stored) -> str:
    if each.held_by:
        return f"(held by {each.held_by})"
    return f"({', '.join(each.used_by)})" if each.used_by else "(no run)"


def _age(seconds: float) -> str:
    for unit in ("d", "h", "m"):
        if seconds >= _SECONDS[unit]:
            return f"{int(seconds // _SECONDS[unit])} {unit}"
    return "now"


def _seconds(age: str) -> float:
    found = _AGE.fullmatch(age.strip())
    if found is None:
        raise UserError(Problem(f"--older-than {age}: this is no age", "write it as 30d, 12h, 2w or 90m"))
    return float(found[1]) * _SECONDS[found[2]]


def _counted(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _say(*lines: str) -> None:
    for line in lines:
        typer.echo(line, color=colour())
