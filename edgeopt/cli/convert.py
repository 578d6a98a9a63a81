"""`edgeopt convert`."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from edgeopt.cli.consoles import stderr, stdout
from edgeopt.conversion.plan import ConversionRequest, ConversionResult, convert
from edgeopt.report.figures import percent, size


def convert_file(request: ConversionRequest, out: Path | None, *, force: bool) -> None:
    """Converts a model file and prints how far the two sides are apart."""
    result = convert(request, out, force=force, console=stderr())
    console = stdout()
    console.print(_table(request, result))
    for warning in result.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)


def _table(request: ConversionRequest, result: ConversionResult) -> Table:
    images = f"{result.images} {'images of ' + result.images_from if result.images_from else 'generated images'}"
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
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
        ("same top-1 class", percent(result.agreement)),
    ):
        table.add_row(name, Text(text))
    return table
