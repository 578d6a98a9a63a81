# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

import copy
import json
import math
import subprocess
import sys
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from training_samples import (
    ArraySplit,
    Steps,
    make_context,
    make_data,
    make_net,
    make_split,
    make_state,
    weights_of,
)

from edgeopt.errors import CheckpointError, NothingChangedError, TrainingError, UserError
from edgeopt.networks.saved import save_state
from edgeopt.options import Augmentation, Options
from edgeopt.plugins.contexts import Budget
from edgeopt.plugins.declarations import ModelPlugin, PassPlugin
from edgeopt.plugins.use import Use
from edgeopt.recipe.lookup import resolve
from edgeopt.report.schema import DatasetSummary, Environment, RecipeSummary, Report
from edgeopt.tasks import mcnemar
from edgeopt.tasks.classification import Classification
from edgeopt.testing import ModelContract, PassContract, tiny_data, tiny_model
from edgeopt.types import PassRecord, TrainingData
from edgeopt.workers.store import Store
from edgeopt_distillation.features import Matching, attention_loss, feature_loss
from edgeopt_distillation.options import DistillOptions, TeacherOptions
from edgeopt_distillation.plugin import distill, edgeopt_models, edgeopt_passes
from edgeopt_distillation.teacher_input import Normalization, convert_inputs
from edgeopt_distillation.teacher_loss import Teaching, alpha_at, load_teacher
from edgeopt_lightning.fit.hooks import FitHooks
from edgeopt_lightning.options import TrainOptions
from edgeopt_lightning.plugin import train

TASK = Classification()


def teacher_use(net: nn.Module, **declared: object) -> Use[ModelPlugin]:
    """A reference to a model plugin that gives this network."""
    plugin = ModelPlugin("trained", "A network at hand.", Options, build=lambda *_: make_state(net), **declared)
    return Use(plugin, Options())


def make_wide_net() -> nn.Sequential:
    """A teacher that has other channels and larger maps than `make_net`."""
    torch.manual_seed(1)
    features = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 20, 3))
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 3))
    net = nn.Sequential()
    net.add_module("body", features)
    net.add_module("top", head)
    return net


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> nn.Module:
    """A network that knows stripes from columns."""
    context = make_context(tmp_path_factory.mktemp("teacher"), make_data(240))
    options = TrainOptions(epochs=8, batch_size=16, learning_rate=1e-2)
    state = train(make_state(make_wide_net()), options, context)
    assert state.history[-1].facts["validation_accuracy"] > 0.9
    state.model.zero_grad()
    return state.model


def options_with(teacher: nn.Module, /, **changes: object) -> DistillOptions:
    return DistillOptions(
        **{"teacher": teacher_use(teacher), "epochs": 3, "batch_size": 16, "learning_rate": 1e-2, **changes}
    )


# ---- declarations and options --------------------------------------------------------------------------------------


def test_declaring_is_light() -> None:
    code = (
        "import sys, edgeopt_distillation.plugin, edgeopt_distillation.earlier_run;"
        "print([n for n in ('torch', 'lightning', 'numpy') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == "[]"
    (declared,) = edgeopt_passes()
    assert declared.name == "distill" and not declared.optimizes
    assert [each.name for each in edgeopt_models()] == ["earlier-run"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.0}, "nothing to teach"),
        ({"alpha_end": 0.1}, "alpha_end needs alpha_schedule"),
        ({"alpha": 0.5, "alpha_end": 0.6, "alpha_schedule": "linear"}, "alpha_end .0.6. is above alpha .0.5."),
        ({"alpha": 1.5}, "less than or equal to 1"),
        ({"temperature": 0}, "temperature"),
        ({"feature_weight": 2.0}, "feature_weight needs features"),
        ({"attention_weight": 2.0}, "attention_weight needs attention"),
        ({"features": [["a"]]}, "features"),
        ({"teacher": None}, "teacher"),
        ({"teacher_mean": (0.5, 0.5, 0.5)}, "give both, or neither"),
        ({"teacher_mean": (0.5, 0.5, 0.5), "teacher_std": (0.5, 0.5, 0.0)}, "greater than 0"),
        ({"teacher": "float", "teacher_mean": (0.5,) * 3, "teacher_std": (0.5,) * 3}, "a model plugin"),
    ],
)
def test_options_that_cannot_be(changes, message) -> None:
    with pytest.raises(ValidationError, match=message):
        options_with(make_net(), **changes)


