"""Shape to plan: every plugin found, every option checked, every stage keyed, and all errors at once.

Nothing heavy is imported and no image is read here. `edgeopt check` is this module; `edgeopt run` goes on from it.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from edgeopt.arrays import Json
from edgeopt.errors import Problem, RecipeError
from edgeopt.options import MeasureSettings, TrainerSettings, to_json
from edgeopt.plugins.contexts import FULL_BUDGET, SMOKE_BUDGET, Budget
from edgeopt.plugins.declarations import (
    DatasetPlugin,
    DevicePlugin,
    ExporterPlugin,
    ModelPlugin,
    PassPlugin,
    TaskPlugin,
)
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.use import Use, references
from edgeopt.recipe.cache_keys import Keys, report_source
from edgeopt.recipe.endings import check_endings
from edgeopt.recipe.energy import check_energy
from edgeopt.recipe.images import check_images
from edgeopt.recipe.lookup import Lookup, float_options, surveyed
from edgeopt.recipe.read import Recipe
from edgeopt.recipe.stage import JudgedOn, PlannedExport, Stage, StageKind
from edgeopt.recipe.tasks import check_augmentation, check_gates, check_recall, check_task
from edgeopt.tasks import DEFAULT as DEFAULT_TASK
from edgeopt.tasks.base import Task
from edgeopt.toml_lines import Key
from edgeopt.types import DataSurvey, FoundData, Role

#: What of `[trainer]` says how fast work is done, and not what comes out of work that does no training.
PACE = ("threads", "loader_workers")


@dataclass(frozen=True)
class Plan:
    """A recipe that can run. `stages` are all of it by name, each after those it needs; `found` is what the one look at
    the data set found, where its plugin looks, and the data stage alone reads it. With `without_devices`, no file is
    taken to a device.
    """

    recipe: Recipe
    registry: Registry
    dataset: Use[DatasetPlugin]
    model: Use[ModelPlugin]
    task_use: Use[TaskPlugin]
    passes: tuple[Use[PassPlugin], ...]
    exports: tuple[PlannedExport, ...]
    budget: Budget
    smoke: bool
    data_fingerprint: str
    devices: tuple[Use[DevicePlugin], ...] = ()
    without_devices: bool = False
    judged_on: JudgedOn = JudgedOn.TEST
    measures_fully: bool = False
    found: FoundData | None = field(default=None, repr=False)
    stages: Mapping[str, Stage] = field(default_factory=dict)

    @property
    def baseline_passes(self) -> int:
        """How many passes make the float model that the optimized one is compared with."""
        return next((index for index, use in enumerate(self.passes) if use.plugin.optimizes), len(self.passes))

    @property
    def task(self) -> Task:
        """What the recipe is for."""
        return self.task_use.plugin.made(self.task_use.options)

    @property
    def told_task(self) -> dict[str, Json]:
        """The task as locks, cards and reports record it: nothing where it is the one that all recipes once had."""
        plain = self.recipe.task is None and self.task_use.plugin.name == DEFAULT_TASK
        return {} if plain else {"task": self.task_use.to_json()}

    @property
    def framework(self) -> str:
        """The framework of the recipe's model."""
        return self.model.plugin.framework

    def survey(self) -> DataSurvey | None:
        """The classes and counts of the data set, where it can tell them without reading an image."""
        return surveyed(self.dataset, self.found)

    @property
    def roles(self) -> tuple[Role, ...]:
        """The models that are captured: the float one, and the optimized one where a pass optimizes."""
        optimizes = self.baseline_passes < len(self.passes)
        return (Role.BASELINE, Role.OPTIMIZED) if optimizes else (Role.BASELINE,)

    def program_role(self, file: Role) -> Role:
        """The model behind a file: where only the exporter optimizes, both files come from the float one."""
        return file if file in self.roles else Role.BASELINE

    @property
    def uses(self) -> tuple[Use[Any], ...]:
        """Every plugin that the recipe uses, references in options included."""
        exports = {planned.step: planned.use for planned in self.exports}  # the last of a step has the recipe's options
        task = [self.task_use] if self.told_task else []
        direct: list[Use[Any]] = [self.dataset, self.model, *task, *self.passes, *exports.values()]
        return tuple(direct + [inner for use in direct for inner in references(use)])

    @property
    def float_stage(self) -> Stage:
        """The stage that ends with the float model."""
        last = [stage for stage in self.stages.values() if stage.kind in (StageKind.MODEL, StageKind.PASS)]
        return last[self.baseline_passes]

    def key_of(self, use: Use[Any] | None, *parts: Json) -> str:
        """A key for a result that is made with a plugin, or with none, of all that it depends on."""
        return Keys(self.registry).key(use, *parts, framework=self.framework)

    def trainer_of(self, index: int) -> TrainerSettings:
        """What pass `index` is given of the recipe's `[trainer]`: all of it where it trains."""
        trainer = self.recipe.trainer
        if self.passes[index].plugin.trains:
            return trainer
        return TrainerSettings(**{name: getattr(trainer, name) for name in ("accelerator", *PACE)})

    def passes_of(self, role: Role) -> tuple[Use[PassPlugin], ...]:
        """The passes that make the model of a role."""
        return self.passes[: self.baseline_passes] if role is Role.BASELINE else self.passes

    @property
    def measure(self) -> MeasureSettings:
        """How files are measured in this run; a smoke run only shows that they can be, unless it is for the shapes."""
        settings = self.recipe.measure
        return settings.only_shown() if self.smoke and not self.measures_fully else settings

    @property
    def named_devices(self) -> list[Json]:
        """The devices of the recipe with every option written out; they decide nothing of the files."""
        return [
            {**use.to_json(), "name": step.called} for step, use in zip(self.recipe.devices, self.devices, strict=True)
        ]

    def resolved(self) -> dict[str, Json]:
        """The recipe with every option written out, as the lock and the report record it; without devices."""
        steps = {planned.step: planned.use for planned in self.exports}  # the last of a step has the recipe's options
        return {
            "schema": self.recipe.schema_version,
            "name": self.recipe.name,
            "seed": self.recipe.seed,
            "baseline": self.recipe.baseline,
            **self.told_task,
            "dataset": self.dataset.to_json(),
            "model": self.model.to_json(),
            "passes": [use.to_json() for use in self.passes],
            "exports": [
                {**use.to_json(), "name": self.recipe.exports[index].folder} for index, use in sorted(steps.items())
            ],
            "trainer": to_json(self.recipe.trainer),
            "measure": to_json(self.recipe.measure),
            "gates": to_json(self.recipe.gates),
        }


