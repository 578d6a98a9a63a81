"""Where a file errs, in the terminal: the worst layers first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeopt.report import figures
from edgeopt.report.tables import QUIET, Unsqueezed, bullets, plain_table
from edgeopt.why.sentences import bits, db, sentences, told_outputs
from edgeopt.why.table import Part, Why

_SHOWN = 12
_FIGURES = 76  # letters of a row behind the name


def render(why: Why, console: Console, written: Sequence[Path]) -> None:
    """Prints what was found, and where its files lie."""
    longest = max((len(layer.name) for layer in why.worst_first[:_SHOWN]), default=0)
    console.print(Unsqueezed(_table(why), longest + _FIGURES), soft_wrap=True)
    console.print(
        Text(f"signal to noise in dB; share of what all layers' own errors do to the {told_outputs(why)}", style=QUIET)
    )
    if len(why.layers) > _SHOWN:
        console.print(Text(f"all {len(why.layers)} layers, in their order, are on the page", style=QUIET))
    console.print(bullets(sentences(why)))
    for each in why.advice:
        console.print(Text(f"{each.layer}: {each.reason}"))
        if each.line:
            console.print(Text(f"  {each.table}  {each.line}", style="bold"), soft_wrap=True)
    for file in written:
        console.print(Text(str(file), style="cyan"), soft_wrap=True)


def render_trial(before: Why, after: Why, console: Console, written: Sequence[Path]) -> None:
    """Prints how far the outputs are from the float program's before a change and after it."""
    figures_of = (db(each.answers) for each in (before, after))
    console.print(Text("signal to noise of the {}: {} before, {} after".format(told_outputs(before), *figures_of)))
    worst = before.worst_first[0].name if before.layers else ""
    layers = [next((layer for layer in each.layers if layer.name == worst), None) for each in (before, after)]
    if all(layers):
        told = " before, ".join(db(layer.own) for layer in layers if layer)
        console.print(Text(f"that of {worst} by its own error: {told} after"))
    for file in written:
        console.print(Text(str(file), style="cyan"), soft_wrap=True)


def _table(why: Why) -> Table:
    table = plain_table()
    table.add_column("layer", no_wrap=True, min_width=16)
    for column in ("bits", "up to here", "weights", "range", "kernel", "cut off", "share", "blame"):
        table.add_column(column, justify="left" if column in ("bits", "blame") else "right", no_wrap=True)
    for layer in why.worst_first[:_SHOWN]:
        table.add_row(
            layer.name,
            bits(layer),
            *(db(each).removesuffix(" dB") for each in (layer.total, layer.weights, layer.activation, layer.kernel)),
            figures.percent(layer.clipped) if layer.range else figures.MISSING,
            figures.percent(why.share_at_output(layer)),
            {Part.WEIGHTS: "weights", Part.ACTIVATION: "range", Part.KERNEL: "kernel"}[layer.blame],
        )
    return table