def test_a_misspelt_teacher_is_told_of_the_word_that_names_no_model(registry) -> None:
    with pytest.raises(UserError) as caught:
        resolve(PassPlugin, "distill", {"teacher": "flaot"}, registry)
    (problem,) = caught.value.problems
    assert "did you mean 'float'" in str(problem)


def test_a_teacher_is_optional_where_the_pass_does_not_live_of_it() -> None:
    assert TeacherOptions().teacher is None and TeacherOptions(alpha=0.0).alpha == 0.0


# ---- the loss ------------------------------------------------------------------------------------------------------


def softened(logits: np.ndarray, temperature: float) -> np.ndarray:
    powers = np.exp(logits / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_soft_loss_is_the_divergence_times_the_squared_temperature(temperature) -> None:
    logits = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
    wanted = np.array([[1.0, 1.0, -3.0], [4.0, 0.0, 0.0]])
    ours, theirs = softened(logits, temperature), softened(wanted, temperature)
    expected = (theirs * np.log(theirs / ours)).sum() / 2 * temperature**2
    found = TASK.soft_loss((torch.tensor(logits),), (torch.tensor(wanted),), temperature)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(TASK.soft_loss((torch.tensor(wanted),), (torch.tensor(wanted),), temperature)) == pytest.approx(
        0, abs=1e-6
    )


def test_the_gradient_keeps_its_size_whatever_the_temperature() -> None:
    wanted, sizes = torch.tensor([[1.0, 0.0, -1.0]]), []
    for temperature in (10.0, 100.0):
        logits = torch.zeros(1, 3, requires_grad=True)
        TASK.soft_loss((logits,), (wanted,), temperature).backward()
        sizes.append(float(logits.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0.9, 0.9, 0.9]),
        ({"alpha": 0.8, "alpha_schedule": "linear"}, [0.8, 0.4, 0.0]),
        ({"alpha": 0.8, "alpha_schedule": "linear", "alpha_end": 0.2}, [0.8, 0.5, 0.2]),
        ({"alpha": 1.0, "alpha_schedule": "cosine", "alpha_end": 0.5}, [1.0, 0.75, 0.5]),
    ],
)
def test_alpha_falls_as_its_schedule_says(changes, expected) -> None:
    options = TeacherOptions(**changes)
    assert [alpha_at(options, epoch, 3) for epoch in range(3)] == pytest.approx(expected)
    assert alpha_at(options, 0, 1) == options.alpha
    if options.alpha_schedule == "cosine":
        assert alpha_at(options, 1, 5) == pytest.approx(0.5 + 0.5 * (1 + math.cos(math.pi / 4)) / 2)


def test_labels_and_teacher_share_the_loss(tmp_path, teacher) -> None:
    context = make_context(tmp_path)
    options = TeacherOptions(alpha=0.75, alpha_schedule="linear", alpha_end=0.25, temperature=3)
    before = weights_of(teacher)
    teaching = Teaching(load_teacher(teacher_use(teacher), TASK, context), TASK, options, 3, label_smoothing=0.1)
    called = []
    hooks = teaching.added_to(FitHooks(before_epoch=lambda *seen: called.append(seen)))
    student = make_net().eval()
    inputs = torch.randn(6, 3, 12, 12)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    logits = student(inputs)
    soft = TASK.soft_loss((logits,), (teacher(inputs),), 3)
    hard = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    for epoch, alpha in enumerate((0.75, 0.5, 0.25)):
        hooks.before_epoch(student, epoch)
        loss = hooks.loss(inputs, (logits,), labels)
        torch.testing.assert_close(loss, alpha * soft + (1 - alpha) * hard)
    loss.backward()
    assert called == [(student, 0), (student, 1), (student, 2)], "the pass's own hook runs as well"
    assert not teacher.training and weights_of(teacher) == before
    assert all(each.grad is None for each in teacher.parameters())
    assert all(each.grad is not None for each in student.parameters())