def make_plan(recipe: Recipe, registry: Registry, *, smoke: bool = False, devices: bool = True) -> Plan:
    """Checks a recipe against the installed plugins. Without `devices`, its files are taken to none.

    Raises `RecipeError` with every problem: unknown plugins and options, values out of range, passes in an impossible
    order, two exports to one file, extras that are not installed, data that is not there.
    """
    lookup = Lookup(recipe.source, registry)
    dataset = lookup.use(DatasetPlugin, recipe.dataset, ("dataset",))
    model = lookup.use(ModelPlugin, recipe.model, ("model",))
    passes = [lookup.use(PassPlugin, step, ("passes", index)) for index, step in enumerate(recipe.passes)]
    exporters = [lookup.use(ExporterPlugin, step, ("exports", index)) for index, step in enumerate(recipe.exports)]
    there = [lookup.use(DevicePlugin, step, ("devices", index)) for index, step in enumerate(recipe.devices)]
    lookup.check_order(passes)
    lookup.check_kept(passes)
    lookup.check_folders(recipe.exports)
    lookup.check_devices(recipe.devices)
    lookup.check_device_gates(recipe.gates, recipe.devices)
    lookup.check_frameworks(model, passes, exporters)
    lookup.check_exports(model, passes, exporters)
    lookup.check_loggers(recipe.trainer.loggers)
    lookup.check_sweep(recipe.measure.sweep, model)
    task = check_task(lookup, recipe.task, dataset, model, passes)
    check_gates(lookup, recipe.gates, task, exporters)
    check_energy(lookup, recipe.measure, recipe.gates, recipe.devices)
    check_augmentation(lookup, dataset, task, passes)
    check_endings(lookup, exporters, task, dataset)
    check_images(lookup, dataset, model)
    found, fingerprint = lookup.look(dataset)
    if not lookup.problems:  # what a data set tells of itself may need packages or files that are not there
        check_recall(lookup, recipe.gates, task, dataset, found)
    if lookup.problems or dataset is None or model is None or task is None:
        raise RecipeError(*sorted(dict.fromkeys(lookup.problems), key=_place))
    plan = Plan(
        recipe=recipe,
        registry=registry,
        dataset=dataset,
        model=model,
        task_use=task,
        passes=tuple(use for use in passes if use is not None),
        exports=(),
        budget=SMOKE_BUDGET if smoke else FULL_BUDGET,
        smoke=smoke,
        data_fingerprint=fingerprint,
        devices=tuple(use for use in there if use is not None),
        without_devices=not devices,
        found=found,
    )
    plan = _with_exports(plan, [use for use in exporters if use is not None])
    return replace(plan, stages=stages_of(plan))


