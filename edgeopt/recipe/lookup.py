"""Plugins by their names in a recipe: found, their options checked, and whether they fit one another.

All problems are collected before one is raised, each with its line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from edgeopt.arrays import Json
from edgeopt.errors import Location, Problem, RecipeError, UserError, did_you_mean
from edgeopt.fingerprint import installed_version
from edgeopt.networks.bits import CONTAINER_BITS
from edgeopt.options import SweepSettings, without_augmentation
from edgeopt.plugins.blame import blamed
from edgeopt.plugins.declarations import (
    Bits,
    DatasetPlugin,
    ExporterPlugin,
    ModelPlugin,
    Numerics,
    PassPlugin,
    Plugin,
    QuantizerPlugin,
    kind_of,
)
from edgeopt.plugins.registry import Registry, missing_problem
from edgeopt.plugins.use import Use, idle_references, reference_kind, reference_words, references
from edgeopt.recipe.gates import Gates
from edgeopt.recipe.read import DeviceStep, ExportStep, Source, Step, problems_of
from edgeopt.toml_lines import Key
from edgeopt.tracking.tracked import PACKAGES
from edgeopt.types import TORCH, DataSurvey, Form, FoundData

P = TypeVar("P", bound=Plugin)


def resolve(
    kind: type[P],
    name: str,
    options: Mapping[str, Json],
    registry: Registry,
    source: Source | None = None,
    key: Key = (),
) -> Use[P]:
    """One plugin with its options, as a plan holds it, without a recipe around it; `key` is where they stand in
    `source`.

    Raises `RecipeError` with every problem.
    """
    lookup = Lookup(source or Source(), registry)
    use = lookup.use(kind, Step(use=name, **options), key)
    if use is None or lookup.problems:
        raise RecipeError(*lookup.problems)
    return use


def resolve_step(kind: type[P], step: Mapping[str, Json], registry: Registry) -> Use[P]:
    """The plugin of a step as a finished run's report has it, with the options that it had there.

    Raises `RecipeError` with every problem.
    """
    options = {name: value for name, value in step.items() if name not in ("use", "name")}
    return resolve(kind, str(step["use"]), options, registry)


def numerics_of(passes: Iterable[Use[PassPlugin]], framework: str) -> Numerics:
    """What `passes` make of a model, as far as their options tell."""
    passes = list(passes)
    quantizers = [
        inner.plugin for use in passes for inner in references(use) if isinstance(inner.plugin, QuantizerPlugin)
    ]
    asked = []
    for use in passes:
        if use.plugin.bits is not None:
            with blamed(use.plugin, "bits"):
                asked.append(use.plugin.bits(use.options))
    return Numerics(tuple(quantizers), framework, asked[-1] if asked else Bits())


def files_of(plugin: Plugin, options: Any) -> str:
    """What tells the local files of a model, a pass or an exporter from others, "" where it has none; raises
    `UserError` for a missing one.
    """
    if not isinstance(plugin, ModelPlugin | PassPlugin | ExporterPlugin) or plugin.fingerprint is None:
        return ""
    with blamed(plugin, "fingerprint"):
        return plugin.fingerprint(options)


def checked(use: Use[ExporterPlugin], numerics: Numerics) -> list[Problem]:
    """What an exporter refuses before anything runs."""
    problems = []
    if numerics.bits.activations > CONTAINER_BITS and use.plugin.no_int16:
        problems.append(no_int16_activations(use.plugin))
    if use.plugin.check is not None:
        with blamed(use.plugin, "check"):
            problems += use.plugin.check(use.options, numerics)
    return problems


def no_int16_activations(exporter: ExporterPlugin) -> Problem:
    """The problem of int16 activations for an exporter whose runtime would compute them in no integers."""
    return Problem(
        f"activations of 16 bits: exporter {exporter.name!r} {exporter.no_int16}",
        "take activation_bits = 8, or leave this export out",
    )


def float_options(use: Use[ExporterPlugin]) -> Any:
    """The options of the float file that one of `use` is compared with."""
    with blamed(use.plugin, "baseline"):
        return use.plugin.float_options(use.options)


def surveyed(dataset: Use[DatasetPlugin], found: FoundData | None) -> DataSurvey | None:
    """What a data set tells of itself without reading an image, from what was `found` where its plugin looks for files;
    None where it tells nothing.
    """
    with blamed(dataset.plugin, "survey"):
        if found is not None:
            return found.survey()
        return dataset.plugin.survey(dataset.options) if dataset.plugin.survey else None


class Lookup:
    """Looks up the parts of a recipe, and collects what is wrong with them in `problems`."""

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
        values, broken, missing = self._with_references(plugin, options, key)
        try:
            validated = plugin.options.model_validate(values)
        except ValidationError as error:
            self.problems += problems_of(error, key, self.source, plugin.options, known_broken=broken)
            return None
        idle = idle_references(validated)
        self.problems += [problem for name, problems in missing.items() if name not in idle for problem in problems]
        try:
            files_of(plugin, validated)
        except UserError as error:
            self.problems += error.at(partial(self._locate, *key)).problems
        return None if broken else Use(plugin, validated)

    def _with_references(
        self, plugin: Plugin, options: dict[str, Any], key: Key
    ) -> tuple[dict[str, Any], set[str], dict[str, list[Problem]]]:
        """The options with every reference to another plugin looked up, the names of those that cannot be, and what
        is not installed of the others: that is no problem where the options as a whole do not look at it.
        """
        values = dict(options)
        broken = set()
        missing: dict[str, list[Problem]] = {}
        wrong = self.registry.wrong_defaults(plugin)
        for name, option in plugin.options.model_fields.items():
            kind = reference_kind(option.annotation)
            value = values.get(name, option.default)
            if kind is None or value is None or value is PydanticUndefined or isinstance(value, Use):
                continue
            words = reference_words(option.annotation)
            if value in words:
                continue
            if name in wrong and name not in options:
                self.problems.append(wrong[name].at(partial(self._locate, *key)))
                broken.add(name)
                continue
            known = len(self.problems)
            used = self._reference(kind, value, words, (*key, name))
            if used is not None:
                missing[name] = self.problems[known:]
                del self.problems[known:]
            if used is None:
                broken.add(name)
                values.pop(name, None)
            else:
                values[name] = used
        return values, broken, missing

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

    def check_order(self, passes: Sequence[Use[PassPlugin] | None], starts_as: Form = Form.MODULE) -> None:
        """Notes passes that cannot take what the pass before them gives; the model `starts_as` a module in a recipe."""
        form, maker = starts_as, ""
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

    def check_kept(self, passes: Sequence[Use[PassPlugin] | None]) -> None:
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

    def check_loggers(self, loggers: tuple[str, ...]) -> None:
        """Notes loggers of `[trainer]` whose packages are not installed."""
        for logger in loggers:
            package, extra = PACKAGES[logger]
            if installed_version(package) is None:
                message = f"logger {logger!r} needs {package}, which is not installed"
                place = self.source.locate(("trainer", "loggers"))
                self.problems.append(Problem(message, f"pip install '{extra}'", place))

    def check_sweep(self, sweep: SweepSettings | None, model: Use[ModelPlugin] | None) -> None:
        """Notes sizes of `[measure.sweep]` for a model whose program cannot be made for others than its own."""
        if sweep and sweep.sizes and model is not None and model.plugin.framework != TORCH:
            framework = model.plugin.framework
            message = f"files for other sizes are made of programs of {TORCH}, and this is a model of {framework}"
            place = self.source.locate(("measure", "sweep", "sizes"))
            self.problems.append(Problem(message, "leave `sizes` out", place))

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
                kind = kind_of(use.plugin)
                takers = [
                    entry.plugin
                    for entry in self.registry
                    if isinstance(entry.plugin, PassPlugin | ExporterPlugin)
                    and isinstance(entry.plugin, kind)
                    and entry.plugin.framework == framework
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
            if use is not None and use.plugin.framework == numerics.framework:
                self.problems += [
                    problem.at(partial(self._locate, "exports", index)) for problem in checked(use, numerics)
                ]

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

    def check_devices(self, steps: Sequence[DeviceStep]) -> None:
        """Notes devices of one name."""
        seen: set[str] = set()
        for index, step in enumerate(steps):
            if step.called in seen:
                hint = 'give one of them a name of its own, as in name = "other"'
                message = f"two devices are called {step.called!r}"
                self.problems.append(Problem(message, hint, self._locate("devices", index)))
            seen.add(step.called)

    def check_device_gates(self, gates: Gates, steps: Sequence[DeviceStep]) -> None:
        """Notes gates on devices that the recipe does not name."""
        known = [step.called for step in steps]
        for name in gates.devices:
            if name not in known:
                message = f"gates on the device {name!r}, and [[devices]] names no such"
                hint = did_you_mean(name, known) or "add a [[devices]] table with this name"
                self.problems.append(Problem(message, hint, self._locate("gates", "devices", name)))

    def look(self, dataset: Use[DatasetPlugin] | None) -> tuple[FoundData | None, str]:
        """What one look at the data set found, None where its plugin does not look, and the data's fingerprint; notes
        data that is not there.
        """
        if dataset is None or missing_problem(dataset.plugin):
            return None, ""
        plugin, options = dataset.plugin, without_augmentation(dataset.options)
        try:
            with blamed(plugin, "fingerprint" if plugin.find is None else "find"):
                if plugin.find is None:
                    return None, plugin.fingerprint(options)
                found = plugin.find(options)
                return found, found.fingerprint()
        except UserError as error:
            self.problems += error.at(partial(self._locate, "dataset")).problems
            return None, ""
