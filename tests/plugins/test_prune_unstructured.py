# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

import copy
import io
import json
import zlib
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from training_samples import Steps, make_context, make_data, make_net, make_state, weights_of

from edgeopt.errors import NothingChangedError, RecipeError, UserError
from edgeopt.options import Augmentation
from edgeopt.plugins.contexts import Budget
from edgeopt.plugins.declarations import PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import PassContract
from edgeopt_distillation import fit_with_teacher
from edgeopt_pruning.options import PruneUnstructuredOptions
from edgeopt_pruning.unstructured import prune as unstructured
from edgeopt_pruning.unstructured.masks import Pattern, choose_layers, choose_zeros, smallest
from edgeopt_pruning.unstructured.prune import prune_unstructured
from edgeopt_pruning.unstructured.schedule import SparsitySchedule

LAYERS = ("features.0", "features.3", "head.1")
WEIGHTS = 216 + 1152 + 48  # of make_net's layers


def options_of(**changes) -> PruneUnstructuredOptions:
    return PruneUnstructuredOptions(
        **{"epochs": 3, "batch_size": 16, "learning_rate": 1e-2, "scope": "global", **changes}
    )


def zeros_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: module.get_submodule(name).weight.detach() == 0 for name in LAYERS}


def count_zeros(module: nn.Module) -> int:
    return sum(int(zeros.sum()) for zeros in zeros_of(module).values())


class TestPruneUnstructured(PassContract):
    name = "prune-unstructured"
    options = {"epochs": 1, "batch_size": 8, "sparsity": 0.7}


class TestPruneUnstructuredPattern(PassContract):
    name = "prune-unstructured"
    options = {"epochs": 1, "batch_size": 8, "pattern": "2:4", "sparsity_schedule": "at-once"}


# ---- masks ---------------------------------------------------------------------------------------------------------


def tensors(shape: tuple[int, ...]) -> st.SearchStrategy[torch.Tensor]:
    """Weights with many ties and zeros among them."""
    count = torch.Size(shape).numel()
    values = st.lists(st.integers(-3, 3), min_size=count, max_size=count)
    return values.map(lambda drawn: torch.tensor(drawn, dtype=torch.float32).reshape(shape) / 4)


SHAPES = st.sampled_from([(4, 3), (2, 8), (3, 4, 2, 2), (2, 1, 3, 3), (1, 1)])


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.data())
def test_exactly_as_many_as_asked_are_chosen_and_none_is_larger_than_one_left(drawn, data) -> None:
    values = torch.tensor(drawn, dtype=torch.float32)
    count = data.draw(st.integers(0, len(drawn)))
    mask = smallest(values, count)
    assert int(mask.sum()) == count
    if 0 < count < len(drawn):
        assert values[mask].max() <= values[~mask].min()
        assert (
            mask.tolist()
            == torch.zeros(len(drawn), dtype=torch.bool)
            .scatter(0, values.argsort(stable=True)[:count], value=True)
            .tolist()
        )


@settings(deadline=None)
@given(st.data(), st.floats(0, 1), st.floats(0, 1), st.sampled_from(["global", "layer", "lamp"]))
def test_shares_are_exact_and_zeros_stay(data, share, more, scope) -> None:
    weights = [data.draw(tensors(shape)) for shape in data.draw(st.lists(SHAPES, min_size=1, max_size=3))]
    none = [torch.zeros_like(weight, dtype=torch.bool) for weight in weights]
    share, more = sorted((share, more))
    first = choose_zeros(weights, none, share, scope)
    moved = [weight * torch.where(mask, 0, -3) + 1 for weight, mask in zip(weights, first, strict=True)]
    then = choose_zeros(moved, first, more, scope)
    for masks, wanted in ((first, share), (then, more)):
        assert [mask.shape for mask in masks] == [weight.shape for weight in weights]
        if scope == "layer":
            assert [int(mask.sum()) for mask in masks] == [round(wanted * mask.numel()) for mask in masks]
        else:
            assert sum(int(mask.sum()) for mask in masks) == round(wanted * sum(mask.numel() for mask in masks))
    assert not any((old & ~new).any() for old, new in zip(first, then, strict=True)), "what is zero stays zero"
    if scope == "global" and 0 < sum(int(mask.sum()) for mask in first) < sum(mask.numel() for mask in first):
        zero = torch.cat([weight[mask].abs() for weight, mask in zip(weights, first, strict=True)])
        kept = torch.cat([weight[~mask].abs() for weight, mask in zip(weights, first, strict=True)])
        assert zero.max() <= kept.min()