def _place(problem: Problem) -> tuple[bool, int]:
    return problem.location is None, (problem.location.line or 0) if problem.location else 0


def _with_exports(plan: Plan, exporters: list[Use[ExporterPlugin]]) -> Plan:
    """The plan with one planned file for each exporter and role.

    The float file of an exporter that converts by itself is made with that exporter's float options.
    """
    files = [
        (step, Use(use.plugin, options) if role is Role.BASELINE else use, role)
        for step, use in enumerate(exporters)
        for options in [float_options(use)]
        for role in _file_roles(plan, is_converted=options != use.options)
    ]
    exports = tuple(
        PlannedExport(use, step, number, role, plan.recipe.exports[step].folder, plan.program_role(role))
        for number, (step, use, role) in enumerate(files)
    )
    return replace(plan, exports=exports)


def _file_roles(plan: Plan, *, is_converted: bool) -> tuple[Role, ...]:
    roles = (Role.BASELINE, Role.OPTIMIZED) if is_converted else plan.roles
    return roles if plan.recipe.baseline else roles[-1:]


# ---- stages --------------------------------------------------------------------------------------------------------


def stages_of(plan: Plan) -> Mapping[str, Stage]:
    """The stages of a plan by their names, each after those it needs."""
    return {stage.name: stage for stage in _stages(plan)}


