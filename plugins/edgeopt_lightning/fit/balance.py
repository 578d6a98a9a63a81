"""Classes of unequally many images: weights in the loss, and epochs that show each class equally often."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgeopt.data.cache import epoch_order, window_of
from edgeopt.plugins import Problem, Split, Task, TrainingData, TrainingError, did_you_mean, targets_of
from edgeopt_lightning.options import FitOptions


def weighted_task(task: Task, options: FitOptions, data: TrainingData) -> Task:
    """The task with the loss that a training lowers: with weights of classes where the options ask for them.

    Raises `TrainingError` for a class that is none, and for a task that has no such weights.
    """
    given = options.class_weights
    if given == "none":
        return task
    targets = targets_of(data.train)[:]
    try:
        if given == "balanced":
            return task.weighted(task.balancing_weights(targets, len(data.classes)), targets)
        assert isinstance(given, dict)
        if unknown := [name for name in given if name not in data.classes]:
            raise TrainingError(
                *(
                    Problem(
                        f"class_weights names {name!r}, which is no class of the data set",
                        did_you_mean(name, data.classes) or f"its classes are {', '.join(data.classes)}",
                        option="class_weights",
                    )
                    for name in unknown
                )
            )
        return task.weighted(tuple(given.get(name, 1.0) for name in data.classes), targets)
    except ValueError as error:
        raise TrainingError(Problem(str(error), "leave class_weights out", option="class_weights")) from error


def order_of(split: Split, options: FitOptions, task: Task) -> Callable[[int], NDArray[np.int64]]:
    """How an epoch is ordered by a seed: places of the split, int64 (n,).

    Raises `TrainingError` where classes are to be balanced and an image is not of one class.
    """
    if options.sampling == "shuffled":
        return partial(epoch_order, split)
    if not task.is_of_classes:
        raise TrainingError(
            Problem(
                f'sampling = "balanced" shows classes equally often, and images of the task {task.name} are not each '
                "of one class",
                'leave sampling out, or set class_weights = "balanced"',
                option="sampling",
            )
        )
    return partial(_balanced, split)


def _balanced(split: Split, seed: int) -> NDArray[np.int64]:
    """As many places as the split has, of each class equally many: a class with fewer images repeats them, each as
    often as the others to within one, and one with more shows others in each epoch.
    """
    order, random = epoch_order(split, seed), np.random.default_rng([seed, 1])
    labels = split.labels[order]
    classes = np.unique(labels)
    quotas = np.full(len(classes), len(order) // len(classes))
    quotas[random.permutation(len(classes))[: len(order) % len(classes)]] += 1
    positions = np.concatenate(
        [
            np.resize(random.permutation(np.flatnonzero(labels == label)), quota)
            for label, quota in zip(classes, quotas, strict=True)
        ]
    )
    window = window_of(split)
    if window is None:
        drawn: NDArray[np.int64] = order[random.permutation(positions)]
    else:
        drawn = order[positions[np.argsort(positions + random.random(len(positions)) * window, kind="stable")]]
    return drawn
