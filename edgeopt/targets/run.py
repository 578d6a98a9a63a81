"""Asks an accelerator about the files of a recipe: the parent, which plans, looks results up and lets a worker ask.

```
recipe ─▶ data ─▶ model ─▶ passes ─▶ program ─▶ accelerator, asked      all of few images, as in a smoke run
```
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgeopt.errors import MissingExtraError, Problem, StorageError, UserError, did_you_mean
from edgeopt.files import storage_errors
from edgeopt.fingerprint import versions_of
from edgeopt.json_values import from_text
from edgeopt.pipeline.job import StagesJob, hand_over_plan, missing_stages, trunk_jobs
from edgeopt.pipeline.runner import check, run_folder, store_of
from edgeopt.plugins.accelerator import Accelerator
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.handed import hand_over
from edgeopt.plugins.registry import missing_problem
from edgeopt.plugins.use import Use
from edgeopt.recipe.lookup import checked, numerics_of, resolve
from edgeopt.recipe.plan import Plan
from edgeopt.recipe.stage import StageKind
from edgeopt.targets.asked import Outcome, Question
from edgeopt.types import Role
from edgeopt.workers.holders import at_work
from edgeopt.workers.pool import Workers
from edgeopt.workers.store import Store

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console

OUTCOME = "outcome.json"


@dataclass(frozen=True)
class Questions:
    """Everything that a worker asks."""

    all: tuple[Question, ...]


@dataclass(frozen=True)
class TargetJob:
    """What a worker is to do: the missing stages of `job`, and then the `Questions` that a file holds."""

    module: ClassVar[str] = "edgeopt.targets.worker"

    job: StagesJob
    questions: Path


@dataclass(frozen=True)
class TargetResult:
    """The outcome of each question, and what is refused of the files that the recipe asks for, with their lines."""

    target: str
    outcomes: tuple[tuple[Question, Outcome], ...]
    problems: tuple[Problem, ...]


def ask_target(
    recipe: Path,
    target: str,
    *,
    overrides: Iterable[str] = (),
    out: Path = Path("runs"),
    plugin_files: Iterable[Path] = (),
    console: Console | None = None,
) -> TargetResult:
    """Asks what the accelerator `target` takes of each file of a recipe that it could run; where the recipe makes none,
    of the file of an exporter as it comes.

    The program is made as a smoke run makes it, of few images, and kept in the store below `out` with the answers.
    Nothing is shown without a `console`.

    Raises `UserError` for mistakes, `WorkerError` for bugs and crashes.
    """
    plan = check(recipe, overrides=overrides, smoke=True, devices=False, plugin_files=tuple(plugin_files))
    questions = tuple(_questions(plan, target))
    store, folder = store_of(out), run_folder(plan, out) / f"target-{target}"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        store.root.mkdir(parents=True, exist_ok=True)
    at_once = {question.key: outcome for question in questions if (outcome := _refused_at_once(plan, question))}
    asked = [question for question in questions if question.key not in at_once]
    keys = {*(stage.key for stage in plan.stages.values()), *(question.key for question in asked)}
    with at_work(store.root, keys, f"target of {folder}"):
        if missing := tuple(question for question in asked if store.find(question.key) is None):
            _work(plan, store, missing, folder / "log.txt", console)
        outcomes = tuple((question, at_once.get(question.key) or _kept(store, question)) for question in questions)
    return TargetResult(target, outcomes, tuple(_problems(plan, target, outcomes)))


def accelerator_of(plugin: ExporterPlugin, target: str) -> Accelerator | None:
    """The accelerator of that name among those that run an exporter's files."""
    return next((each for each in plugin.accelerators if each.name == target), None)