# ---- the pass ------------------------------------------------------------------------------------------------------


def unlabelled_data() -> TrainingData:
    """Training labels that say nothing, and enough right ones in validation to tell good from bad."""
    data = make_data()
    drawn = np.random.default_rng(0).integers(0, 3, len(data.train))
    train = ArraySplit(drawn, data.train.pixels(slice(None)))
    return replace(data, train=train, validation=make_split(300, 2), fingerprint="unlabelled")


def test_the_teacher_gives_what_the_labels_do_not(tmp_path, teacher) -> None:
    """The labels are noise; the teacher knows better, and the control row shows what that is worth."""
    context = make_context(tmp_path, unlabelled_data())
    state = make_state(make_net())
    before = weights_of(state.model)
    after = distill(state, options_with(teacher, epochs=8, alpha=1.0), context)
    record = after.history[-1]
    facts = record.facts
    assert weights_of(state.model) == before and not state.history
    assert facts["validation_accuracy"] > facts["control_accuracy_interval"][1] > facts["control_accuracy"]
    assert facts["teacher_gain"] == facts["validation_accuracy"] - facts["control_accuracy"] > 0.2
    assert not facts["teacher_gain_may_be_chance"] and not record.warnings
    gained, lost = facts["images_gained_by_teacher"], facts["images_lost_by_teacher"]
    assert (gained - lost) / 300 == pytest.approx(facts["teacher_gain"])
    assert facts["teacher_gain_p_value"] == mcnemar(lost, gained)
    assert facts["teacher_accuracy"] > 0.9 and facts["teacher"] == "trained"
    assert facts["teacher_parameters"] == sum(each.numel() for each in teacher.parameters())
    assert list(after.model.state_dict()) == list(state.model.state_dict()) and not after.model.training
    names = [curve.name for curve in record.curves]
    assert "validation accuracy" in names and "validation accuracy, control" in names
    assert len(names) == len(set(names)) == 7
    json.dumps(facts)


def test_the_control_is_the_same_training_without_a_teacher(tmp_path, teacher) -> None:
    changes = {"epochs": 3, "batch_size": 16, "learning_rate": 1e-2, "label_smoothing": 0.1}
    taught = distill(make_state(make_net()), options_with(teacher, **changes), make_context(tmp_path / "taught"))
    plain = train(make_state(make_net()), TrainOptions(**changes), make_context(tmp_path / "plain"))
    facts, alone = taught.history[-1].facts, plain.history[-1].facts
    assert facts["control_accuracy"] == alone["validation_accuracy"]
    assert facts["control_loss"] == alone["validation_loss"]
    curves = {curve.name: curve.y for curve in taught.history[-1].curves}
    for curve in plain.history[-1].curves:
        if curve.name != "learning rate":
            assert curves[f"{curve.name}, control"] == curve.y
    assert weights_of(taught.model) != weights_of(plain.model)
    lost, gained = facts["images_lost_by_teacher"], facts["images_gained_by_teacher"]
    assert facts["teacher_gain_may_be_chance"] is (mcnemar(lost, gained) >= 0.05)


def test_without_a_control_nothing_is_said_of_it(tmp_path, teacher) -> None:
    steps = Steps()
    context = make_context(tmp_path, progress=steps)
    record = distill(make_state(make_net()), options_with(teacher, control=False), context).history[-1]
    assert steps.label == "distill" and steps.done == 24
    assert not [name for name in record.facts if name.startswith(("control", "teacher_gain"))]
    assert len(record.curves) == 4