def test_lamp_does_not_empty_a_layer_whose_weights_are_small() -> None:
    random = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=random) for shape in ((16, 1, 3, 3), (32, 16), (8, 32))]
    small = [weights[0] * 2**-8, *weights[1:]]
    none = [torch.zeros_like(weight, dtype=torch.bool) for weight in weights]
    assert choose_zeros(small, none, 0.6, "global")[0].all()
    found, expected = choose_zeros(small, none, 0.6, "lamp"), choose_zeros(weights, none, 0.6, "lamp")
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    total = sum(weight.numel() for weight in weights)
    most = choose_zeros(small, none, (total - len(weights)) / total, "lamp")
    assert [int((~mask).sum()) for mask in most] == [1, 1, 1], "each keeps its largest weight to the end"
    assert all(
        weight.abs().argmax() == (~mask).flatten().int().argmax() for weight, mask in zip(small, most, strict=True)
    )


@settings(deadline=None)
@given(st.data(), st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4), (2, 3)]), st.floats(0, 1))
def test_a_pattern_holds_in_every_block_and_on_the_way_there(data, pattern, part) -> None:
    kept, of = pattern
    shape = data.draw(st.sampled_from([(3, of), (2, 2 * of), (2, of, 2, 3)]))
    weight = data.draw(tensors(shape))
    dropped = 1 - kept / of
    masks = [torch.zeros_like(weight, dtype=torch.bool)]
    for share in (part * dropped, dropped):
        masks = choose_zeros(
            [weight], masks, share, data.draw(st.sampled_from(["global", "layer", "lamp"])), Pattern(kept, of)
        )
        assert int(masks[0].sum()) == round(share * weight.numel())
        blocks = masks[0].movedim(1, -1).reshape(-1, of)
        assert int(blocks.sum(1).max()) <= of - kept
        weight = torch.where(masks[0], 0, data.draw(tensors(shape)))  # training moves what is left
    assert bool((blocks.sum(1) == of - kept).all())


def test_a_pattern_drops_the_smallest_of_consecutive_inputs() -> None:
    linear = torch.tensor([[4.0, -1, 2, 3, 0.1, 0.2, 0.3, -9]])
    (mask,) = choose_zeros([linear], [linear.isnan()], 0.5, "layer", Pattern(2, 4))
    assert mask.int().tolist() == [[0, 1, 1, 0, 1, 1, 0, 0]]
    convolution = linear.reshape(2, 4, 1, 1).flip(0).expand(2, 4, 1, 2) * torch.tensor([1.0, -2.0])
    (mask,) = choose_zeros([convolution], [convolution.isnan()], 0.5, "layer", Pattern(2, 4))
    assert mask[1, :, 0, 0].int().tolist() == mask[1, :, 0, 1].int().tolist() == [0, 1, 1, 0]


@given(st.data(), st.floats(0.05, 0.99), st.floats(0, 0.9))
def test_the_schedule_rises_from_the_first_share_to_the_last_and_never_falls(data, final, initial) -> None:
    begin = data.draw(st.floats(0, 5))
    end = data.draw(st.just(begin) | st.floats(begin, 10))
    schedule = SparsitySchedule(final, min(initial, final), begin, end)
    epochs = sorted([0.0, begin, end, 10.0, *data.draw(st.lists(st.floats(0, 12), max_size=8))])
    shares = [schedule.at(each) for each in epochs]
    assert all(earlier <= later + 1e-12 for earlier, later in pairwise(shares))
    assert all(share == 0 for epoch, share in zip(epochs, shares, strict=True) if epoch < begin)
    assert all(share == final for epoch, share in zip(epochs, shares, strict=True) if epoch >= end)
    assert schedule.at(begin) == pytest.approx(min(initial, final) if begin < end else final)
    assert schedule.at(schedule.first_full_epoch + 1) == final
    assert schedule.first_full_epoch == 0 or schedule.first_full_epoch < end


