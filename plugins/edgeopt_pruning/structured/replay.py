"""What was removed, written so that it can be removed again. Light: the plan reads a replay as well."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.files import where_looked
from edgeopt.plugins import Json, Problem, UserError, digest

if TYPE_CHECKING:
    from edgeopt_pruning.structured.groups import Removal  # imports torch, and `edgeopt check` reads a replay

NAME = "prune-structured"
SEARCH = "prune-search"
KEY = "removed_channels"


def to_details(removals: Sequence[Removal]) -> Mapping[str, Json]:
    """The removals of all steps, for a record's details."""
    return {KEY: [{name: list(channels) for name, channels in removal.items()} for removal in removals]}


def from_report(path: Path) -> list[Removal]:
    """The removals that the passes of a run made, from its `report.json`.

    Raises `UserError` when there is no such file, or no removal in it.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        steps = [
            step for record in report["passes"] if record["name"] in (NAME, SEARCH) for step in record["details"][KEY]
        ]
        removals: list[Removal] = [
            {str(name): tuple(int(each) for each in step[name]) for name in step} for step in steps
        ]
    except OSError as error:
        message = f"replay: {path} cannot be read: {error.strerror}{where_looked(path)}"
        raise UserError(Problem(message, "give the report.json of a run", option="replay")) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"replay: {path} is not the report of a run that removed channels"
        raise UserError(
            Problem(message, f"give the report.json of a run with a {NAME} or {SEARCH} pass", option="replay")
        ) from error
    if not any(removals):
        message = f"replay: the run of {path} removed no channels"
        raise UserError(
            Problem(message, f"give the report.json of a run with a {NAME} or {SEARCH} pass", option="replay")
        )
    return removals


def fingerprint(replay: str | None) -> str:
    """A digest of the channels that a report says to remove, "" without a report; raises what `from_report` does."""
    return "" if replay is None else digest(to_details(from_report(Path(replay))))
