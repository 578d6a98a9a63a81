"""`edgeopt check --target`: what an accelerator takes of a recipe's files, as a table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeopt.cli.consoles import stderr, stdout
from edgeopt.errors import ExportError
from edgeopt.plugins.accelerator import AcceleratorAnswer, Verdict
from edgeopt.targets.asked import Outcome, Question, reasons_of, rows_of
from edgeopt.targets.run import ask_target

_STYLES = {Verdict.RUNS: "green", Verdict.FALLS_BACK: "yellow", Verdict.REFUSED: "red"}
_TITLES = {Verdict.RUNS: "there", Verdict.FALLS_BACK: "on CPU", Verdict.REFUSED: "refused"}


def show_target(
    recipe: Path, target: str, *, overrides: Iterable[str], out: Path, plugin_files: Iterable[Path]
) -> None:
    """Asks and prints a table for each file.

    Raises `ExportError` with the lines of the recipe whose files are refused, and what asking raises.
    """
    result = ask_target(recipe, target, overrides=overrides, out=out, plugin_files=plugin_files, console=stderr())
    console = stdout()
    for question, outcome in result.outcomes:
        _show(question, outcome, console)
    if result.problems:
        raise ExportError(*result.problems)


def _show(question: Question, outcome: Outcome, console: Console) -> None:
    console.print(Text(_title(question), style="bold"))
    if outcome.refused:
        console.print(Text(f"refused: {outcome.refused}", style="red"), soft_wrap=True)
    if outcome.answer is not None:
        console.print(_table(outcome.answer), crop=False)
        for reason in reasons_of(outcome.answer):
            console.print(Text(reason), soft_wrap=True)
        console.print(Text(sentence(outcome.answer)), soft_wrap=True)
    console.print()


def _title(question: Question) -> str:
    own = "" if question.step is not None else ", which the recipe does not ask for, with its own defaults"
    return f"{question.called} on {question.target}{own}"


def _table(answer: AcceleratorAnswer) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("operator", overflow="fold")
    for verdict in Verdict:
        table.add_column(_TITLES[verdict], justify="right", no_wrap=True)
    for row in rows_of(answer):
        cells = [Text(str(row.counts[verdict] or ""), style=_STYLES[verdict]) for verdict in Verdict]
        table.add_row(Text(row.kind), *cells)
    return table


def sentence(answer: AcceleratorAnswer) -> str:
    """How much runs there, in how many pieces, and who says so."""
    runs = sum(each.verdict is Verdict.RUNS for each in answer.operators)
    islands = f"{answer.islands} island" + ("" if answer.islands == 1 else "s")
    detours = answer.islands - 1
    times = "once" if detours == 1 else f"{detours} times"
    between = f": between them data goes to the CPU and back {times}" if detours > 0 else ""
    return f"{runs} of {len(answer.operators)} operators run there, in {islands}{between}. Asked: {answer.source}."
