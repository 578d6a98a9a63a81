"""`edgeopt bench`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from edgeopt.arrays import ImageSize
from edgeopt.bench import terminal
from edgeopt.bench.request import BenchRequest, swept
from edgeopt.bench.run import CSV, JSON, PAGE, run_bench
from edgeopt.cli.consoles import stderr, stdout
from edgeopt.errors import Problem, UserError, one_error
from edgeopt.option_values import seconds_of, size_from_text
from edgeopt.options import MeasureSettings
from edgeopt.report.finished_files import is_alone, run_of
from edgeopt.report.reading import read_report

_MOST_BATCH, _MOST_THREADS = 1024, 256
_USUAL_RUNS = 100


@dataclass(frozen=True)
class Flags:
    """What the command line says is to be measured; None for what it leaves out."""

    batches: str | None = None
    sizes: str | None = None
    threads: str | None = None
    sustained: str | None = None
    protocol: str | None = None
    runs: int | None = None
    operators: bool = False
    energy: bool = False

    @property
    def are_none(self) -> bool:
        """Whether it says nothing, so that the run's recipe may."""
        return self == Flags()


def bench_files(
    given: Iterable[Path],
    flags: Flags,
    *,
    image: Path | None,
    devices: Iterable[str],
    recipe: Path | None,
    images: int,
    dataset: str | None,
    overrides: Iterable[str],
    out: Path | None,
    plugin_files: Iterable[Path],
) -> None:
    """Times the files, prints the tables, and says where the page lies.

    Without a flag, what `[measure.sweep]` in the recipe of the first run says. Raises `UserError` with every value that
    does not fit, and in the end what was wrong with devices that were away, and with the files where none was measured.
    """
    given, devices = tuple(given), tuple(devices)
    problems: list[Problem] = []
    if recipe and not devices:
        problems.append(Problem("--recipe is for devices, and none is named", "add --device NAME"))
    request = _requested(given, flags, problems)
    if flags.are_none and not devices:
        request = _as_the_recipe_says(given) or request
    request = replace(
        request,
        given=given,
        image=image,
        devices=devices,
        recipe=recipe,
        images=images,
        dataset=dataset,
        overrides=tuple(overrides),
        out=out,
        plugin_files=tuple(plugin_files),
    )
    result = run_bench(request, stderr())
    terminal.render(result.bench, stdout(), [result.folder / name for name in (PAGE, JSON, CSV)])
    if result.failures:
        raise one_error(result.failures)


def _requested(given: tuple[Path, ...], flags: Flags, problems: list[Problem]) -> BenchRequest:
    """What the flags ask for. Raises `UserError` with `problems` and those of the flags."""
    batches = _numbers("--batch", flags.batches, (1, _MOST_BATCH), problems) or (1,)
    sizes = _sizes(flags.sizes, problems)
    threads = _numbers("--threads", flags.threads, (1, _MOST_THREADS), problems) or (1,)
    sustained_s = 0.0 if flags.sustained is None else _seconds(flags.sustained, problems)
    protocol = "calls" if flags.protocol is None else flags.protocol
    runs = _USUAL_RUNS if flags.runs is None else flags.runs
    settings = _settings(protocol, runs, batches, problems)
    if problems or settings is None:
        raise UserError(*problems)
    return BenchRequest(
        given,
        batches=batches,
        sizes=sizes,
        threads=threads,
        sustained_s=sustained_s,
        operators=flags.operators,
        energy=flags.energy,
        settings=settings,
    )


def _as_the_recipe_says(given: tuple[Path, ...]) -> BenchRequest | None:
    """What `[measure.sweep]` in the recipe of the first run asks for; None where there is none, or no run."""
    if is_alone(given[0]):
        return None
    run = run_of(given[0])
    measure = MeasureSettings.model_validate(read_report(run).recipe.resolved.get("measure", {}))
    return swept(run, measure) if measure.sweep else None


def _numbers(option: str, text: str | None, bounds: tuple[int, int], problems: list[Problem]) -> tuple[int, ...]:
    """Whole numbers between commas, each once, in their order; none for no text."""
    if text is None:
        return ()
    least, most = bounds
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not (part.isdecimal() and least <= int(part) <= most)]
    if wrong:
        named = ", ".join(repr(part) for part in wrong)
        message = f"{option} {text}: {named} is no number from {least} to {most:,}"
        problems.append(Problem(message, f"write {option} 1,2,4"))
        return ()
    return tuple(dict.fromkeys(map(int, parts)))


def _sizes(text: str | None, problems: list[Problem]) -> tuple[ImageSize, ...]:
    """Sizes between commas, as 96 or, height first, as 96x160; each once, in their order; none for no text."""
    parts = [part.strip() for part in text.split(",")] if text else []
    sizes: dict[ImageSize, None] = {}
    for part in parts:
        try:
            sizes[size_from_text(part)] = None
        except ValueError as error:
            hint = "write --size 96,160,224, or height before width, as in --size 96x160"
            problems.append(Problem(f"--size {text}: {error}", hint))
    return tuple(sizes)


def _seconds(text: str, problems: list[Problem]) -> float:
    try:
        return seconds_of(text)
    except ValueError as error:
        problems.append(Problem(f"--sustained {text}: this is no time up to a day", str(error).partition(": ")[2]))
        return 0.0


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
