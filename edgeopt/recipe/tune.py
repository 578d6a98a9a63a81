"""What a study of a recipe looks for: the `[tune]` table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from edgeopt.option_values import without_usual
from edgeopt.options import Options
from edgeopt.recipe.gates import ScoreGates


class Sampler(StrEnum):
    """By what the next trial is proposed."""

    TPE = "tpe"
    NSGA2 = "nsga2"
    RANDOM = "random"


class Goal(ScoreGates):
    """What every file that ships must reach on the validation images: the `[tune.goal]` table. Keys `SCORE` and
    `SCORE_drop` name a score of the task, as in `accuracy = 0.95` and `accuracy_drop = 0.01`; a drop counts from the
    float model of the recipe as it stands.
    """

    agreement: float | None = Field(None, ge=0, le=1, description="smallest agreement of a file with its program")
    bytes: int | None = Field(None, gt=0, description="largest size of a file")
    size_ratio: float | None = Field(
        None, gt=0, description="least times by which a file is smaller than the float file of the recipe as it stands"
    )
    latency_ms: float | None = Field(None, gt=0, description="largest p50 latency")
    latency_ratio: float | None = Field(
        None, gt=0, description="largest p50 latency against that of the float file of the recipe as it stands"
    )
    memory_bytes: int | None = Field(None, gt=0, description="largest peak memory of a file")
    energy_mj: float | None = Field(None, gt=0, description="largest energy of an image, mJ; see `energy` of [measure]")
    device: str | None = Field(
        None,
        description="one of [[devices]], where latency, energy and scores are measured; this machine when left out",
    )

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A study that does not ask for energy keeps the key that it had before one could."""
        return without_usual(self, write(self), ("energy_mj",))

    @property
    def bounds(self) -> Mapping[str, float]:
        """What is bounded, by its name; nothing where only the least is looked for."""
        return self.model_dump(exclude_none=True, exclude={"device"})


class Halving(Options):
    """Trials that are stopped early: the `[tune.halving]` table."""

    rungs: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = Field(
        (0.25, 0.5),
        min_length=1,
        description="where trials are compared, as shares of the epochs of all passes that differ and train, rising",
    )
    keep: float = Field(
        0.5,
        gt=0.0,
        lt=1.0,
        description="share of the trials at a rung that goes on: the best by score on validation images, counted among "
        "those whose files are no larger, slower or whatever is to be least",
    )

    @model_validator(mode="after")
    def _rise(self) -> Halving:
        if sorted(set(self.rungs)) != list(self.rungs):
            raise ValueError(f"rungs rise, and {', '.join(map(str, self.rungs))} do not")
        return self


class RaySettings(Options):
    """A cluster of Ray on which trials are made, and what each trial has of a node: the `[tune.ray]` table."""

    address: str = Field(
        "auto",
        description='"auto" for a cluster that is running here, as "ray start" leaves one, "local" for one that is '
        'started here for the study, or "ray://HOST:PORT"',
    )
    cpus: float = Field(1.0, gt=0, le=1024, description="processors of each trial")
    gpus: float = Field(0.0, ge=0, le=1024, description="GPUs of each trial, or a share of one; it sees no others")
    resources: Mapping[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="what else each trial needs of what nodes were started with, as a device: { pi = 1 }",
    )
    retries: int = Field(3, ge=0, le=1000, description="how often a trial whose process or node dies is begun again")
    bucket: str | None = Field(
        None,
        min_length=1,
        description="nodes share no disk with this machine, and share results of stages through this address, which "
        'fsspec opens, as "s3://BUCKET/FOLDER"; all share the folder of results when left out',
    )


class TuneSettings(Options):
    """A study: a goal, what is to be least where it is reached, and what may be changed for it."""

    goal: Goal = Field(default_factory=Goal, description="what the files must reach")
    minimize: str | tuple[str, ...] = Field(
        "bytes",
        description='what is to be least: "bytes", "latency_ms", "memory_bytes", "energy_mj" or a SCORE_drop; '
        "several for a Pareto front",
    )
    trials: int = Field(30, ge=1, le=1_000_000, description="most trials")
    minutes: float | None = Field(
        None, gt=0, description="longest time for all trials together; no bound when left out"
    )
    sampler: Sampler = Field(
        Sampler.TPE, description='"tpe" learns from every trial, "nsga2" breeds a Pareto front, "random" draws blindly'
    )
    at_once: int = Field(
        1,
        ge=1,
        le=10_000,
        description="trials that are proposed without knowing each other's ends, so that several can work; "
        "what a study tries depends on it, and not on who works",
    )
    workers: Annotated[int, Field(ge=1, le=1024)] | Literal["ray"] = Field(
        1,
        description="how many trials are made at once on this machine, each in a process with its share of the "
        'processors, at most `at_once` of them; or "ray", for `at_once` trials on a cluster, see [tune.ray]',
    )
    ray: RaySettings | None = Field(None, description='the cluster, where workers = "ray"')
    halving: Halving | None = Field(
        None, description="stops trials early that others are ahead of; every trial is trained in full when left out"
    )
    seed: int | None = Field(None, ge=0, lt=2**32, description="seed of the proposals; the recipe's when left out")
    space: Mapping[str, Any] = Field(
        default_factory=dict,
        description='what may change, by the place in the recipe: "model.arch" = ["a", "b"], "passes.NAME.option" = '
        "{ low = 0.3, high = 1.0 }, or {} for all that the option allows; a whole pass is left out by "
        '"passes.NAME" = { optional = true }',
    )

    @model_validator(mode="after")
    def _has_a_use_for_the_cluster(self) -> TuneSettings:
        if self.ray is not None and self.workers != "ray":
            raise ValueError('[tune.ray] is for workers = "ray"')
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is not asked for is not told: studies keep the keys that they had before there was this."""
        return without_usual(self, write(self), ("halving", "at_once", "workers", "ray"))

    @property
    def cluster(self) -> RaySettings | None:
        """The cluster on which trials are made; None where that is this machine alone."""
        return (self.ray or RaySettings()) if self.workers == "ray" else None

    @property
    def least(self) -> tuple[str, ...]:
        """What is to be least, the most important first."""
        return (self.minimize,) if isinstance(self.minimize, str) else self.minimize
