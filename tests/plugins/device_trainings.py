"""Trainings that end alike on one device and on several: as a module for tests, as a script for each process of one.

`python device_trainings.py FOLDER DEVICES` leaves the curves of all of them in FOLDER/curves.json, and what each process
did in FOLDER/rank0.json and on.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn
from training_samples import Steps, make_context, make_data, make_net, make_state, weights_of

from edgeopt.plugins import PassPlugin
from edgeopt.plugins.contexts import PassContext
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks.classification import Classification
from edgeopt.types import ModelState
from edgeopt_distillation.fit_with_teacher import fit_taught
from edgeopt_distillation.options import TaughtOptions
from edgeopt_distillation.teacher_loss import Teacher
from edgeopt_lightning.fit.validation import validation_score

Curves = Mapping[str, list[float]]
BATCH, EPOCHS = 32, 3
DIED = "died"
THAWED = {"freeze": ["features"], "unfreeze_epoch": 1}
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
    after = applied(use, {"batch_size": size, **values}, context)
    return {curve.name: list(curve.y) for curve in after.history[-1].curves}


def applied(use: str, values: Mapping[str, object], context: PassContext) -> ModelState:
    """What a pass leaves of the network."""
    chosen = resolve(PassPlugin, use, {"epochs": EPOCHS, "learning_rate": 1e-2, **values}, load_registry())
    return chosen.plugin.apply(make_state(net()), chosen.options, context)


def trainings(folder: Path, devices: int) -> dict[str, Curves]:
    """All of them."""
    data = make_data(128)
    return {name: trained(name, make_context(folder / name, data, devices=devices), devices) for name in NAMES}


def observed(folder: Path, devices: int) -> dict[str, object]:
    """What one process of a training did: its weights, the files that it wrote, the steps that it showed."""
    from edgeopt_lightning.fit import loop

    write, written, steps = loop.write_checkpoint, [], Steps()

    def counted(*values: object) -> None:
        written.append(values)
        write(*values)  # type: ignore[arg-type]

    loop.write_checkpoint = counted
    context = make_context(folder / "thawed", make_data(128), devices=devices, progress=steps)
    after = applied("train", {"batch_size": BATCH // devices, **THAWED}, context)
    loop.write_checkpoint = write
    weights = hashlib.sha256(b"".join(weights_of(after.model).values())).hexdigest()
    facts = dict(after.history[-1].facts)
    return {"weights": weights, "written": len(written), "shown": steps.done, "facts": facts}


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
        rank = os.environ.get("LOCAL_RANK", "0")
        curves, did = trainings(folder, int(devices)), observed(folder, int(devices))
        (folder / f"rank{rank}.json").write_text(json.dumps(did))
        if rank == "0":
            (folder / "curves.json").write_text(json.dumps(curves))
