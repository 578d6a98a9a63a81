"""Fewer than eight bits: what the program holds, how ranges and steps are found, and what is done so that it still
answers well.
"""

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.fx import GraphModule
from training_samples import make_context, make_data

from edgeopt.arrays import Json
from edgeopt.errors import NothingChangedError, UserError
from edgeopt.networks.capture import capture
from edgeopt.plugins.contexts import PassContext
from edgeopt.plugins.declarations import Bits, PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks import TASKS
from edgeopt.types import Form, ModelState
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_lightning.fit.validation import validation_score
from edgeopt_torchao.bits.learned_step import dampen, learned_steps, share_between_integers, start_steps
from edgeopt_torchao.bits.least_error_ranges import least_error_step
from edgeopt_torchao.bits.mixed import allocate
from edgeopt_torchao.bits.on_demand import hold_accuracy
from edgeopt_torchao.bits.rules import BitRules, NarrowingQuantizer, bits_of_layers, weighted_layers
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq, prepare_qat
from edgeopt_torchao.repair.equalization import equalize, find_pairs
from edgeopt_torchao.repair.reconstruction import Repairs, repair, rounded_layers

BATCHES = (1, 16)


class Net(nn.Module):
    """A residual, a depthwise convolution under a ReLU6, two layers that follow each other, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6()
        )
        self.pointwise = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Sequential(nn.Conv2d(16, 24, 3, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.head = nn.Linear(24, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        x = self.pool(x + self.pointwise(self.depthwise(x)))
        return self.head(self.last(x).mean((2, 3)))


def images(count: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def new_net() -> nn.Module:
    torch.manual_seed(0)
    net = Net()
    for norm in (each for each in net.modules() if isinstance(each, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, -1.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.5)
    with torch.no_grad():
        for seed in range(4):
            net.train()(images(16, seed))
    return net.eval()


def narrowed(bits: BitRules, qat: bool = False, per_channel: bool = True) -> NarrowingQuantizer:
    return NarrowingQuantizer(build_xnnpack(per_channel=per_channel, qat=qat), bits)


def rounded_values(model: GraphModule) -> dict[str, int]:
    """The most values that one channel of each layer's rounded weight takes."""
    most = {}
    for layer in rounded_layers(model):
        weight = model.get_parameter(layer.weight_name)
        integers = (weight / layer.step).round().clamp(layer.quant_min, layer.quant_max)
        most[layer.weight_name.removesuffix(".weight")] = max(len(channel.unique()) for channel in integers)
    return most


def activation_ranges(model: GraphModule) -> Counter[tuple[int, int]]:
    """How many activations are rounded to which integers."""
    per_tensor = torch.ops.quantized_decomposed.quantize_per_tensor.default
    return Counter(tuple(node.args[3:5]) for node in model.graph.nodes if node.target is per_tensor)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return new_net()


def quantized(net: nn.Module, bits: BitRules, per_channel: bool = True) -> GraphModule:
    prepared = prepare_ptq(capture(net, images(), BATCHES), narrowed(bits, per_channel=per_channel))
    calibrate(prepared, [images(16, seed) for seed in range(3)])
    return convert(prepared)


# ---- which layer takes what ----------------------------------------------------------------------------------------


def test_the_first_and_the_last_layer_keep_eight_bits(net: nn.Module) -> None:
    layers = weighted_layers(capture(net, images(), BATCHES).module())
    chosen = bits_of_layers(layers, BitRules(Bits(4, 4)))
    assert {name for name, bits in chosen.items() if bits == Bits()} == {"stem.0", "head"}
    assert {name for name, bits in chosen.items() if bits == Bits(4, 4)} == {
        "depthwise.0",
        "pointwise.0",
        "last.0",
    }


