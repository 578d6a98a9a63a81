"""Shape to plan: every plugin found, every option checked, every stage keyed, and all errors at once.

Nothing heavy is imported and no picture is read here. `edgeopt check` is this module; `edgeopt run` goes on from it.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

import edgeopt
from edgeopt.errors import Location, Problem, RecipeError, UserError
from edgeopt.fingerprint import digest, source_digest, versions_of
from edgeopt.plugin import (
    FULL_BUDGET,
    SMOKE_BUDGET,
    Bits,
    Budget,
    DatasetPlugin,
    ExporterPlugin,
    ModelPlugin,
    Numerics,
    PassPlugin,
    Plugin,
    QuantizerPlugin,
    Use,
    reference_kind,
    reference_words,
)
from edgeopt.recipe import ExportStep, Key, Recipe, Source, Step, problems_of
from edgeopt.registry import Registry, editable_source, missing_problem
from edgeopt.settings import MeasureSettings, to_json
from edgeopt.types import Form, Json, Role

P = TypeVar("P", bound=Plugin)


class StageKind(StrEnum):
    """What a stage does; also the first part of its name."""

    DATA = "data"
    MODEL = "model"
    PASS = "pass"
    PROGRAM = "program"
    EXPORT = "export"
    VERIFY = "verify"
    MEASURE = "measure"
    REPORT = "report"


@dataclass(frozen=True)
class Stage:
    """One step of a run, cached under `key`. `needs` are the stages whose results it reads; `recipe_key` is where it is written."""

    kind: StageKind
    name: str
    label: str
    key: str
    needs: tuple[str, ...]
    recipe_key: Key
    index: int = 0
    role: Role | None = None

    def key_without(self, failures: Collection[str]) -> str:
        """The key of a result that was made without the files named in `failures`."""
        joins_files = self.kind in (StageKind.MEASURE, StageKind.REPORT)
        return digest([self.key, sorted(failures)]) if failures and joins_files else self.key


@dataclass(frozen=True)
class PlannedExport:
    """One file to make: an exporter, the file's role, the role of the model that goes into it, and the folder it ends in.

    `step` counts the recipe's exports, `number` the plan's files.
    """

    use: Use[ExporterPlugin]
    step: int
    number: int
    role: Role
    folder: str
    program_role: Role

    @property
    def name(self) -> str:
        """The file's name in messages and stages."""
        return f"{self.folder}-{self.role}"

    @property
    def file(self) -> str:
        """Path of the file below the run's folder."""
        return f"{self.folder}/{self.role}/model{self.use.plugin.suffix}"

    @property
    def program_stage(self) -> str:
        """The stage that makes the program behind the file."""
        return f"{StageKind.PROGRAM}-{self.program_role}"

    @property
    def export_stage(self) -> str:
        """The stage that makes the file."""
        return f"{StageKind.EXPORT}-{self.name}"

    @property
    def verify_stage(self) -> str:
        """The stage that opens the file and compares it."""
        return f"{StageKind.VERIFY}-{self.name}"


