"""How many trials of a study work at once, and what each of them has. Light."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeopt.cores import usable_cores
from edgeopt.recipe.read import Recipe
from edgeopt.recipe.tune import TuneSettings

_THREADS = ("threads", "loader_workers")


@dataclass(frozen=True)
class Sharing:
    """`workers` trials at once, each on `cores` processors of its own, of `usable` ones; on a cluster, whose nodes
    nobody knows before it is asked, `usable` is None.
    """

    workers: int
    cores: int
    usable: int | None

    @classmethod
    def of(cls, settings: TuneSettings) -> Sharing:
        """What a study asks for."""
        if settings.cluster is not None:
            return cls(settings.at_once, max(1, round(settings.cluster.cpus)), None)
        asked = settings.workers if isinstance(settings.workers, int) else 1
        workers, usable = min(asked, settings.at_once), usable_cores()
        return cls(workers, max(1, usable // workers), usable)

    @property
    def told(self) -> str:
        """In words."""
        if self.usable is None:
            what = f"{self.workers} trial{'s' * (self.workers > 1)}"
            return f"{what} on a cluster of Ray, each on {self.cores} processor{'s' * (self.cores > 1)} of a node"
        if self.workers == 1:
            return "1 trial, on all processors"
        return f"{self.workers} trials, each on {self.cores} of {self.usable} processors; latencies are measured alone"


def notes(recipe: Recipe, settings: TuneSettings) -> Iterator[str]:
    """What a study asks for and should think twice about, each with its place in the recipe."""
    sharing = Sharing.of(settings)
    if isinstance(settings.workers, int) and settings.workers > settings.at_once:
        yield (
            f"{_at(recipe, 'tune', 'workers')}tune.workers = {settings.workers}, and tune.at_once = {settings.at_once} "
            f"trials are proposed at once: the others have nothing to do; set at_once = {settings.workers}."
        )
    if sharing.usable is not None and sharing.workers > sharing.usable:
        yield (
            f"{_at(recipe, 'tune', 'workers')}tune.workers = {settings.workers}, and this process may use "
            f"{sharing.usable} processor{'s' * (sharing.usable > 1)}: trials wait for one another; "
            f"set it to {sharing.usable} at most."
        )
    for name in _THREADS if sharing.workers > 1 or sharing.usable is None else ():
        asked = getattr(recipe.trainer, name)
        if asked is not None and asked > sharing.cores:
            yield (
                f"{_at(recipe, 'trainer', name)}trainer.{name} = {asked}, and each of {sharing.workers} trials at once "
                f"has {sharing.cores} processor{'s' * (sharing.cores > 1)}: its threads wait for one another; "
                f"set it to {sharing.cores} at most, or fewer workers."
            )


def _at(recipe: Recipe, *key: str) -> str:
    where = recipe.locate(*key)
    return f"{where}: " if where else ""
