"""Several recipes: one after the other in this process, or side by side in processes of their own.

Each fails alone. What they have in common, such as a training, is made once: they share a store, in which a stage that
one of them is making is waited for by the others.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.bench.recipe_process import Bug, RecipeJob, RecipeOutcome, outcome_of
from edgeopt.cores import usable_cores
from edgeopt.errors import Problem, UserError, WorkerError
from edgeopt.json_values import from_text
from edgeopt.pipeline import runner
from edgeopt.pipeline.cluster import require_same, shipped
from edgeopt.pipeline.request import RunRequest
from edgeopt.pipeline.runner import store_of
from edgeopt.recipe.own_plugins import own_plugin_files
from edgeopt.recipe.read import read_recipe
from edgeopt.workers.on_ray import OnRay
from edgeopt.workers.places import Errand, Places, Processes

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console

LOG = "process.log"
"""What the process of a recipe, and not its run, printed: in the run's folder."""


@dataclass(frozen=True)
class Several:
    """Recipes, files each, that are run as `request` says, but for its own recipe; by `workers` at once, each on
    `cores` processors of its own.
    """

    recipes: tuple[Path, ...]
    request: RunRequest
    workers: int
    cores: int
    is_shipped: bool = False

    @classmethod
    def here(cls, recipes: Sequence[Path], request: RunRequest, workers: int) -> Several:
        """Recipes that are run on this machine, whose processors the workers divide."""
        return cls(tuple(recipes), request, workers, max(1, usable_cores() // workers))

    @classmethod
    def on_nodes(cls, recipes: Sequence[Path], request: RunRequest, workers: int, cores: int) -> Several:
        """Recipes that are run on nodes which see the results alone: recipes and plugins go along."""
        out = request.out.resolve()
        request = replace(request, out=out, plugin_files=shipped(store_of(out), request.plugin_files))
        return cls(tuple(recipes), request, workers, cores, is_shipped=True)

    def require_same(self, place: OnRay) -> None:
        """Raises `UserError` where a node is not as this machine is; a recipe that is wrong is told at its turn."""
        for recipe in self.recipes:
            try:
                request = self._request(recipe)
                read = runner.check(recipe, overrides=request.overrides, plugin_files=request.plugin_files).recipe
            except UserError:
                continue
            require_same(place, store_of(request.out), read.to_json(), request.plugin_files)

    def one_by_one(self, console: Console, ended: Callable[[RecipeOutcome], None]) -> tuple[RecipeOutcome, ...]:
        """Runs them in this process; `ended` is told of each."""
        outcomes = []
        for recipe in self.recipes:
            console.print(str(recipe), style="bold", markup=False, highlight=False, soft_wrap=True)
            outcomes.append(_kept(recipe, partial(outcome_of, recipe, self._request(recipe), console)))
            ended(outcomes[-1])
        return tuple(outcomes)

    def side_by_side(self, places: Places, console: Console) -> tuple[RecipeOutcome, ...]:
        """Runs them in `places`, and says of each when it has ended."""
        with ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(self._elsewhere, recipe, places, console) for recipe in self.recipes]
            try:
                return tuple(future.result() for future in futures)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                places.end()
                raise

    def _elsewhere(self, recipe: Path, places: Places, console: Console) -> RecipeOutcome:
        start = time.perf_counter()
        outcome = _kept(recipe, lambda: self._done(recipe, places))
        said = "done  " if outcome.is_done else "failed"
        line = f"{said}  {recipe}  {time.perf_counter() - start:.1f} s"
        console.print(line, style="" if outcome.is_done else "red", markup=False, highlight=False, soft_wrap=True)
        return outcome

    def _done(self, recipe: Path, places: Places) -> RecipeOutcome:
        request, name = self._request(recipe), read_recipe(recipe, self.request.overrides).name
        folder, store = request.out / (f"{name}-smoke" if request.smoke else name), store_of(request.out)
        outcome = folder / "outcome.json"
        outcome.unlink(missing_ok=True)
        text = recipe.read_text(encoding="utf-8-sig") if self.is_shipped else None
        job = RecipeJob.of(request, outcome, self.cores, text)
        places.do(Errand(job, str(recipe), store.root / "jobs", folder / LOG), lambda worker, event: None)  # noqa: ARG005
        try:
            return from_text(RecipeOutcome, outcome.read_text(encoding="utf-8"))
        finally:
            outcome.unlink(missing_ok=True)

    def _request(self, recipe: Path) -> RunRequest:
        request = replace(self.request, recipe=recipe)
        own = own_plugin_files(read_recipe(recipe, request.overrides)) if self.is_shipped else ()
        if not own:
            return request
        copies = [str(copy) for copy in shipped(store_of(request.out), own)]
        return replace(request, overrides=(*request.overrides, f"plugins={json.dumps(copies)}"))


def run_several(
    several: Several, console: Console, ended: Callable[[RecipeOutcome], None], places: Places | None = None
) -> tuple[RecipeOutcome, ...]:
    """Runs all recipes, and says what became of each, in their order. They are run in this process where there is one
    worker and no other place; `ended` is told of each of these.

    Raises `UserError` where two of them would write to one folder, and for a bucket that cannot be used.
    """
    _require_names(several.recipes, several.request.overrides)
    if several.request.bucket:  # once for all: each fails alone
        several = replace(several, request=replace(several.request, bucket=several.request.bucket.tried()))
    if places is None and several.workers == 1:
        return several.one_by_one(console, ended)
    return several.side_by_side(places or Processes(), console)


def _kept(recipe: Path, run: Callable[[], RecipeOutcome]) -> RecipeOutcome:
    """What became of a recipe; what kept it from being run is its own."""
    try:
        return run()
    except UserError as error:
        return RecipeOutcome(recipe, problems=error.problems)
    except WorkerError as error:
        return RecipeOutcome(recipe, bugs=(Bug.of(error),))


def _require_names(recipes: Sequence[Path], overrides: Sequence[str]) -> None:
    names: dict[Path, str] = {}
    for recipe in recipes:
        try:
            names[recipe] = read_recipe(recipe, overrides).name
        except UserError:
            continue  # it is told when its turn comes
    if len(set(recipes)) < len(recipes):
        raise UserError(Problem("a recipe is named twice", "name each once"))
    for name, count in Counter(names.values()).items():
        if count > 1:
            files = ", ".join(str(file) for file, its in names.items() if its == name)
            hint = "give each a name of its own, for its folder of results"
            raise UserError(Problem(f"{count} recipes have the name {name!r}: {files}", hint))