def test_layers_named_by_pattern_take_other_bits_and_two_patterns_may_not_differ(net: nn.Module) -> None:
    layers = weighted_layers(capture(net, images(), BATCHES).module())
    chosen = bits_of_layers(layers, BitRules(Bits(4, 8), patterns={"*wise": Bits(6, 6)}))
    assert chosen["depthwise.0"] == chosen["pointwise.0"] == Bits(6, 6)
    assert chosen["last.0"] == Bits(4, 8)
    with pytest.raises(UserError, match=r"'depthwise.0' is named by .* and by"):
        bits_of_layers(layers, BitRules(patterns={"*wise": Bits(6, 6), "depthwise": Bits(5, 5)}))
    with pytest.raises(NothingChangedError, match="no layer that it could concern is named 'steam'"):
        bits_of_layers(layers, BitRules(patterns={"steam": Bits(6, 6)}))


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_a_channel_takes_as_many_values_as_its_bits_allow(net: nn.Module, bits: int) -> None:
    converted = quantized(net, BitRules(Bits(bits, 8)))
    values = rounded_values(converted)
    assert max(values[name] for name in ("depthwise.0", "pointwise.0", "last.0")) <= 2**bits - 1
    first, *_ = rounded_layers(converted)
    assert (first.weight_name, first.quant_max) == ("stem.0.weight", 127)


def test_what_enters_layers_is_narrowed_and_what_is_added_is_not(net: nn.Module) -> None:
    converted = quantized(net, BitRules(Bits(8, 4)))
    ranges = activation_ranges(converted)
    # depthwise's and pointwise's inputs, and what is pooled for the last layer: the sum before it as well, since
    # nothing else reads it
    assert ranges[-8, 7] >= 3
    added = next(node for node in converted.graph.nodes if node.target is torch.ops.aten.add.Tensor)
    assert all(side.args[3:5] == (-128, 127) for side in added.args), "both sides of the sum keep eight bits"
    assert activation_ranges(quantized(net, BitRules()))[-8, 7] == 0


def test_a_layer_can_stay_in_float(net: nn.Module) -> None:
    converted = quantized(net, BitRules(layers={"pointwise.0": Bits(32, 32)}))
    assert set(rounded_values(converted)) == {"stem.0", "depthwise.0", "last.0", "head"}


# ---- ranges --------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), bits=st.integers(2, 6))
def test_a_range_that_saturates_errs_no_more_than_the_whole_range(seed: int, bits: int) -> None:
    rows = torch.randn(3, 50, generator=torch.Generator().manual_seed(seed)) ** 3
    limit = 2 ** (bits - 1) - 1

    def error(step: torch.Tensor) -> torch.Tensor:
        rounded = (rows / step[:, None]).round().clamp(-limit, limit) * step[:, None]
        return (rounded - rows).square().sum(1)

    whole = rows.abs().amax(1) / limit
    assert (error(least_error_step(rows, limit)) <= error(whole) * (1 + 1e-5)).all()


def test_an_outlier_is_cut_off_at_four_bits() -> None:
    values = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
    values[0, 0] = 8.0
    assert 2.0 < 7 * least_error_step(values, 7).item() < 6.0


