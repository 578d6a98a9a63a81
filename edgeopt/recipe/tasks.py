"""What a recipe is for: the task that its data set, its model and its passes all know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from edgeopt.errors import Problem, did_you_mean
from edgeopt.plugins.blame import blamed
from edgeopt.plugins.declarations import (
    DatasetPlugin,
    ExporterPlugin,
    ModelPlugin,
    PassPlugin,
    Plugin,
    TaskPlugin,
    kind_of,
)
from edgeopt.plugins.use import Use
from edgeopt.recipe.gates import Gates, ScoreGates
from edgeopt.recipe.lookup import surveyed
from edgeopt.recipe.read import Step
from edgeopt.tasks import DEFAULT as DEFAULT_TASK
from edgeopt.tasks.scores import ACCURACY, DROP
from edgeopt.toml_lines import Key
from edgeopt.types import TORCH, FoundData

if TYPE_CHECKING:
    from edgeopt.recipe.lookup import Lookup


def check_task(
    lookup: Lookup,
    step: Step | None,
    dataset: Use[DatasetPlugin] | None,
    model: Use[ModelPlugin] | None,
    passes: Sequence[Use[PassPlugin] | None],
) -> Use[TaskPlugin] | None:
    """The task of a recipe: the one that its `[task]` names, else the first of the data set's that the model knows.

    Notes a data set, a model and passes that do not know it, each with those that do; None where it cannot be said.
    """
    served = tasks_of(dataset)
    if step is not None:
        use = lookup.use(TaskPlugin, step, ("task",))
        if use is None:
            return None
        _require(lookup, use.plugin.name, served, dataset, ("dataset", "use"))
        _require(lookup, use.plugin.name, model.plugin.tasks if model else None, model, ("model", "use"))
    else:
        if served is None or model is None or dataset is None:
            return None
        name = next((name for name in served if name in model.plugin.tasks), served[0] if served else DEFAULT_TASK)
        _require(lookup, name, model.plugin.tasks, model, ("model", "use"), f"data set {dataset.plugin.name!r} is for")
        place = ("task",) if lookup.source.locate(("task",)) else ("dataset", "use")
        use = lookup.use(TaskPlugin, Step(use=name), place)
        if use is None:
            return None
    for index, each in enumerate(passes):
        if each is not None and each.plugin.tasks is not None:
            _require(lookup, use.plugin.name, each.plugin.tasks, each, ("passes", index, "use"))
    return use


def check_augmentation(
    lookup: Lookup,
    dataset: Use[DatasetPlugin] | None,
    task: Use[TaskPlugin] | None,
    passes: Sequence[Use[PassPlugin] | None],
) -> None:
    """Notes changes of training images that the task's targets cannot follow, or that a pass's framework has not."""
    if dataset is None:
        return
    augmentation = dataset.options.augmentation
    asked = [name for name in ("mosaic", "mixup", "cutmix") if getattr(augmentation, name)]
    asked += ["policy"] if augmentation.policy != "none" else []
    asked += ["iou_crop"] if augmentation.iou_crop else []
    asked += ["scale_jitter"] if augmentation.scale_jitter != (1.0, 1.0) else []
    for name in asked:
        place = lookup.source.locate(("dataset", "augmentation", name))
        trains = [each.plugin for each in passes if each and each.plugin.trains]
        foreign = next((plugin for plugin in trains if plugin.framework != TORCH), None)
        if None not in passes and trains and all(name in plugin.leaves_out for plugin in trains):
            without = " and ".join(dict.fromkeys(repr(plugin.name) for plugin in trains))
            message = f"augmentation.{name} would change nothing: {without} trains without it, and nothing else trains"
            lookup.problems.append(Problem(message, "leave it out, or train before with a pass that has it", place))
        if foreign is not None:
            message = f"augmentation.{name} is not there in {foreign.framework}, where pass {foreign.name!r} trains"
            lookup.problems.append(Problem(message, "leave it out", place))
        if task is None:
            continue
        made = task.plugin.made(task.options)
        if name == "policy" and made.is_placed:
            message = f"augmentation.policy moves images, and targets of the task {made.name} would not go along"
            hint = "use horizontal_flip, crop_scale, rotation_degrees and the changes of colour"
            lookup.problems.append(Problem(message, hint, place))
        elif name == "iou_crop" and not made.chooses_crops:
            message = f"augmentation.iou_crop keeps boxes in sight, and targets of the task {made.name} have none"
            lookup.problems.append(Problem(message, "use crop_scale, which cuts out any part", place))
        elif name == "mosaic" and not made.can_be_tiled:
            message = (
                f"augmentation.mosaic puts parts of images together, and targets of the task {made.name} cannot be"
            )
            hint = "use cutmix, which mixes targets too" if made.can_be_mixed else "leave it out"
            lookup.problems.append(Problem(message, hint, place))
        elif name in ("mixup", "cutmix") and not made.can_be_mixed:
            message = f"augmentation.{name} mixes images, and targets of the task {made.name} cannot be mixed"
            lookup.problems.append(Problem(message, "leave it out", place))


def check_gates(
    lookup: Lookup, gates: Gates, use: Use[TaskPlugin] | None, exporters: Sequence[Use[ExporterPlugin] | None]
) -> None:
    """Notes gates on scores that the recipe's task does not give, and on RAM and flash that no exporter tells."""
    for name in ("ram_bytes", "flash_bytes"):
        if getattr(gates, name) and not any(each is None or each.plugin.tells_footprint for each in exporters):
            message = f"gates.{name} is about microcontrollers, and no [[exports]] table is for one"
            hint = "add an exporter that tells what its files take, such as `tflm`"
            lookup.problems.append(Problem(message, hint, lookup.source.locate(("gates", name))))
    if use is None:
        return
    kinds = use.plugin.made(use.options).score_kinds
    asked: list[tuple[Key, ScoreGates, bool]] = [(("gates",), gates, True)]
    asked += [(("gates", "devices", name), each, False) for name, each in gates.devices.items()]
    for key, table, may_drop in asked:
        known = [kind.name for kind in kinds]
        known += [f"{name}{DROP}" for name in known] if may_drop else []
        given = [name for name in type(table).model_fields if name.startswith(ACCURACY.name) and getattr(table, name)]
        for name in (*given, *table.scores):
            if name in known:
                continue
            fields = [field for field in type(table).model_fields if not field.startswith(ACCURACY.name)]
            hint = did_you_mean(name, [*known, *fields]) or f"{use.plugin.name} has the scores {', '.join(known)}"
            what = f"unknown key {'.'.join((*map(str, key), name))!r}"
            if name in given:
                what = f"{'.'.join((*map(str, key), name))}: the task {use.plugin.name} has no such score"
                hint = f"it has {', '.join(known)}"
            lookup.problems.append(Problem(what, hint, lookup.source.locate((*key, name))))


