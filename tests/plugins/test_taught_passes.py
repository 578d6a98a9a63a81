"""A teacher inside of the passes that train a compressed model: `prune-structured`, `prune-unstructured`, `qat`."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from training_samples import CLASSES, make_context, make_data, make_net, make_state, weights_of

from edgeopt.errors import RecipeError, TrainingError
from edgeopt.options import Options
from edgeopt.plugins.contexts import PassContext
from edgeopt.plugins.declarations import ModelPlugin, PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.plugins.use import Use
from edgeopt.recipe.lookup import resolve
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import parse_recipe
from edgeopt.types import Form, ModelState
from edgeopt_lightning.options import TrainOptions
from edgeopt_lightning.plugin import train

PASSES = {
    "prune-structured": {"round_to": 1, "steps": 2},
    "prune-unstructured": {"sparsity": 0.6},
    "qat": {"quantizer": "xnnpack"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> ModelState:
    """A network that knows stripes from columns, as the float model of a run."""
    context = make_context(tmp_path_factory.mktemp("trained"), make_data(240))
    state = train(make_state(make_net()), TrainOptions(epochs=8, batch_size=16, learning_rate=1e-2), context)
    assert state.history[-1].facts["validation_accuracy"] > 0.8
    return state


def apply(name: str, state: ModelState, context: PassContext, **options: object) -> ModelState:
    values = {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3, **PASSES[name], **options}
    use = resolve(PassPlugin, name, values, load_registry())
    return use.plugin.apply(state, use.options, context)


def with_baseline(context: PassContext, state: ModelState) -> PassContext:
    return replace(context, baseline=lambda: state)


def facts(state: ModelState) -> dict[str, object]:
    return dict(state.history[-1].facts)


def state_bytes(state: ModelState) -> dict[str, bytes]:
    tensors = state.module.state_dict() if state.form is Form.MODULE else state.program.state_dict
    return {name: value.detach().contiguous().numpy().tobytes() for name, value in tensors.items()}


@pytest.mark.parametrize("name", PASSES)
def test_the_float_model_teaches_what_became_of_it_and_the_control_is_the_pass_without(
    name: str, trained: ModelState, tmp_path: Path
) -> None:
    before = weights_of(trained.module)
    context = with_baseline(make_context(tmp_path / "taught"), trained)
    taught = apply(name, trained, context, teacher="float", temperature=2.0)
    plain = apply(name, trained, make_context(tmp_path / "plain"))
    found, without = facts(taught), facts(plain)
    assert weights_of(trained.module) == before
    assert all(each.requires_grad for each in trained.module.parameters())
    assert state_bytes(taught) != state_bytes(plain)
    if name != "prune-structured":  # there the second removal is chosen for the taught network
        assert found["control_accuracy"] == without["validation_accuracy"]
        assert found["control_loss"] == without["validation_loss"]
    low, high = found["control_accuracy_interval"]
    assert low <= found["control_accuracy"] <= high
    assert found["teacher_gain"] == found["validation_accuracy"] - found["control_accuracy"]
    assert found["teacher"] == "this run's float model" and found["teacher_accuracy"] > 0.8
    names = [curve.name for curve in taught.history[-1].curves]
    assert any(each.endswith("validation accuracy, control") for each in names)
    assert not any(each.startswith(("teacher", "control")) for each in without)


def test_the_control_of_a_pruned_network_loses_the_same_channels_and_no_others(
    trained: ModelState, tmp_path: Path
) -> None:
    """With one removal, which no training comes before, the control is the very pass without a teacher."""
    context = with_baseline(make_context(tmp_path / "taught"), trained)
    taught = apply("prune-structured", trained, context, teacher="float", steps=1)
    plain = apply("prune-structured", trained, make_context(tmp_path / "plain"), steps=1)
    assert facts(taught)["control_accuracy"] == facts(plain)["validation_accuracy"]
    assert facts(taught)["control_loss"] == facts(plain)["validation_loss"]
    assert taught.history[-1].details == plain.history[-1].details


def test_zeros_stay_zero_while_a_teacher_teaches(trained: ModelState, tmp_path: Path) -> None:
    context = with_baseline(make_context(tmp_path), trained)
    taught = apply("prune-unstructured", trained, context, teacher="float", control=False)
    assert facts(taught)["sparsity"] == pytest.approx(0.6, abs=0.01)
    zeros = [(layer.weight == 0).float().mean() for layer in taught.module.modules() if isinstance(layer, nn.Conv2d)]
    assert all(share == pytest.approx(0.6, abs=0.01) for share in zeros)
    assert "control_accuracy" not in facts(taught)


def test_the_float_model_is_no_teacher_before_there_is_one(trained: ModelState, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="none comes before this pass") as caught:
        apply("prune-unstructured", trained, make_context(tmp_path), teacher="float")
    assert caught.value.problems[0].option == "teacher" and caught.value.problems[0].hint


class Wider(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = copy.deepcopy(inner)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.inner(images)
        return torch.cat([logits, logits], 1)


def test_a_teacher_of_other_classes_is_refused(trained: ModelState, tmp_path: Path) -> None:
    others = replace(trained, classes=("ape", "bee", "cow"))
    wider = replace(trained, model=Wider(trained.module))
    for built, text in ((others, "ape, bee, cow"), (wider, f"tells 6 classes, and the data set has {len(CLASSES)}")):
        plugin = ModelPlugin("other", "Other classes.", Options, build=lambda *_, built=built: built)
        with pytest.raises(TrainingError, match=text) as caught:
            apply("prune-unstructured", trained, make_context(tmp_path), teacher=Use(plugin, Options()))
        assert "earlier-run" in caught.value.problems[0].hint


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"temperature": 2.0}, "temperature needs a teacher"),
        ({"control": False}, "control needs a teacher"),
        ({"teacher": "float", "alpha": 0.0}, "nothing to teach"),
        ({"teacher": "flaot"}, "flaot"),
    ],
)
@pytest.mark.parametrize("name", PASSES)
def test_options_that_cannot_be(name: str, options: dict[str, object], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        resolve(PassPlugin, name, options, load_registry())


def test_a_recipe_with_every_option_written_out_is_the_same_recipe(tmp_path: Path) -> None:
    """As a lock has it."""
    report = tmp_path / "report.json"
    report.write_text('{"passes": [{"name": "prune-structured", "details": {"removed_channels": [{"x": [1]}]}}]}')
    values = {
        "schema": 1,
        "name": "again",
        "dataset": {"use": "digits", "image_size": 32},
        "model": {"use": "torchvision", "arch": "resnet18"},
        "passes": [
            {"use": "prune-structured", "replay": str(report)},
            {"use": "distill", "teacher": "float"},
            {"use": "qat", "teacher": {"use": "torchvision", "arch": "resnet34"}},
        ],
        "exports": [{"use": "onnx"}],
    }
    plan = make_plan(parse_recipe(values), load_registry())
    written = [{name: each for name, each in use.to_json().items() if each is not None} for use in plan.passes]
    assert written[1]["teacher"] == "float"
    again = make_plan(parse_recipe({**values, "passes": written}), load_registry())
    assert [stage.key for stage in again.stages.values()] == [stage.key for stage in plan.stages.values()]
