"""`edgeopt bench`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from edgeopt.bench import terminal
from edgeopt.bench.request import BenchRequest
from edgeopt.bench.run import CSV, JSON, PAGE, run_bench
from edgeopt.cli.consoles import stderr, stdout
from edgeopt.errors import DeviceError, Problem, UserError
from edgeopt.options import MeasureSettings

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh])")
_MOST_BATCH, _MOST_THREADS = 1024, 256


def bench_files(
    given: Iterable[Path],
    *,
    batches: str,
    threads: str,
    sustained: str | None,
    operators: bool,
    protocol: str,
    runs: int,
    image: Path | None,
    devices: Iterable[str],
    recipe: Path | None,
    images: int,
    out: Path | None,
    plugin_files: Iterable[Path],
) -> None:
    """Times the files, prints the tables, and says where the page lies.

    Raises `UserError` with every value that does not fit, and `DeviceError` in the end for devices that were away.
    """
    problems: list[Problem] = []
    of_batches = _numbers("--batch", batches, _MOST_BATCH, problems)
    of_threads = _numbers("--threads", threads, _MOST_THREADS, problems)
    sustained_s = _seconds(sustained, problems) if sustained else 0.0
    devices = tuple(devices)
    for option, wanted in (("--image", image), ("--operators", operators)):
        if devices and wanted:
            problems.append(Problem(f"--device and {option} do not go together", "leave one of them out"))
    if recipe and not devices:
        problems.append(Problem("--recipe is for devices, and none is named", "add --device NAME"))
    settings = _settings(protocol, runs, of_batches, problems)
    if problems or settings is None:
        raise UserError(*problems)
    request = BenchRequest(
        given=tuple(given),
        batches=of_batches,
        threads=of_threads,
        sustained_s=sustained_s,
        operators=operators,
        settings=settings,
        image=image,
        devices=devices,
        recipe=recipe,
        images=images,
        out=out,
        plugin_files=tuple(plugin_files),
    )
    result = run_bench(request, stderr())
    terminal.render(result.bench, stdout(), [result.folder / name for name in (PAGE, JSON, CSV)])
    if result.failures:
        raise DeviceError(*result.failures)


def _numbers(option: str, text: str, most: int, problems: list[Problem]) -> tuple[int, ...]:
    """Whole numbers between commas, each once, in their order."""
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not (part.isdecimal() and 1 <= int(part) <= most)]
    if wrong:
        named = ", ".join(repr(part) for part in wrong)
        problems.append(Problem(f"{option} {text}: {named} is no number from 1 to {most:,}", f"write {option} 1,2,4"))
        return ()
    return tuple(dict.fromkeys(map(int, parts)))


def _seconds(text: str, problems: list[Problem]) -> float:
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= 24 * 3600:
        problems.append(Problem(f"--sustained {text}: this is no time up to a day", "write it as 10m, 90s or 1h"))
    return seconds


def _settings(protocol: str, runs: int, batches: tuple[int, ...], problems: list[Problem]) -> MeasureSettings | None:
    try:
        settings = MeasureSettings.model_validate({"protocol": protocol, "runs": runs})
        for batch in batches:
            MeasureSettings.model_validate({"protocol": protocol, "runs": runs, "batch_size": batch})
    except ValidationError as error:
        for each in error.errors():
            option = f"--{each['loc'][0]} {each['input']}: " if each["loc"] else ""
            message = each["msg"].removeprefix("Value error, ")
            problems.append(Problem(f"{option}{message}", "see edgeopt bench --help"))
        return None
    return settings