def tasks_of(dataset: Use[DatasetPlugin] | None) -> tuple[str, ...] | None:
    """The tasks that a data set with its options serves, the likeliest first; None for none."""
    if dataset is None:
        return None
    if dataset.plugin.tasks_of is None:
        return dataset.plugin.tasks
    with blamed(dataset.plugin, "tasks_of"):
        return dataset.plugin.tasks_of(dataset.options)


def check_recall(
    lookup: Lookup,
    gates: Gates,
    task: Use[TaskPlugin] | None,
    dataset: Use[DatasetPlugin] | None,
    found: FoundData | None,
) -> None:
    """Notes gates on the recall of classes that the data set does not have, as far as it tells without an image, and
    where the task is not one class an image.
    """
    if not gates.recall or task is None or dataset is None:
        return
    made = task.plugin.made(task.options)
    if not made.is_of_classes:
        message = f"gates.recall is about classes, and images of the task {made.name} are not each of one"
        lookup.problems.append(Problem(message, "leave it out", lookup.source.locate(("gates", "recall"))))
        return
    known = dataset.options.classes
    if known is None and (survey := surveyed(dataset, found)) is not None:
        known = tuple(dict.fromkeys(name for counts in survey.counts.values() for name in counts))
    for name in gates.recall:
        if known is not None and name not in known:
            message = f"gates.recall names a class {name!r}, and the data set has none"
            hint = did_you_mean(name, known) or f"its classes are {', '.join(known)}"
            place = lookup.source.locate(("gates", "recall", name))
            lookup.problems.append(Problem(message, hint, place))


def _require(
    lookup: Lookup,
    name: str,
    known: Iterable[str] | None,
    use: Use[DatasetPlugin] | Use[ModelPlugin] | Use[PassPlugin] | None,
    key: tuple[str | int, ...],
    said: str = "the task is",
) -> None:
    """Notes that `use` does not know the task `name`, and which plugins of its kind do."""
    if use is None or known is None or name in known:
        return
    kind = kind_of(use.plugin)
    others = [
        entry.plugin.name for entry in lookup.registry if isinstance(entry.plugin, kind) and _knows(entry.plugin, name)
    ]
    hint = f"for {name} there is {', '.join(map(repr, others))}" if others else f"no {kind.kind} here is for {name}"
    kinds = {"dataset": "data set"}
    message = f"{said} {name}, and {kinds.get(kind.kind, kind.kind)} {use.plugin.name!r} is for {' and '.join(known)}"
    lookup.problems.append(Problem(message, hint, lookup.source.locate(key)))


def _knows(plugin: Plugin, name: str) -> bool:
    """Whether a data set, model or pass is for a task, as far as its declaration says."""
    if isinstance(plugin, DatasetPlugin | ModelPlugin):
        return name in plugin.tasks
    return isinstance(plugin, PassPlugin) and (plugin.tasks is None or name in plugin.tasks)