# ---- learned steps -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned(net: nn.Module) -> GraphModule:
    """Four bits throughout, with steps that were started and trained a little."""
    program = capture(net, images(), BATCHES)
    prepared = prepare_qat(program, narrowed(BitRules(Bits(4, 4)), qat=True), learned_up_to_bits=4)
    start_steps(prepared, [images(16, seed) for seed in range(2)])
    before = [step.log_step.detach().clone() for step in learned_steps(prepared)]
    optimizer = torch.optim.AdamW(prepared.parameters(), lr=1e-3)
    for seed in range(3):
        logits = prepared(images(16, seed))
        loss = nn.functional.cross_entropy(logits, torch.arange(16) % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moved = [not torch.equal(step.log_step, old) for step, old in zip(learned_steps(prepared), before, strict=True)]
    assert all(moved), "every step learns"
    return prepared.eval()


def test_conversion_ships_the_steps_that_were_learned(learned: GraphModule) -> None:
    converted = convert(learned)
    expected, got = learned(images(16, 9)), converted(images(16, 9))
    assert (expected - got).abs().max() < 0.02 * (expected.max() - expected.min())
    assert max(rounded_values(converted)[name] for name in ("depthwise.0", "pointwise.0", "last.0")) <= 15


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("zero_points", [True, False])
def test_any_numerics_convert_to_what_was_learned(net: nn.Module, per_channel: bool, zero_points: bool) -> None:
    quantizer = build_xnnpack(per_channel=per_channel, qat=True, zero_points=zero_points)
    prepared = prepare_qat(
        capture(net, images(), BATCHES), NarrowingQuantizer(quantizer, BitRules(Bits(3, 4))), learned_up_to_bits=4
    )
    start_steps(prepared, [images(16)])
    prepared.train()(images(16))  # the ranges of what keeps eight bits
    prepared.eval()
    expected, got = prepared(images(16, 9)), convert(prepared)(images(16, 9))
    assert (expected - got).abs().max() < 0.02 * (expected.max() - expected.min())


def test_the_gradient_of_a_step_is_that_of_the_paper() -> None:
    from edgeopt_torchao.bits.learned_step import _RoundToLearnedStep

    values = torch.tensor([-9.0, -0.6, 0.2, 2.4, 50.0], requires_grad=True)
    step = torch.tensor([1.0], requires_grad=True)
    _RoundToLearnedStep.apply(values, step, -7, 7, 1.0).sum().backward()
    assert values.grad.tolist() == [0, 1, 1, 1, 0]
    assert step.grad.item() == pytest.approx(-7 + (-1 + 0.6) + (0 - 0.2) + (2 - 2.4) + 7)


def test_dampening_moves_weights_to_the_middle_and_changes_no_integer(learned: GraphModule) -> None:
    model = copy.deepcopy(learned)
    before = share_between_integers(model)
    expected = model(images(16))
    dampen(model, 0.5)
    assert share_between_integers(model) < before
    assert torch.allclose(model(images(16)), expected, atol=1e-4)


# ---- equalization --------------------------------------------------------------------------------------------------


def test_equalization_keeps_the_function_and_brings_ranges_together(net: nn.Module) -> None:
    model = capture(net, images(), BATCHES).module()
    batches = [images(16, seed) for seed in range(3)]
    expected = [model(batch) for batch in batches]
    assert equalize(model, batches) == 1, "depthwise to pointwise; the stem's channels are added to others as well"
    for batch, logits in zip(batches, expected, strict=True):
        assert torch.allclose(model(batch), logits, atol=1e-4)
    (pair,) = find_pairs(model)
    outer = model.get_parameter(str(pair.first.weight.target)).flatten(1).abs().amax(1)
    inner = model.get_parameter(str(pair.second.weight.target)).transpose(0, 1).flatten(1).abs().amax(1)
    apart = (outer / inner).log().abs()
    assert (apart < 0.1).float().mean() > 0.5, "most channels meet; those near the clip may not"


def test_equalization_leaves_channels_alone_that_reach_their_clip(net: nn.Module) -> None:
    model = copy.deepcopy(net)
    with torch.no_grad():
        model.depthwise[1].bias[:] = 8.0  # beyond the six of ReLU6
    program = capture(model, images(), BATCHES).module()
    expected = program(images(16))
    equalize(program, [images(16)])
    assert torch.allclose(program(images(16)), expected, atol=1e-4)


def test_nothing_to_equalize_is_an_error() -> None:
    torch.manual_seed(0)
    alone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(NothingChangedError, match="no two layers of this model share channels"):
        equalize(capture(alone, images(), BATCHES).module(), [images()])


# ---- adaptive rounding, and biases ---------------------------------------------------------------------------------


def prepared_and_converted(net: nn.Module, bits: BitRules) -> tuple[GraphModule, GraphModule]:
    prepared = prepare_ptq(capture(net, images(), BATCHES), narrowed(bits))
    calibrate(prepared, [images(16, seed) for seed in range(3)])
    return prepared, convert(prepared)


def test_adaptive_rounding_moves_no_weight_by_more_than_a_step_and_errs_less(net: nn.Module) -> None:
    prepared, converted = prepared_and_converted(net, BitRules(Bits(3, 8)))
    before = {
        layer.weight_name: converted.get_parameter(layer.weight_name).clone() for layer in rounded_layers(converted)
    }
    batch = images(48, 5)
    exact = prepared(batch)
    error = (converted(batch) - exact).square().mean()
    repaired = repair(prepared, converted, batch, Repairs(rounding_steps=100), seed=0)
    assert repaired.layers == 5
    assert repaired.weights_moved > 0
    for layer in rounded_layers(converted):
        step, weight = layer.step, before[layer.weight_name]
        limits = layer.quant_min * step, layer.quant_max * step
        moved = (converted.get_parameter(layer.weight_name) - weight.clamp(*limits)).abs()
        assert (moved < step * 1.0001).all(), layer.weight_name
    assert (converted(batch) - exact).square().mean() < 0.7 * error


def test_bias_correction_takes_the_mean_error_of_every_layer_away(net: nn.Module) -> None:
    prepared, converted = prepared_and_converted(net, BitRules(Bits(3, 8)))
    batch = images(64, 5)
    off = (converted(batch) - prepared(batch)).mean(0).abs().max()
    repaired = repair(prepared, converted, batch, Repairs(correct_bias=True), seed=0)
    assert repaired.biases_corrected == 5
    step = (prepared(batch).max() - prepared(batch).min()) / 255  # of the logits themselves
    assert (converted(batch) - prepared(batch)).mean(0).abs().max() < max(0.2 * off, step)


# ---- budgets -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(data=st.data())
def test_a_budget_is_kept_and_no_layer_gives_way_without_need(data: st.DataObject) -> None:
    sizes = data.draw(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 1000), min_size=1))
    levels = (8, 6, 4)
    scores = {(name, level): data.draw(st.floats(0, 1)) for name in sizes for level in levels}
    average = data.draw(st.floats(4, 8))
    chosen = allocate(sizes, scores, levels, average)
    total, allowed = sum(sizes[name] * chosen[name] for name in sizes), average * sum(sizes.values())
    assert total <= allowed + 1e-6
    assert total + 2 * max(sizes.values()) > allowed or set(chosen.values()) == {8}


