"""Trainings that end alike on one device and on several: as a module for tests, as a script for each process of one.

`python device_trainings.py FOLDER DEVICES` leaves the curves of all of them in FOLDER/curves.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn
from training_samples import make_context, make_data, make_net, make_state

from edgeopt.plugins import PassPlugin
from edgeopt.plugins.contexts import PassContext
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks.classification import Classification
from edgeopt_distillation.fit_with_teacher import fit_taught
from edgeopt_distillation.options import TaughtOptions
from edgeopt_distillation.teacher_loss import Teacher
from edgeopt_lightning.fit.validation import validation_score

Curves = Mapping[str, list[float]]
BATCH, EPOCHS = 32, 3
DIED = "died"
PASSES: dict[str, tuple[str, dict[str, object]]] = {
    "plain": ("train", {"gradient_clip": 1.0, "label_smoothing": 0.1}),
    "ema": ("train", {"averaging": "ema"}),
    "swa": ("train", {"averaging": "swa", "swa_start": 0.5}),
    "observed ranges": ("qat", {}),
    "learned steps": ("qat", {"weight_bits": 4, "activation_bits": 4, "edge_bits": 4, "teacher": "none"}),
}
NAMES = (*PASSES, "taught")


def net() -> nn.Module:
    """One in which nothing is drawn at random, and no weight is of no consequence: such drift with the last bits."""
    made = make_net()
    made.features[3] = nn.Conv2d(8, 16, 3, stride=2, bias=False)
    made.head[0] = nn.Identity()
    return made


def trained(name: str, context: PassContext, devices: int) -> Curves:
    """The curves of a training of that name, each device taking its share of a batch."""
    size = BATCH // devices
    if name == "taught":
        teacher = net().eval()
        torch.manual_seed(3)
        nn.init.normal_(teacher.head[1].weight)
        score = validation_score(teacher, Classification(), context)
        given = TaughtOptions(epochs=EPOCHS, batch_size=size, learning_rate=1e-2)
        options = given.model_copy(update={"control": False})
        result = fit_taught(net(), Teacher(teacher, "random", score), Classification(), options, context)
        return {curve.name: list(curve.y) for curve in result.curves}
    use, values = PASSES[name]
    written = {"epochs": EPOCHS, "batch_size": size, "learning_rate": 1e-2, **values}
    chosen = resolve(PassPlugin, use, written, load_registry())
    after = chosen.plugin.apply(make_state(net()), chosen.options, context)
    return {curve.name: list(curve.y) for curve in after.history[-1].curves}


def trainings(folder: Path, devices: int) -> dict[str, Curves]:
    """All of them."""
    data = make_data(128)
    return {name: trained(name, make_context(folder / name, data, devices=devices), devices) for name in NAMES}


def dying(folder: Path) -> None:
    """A training of two, of which the second one is killed in its sixth step."""
    from edgeopt_lightning.fit import loop

    step: Callable[..., torch.Tensor] = loop._Training.training_step
    steps = []

    def counted(training: object, batch: object, number: int) -> torch.Tensor:
        steps.append(number)
        if os.environ.get("LOCAL_RANK") == "1" and len(steps) == 6:
            (folder / DIED).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return step(training, batch, number)

    loop._Training.training_step = counted  # type: ignore[assignment]
    trained("plain", make_context(folder / "dying", make_data(128), devices=2), 2)


if __name__ == "__main__":
    folder, devices = Path(sys.argv[1]), sys.argv[2]
    if devices == "dying":
        dying(folder)
    else:
        curves = trainings(folder, int(devices))
        if os.environ.get("LOCAL_RANK", "0") == "0":
            (folder / "curves.json").write_text(json.dumps(curves))
