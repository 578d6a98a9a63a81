"""What was asked of an accelerator, and what it said. Light."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from edgeopt.plugins.accelerator import AcceleratorAnswer, Verdict
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.use import Use
from edgeopt.types import Role

_PLACES = 3  # that a sentence names


@dataclass(frozen=True)
class Question:
    """An accelerator, by its name, and the exporter whose file it is asked about; `step` is the export of the recipe
    where there is one, `called` what messages call it. `key` is the result's.
    """

    target: str
    use: Use[ExporterPlugin]
    called: str
    step: int | None
    role: Role
    program_stage: str
    key: str


@dataclass(frozen=True)
class Outcome:
    """The answer to a question, or why the program is `refused` as a whole."""

    answer: AcceleratorAnswer | None = None
    refused: str = ""

    @property
    def refusals(self) -> tuple[str, ...]:
        """Everything that is refused, in a line each."""
        operators = self.answer.operators if self.answer else ()
        named = (f"{each.kind}: {each.reason}" for each in operators if each.verdict is Verdict.REFUSED)
        return ((self.refused,) if self.refused else ()) + tuple(dict.fromkeys(named))


@dataclass(frozen=True)
class KindRow:
    """How many operators of one kind there are of each verdict."""

    kind: str
    counts: Mapping[Verdict, int]


def rows_of(answer: AcceleratorAnswer) -> list[KindRow]:
    """A row for each kind of operator, in the order in which they first appear."""
    counts = Counter((each.kind, each.verdict) for each in answer.operators)
    kinds = dict.fromkeys(each.kind for each in answer.operators)
    return [KindRow(kind, {verdict: counts[kind, verdict] for verdict in Verdict}) for kind in kinds]


def reasons_of(answer: AcceleratorAnswer) -> list[str]:
    """Why operators do not run there, a sentence for each kind and reason, with the first places."""
    places: dict[tuple[str, str], list[str]] = {}
    for each in answer.operators:
        if each.verdict is not Verdict.RUNS:
            places.setdefault((each.kind, each.reason), []).append(each.place)
    return [f"{len(where)} {kind}: {reason}{_named(where)}" for (kind, reason), where in places.items()]


def _named(places: list[str]) -> str:
    named = list(dict.fromkeys(filter(None, places)))
    more = ", …" if len(named) > _PLACES else ""
    return f" ({', '.join(named[:_PLACES])}{more})" if named else ""
