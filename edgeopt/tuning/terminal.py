"""A study in the terminal: what it would do, how a trial ended, and what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.tuning.figures import objective_told, reached_told, values_told
from edgeopt.tuning.outlook import Outlook
from edgeopt.tuning.plan import Study
from edgeopt.tuning.sharing import Sharing, notes
from edgeopt.tuning.trials import Ending, Trial
from edgeopt.tuning.winner import front, misses

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console

    from edgeopt.tuning.result import TuneResult

_SHOWN = 12  # trials of the front
_REASONS = 3  # for which recipes are refused


def outcome(trial: Trial, study: Study) -> str:
    """How a trial ended, in a few words."""
    if trial.reason is not None:
        return f"{trial.ending}: {trial.reason}"
    told = reached_told(trial, study)
    again = ", as before" if trial.ending is Ending.REPEATED else ""
    return f"{told}{again}" if trial.reaches_goal else f"{told}; misses the goal: {misses(trial)}{again}"


def render_plan(study: Study, outlook: Outlook, console: Console) -> None:
    """What a study would do: the goal, the space, how large it is, what its trainings cost, and what cannot run."""
    from rich.table import Table

    settings = study.settings
    goal = settings.goal.model_dump(exclude_none=True)
    console.print(
        f"goal      {', '.join(f'{name} {value}' for name, value in goal.items()) or 'none'}", highlight=False
    )
    console.print(f"minimize  {', '.join(settings.least)}", highlight=False)
    minutes = f" or {settings.minutes:g} minutes" if settings.minutes else ""
    console.print(f"trials    {settings.trials}{minutes}, proposed by {settings.sampler}", highlight=False)
    console.print(f"at once   {Sharing.of(settings).told}", highlight=False)
    table = Table("parameter", "values", "how many", "the recipe has")
    for each in study.space.parameters:
        count = each.scale.count
        standing = "" if study.standing is None else str(study.standing.get(each.name, ""))
        name = f"{each.name} is there" if each.is_presence else each.name
        table.add_row(name, each.scale.told(), "any" if count is None else str(count), standing)
    console.print(table)
    count = study.space.count
    console.print(f"{'any number of' if count is None else count} recipes in all", highlight=False)
    if study.standing is None:
        console.print("the recipe as it stands is not among them; it is run once, to be compared with", highlight=False)
    for line in _told(outlook, settings.trials):
        console.print(line, markup=False, soft_wrap=True, highlight=False)
    for note in notes(study.recipe, settings):
        console.print(f"note  {note}", markup=False, soft_wrap=True, highlight=False)


def _told(outlook: Outlook, trials: int) -> Iterator[str]:
    """What trials cost in epochs, and the recipes that are refused."""
    looked_at = f"the {outlook.recipes} recipes" if outlook.is_whole else f"{outlook.recipes} recipes drawn at random"
    if outlook.trainings:
        each = f"{outlook.least}" if outlook.least == outlook.most else f"{outlook.least} to {outlook.most}"
        yield f"cost      {each} epochs a trial, {trials * outlook.most:,} at most for {trials} trials"
        yield (
            f"          {looked_at} have {outlook.trainings} training{'s' * (outlook.trainings > 1)} of "
            f"{outlook.together:,} epochs between them, and {outlook.alone:,} epochs if each made its own; "
            f"in the store: {outlook.kept}"
        )
    if not outlook.refused:
        yield f"refused   none of {looked_at}"
        return
    yield f"refused   {outlook.refused} of {looked_at}: a trial of these fails before anything is trained"
    for refusal in outlook.refusals[:_REASONS]:
        yield f"          {refusal.recipes}, as with {values_told(refusal.values)}: {refusal.reason}"
    if len(outlook.refusals) > _REASONS:
        yield f"          and for {len(outlook.refusals) - _REASONS} other reasons"


def render(result: TuneResult, console: Console, files: Sequence[Path]) -> None:
    """What was found: the front or the best, how trials ended, and the winner on test images."""
    from rich.table import Table

    study, minimize = result.study, result.study.settings.least
    shown = front(result.trials)[:_SHOWN] or ((result.best,) if result.best else ())
    table = Table("trial", "values", *(f"least {name}" for name in minimize), "reaches")
    for each in shown:
        least = [
            objective_told(name, value, study.kinds) for name, value in zip(minimize, each.objectives, strict=True)
        ]
        table.add_row(str(each.number), values_told(each.values), *least, reached_told(each, study))
    console.print(table)
    endings = {ending: sum(each.ending is ending for each in result.trials) for ending in Ending}
    told = ", ".join(f"{count} {ending}" for ending, count in endings.items() if count)
    console.print(f"{result.ended}: {told}", highlight=False)
    if result.best is not None and not result.reaches_goal:
        console.print(f"no trial reaches the goal; trial {result.best.number} is the nearest: {misses(result.best)}")
    if result.run is not None and result.best is not None:
        console.print(
            f"trial {result.best.number} was chosen on validation images; on test images, which no trial saw:",
            highlight=False,
        )
        for row in result.run.report.rows:
            for score in row.scores[:1]:
                low, high = (score.kind.text(end) for end in score.interval)
                told = (
                    f"  {row.export} {row.precision} ({row.role})  {score.kind.called} {score.text} ({low} to {high})"
                )
                console.print(told, highlight=False)
    for file in files:
        console.print(str(file), markup=False, soft_wrap=True, highlight=False)