def _stages(plan: Plan) -> Iterable[Stage]:
    """The stages of a plan in an order in which they can run; each key covers all that its result depends on."""
    keys = Keys(plan.registry)
    key_of = partial(keys.key, framework=plan.framework)
    budget = [plan.budget.epochs, plan.budget.batches, plan.budget.images]
    augmentation = to_json(plan.dataset.options.augmentation)
    seed = plan.recipe.seed
    on = [] if plan.judged_on is JudgedOn.TEST else [plan.judged_on.value]

    data = Stage(
        StageKind.DATA,
        "data",
        f"data: {plan.dataset.plugin.name}",
        keys.key(
            plan.dataset, plan.data_fingerprint, plan.budget.images, keys.told(plan.task_use), without=["augmentation"]
        ),
        (),
        ("dataset",),
    )
    yield data
    model = Stage(
        StageKind.MODEL,
        "model",
        f"model: {plan.model.plugin.name}",
        key_of(plan.model, data.key, seed),
        (data.name,),
        ("model",),
    )
    yield model
    states = [model]
    for index, use in enumerate(plan.passes):
        before = states[-1]
        settings = plan.trainer_of(index).decisive()
        read: list[Json] = [settings, augmentation] if use.plugin.trains else [settings["accelerator"]]
        key = key_of(use, before.key, read, seed, index, budget)
        name = f"pass-{index}-{use.plugin.name}"
        states.append(
            Stage(StageKind.PASS, name, use.plugin.name, key, (data.name, before.name), ("passes", index), index)
        )
        yield states[-1]

    programs: dict[Role, Stage] = {}
    captured: dict[Role, str] = {}  # keys of programs without their answers, which no file is made of
    held_against = () if plan.measures_fully else (Role.BASELINE,)
    wanted = {planned.program_role for planned in plan.exports}.union(held_against)
    for role in (each for each in plan.roles if each in wanted):
        state = states[plan.baseline_passes] if role is Role.BASELINE else states[-1]
        captured[role] = key_of(None, state.key, data.key, "program")
        programs[role] = Stage(
            StageKind.PROGRAM,
            f"program-{role}",
            f"program: {role}",
            key_of(None, state.key, data.key, "program", *on),
            (data.name, state.name),
            ("model",),
            role=role,
        )
        yield programs[role]

    exports, verifies = [], []
    for planned in plan.exports:
        where: Key = ("exports", planned.step)
        label = f"{planned.folder}, {planned.role}"
        role = planned.program_role
        export_key = key_of(planned.use, captured[role], card_recipe(plan, role), str(planned.role))
        called = [plan.recipe.measure.threads, plan.recipe.measure.batch_size]
        verify_key = key_of(planned.use, export_key, data.key, called, "verify", *on)
        exports.append(
            Stage(
                StageKind.EXPORT,
                planned.export_stage,
                f"export: {label}",
                export_key,
                (data.name, planned.program_stage),
                where,
                planned.number,
                planned.role,
            )
        )
        verifies.append(
            Stage(
                StageKind.VERIFY,
                planned.verify_stage,
                f"verify: {label}",
                verify_key,
                (data.name, planned.program_stage, planned.export_stage),
                where,
                planned.number,
                planned.role,
            )
        )
    yield from exports
    yield from verifies
    measured, settings = (plan.recipe.measure.decisive(there=there) for there in (False, True))
    made = [[stage.name, stage.key] for stage in exports]  # by name, as the figures are: another name exports nothing
    again = [*on, *([True] if plan.measures_fully else [])]  # what was chosen by its latency is measured anew
    measure = Stage(
        StageKind.MEASURE,
        "measure",
        "latency",
        key_of(None, made, measured, plan.smoke, platform.node(), "measure", *again),
        (data.name, *(stage.name for stage in exports)),
        ("measure",),
    )
    yield measure
    needed = (data.name, *(stage.name for stage in (*programs.values(), *exports, *verifies)))
    devices = [
        Stage(
            StageKind.DEVICE,
            f"{StageKind.DEVICE}-{step.called}",
            f"device: {step.called}",
            key_of(use, step.called, made, settings, plan.smoke, platform.node(), "device", *again),
            needed,
            ("devices", index),
            index,
        )
        for index, (step, use) in enumerate(zip(plan.recipe.devices, plan.devices, strict=True))
        if not plan.without_devices
    ]
    yield from devices
    shown = {**plan.resolved(), **({"devices": plan.named_devices} if plan.devices else {})}
    everything = [*programs.values(), *verifies, measure, *devices]
    yield Stage(
        StageKind.REPORT,
        "report",
        "report",
        key_of(None, [stage.key for stage in everything], shown, plan.recipe.description, report_source()),
        tuple(stage.name for stage in everything),
        (),
    )


def card_recipe(plan: Plan, role: Role) -> dict[str, Json]:
    """What a card says of the recipe: all that made the model of a role, and nothing that only judges or names it."""
    passes = plan.passes_of(role)
    trains = any(use.plugin.trains for use in passes)
    dataset = plan.dataset.to_json()
    if not trains:
        del dataset["augmentation"]
    said = {
        "schema": plan.recipe.schema_version,
        "seed": plan.recipe.seed,
        **plan.told_task,
        "dataset": dataset,
        "model": plan.model.to_json(),
        "passes": [use.to_json() for use in passes],
    }
    return said | {"trainer": plan.recipe.trainer.decisive()} if trains else said