def test_the_schedule_is_cubic() -> None:
    # s(t) = s_f + (s_i - s_f) (1 - t / n)^3, at a quarter, half and three quarters of the way
    schedule = SparsitySchedule(0.8, 0.2, 1.0, 5.0)
    exact = [Fraction(8, 10) - Fraction(6, 10) * (1 - Fraction(part, 4)) ** 3 for part in (1, 2, 3)]
    assert [schedule.at(epochs) for epochs in (2.0, 3.0, 4.0)] == pytest.approx([float(each) for each in exact])


# ---- layers --------------------------------------------------------------------------------------------------------


def separable() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 16, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


class Standardized(nn.Conv2d):
    """A convolution that standardizes its weight before it uses it, as several networks without BatchNorm do."""

    def forward(self, inputs):
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return self._conv_forward(inputs, weight, self.bias)


class Padded(nn.Conv2d):
    """A convolution of another class that uses its weight as it is."""

    def forward(self, inputs):
        return super().forward(nn.functional.pad(inputs, (1, 1, 1, 1)))


def test_every_convolution_and_linear_layer_counts_once() -> None:
    assert choose_layers(separable(), ()).pruned == ("0", "2", "4", "7")
    shared = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    shared[1].weight = shared[0].weight
    assert choose_layers(shared, ()).pruned == ("0", "2")
    alone = choose_layers(nn.Linear(4, 4), ())
    assert alone.pruned == ("",) and not alone.dense


def test_layers_stay_dense_where_asked_or_where_the_pattern_does_not_fit() -> None:
    choice = choose_layers(separable(), ("depthwise",))
    assert choice.pruned == ("0", "4", "7") and choice.dense == {"2": "protected"}
    choice = choose_layers(make_net(), ("features.*",))
    assert choice.pruned == ("head.1",) and list(choice.dense) == ["features.0", "features.3"]
    choice = choose_layers(separable(), ("7",), Pattern(2, 4))
    assert choice.pruned == ("4",)
    assert choice.dense == {"0": "inputs no multiple of 4", "2": "inputs no multiple of 4", "7": "protected"}


def test_layers_that_compute_their_weight_stay_dense() -> None:
    net = nn.Sequential(Standardized(3, 8, 3), Padded(8, 8, 3), nn.Conv2d(8, 8, 3))
    nn.utils.parametrizations.weight_norm(net[2])
    choice = choose_layers(net, ())
    assert choice.pruned == ("1",) and choice.dense == dict.fromkeys(["0", "2"], "computes its weight anew")


@pytest.mark.parametrize(
    ("protect", "pattern", "message", "hint"),
    [
        (["feature"], None, "no layer that it could concern is named 'feature'", "features"),
        (["norm"], None, "no layer that it could concern is named 'norm'", ""),
        (["depthwise"], None, "named 'depthwise'", ""),
        (["features", "head"], None, "protect names all 3 layers", "protect fewer"),
        ((), Pattern(2, 7), "pattern 2:7 fits no layer", 'pattern = "free"'),
    ],
)
def test_nothing_to_prune(protect, pattern, message, hint) -> None:
    with pytest.raises(NothingChangedError) as caught:
        choose_layers(make_net(), protect, pattern)
    (problem,) = caught.value.problems
    assert message in problem.message and hint in (problem.hint or "")


def test_a_model_without_layers_to_prune() -> None:
    with pytest.raises(NothingChangedError, match="no convolution or linear layer"):
        choose_layers(nn.Sequential(nn.BatchNorm2d(3), Standardized(3, 3, 1)), ())


# ---- the pass ------------------------------------------------------------------------------------------------------