@dataclass(frozen=True)
class Plan:
    """A recipe that can run."""

    recipe: Recipe
    registry: Registry
    dataset: Use[DatasetPlugin]
    model: Use[ModelPlugin]
    passes: tuple[Use[PassPlugin], ...]
    exports: tuple[PlannedExport, ...]
    budget: Budget
    smoke: bool
    data_fingerprint: str

    @property
    def baseline_passes(self) -> int:
        """How many passes make the float model that the optimized one is compared with."""
        return next((index for index, use in enumerate(self.passes) if use.plugin.optimizes), len(self.passes))

    @property
    def framework(self) -> str:
        """The framework of the recipe's model."""
        return self.model.plugin.framework

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
        direct: list[Use[Any]] = [self.dataset, self.model, *self.passes, *exports.values()]
        return tuple(direct + [inner for use in direct for inner in references(use)])

    @cached_property
    def stages(self) -> Mapping[str, Stage]:
        """All stages by name, each after those it needs."""
        return {stage.name: stage for stage in _stages(self)}

    @property
    def float_stage(self) -> Stage:
        """The stage that ends with the float model."""
        last = [stage for stage in self.stages.values() if stage.kind in (StageKind.MODEL, StageKind.PASS)]
        return last[self.baseline_passes]

    def key_of(self, use: Use[Any] | None, *parts: Json) -> str:
        """A key for a result that is made with a plugin, or with none, of all that it depends on."""
        return _keys(self)(use, *parts)

    @property
    def measure(self) -> MeasureSettings:
        """How latency is measured in this run; a smoke run only shows that it can be."""
        settings = self.recipe.measure
        return settings.model_copy(update={"warmup": 1, "runs": 5, "rounds": 1}) if self.smoke else settings

    def resolved(self) -> dict[str, Json]:
        """The recipe with every option written out, as the lock and the report record it."""
        steps = {planned.step: planned.use for planned in self.exports}  # the last of a step has the recipe's options
        return {
            "schema": self.recipe.schema_version,
            "name": self.recipe.name,
            "seed": self.recipe.seed,
            "baseline": self.recipe.baseline,
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


def make_plan(recipe: Recipe, registry: Registry, *, smoke: bool = False) -> Plan:
    """Checks a recipe against the installed plugins.

    Raises `RecipeError` with every problem: unknown plugins and options, values out of range, passes in an impossible
    order, two exports to one file, extras that are not installed, data that is not there.
    """
    planner = _Planner(recipe.source, registry)
    dataset = planner.use(DatasetPlugin, recipe.dataset, ("dataset",))
    model = planner.use(ModelPlugin, recipe.model, ("model",))
    passes = [planner.use(PassPlugin, step, ("passes", index)) for index, step in enumerate(recipe.passes)]
    exporters = [planner.use(ExporterPlugin, step, ("exports", index)) for index, step in enumerate(recipe.exports)]
    planner.check_order(passes)
    planner.check_kept(passes)
    planner.check_folders(recipe.exports)
    planner.check_frameworks(model, passes, exporters)
    planner.check_exports(model, passes, exporters)
    fingerprint = planner.fingerprint(dataset)
    if planner.problems or dataset is None or model is None:
        unique = dict.fromkeys(planner.problems)
        raise RecipeError(*sorted(unique, key=lambda problem: (problem.location is None, _line(problem))))
    done = tuple(use for use in passes if use is not None)
    plan = Plan(
        recipe=recipe,
        registry=registry,
        dataset=dataset,
        model=model,
        passes=done,
        exports=(),
        budget=SMOKE_BUDGET if smoke else FULL_BUDGET,
        smoke=smoke,
        data_fingerprint=fingerprint,
    )
    return _with_exports(plan, [use for use in exporters if use is not None])


def resolve(
    kind: type[P],
    name: str,
    options: Mapping[str, Json],
    registry: Registry,
    source: Source | None = None,
    key: Key = (),
) -> Use[P]:
    """One plugin with its options, as a plan holds it, without a recipe around it; `key` is where they stand in `source`.

    Raises `RecipeError` with every problem.
    """
    planner = _Planner(source or Source(), registry)
    use = planner.use(kind, Step(use=name, **options), key)
    if use is None or planner.problems:
        raise RecipeError(*planner.problems)
    return use


def numerics_of(passes: Iterable[Use[PassPlugin]], framework: str) -> Numerics:
    """What `passes` make of a model, as far as their options tell."""
    passes = list(passes)
    quantizers = [
        inner.plugin for use in passes for inner in references(use) if isinstance(inner.plugin, QuantizerPlugin)
    ]
    asked = [use.plugin.bits(use.options) for use in passes if use.plugin.bits is not None]
    return Numerics(tuple(quantizers), framework, asked[-1] if asked else Bits())


def references(use: Use[Any]) -> Iterable[Use[Any]]:
    """The plugins that the options of `use` refer to, and theirs."""
    for name in type(use.options).model_fields:
        value = getattr(use.options, name)
        if isinstance(value, Use):
            yield value
            yield from references(value)


class _Planner:
    """Collects problems while the parts of a recipe are looked up."""

    def __init__(self, source: Source, registry: Registry) -> None:
        self.source = source
        self.registry = registry
        self.problems: list[Problem] = []

    def _locate(self, *key: str | int) -> Location | None:
        return self.source.locate(key)

    def use(self, kind: type[P], step: Step, key: Key) -> Use[P] | None:
        """The plugin of a step with its options, or None after noting what is wrong."""
        return self._use(kind, step.use, step.options, key)

    def _use(
        self, kind: type[P], name: str, options: dict[str, Any], key: Key, words: Sequence[str] = ()
    ) -> Use[P] | None:
        try:
            plugin = self.registry.get(kind, name, words)
        except UserError as error:
            self.problems += error.at(partial(self._locate, *key, "use")).problems
            return None
        if problem := missing_problem(plugin):
            self.problems.append(problem.at(partial(self._locate, *key, "use")))
        values, broken = self._with_references(plugin, options, key)
        try:
            validated = plugin.options.model_validate(values)
        except ValidationError as error:
            self.problems += problems_of(error, key, self.source, plugin.options, known_broken=broken)
            return None
        try:
            _files_of(plugin, validated)
        except UserError as error:
            self.problems += error.at(partial(self._locate, *key)).problems
        return None if broken else Use(plugin, validated)

    def _with_references(self, plugin: Plugin, options: dict[str, Any], key: Key) -> tuple[dict[str, Any], set[str]]:
        """The options with every reference to another plugin looked up, and the names of those that cannot be."""
        values = dict(options)
        broken = set()
        for name, option in plugin.options.model_fields.items():
            kind = reference_kind(option.annotation)
            value = values.get(name, option.default)
            if kind is None or value is None or value is PydanticUndefined or isinstance(value, Use):
                continue
            words = reference_words(option.annotation)
            if value in words:
                continue
            used = self._reference(kind, value, words, (*key, name))
            if used is None:
                broken.add(name)
                values.pop(name, None)
            else:
                values[name] = used
        return values, broken

    def _reference(self, kind: type[P], value: Any, words: Sequence[str], key: Key) -> Use[P] | None:
        if isinstance(value, str):
            return self._use(kind, value, {}, key, words)
        if isinstance(value, dict) and isinstance(value.get("use"), str):
            return self._use(kind, value["use"], {name: given for name, given in value.items() if name != "use"}, key)
        name = key[-1]
        where = ".".join(str(part) for part in key)
        hint = f'{name} = "NAME", or {name} = {{ use = "NAME", ... }}'
        self.problems.append(Problem(f"{where}: does not name a {kind.kind}", hint, self._locate(*key)))
        return None

    def check_order(self, passes: list[Use[PassPlugin] | None]) -> None:
        """Notes passes that cannot take what the pass before them gives."""
        form, maker = Form.MODULE, ""
        for index, use in enumerate(passes):
            if use is None:
                return  # what comes after an unknown pass cannot be judged
            plugin = use.plugin
            if plugin.accepts is not form:
                needs = "a trainable module" if plugin.accepts is Form.MODULE else "a captured program"
                given = "a captured program" if form is Form.PROGRAM else "a trainable module"
                hint = (
                    f"put {plugin.name!r} before {maker!r}"
                    if form is Form.PROGRAM
                    else f"put a pass that makes a program, such as 'ptq' or 'qat', before {plugin.name!r}"
                )
                after = f" and {maker!r} before it leaves {given}" if maker else f" and the model starts as {given}"
                self.problems.append(
                    Problem(
                        f"pass {plugin.name!r} needs {needs},{after}",
                        hint,
                        self._locate("passes", index, "use"),
                    )
                )
                return
            form, maker = plugin.produces, plugin.name

    def check_kept(self, passes: list[Use[PassPlugin] | None]) -> None:
        """Notes passes that take away again what one before them made."""
        made: dict[str, str] = {}
        for index, use in enumerate(passes):
            if use is None:
                continue
            for what, maker in made.items():
                if what not in use.plugin.keeps:
                    self.problems.append(
                        Problem(
                            f"pass {use.plugin.name!r} does not keep the {what} that {maker!r} before it makes",
                            f"put {use.plugin.name!r} before {maker!r}",
                            self._locate("passes", index, "use"),
                        )
                    )
            made |= dict.fromkeys(use.plugin.makes, use.plugin.name)

    def check_frameworks(
        self,
        model: Use[ModelPlugin] | None,
        passes: list[Use[PassPlugin] | None],
        exporters: list[Use[ExporterPlugin] | None],
    ) -> None:
        """Notes passes and exporters that take models of another framework than the recipe's."""
        if model is None:
            return
        framework = model.plugin.framework
        for part, uses in (("passes", passes), ("exports", exporters)):
            for index, use in enumerate(uses):
                if use is None or use.plugin.framework == framework:
                    continue
                kind = type(use.plugin)
                takers = [
                    entry.plugin
                    for entry in self.registry
                    if isinstance(entry.plugin, kind) and entry.plugin.framework == framework
                ]
                same = [
                    each.name for each in takers if getattr(each, "format", "") == getattr(use.plugin, "format", "")
                ]
                names = ", ".join(repr(name) for name in (same or [each.name for each in takers]))
                self.problems.append(
                    Problem(
                        f"{kind.kind} {use.plugin.name!r} takes models of {use.plugin.framework}, "
                        f"and model {model.plugin.name!r} gives one of {framework}",
                        f"for {framework} there is {names}" if names else None,
                        self._locate(part, index, "use"),
                    )
                )

    def check_exports(
        self,
        model: Use[ModelPlugin] | None,
        passes: list[Use[PassPlugin] | None],
        exporters: list[Use[ExporterPlugin] | None],
    ) -> None:
        """Notes exporters that cannot take what the passes give."""
        if model is None or None in passes:
            return
        numerics = numerics_of([use for use in passes if use is not None], model.plugin.framework)
        for index, use in enumerate(exporters):
            if use is not None and use.plugin.check and use.plugin.framework == numerics.framework:
                locate = partial(self._locate, "exports", index)
                self.problems += [problem.at(locate) for problem in use.plugin.check(use.options, numerics)]

    def check_folders(self, steps: Sequence[ExportStep]) -> None:
        """Notes exports that would write one file."""
        seen: dict[str, int] = {}
        for index, step in enumerate(steps):
            if step.folder in seen:
                first = self._locate("exports", seen[step.folder])
                line = f" (the other is on line {first.line})" if first and first.line else ""
                self.problems.append(
                    Problem(
                        f"two exports would write to {step.folder!r}{line}",
                        'give one of them a name of its own, as in name = "other"',
                        self._locate("exports", index),
                    )
                )
            seen.setdefault(step.folder, index)

    def fingerprint(self, dataset: Use[DatasetPlugin] | None) -> str:
        """The data's fingerprint; notes data that is not there."""
        if dataset is None or missing_problem(dataset.plugin):
            return ""
        try:
            return dataset.plugin.fingerprint(dataset.options)
        except UserError as error:
            self.problems += error.at(partial(self._locate, "dataset")).problems
            return ""


def _line(problem: Problem) -> int:
    return (problem.location.line or 0) if problem.location else 0


def _with_exports(plan: Plan, exporters: list[Use[ExporterPlugin]]) -> Plan:
    """The plan with one planned file for each exporter and role.

    The float file of an exporter that converts by itself is made with that exporter's float options.
    """
    files = [
        (step, Use(use.plugin, options) if role is Role.BASELINE else use, role)
        for step, use in enumerate(exporters)
        for options in [use.plugin.float_options(use.options)]
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


# ---- stages -----------------------------------------------------------------------------------------------------------


def _stages(plan: Plan) -> Iterable[Stage]:
    """The stages of a plan in an order in which they can run; each key covers all that its result depends on."""
    key_of = _keys(plan)
    budget = [plan.budget.epochs, plan.budget.batches, plan.budget.pictures]
    trainer = to_json(plan.recipe.trainer)
    seed = plan.recipe.seed

    data = Stage(
        StageKind.DATA,
        "data",
        f"data: {plan.dataset.plugin.name}",
        key_of(plan.dataset, plan.data_fingerprint, plan.budget.pictures),
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
        key = key_of(use, before.key, trainer, seed, index, budget)
        name = f"pass-{index}-{use.plugin.name}"
        states.append(
            Stage(StageKind.PASS, name, use.plugin.name, key, (data.name, before.name), ("passes", index), index)
        )
        yield states[-1]

    programs: dict[Role, Stage] = {}
    wanted = {planned.program_role for planned in plan.exports} | {Role.BASELINE}
    for role in plan.roles:
        if role not in wanted:
            continue
        state = states[1 + plan.baseline_passes - 1] if role is Role.BASELINE else states[-1]
        programs[role] = Stage(
            StageKind.PROGRAM,
            f"program-{role}",
            f"program: {role}",
            key_of(None, state.key, data.key, "program"),
            (data.name, state.name),
            ("model",),
            role=role,
        )
        yield programs[role]

    exports, verifies = [], []
    for planned in plan.exports:
        program = programs[planned.program_role]
        where: Key = ("exports", planned.step)
        label = f"{planned.folder}, {planned.role}"
        export_key = key_of(planned.use, program.key, card_recipe(plan))
        verify_key = key_of(planned.use, export_key, data.key, plan.recipe.measure.threads, "verify")
        exports.append(
            Stage(
                StageKind.EXPORT,
                planned.export_stage,
                f"export: {label}",
                export_key,
                (data.name, program.name),
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
                (data.name, program.name, planned.export_stage),
                where,
                planned.number,
                planned.role,
            )
        )
    yield from exports
    yield from verifies
    measure = Stage(
        StageKind.MEASURE,
        "measure",
        "latency",
        key_of(
            None, [stage.key for stage in exports], to_json(plan.recipe.measure), plan.smoke, platform.node(), "measure"
        ),
        (data.name, *(stage.name for stage in exports)),
        ("measure",),
    )
    yield measure
    everything = [*programs.values(), *verifies, measure]
    yield Stage(
        StageKind.REPORT,
        "report",
        "report",
        key_of(None, [stage.key for stage in everything], plan.resolved(), plan.recipe.description, _report_source()),
        tuple(stage.name for stage in everything),
        (),
    )


def card_recipe(plan: Plan) -> dict[str, Json]:
    """What a card says of the recipe: all that made the file, and nothing that only judges it."""
    resolved = plan.resolved()
    return {name: resolved[name] for name in ("schema", "name", "seed", "dataset", "model", "passes", "trainer")}


def _keys(plan: Plan) -> Callable[..., str]:
    """A function that makes a key of a plugin (or none), its origin, versions and options, and everything else given."""
    core = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "edgeopt": edgeopt.__version__,
        **_core_source(),
    }
    sources: dict[Path, str] = {}

    def origin_of(use: Use[Any]) -> Json:
        origin = plan.registry.origin(use.plugin)
        if origin.source and origin.source not in sources:
            sources[origin.source] = source_digest(origin.source)
        source = sources[origin.source] if origin.source else ""
        inner = [[each.plugin.name, *origin_of(each)] for each in references(use)]
        files = _files_of(use.plugin, use.options)
        return [
            origin.name,
            origin.version,
            source,
            versions_of((*use.plugin.requires, *use.plugin.optional)),
            files,
            inner,
        ]

    def key_of(use: Use[Any] | None, *parts: Json) -> str:
        return digest([core, [use.to_json(), origin_of(use)] if use else None, *parts])

    return key_of


def _files_of(plugin: Plugin, options: Any) -> str:
    """What tells the local files of a model or a pass from others, "" where it has none; raises `UserError` for a missing one."""
    return plugin.fingerprint(options) if isinstance(plugin, ModelPlugin | PassPlugin) and plugin.fingerprint else ""


def _core_source() -> dict[str, str]:
    """The core's own source when edgeopt is an editable install: its developers must not meet stale results."""
    folder = editable_source("edgeopt")
    return {"source": source_digest(folder, without=("cli", "report", "testing"))} if folder else {}


def _report_source() -> str:
    """The source of the report's room, which no other stage depends on."""
    folder = editable_source("edgeopt")
    return source_digest(folder / "report") if folder else "report"