def _questions(plan: Plan, target: str) -> Iterator[Question]:
    exporters = [
        entry.plugin
        for entry in plan.registry
        if isinstance(entry.plugin, ExporterPlugin) and entry.plugin.framework == plan.framework
    ]
    able = [plugin for plugin in exporters if accelerator_of(plugin, target)]
    if not able:
        raise UserError(_unknown(target, exporters, plan.framework))
    of_step = {planned.step: planned for planned in plan.exports}  # the last of a step has the recipe's options
    mine = [planned for planned in of_step.values() if accelerator_of(planned.use.plugin, target)]
    for planned in mine:
        yield _question(plan, target, planned.use, planned.folder, planned.step, planned.role, planned.program_stage)
    if not mine:
        *_, program = (stage for stage in plan.stages.values() if stage.kind is StageKind.PROGRAM)
        use = resolve(ExporterPlugin, able[0].name, {}, plan.registry)
        yield _question(plan, target, use, use.plugin.name, None, plan.roles[-1], program.name)


def _question(
    plan: Plan, target: str, use: Use[ExporterPlugin], called: str, step: int | None, role: Role, program: str
) -> Question:
    accelerator = accelerator_of(use.plugin, target)
    assert accelerator is not None  # its exporter was chosen for it
    if missing := missing_problem(accelerator):
        raise MissingExtraError(missing)
    key = plan.key_of(use, plan.stages[program].key, "target", target, dict(versions_of(accelerator.requires)))
    return Question(target, use, called, step, role, program, key)


def _unknown(target: str, exporters: Sequence[ExporterPlugin], framework: str) -> Problem:
    known = sorted({each.name for plugin in exporters for each in plugin.accelerators})
    if not known:
        return Problem(f"--target {target}: no exporter of {framework} says what an accelerator takes of its files")
    close = did_you_mean(target, known)
    listed = f"known: {', '.join(known)}"
    hint = listed if close in (None, listed) else f"{close} {listed}"
    return Problem(f"--target {target}: there is no such target", hint)


def _refused_at_once(plan: Plan, question: Question) -> Outcome | None:
    """What an exporter that the recipe does not name refuses of it; one that it names has been asked by the plan."""
    numerics = numerics_of(plan.passes_of(question.role), plan.framework)
    problems = checked(question.use, numerics) if question.step is None else []
    return Outcome(refused="; ".join(problem.message for problem in problems)) if problems else None


def _work(plan: Plan, store: Store, questions: tuple[Question, ...], log: Path, console: Console | None) -> None:
    from rich.console import Console as RichConsole  # shown things are loaded only when there is something to show

    from edgeopt.workers.display import Display

    store.sweep()
    programs = [plan.stages[question.program_stage] for question in questions]
    missing = missing_stages(plan, [plan.stages["data"], *programs], lambda stage: store.find(stage.key))
    *earlier, last = trunk_jobs(plan, missing) or [[]]
    threads = plan.recipe.trainer.threads
    with Display(console or RichConsole(quiet=True)) as display, Workers(store.root / "jobs", log, display) as workers:
        handed = hand_over_plan(plan, store, workers.folder)
        for stages in earlier:
            workers.run(handed.job(stages, log.name), "run", threads)
        file = workers.folder / "questions.pickle"
        hand_over(Questions(questions), file, plan.registry)
        workers.run(TargetJob(handed.job(last, log.name), file), "target", threads)


def _kept(store: Store, question: Question) -> Outcome:
    result = store.find(question.key)
    if result is None:
        raise StorageError(f"the answer has gone from {store.root}", hint="start it again")
    return from_text(Outcome, (result.folder / OUTCOME).read_text(encoding="utf-8"))


def _problems(plan: Plan, target: str, outcomes: Iterable[tuple[Question, Outcome]]) -> Iterator[Problem]:
    for question, outcome in outcomes:
        if question.step is not None and (refusals := outcome.refusals):
            yield Problem(
                f"{target} refuses {question.called}: {'; '.join(refusals)}",
                "change the model or the passes, or leave this target to another file",
                location=plan.recipe.locate("exports", question.step),
            )
