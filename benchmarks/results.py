"""What the systems that edgeopt grows out of published, beside what the recipes that repeat their experiments reached.

`python benchmarks/results.py` reads the report of every run below `--runs` that is one of a shipped recipe, keeps its
figures in `docs/results.json`, and writes `docs/results.md` from that. A run counts when it was whole: no smoke run,
and every option as the recipe has it, but for the place of its data. What has no run yet is shown as "not run".

    python benchmarks/results.py --run "shapes/resnet18*"

runs what has none yet of the recipes that the pattern names, one after another, and takes each as soon as it is there.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rich.console import Console

import edgeopt
from edgeopt.errors import EdgeoptError
from edgeopt.options import to_json
from edgeopt.plugins.declarations import DatasetPlugin, ExporterPlugin, ModelPlugin, PassPlugin, Plugin
from edgeopt.plugins.registry import Registry, load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.recipe.read import Recipe, read_recipe
from edgeopt.report.schema import Report, Row
from edgeopt.types import Role

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
PUBLISHED = ROOT / "benchmarks/published.toml"
KEPT = ROOT / "docs/results.json"
PAGE = ROOT / "docs/results.md"
PLACES = frozenset({"path", "root", "folder", "download", "run"})  # where data stands does not change a figure

Json = Any


@dataclass(frozen=True)
class Figure:
    """One row of a table; what is not known is None."""

    what: str
    accuracy: float | None = None
    size_mb: float | None = None
    latency_ms: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Experiment:
    """What a system published of one experiment, and the recipes that repeat it: each as `edgeopt run` takes it, with
    its `--set`.
    """

    title: str
    published_on: str
    published: Sequence[Figure]
    recipes: Sequence[str]


@dataclass(frozen=True)
class Run:
    """The figures of one recipe's run, and what they stand on."""

    data: str
    machine: str
    commit: str
    finished: str
    figures: Sequence[Figure] = field(default_factory=tuple)


# ---- runs ----------------------------------------------------------------------------------------------------------


def read_run(report: Report) -> Run:
    """The figures of a report."""
    dataset, machine = report.dataset, report.environment
    edge = dataset.preprocessing["image_size"]
    return Run(
        data=f"{dataset.name}, {len(dataset.classes)} classes at {edge} px, {dataset.splits.get('train', 0)} training and "
        f"{dataset.splits.get('test', 0)} test images",
        machine=f"{machine.processor}, {machine.cores} cores",
        commit=machine.commit or f"unknown, edgeopt {report.edgeopt}",
        finished=(report.finished or "")[:10],
        figures=tuple(_figure(row, _stage(row, report.rows)) for row in report.rows),
    )


def _stage(row: Row, rows: Sequence[Row]) -> str:
    """Before or after the passes that compress, where a run has files of both."""
    if len({each.role for each in rows if each.export == row.export}) == 1:
        return ""
    return ", before" if row.role is Role.BASELINE else ", after"


def _figure(row: Row, stage: str) -> Figure:
    notes = []
    if row.accuracy_interval:
        low, high = row.accuracy_interval
        notes.append(f"{100 * low:.1f} to {100 * high:.1f} %")
    if row.compressed_bytes and row.size_bytes and row.compressed_bytes < 0.7 * row.size_bytes:
        notes.append(f"{row.compressed_bytes / 1e6:.2f} MB compressed")
    if row.test_accuracy is None and row.score is not None:  # of another task than classification
        low, high = (row.score.kind.text(each) for each in row.score.interval)
        notes.insert(0, f"{row.score.kind.called} {row.score.kind.text(row.score.value)}, {low} to {high}")
    if row.error:
        notes.append("failed")
    if row.not_run or row.stand_in:
        notes.append(f"answered by {row.stand_in}" if row.stand_in else "not run on this machine")
    return Figure(
        f"{row.export}, {row.precision}{stage}",
        row.test_accuracy,
        None if row.size_bytes is None else row.size_bytes / 1e6,
        None if row.latency_ms is None else row.latency_ms.p50,
        ", ".join(notes),
    )


def parts_of(entry: str) -> tuple[str, list[str]]:
    """The recipe's path and the changes of an entry such as `shapes/resnet18_ptq_4bit --set passes.1.weight_bits=5`."""
    path, *overrides = entry.split(" --set ")
    return path, overrides