def test_the_layer_that_minds_least_gives_way_first() -> None:
    scores = {("a", 8): 0.0, ("a", 4): 0.1, ("b", 8): 0.0, ("b", 4): 0.5}
    assert allocate({"a": 100, "b": 100}, scores, (8, 4), 6.0) == {"a": 4, "b": 8}


def test_a_budget_below_all_choices_is_an_error() -> None:
    with pytest.raises(UserError, match="the budget leaves 3 bits for a weight"):
        allocate({"a": 10}, {("a", 8): 0.0, ("a", 4): 0.1}, (8, 4), 3.0)


@given(good_from=st.integers(0, 9), layers=st.integers(1, 9))
def test_as_few_layers_as_needed_go_back_to_float(good_from: int, layers: int) -> None:
    order = [f"layer{index}" for index in range(layers)]
    if good_from >= layers:
        with pytest.raises(NothingChangedError, match="with any layer quantized"):
            hold_accuracy(frozenset, order, lambda names: 1.0 if len(names) >= good_from else 0.5, 0.9)
        return
    made, in_float = hold_accuracy(frozenset, order, lambda names: 1.0 if len(names) >= good_from else 0.5, 0.9)
    assert in_float == tuple(order[:good_from])
    assert made == frozenset(in_float)


# ---- through the passes --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ModelState:
    """A network that knows its images."""
    data = make_data()
    torch.manual_seed(0)
    state = ModelState(Net(), Form.MODULE, TASKS["classification"], data.classes, data.preprocessing)
    return apply("train", state, tmp_path_factory.mktemp("train"), epochs=6, batch_size=16, learning_rate=1e-2)


def apply(name: str, state: ModelState, folder: Path, **options: Json) -> ModelState:
    use = resolve(PassPlugin, name, options, load_registry())
    torch.manual_seed(0)
    return use.plugin.apply(state, use.options, context_in(folder))


def context_in(folder: Path) -> PassContext:
    folder.mkdir(exist_ok=True)
    return make_context(folder, make_data())


def accuracy(state: ModelState, folder: Path) -> float:
    module = state.module if state.form is Form.MODULE else state.program.module()
    return validation_score(module, state.task, context_in(folder)).value


def test_four_bits_trained_answer_as_float(trained: ModelState, tmp_path: Path) -> None:
    state = apply(
        "qat", trained, tmp_path, weight_bits=4, activation_bits=4, epochs=3, batch_size=16, learning_rate=2e-3
    )
    record = state.history[-1]
    assert state.precision == "w4a4"
    assert record.facts["bits"] == "w4a4: 3 layers, w8a8: 2 layers"
    assert record.facts["steps_learned"] >= 6
    assert accuracy(state, tmp_path) >= accuracy(trained, tmp_path) - 0.03
    assert record.details["bits"]["last.0"] == {"weights": 4, "activations": 4}
    assert "teacher" not in record.facts  # there is no float model before this pass, which is told
    assert any("without the float model as a teacher" in each for each in record.warnings)


