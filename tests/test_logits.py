"""A network that gives something beside its logits is refused by name, before any pass and in training."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import edgeopt
from edgeopt.errors import ExportError, RecipeError, TrainingError
from edgeopt.networks.capture import capture
from edgeopt.networks.logits import require_logits
from edgeopt.networks.outputs import require_answers_alone
from edgeopt.testing import pass_context, tiny_model
from edgeopt_lightning.options import TrainOptions
from edgeopt_lightning.train import train_model

pytestmark = pytest.mark.usefixtures("imports_done_once")

Pair = namedtuple("Pair", ["logits", "features"])

ANSWERS = {
    "tuple": (lambda logits, features: (logits, features), "a tuple of 2: (2, 3) and (2, 4, 4)", "self.network(x)[0]"),
    "features first": (lambda logits, features: [features, logits], "a list of 2", "self.network(x)[1]"),
    "dict": (
        lambda logits, features: {"features": features, "logits": logits},
        "a dict with features (2, 4, 4) and logits (2, 3)",
        "self.network(x)['logits']",
    ),
    "named tuple": (Pair, "a Pair of 2", "self.network(x)[0]"),
    "object": (lambda logits, features: SimpleNamespace(logits=logits), "with logits (2, 3)", "self.network(x).logits"),
}


class Several(nn.Module):
    def __init__(self, answer: Any, in_training_alone: bool = False) -> None:
        super().__init__()
        self.head, self.answer, self.in_training_alone = nn.Linear(3, 3), answer, in_training_alone

    def forward(self, x: Tensor) -> Any:
        logits = self.head(x.mean((2, 3)))
        if self.in_training_alone and not self.training:
            return logits
        return self.answer(logits, x[:, 0, :4, :4])


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_it_returns_and_what_to_do_is_said(kind: str) -> None:
    answer, described, cure = ANSWERS[kind]
    module = Several(answer).train()
    with pytest.raises(RecipeError) as caught:
        require_logits(module, torch.zeros(2, 3, 8, 8), 3)
    assert described in str(caught.value) and cure in str(caught.value) and "Several" in str(caught.value)
    assert module.training
    if kind in ("tuple", "dict"):
        with pytest.raises(ExportError, match=r"not logits \(batch, classes\) alone"):
            capture(module, torch.zeros(2, 3, 8, 8), (1, 4))


def test_another_number_of_classes_and_a_forward_that_fails() -> None:
    require_logits(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), torch.zeros(2, 3, 8, 8), 3)
    with pytest.raises(RecipeError, match=r"not logits \(batch, 5\)"):
        require_logits(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), torch.zeros(2, 3, 8, 8), 5)
    with pytest.raises(RecipeError, match="does not take images"):
        require_logits(nn.Sequential(nn.Flatten(), nn.Linear(7, 3)), torch.zeros(2, 3, 8, 8), 3)


class Mixing(nn.Module):
    """Centres what it is given over the batch, as one of training alone may."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0, keepdim=True)).flatten(1)[:, :3] + x.flatten(1)[:, :3]


def test_an_answer_that_depends_on_other_images_or_on_chance() -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    require_answers_alone(nn.Sequential(nn.Conv2d(3, 3, 8), nn.Flatten(), nn.BatchNorm1d(3), nn.Dropout()), images)
    for module in (Mixing(), nn.Sequential(nn.Flatten(), nn.Linear(192, 3), Several(None).head, Drawn())):
        with pytest.raises(RecipeError, match="answers an image otherwise"):
            require_answers_alone(module, images)


class Drawn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.dropout(x, training=True)


def test_outputs_beside_the_logits_in_training_alone(tmp_path: Path) -> None:
    """As networks with auxiliary heads give."""
    from dataclasses import replace

    answer, _, cure = ANSWERS["tuple"]
    state = replace(tiny_model(), model=Several(answer, in_training_alone=True))
    with pytest.raises(TrainingError) as caught:
        train_model(state, TrainOptions(epochs=1), pass_context(tmp_path))
    assert "in training mode" in str(caught.value) and cure in str(caught.value)


PLUGIN = """
from torch import nn
import edgeopt
from edgeopt.networks.heads import float_state
from edgeopt.plugins import ModelPlugin, Options

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)

    def forward(self, x):
        y = self.conv(x).mean((2, 3))
        return self.head(y), y

@edgeopt.hookimpl
def edgeopt_models():
    yield ModelPlugin("two", "Returns two.", Options, build=lambda options, data: float_state(Two(), data, {}))
"""


@pytest.mark.parametrize("passes", ["", "[[passes]]\nuse = 'train'\nepochs = 1\n", "[[passes]]\nuse = 'ptq'\n"])
def test_a_run_is_refused_before_any_pass(passes: str, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(PLUGIN)
    recipe = tmp_path / "two.toml"
    recipe.write_text(
        "schema = 1\nname = 'two'\n[dataset]\nuse = 'fake'\nimage_size = 16\nclass_count = 2\n"
        f"[model]\nuse = 'two'\n{passes}[[exports]]\nuse = 'onnx'\n"
    )
    with pytest.raises(RecipeError, match=r"two.toml:\d+: Two returns a tuple"):
        edgeopt.run(recipe, smoke=True, out=tmp_path / "runs", plugin_files=[tmp_path / "two.py"])