def shipped_recipe(entry: str) -> Recipe:
    """The recipe of an entry."""
    path, overrides = parts_of(entry)
    return read_recipe(RECIPES / f"{path}.toml", overrides)


def differences(report: Report, shipped: Recipe, registry: Registry) -> Iterator[str]:
    """What of a run is not as its recipe has it."""
    if report.smoke:
        yield "it is a smoke run"
        return
    resolved = report.recipe.resolved
    yield from _differences("seed", shipped.seed, report.recipe.seed)
    yield from _step("dataset", DatasetPlugin, shipped.dataset, resolved["dataset"], registry)
    yield from _step("model", ModelPlugin, shipped.model, resolved["model"], registry)
    for name, kind, steps in (("passes", PassPlugin, shipped.passes), ("exports", ExporterPlugin, shipped.exports)):
        ran = resolved.get(name, ())
        yield from _differences(f"number of {name}", len(steps), len(ran))
        for index, (step, done) in enumerate(zip(steps, ran, strict=False)):
            yield from _step(f"{name}.{index}", kind, step, done, registry)


def _step(where: str, kind: type[Plugin], step: Any, ran: Mapping[str, Json], registry: Registry) -> Iterator[str]:
    if step.use != ran["use"]:
        yield f"{where} uses {ran['use']}, the recipe {step.use}"
        return
    wanted = to_json(resolve(kind, step.use, step.options, registry).options)
    # an option that is in neither came after the run, whose plugin did what its default now says
    known = {name: value for name, value in wanted.items() if name in ran or name in step.options}
    yield from _differences(where, known, {name: ran.get(name) for name in known})


def _differences(where: str, wanted: Json, ran: Json) -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(ran, dict):
        for name in sorted({*wanted, *ran} - PLACES):
            yield from _differences(f"{where}.{name}", wanted.get(name), ran.get(name))
    elif wanted != ran:
        yield f"{where} was {ran!r}, the recipe has {wanted!r}"


def collect(folder: Path, recipes: Sequence[str], registry: Registry) -> dict[str, Run]:
    """The whole runs of `recipes` below a folder, by the recipe's entry."""
    shipped = {entry: shipped_recipe(entry) for entry in recipes}
    names = {recipe.name: entry for entry, recipe in shipped.items()}
    found = {}
    for file in sorted(folder.glob("*/report.json")):
        try:
            report = Report.from_json(file.read_bytes())
        except EdgeoptError as error:
            print(f"{file} was not taken: {error}")
            continue
        entry = names.get(report.recipe.name)
        if entry is None:
            continue
        try:
            wrong = next(differences(report, shipped[entry], registry), None)
        except EdgeoptError as error:  # a teacher's run, which a recipe names, is not here
            wrong = str(error)
        if wrong:
            print(f"{file} was not taken: {wrong}")
        else:
            found[entry] = read_run(report)
    return found


def run_missing(pattern: str, entries: Sequence[str], kept: Collection[str], folder: Path) -> Iterator[str]:
    """Runs the entries whose recipe's path matches and that nothing is kept of; gives each that ran, and says why
    others did not.
    """
    chosen = [entry for entry in entries if fnmatch(parts_of(entry)[0], pattern)]
    if not chosen:
        raise SystemExit(f"no recipe of {PUBLISHED} matches {pattern!r}")
    for entry in chosen:
        if entry in kept:
            continue
        try:
            edgeopt.run(shipped_recipe(entry), out=folder, console=Console(stderr=True))
        except EdgeoptError as error:
            print(f"{entry} was not run: {error}", flush=True)
        else:
            yield entry


# ---- what is kept --------------------------------------------------------------------------------------------------


def read_published(file: Path) -> dict[str, list[Experiment]]:
    """The experiments of each system, by its name and title."""
    return {
        f"{system['name']}: {system['title']}": [
            Experiment(
                each["title"],
                each["published_on"],
                tuple(Figure(**figure) for figure in each["published"]),
                tuple(each["recipes"]),
            )
            for each in system["experiments"]
        ]
        for system in tomllib.loads(file.read_text())["systems"]
    }


