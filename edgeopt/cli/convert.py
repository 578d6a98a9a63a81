"""`edgeopt convert`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.table import Table
from rich.text import Text

from edgeopt.cli.consoles import stderr, stdout
from edgeopt.conversion.plan import ConversionRequest, ConversionResult, convert
from edgeopt.describe.options import toml_value
from edgeopt.errors import Problem, UserError
from edgeopt.option_values import size_from_text
from edgeopt.report.figures import interval, percent, size
from edgeopt.tasks.stored import DEFAULT as DEFAULT_TASK


def convert_file(request: ConversionRequest, out: Path | None, *, force: bool) -> None:
    """Converts a model file and prints how far the two sides are apart."""
    result = convert(request, out, force=force, console=stderr())
    console = stdout()
    for verdict in result.verdicts:
        console.print(Text(verdict, style="bold yellow"), soft_wrap=True)
    console.print(_table(request, result))
    for warning in result.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)


def size_overrides(text: str | None) -> tuple[str, ...]:
    """What `--size` says, as an option of the source. Raises `UserError` for what is no size."""
    if text is None:
        return ()
    try:
        return (f"source.image_size={toml_value(size_from_text(text))}",)
    except ValueError as error:
        raise UserError(
            Problem(f"--size {error}", "write --size 224, or height before width: --size 96x160")
        ) from error


def _table(request: ConversionRequest, result: ConversionResult) -> Table:
    images = f"{result.images} {'images of ' + result.images_from if result.images_from else 'generated images'}"
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")  # a path that is cut helps nobody
    for name, text in (
        ("source", f"{request.source}  {size(result.source_bytes)}"),
        ("file", f"{result.path}  {size(result.size_bytes)}  {result.precision}"),
        *(("beside it", f"{file}  {size(file.stat().st_size)}") for file in result.companions),
        ("opened in", result.runtime),
        ("compared on", images),
        (
            "largest difference",
            f"{result.max_difference:.3g}, {100 * result.relative_difference:.3g} % of the outputs' range",
        ),
        *((each.name, f"{each.largest:.3g}, {100 * each.share:.3g} % of its range") for each in result.outputs),
        ("same top-1 class" if result.task == DEFAULT_TASK else "same answer", percent(result.agreement)),
        *(("right answers", text) for text in _right_answers(result)),
    ):
        table.add_row(name, Text(text))
    return table


def _right_answers(result: ConversionResult) -> Iterator[str]:
    """How often both sides are right, where the images have labels."""
    if result.labelled:
        sides = (("source", result.labelled.source.score), ("file", result.labelled.file.score))
        yield ", ".join(f"{side} {percent(score.value)} ({interval(score.interval)})" for side, score in sides)
    elif result.why_not_labelled:
        yield f"not known: {result.why_not_labelled}"