def test_a_teacher_that_did_not_help_is_a_warning(tmp_path) -> None:
    """It names one class more than chance would, so that it is no guess, but mixes up the others."""
    confused = nn.Sequential(make_confused(), nn.Identity())
    context = make_context(tmp_path, replace(make_data(), validation=make_split(150, 2)))
    record = distill(make_state(make_net()), options_with(confused, epochs=6, alpha=1.0), context).history[-1]
    (warning,) = record.warnings
    assert record.facts["teacher_gain"] < 0
    assert "the teacher did not help: accuracy on validation is" in warning and "which is not chance" in warning
    assert "set teacher_mean and teacher_std" in warning


SIMILAR = {"teacher_mean": (0.5, 0.5, 0.5), "teacher_std": (0.1, 0.2, 0.25)}


def test_a_teacher_of_another_normalization_sees_what_it_was_trained_on(tmp_path, teacher) -> None:
    """The same weights behind another normalization answer as they do behind their own, to the last digits."""
    data = make_data()
    other = Normalization(SIMILAR["teacher_mean"], SIMILAR["teacher_std"])
    there = replace(data.preprocessing, mean=other.mean, std=other.std)
    pixels = data.validation.pixels(range(8))
    module = copy.deepcopy(teacher)
    with torch.no_grad():
        expected = module(torch.from_numpy(there.normalize(pixels)))
        assert "0.5, 0.5, 0.5" in convert_inputs(module, other, data.preprocessing)
        torch.testing.assert_close(module(torch.from_numpy(data.preprocessing.normalize(pixels))), expected)
    same = Normalization(data.preprocessing.mean, data.preprocessing.std)
    assert convert_inputs(module, same, data.preprocessing) == ""


def test_an_earlier_run_as_a_teacher_brings_its_normalization(tmp_path) -> None:
    data = make_data()
    other = replace(data, preprocessing=replace(data.preprocessing, mean=(0.1, 0.1, 0.1)))
    (tmp_path / "runs").mkdir()
    run, _ = write_run(tmp_path / "runs", other)
    (model,) = edgeopt_models()
    context = make_context(tmp_path, data, budget=Budget(batches=1, epochs=1, images=8))
    loaded = load_teacher(Use(model, model.options(run=run)), TASK, context)
    assert loaded.converted_from.startswith("converted to mean 0.1, 0.1, 0.1")
    assert not [each for each in loaded.warnings if "other than here" in each]


def test_the_normalization_of_a_teacher_from_a_file_is_an_option(tmp_path, teacher) -> None:
    net = copy.deepcopy(teacher)
    facts = (
        distill(make_state(make_net()), options_with(net, epochs=1, **SIMILAR), make_context(tmp_path))
        .history[-1]
        .facts
    )
    assert facts["teacher_input"] == "converted to mean 0.5, 0.5, 0.5, std 0.1, 0.2, 0.25"