def read_kept(file: Path) -> dict[str, Run]:
    """The runs that were read before."""
    if not file.exists():
        return {}
    kept = json.loads(file.read_text())
    return {
        name: Run(**{**run, "figures": tuple(Figure(**each) for each in run["figures"])}) for name, run in kept.items()
    }


def write_kept(file: Path, runs: Mapping[str, Run]) -> None:
    """Keeps the runs, in the order of their names."""
    file.write_text(json.dumps({name: asdict(runs[name]) for name in sorted(runs)}, indent=1) + "\n")


# ---- the page ------------------------------------------------------------------------------------------------------

HEAD = """# Results

Written by `python benchmarks/results.py`, from the reports of runs of the shipped recipes. Figures of the systems that edgeopt grows out of
stand first, as they published them, with the data that they had. Ours stand below, each with its data, its machine and its
commit.

What can be compared and what cannot: accuracy on one data set says nothing of another, and milliseconds of one machine nothing of another. A
published row and one of ours are comparable where both name the same data. Rows of one run are always comparable with each other: ours are
measured on a test split that no pass has seen, on the file that ships, in its own runtime, with one thread. The interval is Wilson's, at
95 %. "With" stands for `--set`; the whole commands are in `benchmarks/published.toml`.
"""


def page(systems: Mapping[str, Sequence[Experiment]], runs: Mapping[str, Run]) -> str:
    """The page, as Markdown."""
    recipes = {recipe for experiments in systems.values() for each in experiments for recipe in each.recipes}
    parts = [HEAD, f"{len(recipes & set(runs))} of {len(recipes)} recipes were run so far.\n"]
    for title, experiments in systems.items():
        parts.append(f"## {title}\n")
        parts += [_experiment(each, runs) for each in experiments]
    return "\n".join(parts)


def _experiment(experiment: Experiment, runs: Mapping[str, Run]) -> str:
    lines = [
        f"### {experiment.title}",
        "",
        "| | accuracy | size | latency, p50 | |",
        "|---|---|---|---|---|",
        f"| **published**; data: {experiment.published_on} | | | | |",
        *[_line(figure) for figure in experiment.published or [Figure("no figure")]],
    ]
    for recipe in experiment.recipes:
        run = runs.get(recipe)
        path, overrides = parts_of(recipe)
        changed = [f"`{each}`" for each in overrides if not each.startswith(("name=", "gates."))]
        link = f"[{path}](../recipes/{path}.toml)" + (f" with {', '.join(changed)}" if changed else "")
        if run is None:
            lines.append(f"| **{link}** | not run | | | |")
            continue
        lines.append(f"| **{link}**; data: {run.data} | | | | {run.machine}; commit {run.commit}; {run.finished} |")
        lines += [_line(figure) for figure in run.figures]
    if not experiment.recipes:
        lines.append("| **no recipe yet** | | | | |")
    return "\n".join(lines) + "\n"


def _line(figure: Figure) -> str:
    accuracy = "" if figure.accuracy is None else f"{100 * figure.accuracy:.2f} %"
    size = "" if figure.size_mb is None else f"{figure.size_mb:.2f} MB"
    latency = "" if figure.latency_ms is None else f"{figure.latency_ms:.2f} ms"
    return f"| {figure.what} | {accuracy} | {size} | {latency} | {figure.note} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the runs, and writes what is kept and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of results, as `edgeopt run --out` takes it"
    )
    parser.add_argument("--run", metavar="PATTERN", help="run the recipes that it matches and that have no run yet")
    parser.add_argument("--kept", type=Path, default=KEPT, help="file in which figures are kept")
    parser.add_argument("--page", type=Path, default=PAGE, help="page that is written")
    given = parser.parse_args(arguments)
    systems = read_published(PUBLISHED)
    entries = [entry for experiments in systems.values() for each in experiments for entry in each.recipes]
    entries = list(dict.fromkeys(entries))
    registry = load_registry()
    runs = {**read_kept(given.kept), **collect(given.runs, entries, registry)}

    def write() -> None:
        write_kept(given.kept, runs)
        given.page.write_text(page(systems, runs))

    write()
    if given.run is not None:
        for entry in run_missing(given.run, entries, set(runs), given.runs):
            runs |= collect(given.runs, [entry], registry)
            write()
    print(f"{len(runs)} of {len(entries)} recipes are in {given.page}")


if __name__ == "__main__":
    main()