def test_zeros_are_exact_and_permanent_and_nothing_else_is_left(tmp_path) -> None:
    state = make_state(make_net())
    before = weights_of(state.model)
    after = prune_unstructured(state, options_of(sparsity=0.6, epochs=6), make_context(tmp_path))
    facts = after.history[-1].facts
    assert weights_of(state.model) == before and not state.history, "the state that came in is as it was"
    assert weights_of(after.model).keys() == before.keys() and not after.model.training
    assert count_zeros(after.model) == facts["zeros"] == round(0.6 * WEIGHTS)
    assert facts["weights"] == WEIGHTS and facts["sparsity"] == facts["zeros"] / WEIGHTS
    for name, share in facts["layer_sparsity"].items():
        assert share == float(zeros_of(after.model)[name].double().mean())
    assert len({round(share, 2) for share in facts["layer_sparsity"].values()}) > 1, "layers lose unequal shares"
    assert facts["validation_accuracy"] > 0.85 and facts["layers_pruned"] == 3
    assert "compressed" in after.history[-1].warnings[0]
    (curve,) = [curve for curve in after.history[-1].curves if curve.name == "sparsity"]
    assert curve.x == (1, 2, 3, 4, 5, 6) and curve.y[2:] == (0.6,) * 4 and curve.y[0] < curve.y[1] < 0.6
    json.dumps(facts)
    torch.save(after.model, io.BytesIO())


def test_bytes_are_those_of_the_weights_in_a_compressed_file(tmp_path) -> None:
    state = make_state(make_net())
    after = prune_unstructured(state, options_of(sparsity=0.8), make_context(tmp_path))
    facts = after.history[-1].facts
    for model, name in ((state.model, "compressed_weight_bytes_before"), (after.model, "compressed_weight_bytes")):
        raw = b"".join(each.detach().contiguous().numpy().tobytes() for each in model.parameters())
        assert len(raw) == facts["weight_bytes"] and len(zlib.compress(raw, 6)) == facts[name]
    assert facts["compressed_weight_bytes"] < 0.5 * facts["compressed_weight_bytes_before"]


def test_each_layer_loses_the_same_share_but_the_protected(tmp_path) -> None:
    options = options_of(sparsity=0.75, scope="layer", protect=["features.0"])
    after = prune_unstructured(make_state(make_net()), options, make_context(tmp_path))
    facts = after.history[-1].facts
    assert facts["layer_sparsity"] == {"features.3": 0.75, "head.1": 0.75}
    assert not zeros_of(after.model)["features.0"].any() and facts["dense_layers"] == {"features.0": "protected"}


@pytest.mark.parametrize("sparsity_schedule", ["gradual", "at-once"])
def test_two_of_four(tmp_path, sparsity_schedule) -> None:
    options = options_of(pattern="2:4", sparsity_schedule=sparsity_schedule)
    after = prune_unstructured(make_state(make_net()), options, make_context(tmp_path))
    facts = after.history[-1].facts
    assert facts["sparsity"] == 0.5 and facts["dense_layers"] == {"features.0": "inputs no multiple of 4"}
    for name in ("features.3", "head.1"):
        blocks = zeros_of(after.model)[name].movedim(1, -1).reshape(-1, 4)
        assert bool((blocks.sum(1) == 2).all())