class Confused(nn.Module):
    """Knows stripes, and calls all else columns or plain by chance of the first pixel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = images.mean((1, 3))
        striped = (rows[:, 0::2].mean(1) - rows[:, 1::2].mean(1)).abs()
        return torch.stack([8 * striped - 2, images[:, 0, 0, 0], -images[:, 0, 0, 0]], 1)


def make_confused() -> nn.Module:
    return Confused()


def test_a_compiled_step_teaches_alike(tmp_path, teacher, monkeypatch) -> None:
    original, compiled = torch.compile, []
    monkeypatch.setattr(torch, "compile", lambda step: compiled.append(step) or original(step, backend="eager"))
    options = options_with(teacher, epochs=2, control=False, alpha_schedule="linear", features=[["features", "body"]])
    fast = distill(make_state(make_net()), options, make_context(tmp_path / "fast", compile=True))
    plain = distill(make_state(make_net()), options, make_context(tmp_path / "plain"))
    assert len(compiled) == 1
    for ours, theirs in zip(fast.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_mixed_precision_teaches_as_well(tmp_path, teacher) -> None:
    options = options_with(
        teacher, epochs=4, control=False, features=[["features", "body"]], attention=[["features.0", "body.0"]]
    )
    record = distill(make_state(make_net()), options, make_context(tmp_path, precision="bf16-mixed")).history[-1]
    assert record.facts["precision"] == "bf16-mixed" and not record.warnings
    losses = next(curve.y for curve in record.curves if curve.name == "training loss")
    assert losses[-1] < losses[0]


# ---- killed and resumed --------------------------------------------------------------------------------------------


class Killed(Exception):
    pass


def raise_killed() -> None:
    raise Killed


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha_schedule": "cosine"},
        {"features": [["features", "body"]], "attention": [["features.0", "body.0"]], "averaging": "ema"},
    ],
    ids=["logits", "layers"],
)
def test_a_distillation_that_died_ends_as_if_it_had_not(tmp_path, teacher, changes) -> None:
    data = make_data(augmentation=Augmentation(crop_padding=1))
    options = options_with(teacher, **changes)
    whole = distill(make_state(make_net()), options, make_context(tmp_path / "whole", data))
    killed_at = (3, 12, 30)  # of 8 batches an epoch: before a checkpoint, with the teacher, and in the control
    for batch in killed_at:
        steps = Steps(batch, raise_killed)
        with pytest.raises(Killed):
            distill(make_state(make_net()), options, make_context(tmp_path / "killed", data, progress=steps))
    assert {file.name for file in (tmp_path / "killed").glob("*.ckpt")} >= {"distill.ckpt"}
    resumed = distill(make_state(make_net()), options, make_context(tmp_path / "killed", data))
    assert weights_of(resumed.model) == weights_of(whole.model)
    assert resumed.history == whole.history


def test_the_same_seed_gives_the_same_and_nothing_else_is_touched(tmp_path, teacher) -> None:
    known = weights_of(teacher)
    options = options_with(teacher, features=[["features.3", "body.3"]], control=False)
    state = make_state(make_net())
    torch.manual_seed(5)
    drawn = torch.rand(3)
    ended = []
    for name in "ab":
        torch.manual_seed(5)
        ended.append(distill(state, options, make_context(tmp_path / name)))
        assert torch.equal(torch.rand(3), drawn)
    assert weights_of(ended[0].model) == weights_of(ended[1].model)
    assert weights_of(teacher) == known


# ---- layers --------------------------------------------------------------------------------------------------------


def example() -> torch.Tensor:
    return torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def test_adapters_bring_channels_and_sizes_together(teacher) -> None:
    student = make_net().eval()
    options = options_with(
        teacher,
        features=[["features", "body"], ["head", "top"], ["pool", "top.2"]],
        attention=[["features.0", "body.0"], ["norm", "body"]],
        feature_weight=2.0,
        attention_weight=3.0,
    )
    matching = Matching(student, teacher, options, example(), 17)
    kinds = [type(each) for each in matching.module.adapters]
    assert kinds == [nn.Conv2d, nn.Identity, nn.Linear], "16 to 20 channels, 3 to 3 logits, 16 to 20 means"
    assert matching.module.adapters[0].weight.shape == (20, 16, 1, 1)

    ours, theirs = matching.module(example()), teacher(example())
    assert torch.equal(ours, student(example())) and ours.shape == theirs.shape
    maps = {"ours": {}, "theirs": {}}
    for net, kept in ((student, maps["ours"]), (teacher, maps["theirs"])):
        hidden = example()
        for name, child in net.named_children():
            if name in ("features", "body"):
                kept["first"] = child[0](hidden)
            hidden = kept[name] = child(hidden)
    features = maps["ours"]["features"], maps["theirs"]["body"]
    assert features[0].shape == (4, 16, 4, 4) and features[1].shape == (4, 20, 10, 10)
    adapters = matching.module.adapters
    small = nn.functional.adaptive_avg_pool2d(features[1], 4)
    pooled = teacher.top[2](teacher.top[1](teacher.top[0](features[1])))
    expected = 2 * (
        (adapters[0](features[0]) - small).square().mean()
        + (ours - theirs).square().mean()
        + (adapters[2](maps["ours"]["pool"]) - pooled).square().mean()
    )
    expected += 3 * attention_loss(maps["ours"]["first"], maps["theirs"]["first"])
    expected += 3 * attention_loss(maps["ours"]["norm"], features[1])
    torch.testing.assert_close(matching.loss(), expected)
    matching.remove()
    assert not any(layer._forward_hooks for net in (student, teacher) for layer in net.modules())


def test_attention_looks_at_places_and_not_at_channels() -> None:
    maps = torch.zeros(1, 2, 2, 2)
    maps[0, :, 0, 0] = torch.tensor([1.0, 3.0])  # energy 5 there
    maps[0, :, 1, 1] = torch.tensor([2.0, 1.0])  # and 2.5 there
    other = torch.zeros(1, 5, 2, 2)
    other[0, 4, 0, 1] = 7.0
    same_places = maps.mean(1, keepdim=True).new_zeros(1, 1, 2, 2)
    same_places[0, 0, 0, 0], same_places[0, 0, 1, 1] = 2.0, math.sqrt(2.0)  # energies 4 and 2: in the same proportion
    assert float(attention_loss(maps, same_places)) == pytest.approx(0, abs=1e-6)
    assert float(attention_loss(maps, other)) == pytest.approx(2), (
        "nothing in common: two unit vectors at a right angle"
    )


def test_features_of_another_size_are_compared_at_the_smaller_one() -> None:
    fine = torch.arange(16.0).reshape(1, 1, 4, 4)
    coarse = torch.tensor([[2.5, 4.5], [10.5, 12.5]]).reshape(1, 1, 2, 2)  # means of four
    for ours, theirs in ((fine, coarse), (coarse, fine)):
        assert float(feature_loss(nn.Identity(), ours, theirs)) == pytest.approx(0, abs=1e-6)
    assert float(feature_loss(nn.Identity(), fine, coarse + 2)) == pytest.approx(4)


def test_student_and_adapters_learn_the_features(teacher) -> None:
    options = options_with(
        teacher, features=[["features", "body"]], attention=[["features.0", "body.0"]], attention_weight=0.1
    )
    matching = Matching(make_net().eval(), teacher, options, example(), 17)
    before = weights_of(matching.module)
    optimizer = torch.optim.Adam(matching.module.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        matching.module(example())
        with torch.no_grad():
            teacher(example())
        loss = matching.loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    after = weights_of(matching.module)
    moved = {name for name in before if before[name] != after[name]}
    assert {"student.features.0.weight", "student.features.3.weight", "adapters.0.weight"} <= moved
    assert not any(name.startswith("student.head") for name in moved), "nothing of the loss comes from there"
    matching.remove()


# ---- what cannot be ------------------------------------------------------------------------------------------------


def test_unknown_layers_are_all_named_with_the_nearest(tmp_path, teacher) -> None:
    options = options_with(teacher, features=[["featurs", "body"]], attention=[["norm", "bodi.0"], ["xyz", "body"]])
    with pytest.raises(TrainingError) as caught:
        distill(make_state(make_net()), options, make_context(tmp_path))
    first, second, third = caught.value.problems
    assert "the student has no layer 'featurs'" in first.message and "'features'" in first.hint
    assert "the student has no layer 'xyz'" in second.message and "its parts: features, norm, pool, head" in second.hint
    assert "the teacher has no layer 'bodi.0'" in third.message and "'body.0'" in third.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": [["features", "top"]]}, r"'features' and 'top' give \(16, 4, 4\) and \(3,\) for an image"),
        ({"attention": [["head", "top"]]}, r"(?s)attention: .*\(3,\) and \(3,\).*needs maps"),
        ({"features": [["unused", "top"]]}, "layer 'unused' of the student is not run"),
    ],
)
def test_layers_that_cannot_be_compared(tmp_path, teacher, changes, message) -> None:
    class Idle(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            for name, child in self.named_children():
                images = images if name == "unused" else child(images)
            return images

    net = Idle(OrderedDict(make_net().named_children()))
    net.add_module("unused", nn.Linear(2, 2))
    with pytest.raises(TrainingError, match=message):
        distill(make_state(net), options_with(teacher, **changes), make_context(tmp_path))
    assert not any(layer._forward_hooks for layer in teacher.modules())


def test_a_teacher_that_guesses_is_refused(tmp_path) -> None:
    with pytest.raises(TrainingError) as caught:
        distill(make_state(make_net()), options_with(make_wide_net()), make_context(tmp_path))
    (problem,) = caught.value.problems
    assert problem.message == "teacher 'trained' answers 'columns' for all of 45 validation images"
    assert "give it weights" in problem.hint
    assert problem.option == "teacher"


def test_a_teacher_that_always_names_the_most_frequent_class_is_refused(tmp_path) -> None:
    class Constant(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([1.0, 0.0, 0.0]).expand(len(images), 3)

    labels = np.zeros(60, dtype=np.int64)
    labels[:6] = 1
    frequent = ArraySplit(labels, make_split(60, 2).images)
    context = make_context(tmp_path, replace(make_data(), validation=frequent))
    with pytest.raises(TrainingError, match=r"answers .* for all of 60 validation images"):
        distill(make_state(make_net()), options_with(Constant()), context)


def test_in_a_smoke_run_a_teacher_that_guesses_is_a_warning(tmp_path) -> None:
    context = make_context(tmp_path, budget=Budget(epochs=1, batches=2))
    record = distill(make_state(make_net()), options_with(make_wide_net()), context).history[-1]
    assert "for all of 45 validation images" in record.warnings[0] and record.facts["epochs_run"] == 1


def test_a_teacher_of_another_framework(tmp_path, teacher) -> None:
    options = options_with(teacher).model_copy(update={"teacher": teacher_use(teacher, framework="tensorflow")})
    with pytest.raises(TrainingError, match="is a model of tensorflow, and the student one of torch"):
        distill(make_state(make_net()), options, make_context(tmp_path))


def test_a_model_without_weights(tmp_path, teacher) -> None:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(NothingChangedError, match="no weights to train"):
        distill(make_state(net), options_with(teacher), make_context(tmp_path))


# ---- an earlier run ------------------------------------------------------------------------------------------------


def write_run(folder, data: TrainingData, *, steps=("train", "ptq"), name: str = "my-recipe", **changes: object):
    """What a run leaves: states in the store, and a report."""
    store = Store(folder / ".store")
    state = tiny_model(data)
    model = PassRecord("model", {"parameters": 1})
    state = replace(state, history=(model,), **changes)
    store.compute("aa" * 32, lambda target: save_state(state, target) or {})
    curve = {"loss": float("nan")}  # figures that are not finite are words in a report
    after = state.after(PassRecord("train", {"validation_accuracy": 0.9, **curve}), copy.deepcopy(state.model))
    with torch.no_grad():
        after.model.head.weight.add_(1)
    store.compute("bb" * 32, lambda target: save_state(after, target) or {})
    report = Report(
        edgeopt="0",
        recipe=RecipeSummary(name=name, seed=0, resolved={"passes": [{"use": step} for step in steps]}),
        dataset=DatasetSummary(name="tiny", classes=data.classes, splits={}, fingerprint="", preprocessing={}),
        environment=Environment(python="", platform="", machine="", processor="", cores=1),
        rows=(),
        passes=(*after.history, *(PassRecord(step) for step in steps[1:])),
        float_model="bb" * 32,
    )
    (folder / name).mkdir()
    (folder / name / "report.json").write_text(report.to_json())
    return folder / name, after


@pytest.mark.parametrize("steps", [("train", "ptq"), ("train",)])
def test_an_earlier_run_gives_its_float_model(tmp_path, steps) -> None:
    run, trained = write_run(tmp_path, tiny_data(), steps=steps)
    (model,) = edgeopt_models()
    built = model.build(model.options(run=run), tiny_data())
    assert weights_of(built.model) == weights_of(trained.model)
    assert model.fingerprint(model.options(run=run)) == "bb" * 32
    assert built.history[0].facts["classes_kept"] and not built.history[0].warnings


def test_for_other_classes_an_earlier_run_gives_all_but_its_head(tmp_path) -> None:
    run, trained = write_run(tmp_path, tiny_data())
    (model,) = edgeopt_models()
    data = tiny_data(classes=5)
    built = model.build(
        model.options(run=run), replace(data, preprocessing=replace(data.preprocessing, mean=(0, 0, 0)))
    )
    before, after = weights_of(trained.model), weights_of(built.model)
    assert {name for name in before if before[name] != after[name]} == {"head.weight", "head.bias"}
    assert built.history[0].facts["head"] == "head" and "were trained with mean" in built.history[0].warnings[0]


def test_an_earlier_run_that_is_no_classifier_keeps_its_outputs_and_its_classes(tmp_path) -> None:
    run, _ = write_run(tmp_path, tiny_data(), output_names=("masks",))
    (model,) = edgeopt_models()
    assert model.build(model.options(run=run), tiny_data()).output_names == ("masks",)
    with pytest.raises(CheckpointError, match="of other classes, and only a classifier can be given another head"):
        model.build(model.options(run=run), tiny_data(classes=5))


def test_an_earlier_run_that_is_gone(tmp_path) -> None:
    (model,) = edgeopt_models()
    with pytest.raises(CheckpointError, match=r"(?s)there is no report .*nowhere.report.json.*run that recipe first"):
        model.fingerprint(model.options(run=tmp_path / "nowhere"))
    run, _ = write_run(tmp_path, tiny_data())
    module = tmp_path / ".store" / "bb" / ("bb" * 32) / "module.pt"
    content = module.read_bytes()
    module.write_bytes(b"not a module".ljust(len(content)))
    with pytest.raises(CheckpointError, match=r"(?s)the float model of run .* is not in .*--fresh"):  # it is damaged
        model.build(model.options(run=run), tiny_data())
    record = module.with_name("result.json")
    known = json.loads(record.read_text())
    record.write_text(json.dumps({name: known[name] for name in ("label", "values", "seconds", "finished", "files")}))
    with pytest.raises(CheckpointError, match="cannot be read with what is installed now"):  # for all that is known
        model.build(model.options(run=run), tiny_data())
    module.unlink()
    with pytest.raises(CheckpointError, match=r"(?s)the float model of run .* is not in .*--fresh") as caught:
        model.fingerprint(model.options(run=run))
    assert caught.value.problems[0].option == "run"
    (run / "report.json").write_text("{}")
    with pytest.raises(UserError, match=r"report.json: not a report"):
        model.fingerprint(model.options(run=run))


# ---- the contracts -------------------------------------------------------------------------------------------------


class OfARun:
    """A contract whose plugin needs an earlier run, which the test writes where the printed example looks for it."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def run(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("cwd")
        (folder / "runs").mkdir()
        run, _ = write_run(folder / "runs", tiny_data())
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            yield run


class TestDistill(OfARun, PassContract):
    name = "distill"
    options = {
        "epochs": 1,
        "batch_size": 8,
        "features": [["body", "depthwise"]],
        "teacher": {"use": "earlier-run", "run": "runs/my-recipe"},
    }


class TestEarlierRun(OfARun, ModelContract):
    name = "earlier-run"
    options = {"run": "runs/my-recipe"}