@pytest.mark.parametrize(
    ("options", "taught"),
    [
        ({"weight_bits": 4}, True),
        ({"weight_bits": 4, "temperature": 2.0, "alpha": 0.5}, True),
        ({"weight_bits": 4, "teacher": "none"}, False),
        ({"weight_bits": 4, "steps": "observed"}, False),
        ({"weight_bits": 6}, False),
    ],
)
def test_learned_steps_learn_from_the_float_model(
    options: dict[str, Json], taught: bool, trained: ModelState, tmp_path: Path
) -> None:
    """Without being asked, and without the control that would double the time."""
    use = resolve(PassPlugin, "qat", {"epochs": 1, "batch_size": 16, **options}, load_registry())
    context = replace(context_in(tmp_path), baseline=lambda: trained)
    record = use.plugin.apply(trained, use.options, context).history[-1]
    assert (record.facts.get("teacher") == "this run's float model") == taught
    assert "teacher_gain" not in record.facts
    assert not any("teacher" in each for each in record.warnings)


def test_everything_at_once_after_training(trained: ModelState, tmp_path: Path) -> None:
    options: dict[str, Json] = {"equalize": True, "correct_bias": True, "rounding": "adaptive", "rounding_steps": 60}
    state = apply("ptq", trained, tmp_path, average_bits=5.0, **options)
    facts = state.history[-1].facts
    assert facts["average_weight_bits"] <= 5.0
    assert facts["equalized_pairs"] == 1
    assert facts["layers_repaired"] == facts["biases_corrected"] == 5
    assert state.precision == "mixed"
    assert accuracy(state, tmp_path) >= accuracy(trained, tmp_path) - 0.05


def test_an_allocation_says_what_each_layer_takes(trained: ModelState, tmp_path: Path) -> None:
    file = tmp_path / "allocation.toml"
    file.write_text('of = "bits"\n[layers]\n"pointwise.0" = 4\n"last.0" = 32\n')
    state = apply("ptq", trained, tmp_path, allocation=str(file))
    bits = state.history[-1].details["bits"]
    assert bits["pointwise.0"] == {"weights": 4, "activations": 4}
    assert bits["last.0"]["weights"] == 32
    assert bits["stem.0"] == bits["depthwise.0"] == {"weights": 8, "activations": 8}
    assert "last.0" in state.history[-1].facts["layers_in_float"]
    file.write_text('of = "bits"\n[layers]\n"lost.0" = 4\n')
    with pytest.raises(UserError, match=r"the model has no layer 'lost.0'"):
        apply("ptq", trained, tmp_path, allocation=str(file))
    file.write_text('of = "bits"\n[layers]\n"last.0" = 12\n')
    with pytest.raises(UserError, match="12 is neither of 2 to 8 bits nor 32"):
        apply("ptq", trained, tmp_path, allocation=str(file))


def test_accuracy_on_demand_puts_back_what_minds_and_says_what_that_costs(trained: ModelState, tmp_path: Path) -> None:
    bits = {"weight_bits": 2, "activation_bits": 2, "edge_bits": 2}
    whole = accuracy(trained, tmp_path)
    assert accuracy(apply("ptq", trained, tmp_path, **bits), tmp_path) < whole, "or there is nothing to hold"
    state = apply("ptq", trained, tmp_path, **bits, max_accuracy_drop=0.0)
    assert accuracy(state, tmp_path) >= whole
    back = state.history[-1].facts["layers_back_in_float"]
    assert 1 <= len(back) <= 4
    assert all("bytes" in line and "ms" in line for line in back)


def test_options_that_contradict_each_other_are_refused() -> None:
    for options, message in [
        ({"average_bits": 5.0, "weight_bytes": 100}, "two ways to say the same"),
        ({"average_bits": 5.0, "weight_bits": 4}, "weight_bits has no say"),
        ({"bit_choices": [8, 4]}, "needs average_bits or weight_bytes"),
    ]:
        with pytest.raises(UserError, match=message):
            resolve(PassPlugin, "ptq", options, load_registry())