WAYS = {
    "adamw": {"weight_decay": 0.1},
    "sgd with momentum, accumulated and clipped": {
        "optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "accumulate": 3, "gradient_clip": 1.0,
    },
    "ema": {"averaging": "ema"},
    "swa": {"averaging": "swa", "swa_start": 0.2},
    "at once": {"sparsity_schedule": "at-once", "begin_epoch": 1.25, "averaging": "swa", "swa_start": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_zeros_hold_at_every_step_and_end_as_planned(tmp_path, monkeypatch, changes) -> None:
    """Looks at the module before each forward pass, whoever runs it: training, or validation of averaged weights."""
    schedules, seen = [], []
    real = fit_with_teacher.fit

    def watched(module, data, task, options, context, hooks, label):
        schedules.append(hooks.constrain.__self__.schedule)
        constrain, done = hooks.constrain, []

        def watch(each, _):
            # the copies that average weights have the hook too
            if each.training and done:
                seen.append((done[-1], {name: zeros.clone() for name, zeros in zeros_of(each).items()}))
            if not each.training:
                assert count_zeros(each) >= round(schedules[0].at(done[-1]) * WEIGHTS)

        def remembered(each, epochs):
            constrain(each, epochs)
            done.append(epochs)

        handle = module.register_forward_pre_hook(watch)
        object.__setattr__(hooks, "constrain", remembered)
        result = real(module, data, task, options, context, hooks, label=label)
        handle.remove()
        return result

    monkeypatch.setattr(fit_with_teacher, "fit", watched)
    options = options_of(sparsity=0.7, epochs=4, **changes)
    after = prune_unstructured(make_state(make_net()), options, make_context(tmp_path))
    assert len(seen) == 4 * 8
    for epochs, zeros in seen:
        assert sum(int(each.sum()) for each in zeros.values()) == round(schedules[0].at(epochs) * WEIGHTS)
    for (_, earlier), (_, later) in pairwise(seen):
        assert not any((earlier[name] & ~later[name]).any() for name in LAYERS), "what is zero stays zero"
    steps = len({epochs for epochs, _ in seen})
    assert steps == 4 * (3 if "accumulate" in changes else 8)
    assert count_zeros(after.model) == round(0.7 * WEIGHTS)
    assert after.history[-1].facts["averaged"] is ("averaging" in changes)


def test_the_best_epoch_is_one_with_all_zeros(tmp_path) -> None:
    """The dense first epochs validate better, and would be chosen were they not left out."""
    options = options_of(sparsity=0.97, epochs=6, end_epoch=4.5, patience=1, learning_rate=1e-2)
    trained = prune_unstructured(
        make_state(make_net()), options_of(sparsity=0.02, epochs=8), make_context(tmp_path / "first")
    )
    after = prune_unstructured(trained, options, make_context(tmp_path / "then"))
    record = after.history[-1]
    (scores,) = [curve.y for curve in record.curves if curve.name == "validation accuracy"]
    assert max(scores[:3]) > max(scores[4:]), "the dense epochs are better"
    assert record.facts["best_epoch"] in (5, 6)
    assert count_zeros(after.model) == round(0.97 * WEIGHTS)


def test_a_budget_runs_through_the_whole_schedule(tmp_path) -> None:
    context = make_context(tmp_path, budget=Budget(epochs=1, batches=2))
    options = options_of(sparsity=0.9, epochs=50, begin_epoch=20, end_epoch=45, warmup_epochs=3)
    after = prune_unstructured(make_state(make_net()), options, context)
    assert after.history[-1].facts["epochs_run"] == 1 and count_zeros(after.model) == round(0.9 * WEIGHTS)


class Killed(Exception):
    pass


def raise_killed() -> None:
    raise Killed


RESUMED = {
    "gradual": {"averaging": "ema", "end_epoch": 3.5},
    "at once": {"sparsity_schedule": "at-once", "begin_epoch": 1.5, "optimizer": "sgd", "accumulate": 3},
    "pattern": {"sparsity": None, "pattern": "1:4", "averaging": "swa", "swa_start": 0.0},
}


@pytest.mark.parametrize("changes", RESUMED.values(), ids=RESUMED)
def test_a_pruning_that_died_ends_as_if_it_had_not(tmp_path, changes) -> None:
    data = make_data(augmentation=Augmentation(crop_padding=1))
    options = options_of(**{"sparsity": 0.8, "epochs": 5, **changes})
    net = make_net()
    with torch.no_grad():
        net.features[3].weight[:, :2] = 0.0  # zeros that no mask has chosen, and that training moves
    whole = prune_unstructured(make_state(net), options, make_context(tmp_path / "whole", data))
    for batch in (3, 12, 20, 33, 40):  # before the first checkpoint, in most epochs, and in the last batch of all
        with pytest.raises(Killed):
            killed = make_context(tmp_path / "killed", data, progress=Steps(batch, raise_killed))
            prune_unstructured(make_state(net), options, killed)
    resumed = prune_unstructured(make_state(net), options, make_context(tmp_path / "killed", data))
    assert weights_of(resumed.model) == weights_of(whole.model) and resumed.history == whole.history


def test_layers_of_which_nothing_is_left_are_named(tmp_path) -> None:
    net = make_net()
    with torch.no_grad():
        net.head[1].weight *= 1e-6
    options = options_of(epochs=1, sparsity_schedule="at-once", learning_rate=1e-9)
    after = prune_unstructured(make_state(net), options, make_context(tmp_path))
    assert "nothing is left of head.1" in after.history[-1].warnings[-1]


def test_a_sparsity_that_changes_nothing(tmp_path) -> None:
    with pytest.raises(NothingChangedError, match="less than one zero in the 1416 weights"):
        prune_unstructured(make_state(make_net()), options_of(sparsity=1e-4), make_context(tmp_path))
    net = copy.deepcopy(make_net())
    with torch.no_grad():
        net.features[3].weight[:14] = 0.0
    with pytest.raises(NothingChangedError, match=r"0 already: the share of zeros is 0\.712"):
        prune_unstructured(make_state(net), options_of(sparsity=0.7), make_context(tmp_path))
    assert prune_unstructured(make_state(net), options_of(sparsity=0.75, epochs=1), make_context(tmp_path))


class Recorder(torch.fx.Interpreter):
    """Runs a graph and keeps the weights of its convolutions and linear layers, as they are used."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.weights: list[torch.Tensor] = []

    def call_function(self, target, args, kwargs):
        if str(target).split(".")[1] in ("conv2d", "linear"):
            self.weights.append(args[1])
        return super().call_function(target, args, kwargs)


def test_zeros_survive_int8(tmp_path) -> None:
    ptq = resolve(PassPlugin, "ptq", {}, load_registry())
    options = options_of(sparsity=0.8, epochs=1)
    pruned = prune_unstructured(make_state(make_net()), options, make_context(tmp_path / "prune"))
    quantized = ptq.plugin.apply(pruned, ptq.options, make_context(tmp_path / "ptq"))
    assert quantized.history[-1].facts["weights_quantized"] == 3
    recorder = Recorder(quantized.program.module())
    recorder.run(torch.zeros(2, 3, 12, 12))
    for mask, weight in zip(zeros_of(pruned.model).values(), recorder.weights, strict=True):
        assert mask.any() and not weight[mask].any() and weight[~mask].any()
        steps = weight.flatten(1) / weight.flatten(1).abs().amax(1, keepdim=True).clamp_min(1e-9) * 127
        assert torch.allclose(steps, steps.round(), atol=1e-3), "these are the rounded weights"


# ---- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparsity": 0.0}, "sparsity"),
        ({"sparsity": 1.0}, "sparsity"),
        ({"pattern": "2of4"}, "neither .free. nor kept:group"),
        ({"pattern": "4:4"}, "keeps all weights"),
        ({"pattern": "2:4", "sparsity": 0.7}, "pattern 2:4 gives a sparsity of 0.5, not 0.7"),
        ({"begin_epoch": 3}, "begin_epoch .3. must be less than epochs .3."),
        ({"end_epoch": 3.5}, "end_epoch .3.5. must be"),
        ({"begin_epoch": 2, "end_epoch": 1}, "end_epoch .1. must be after begin_epoch .2."),
        ({"sparsity_schedule": "at-once", "end_epoch": 2}, "end_epoch is for"),
        ({"sparsity_schedule": "at-once", "initial_sparsity": 0.2}, "initial_sparsity is for"),
        ({"sparsity": 0.5, "initial_sparsity": 0.5}, "initial_sparsity .0.5. must be less"),
        ({"sparcity": 0.5}, "sparcity"),
    ],
)
def test_options_that_make_no_sense(changes, message) -> None:
    with pytest.raises(ValidationError, match=message):
        options_of(**changes)


def test_sparsity_follows_from_the_pattern() -> None:
    assert options_of(pattern="1:4").share_of_zeros == options_of(pattern="1:4", sparsity=0.75).share_of_zeros == 0.75
    assert options_of().share_of_zeros == 0.5 and options_of(sparsity=0.9).share_of_zeros == 0.9
    assert options_of(begin_epoch=1).last_growth == 2.0


# ---- a share for each layer ----------------------------------------------------------------------------------------


def allocate(tmp_path, text, name="allocation.toml"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_an_allocation_gives_each_layer_its_own_share(tmp_path):
    file = allocate(tmp_path, 'of = "sparsity"\n[layers]\n"features.3" = 0.75\n"head.1" = 0.5\n"features.0" = 0.0\n')
    options = options_of(allocation=file, scope="layer")
    seen = []

    class Watched(unstructured.Zeros):
        def constrain(self, module, epochs):
            super().constrain(module, epochs)
            seen.append({name: zeros.float().mean().item() for name, zeros in zeros_of(module).items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unstructured, "Zeros", Watched)
        after = prune_unstructured(make_state(make_net()), options, make_context(tmp_path))
    shares = {name: zeros.float().mean().item() for name, zeros in zeros_of(after.module).items()}
    assert shares == {"features.0": 0.0, "features.3": 0.75, "head.1": 0.5}
    facts = after.history[-1].facts
    assert facts["dense_layers"] == {"features.0": "no zeros allocated"}
    assert facts["sparsity"] == pytest.approx((0.75 * 1152 + 0.5 * 48) / 1200)
    (curve,) = [curve for curve in after.history[-1].curves if curve.name == "sparsity"]
    assert curve.y[-1] == pytest.approx(facts["sparsity"])
    growth = [step["features.3"] / 0.75 for step in seen]
    assert growth == sorted(growth)
    assert 0 < growth[len(growth) // 4] < 1, "zeros grow gradually in each layer"


def test_a_scan_in_csv_is_an_allocation_too(tmp_path):
    text = "layer,sparsity,score,recommended\nfeatures.3,0.5,0.0,yes\nfeatures.3,0.7,0.2,\nhead.1,0.5,0.3,\n"
    file = allocate(tmp_path, text, "sensitivity.csv")
    after = prune_unstructured(
        make_state(make_net()), options_of(allocation=file, scope="layer", epochs=1), make_context(tmp_path)
    )
    assert {name: zeros.float().mean().item() for name, zeros in zeros_of(after.module).items()} == {
        "features.0": 0.0,
        "features.3": 0.5,
        "head.1": 0.0,
    }


def test_layers_of_an_allocation_must_be_in_the_model(tmp_path):
    file = allocate(tmp_path, 'of = "sparsity"\n[layers]\n"features.33" = 0.5\n')
    with pytest.raises(UserError, match=r"no layer 'features\.33'") as raised:
        prune_unstructured(make_state(make_net()), options_of(allocation=file, scope="layer"), make_context(tmp_path))
    assert raised.value.problems[0].location.line == 3


def test_an_allocation_of_no_zero_changes_nothing(tmp_path):
    file = allocate(tmp_path, 'of = "sparsity"\n[layers]\n"features.3" = 0.0\n')
    with pytest.raises(NothingChangedError, match="gives no layer a zero"):
        prune_unstructured(make_state(make_net()), options_of(allocation=file, scope="layer"), make_context(tmp_path))


@pytest.mark.parametrize(
    "others", [{"sparsity": 0.5}, {"pattern": "2:4"}, {"scope": "global"}, {"initial_sparsity": 0.1}]
)
def test_an_allocation_stands_alone(others):
    with pytest.raises(ValidationError, match=f"leave out {next(iter(others))}"):
        options_of(**{"scope": "layer", "allocation": "a.toml", **others})


def test_an_allocation_is_part_of_the_key(tmp_path):
    use = {"allocation": allocate(tmp_path, 'of = "sparsity"\n[layers]\n"features.3" = 0.5\n')}
    registry = load_registry()
    pass_ = resolve(PassPlugin, "prune-unstructured", use, registry)
    before = pass_.plugin.fingerprint(pass_.options)
    allocate(tmp_path, '# the same\nof = "sparsity"\n[layers]\n"features.3" = 0.5\n')
    assert pass_.plugin.fingerprint(pass_.options) == before
    allocate(tmp_path, 'of = "sparsity"\n[layers]\n"features.3" = 0.6\n')
    assert pass_.plugin.fingerprint(pass_.options) != before
    allocate(tmp_path, 'of = "bits"\n[layers]\n"features.3" = 6\n')
    with pytest.raises(RecipeError, match="holds levels of 'bits', not of 'sparsity'"):
        resolve(PassPlugin, "prune-unstructured", use, registry)
