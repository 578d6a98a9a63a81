"""Structured pruning: what goes together goes together, the budget is met, the answer keeps its classes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from training_samples import CLASSES, Steps, make_context, make_data, make_net, make_state, weights_of

from edgeopt.errors import NothingChangedError, RecipeError, UserError
from edgeopt.plugins.declarations import PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import Recipe, parse_recipe
from edgeopt.testing import PassContract
from edgeopt.types import ModelState
from edgeopt_pruning.structured.choice import Ranked, Rules, removal_of, smallest_removal
from edgeopt_pruning.structured.cost import cost_of, layers_of, lost_channels
from edgeopt_pruning.structured.groups import ChannelGroup, Dependencies
from edgeopt_pruning.structured.importance import collect_gradients, rank
from edgeopt_torchvision.compat import import_torchvision

EXAMPLE = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Tangled(nn.Module):
    """A residual sum, a depthwise and a grouped convolution, a gate, a concatenation, and pixels flattened into a
    layer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12))
        self.expand = nn.Sequential(nn.Conv2d(12, 24, 1), nn.ReLU())
        self.grouped = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1, groups=4), nn.BatchNorm2d(24), nn.ReLU())
        self.project = nn.Conv2d(24, 12, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 8, 1), nn.ReLU(), nn.Conv2d(8, 12, 1))
        self.branch = nn.Sequential(nn.Conv2d(12, 10, 3, stride=2), nn.ReLU())
        self.other = nn.Sequential(nn.Conv2d(12, 6, 3, stride=2), nn.PReLU(6))
        self.mixed = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1))
        self.hidden = nn.Linear(8 * 25, 20)
        self.head = nn.Linear(20, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        x = x + self.project(self.grouped(self.expand(self.depthwise(x).relu())))
        x = x * self.gate(x).sigmoid()
        x = torch.cat([self.branch(x), self.other(x)], 1)
        return self.head(self.hidden(self.mixed(x).flatten(1)).relu())


class FlattensSeveral(nn.Module):
    """Flattens the pixels of a concatenation, which torch-pruning does not follow."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 10, 3, stride=2), nn.Conv2d(3, 6, 3, stride=2)
        self.hidden, self.head = nn.Linear(16 * 25, 20), nn.Linear(20, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.one(images).relu(), self.other(images).relu()], 1)
        return self.head(self.hidden(x.flatten(1)).relu())


class ConvolutionHead(nn.Module):
    """As in SqueezeNet: the answer is a convolution's, and a ReLU and a pooling come after it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.flatten(nn.functional.adaptive_avg_pool2d(self.head(self.body(images)).relu(), 1), 1)


def with_statistics(module: nn.Module) -> nn.Module:
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.uniform_(each.weight, 0.5, 1.5)
            nn.init.uniform_(each.bias, -0.3, 0.3)
            each.running_mean.normal_(0, 0.2)
            each.running_var.uniform_(0.5, 2)
    return module.eval()


def tangled() -> nn.Module:
    torch.manual_seed(0)
    return with_statistics(Tangled())


def prune(state: ModelState, work_dir: Path, data=None, progress=None, **options: object) -> ModelState:
    use = resolve(
        PassPlugin, "prune-structured", {"epochs": 1, "batch_size": 16, "round_to": 1, **options}, load_registry()
    )
    context = make_context(work_dir, data, progress=progress)
    return use.plugin.apply(state, use.options, context)


def facts(state: ModelState) -> dict[str, object]:
    return dict(state.history[-1].facts)


# ---- what hangs together -------------------------------------------------------------------------------------------


def silence(module: nn.Module, dependencies: Dependencies, removal: dict[str, tuple[int, ...]]) -> None:
    """Zeroes everything that gives the channels of `removal` a value."""
    for group, members in dependencies.groups():
        channels = set(removal.get(group.name, ()))
        for item in members.items:
            layer = item.dep.target.module
            if not dependencies._is_output(item.dep) or not list(layer.parameters(recurse=False)):
                continue
            gone = [index for index, root in zip(item.idxs, item.root_idxs, strict=True) if root in channels]
            with torch.no_grad():
                for parameter in layer.parameters(recurse=False):
                    parameter[gone] = 0
                if isinstance(layer, nn.BatchNorm2d):
                    layer.running_mean[gone] = 0


@settings(max_examples=25, deadline=None)
@given(
    share=st.floats(0.05, 1.0),
    seed=st.integers(0, 1000),
    ranking=st.sampled_from(["local", "global", "isomorphic", "lamp"]),
)
def test_removing_channels_that_are_silent_changes_nothing(share: float, seed: int, ranking: str) -> None:
    module = tangled()
    dependencies = Dependencies(module, EXAMPLE)
    ranked = rank(dependencies.groups(), "random", seed)
    removal = removal_of(share, ranked, Rules(ranking, 1, 0.2))
    # a gate opens by half for a channel that is silent: what is multiplied by it is silent all the same
    silence(module, dependencies, removal)
    images = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = module(images)
        dependencies.remove(removal)
        assert torch.allclose(module(images), expected, atol=1e-5)
    assert expected.shape == (4, 3)


@pytest.mark.parametrize("make", [tangled, ConvolutionHead, FlattensSeveral, make_net])
@pytest.mark.parametrize("ranking", ["local", "global", "isomorphic", "lamp"])
def test_the_cost_is_known_before_anything_is_removed(make: Callable[[], nn.Module], ranking: str) -> None:
    torch.manual_seed(0)
    module = make().eval()
    layers = layers_of(module, EXAMPLE)
    ranked = rank(Dependencies(module, EXAMPLE).groups(), "l2", 0)
    groups = [each.group for each in ranked]
    before = cost_of(layers, {})
    assert before.parameters == sum(parameter.numel() for parameter in module.parameters())
    for share in (0.3, 0.6, 0.9):
        removal = removal_of(share, ranked, Rules(ranking, 1, 0.1))
        pruned = copy.deepcopy(module)
        Dependencies(pruned, EXAMPLE).remove(removal)
        planned = cost_of(layers, lost_channels(groups, removal))
        assert planned == cost_of(layers_of(pruned, EXAMPLE), {})
        assert planned.parameters == sum(parameter.numel() for parameter in pruned.parameters())
        assert planned.macs < before.macs


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "resnet18", "squeezenet1_1", "vgg11", "densenet121"])
def test_networks_keep_their_classes_at_half_the_operations(architecture: str) -> None:
    torch.manual_seed(0)
    module = import_torchvision().models.get_model(architecture, weights=None, num_classes=7).eval()
    example = torch.randn(1, 3, 64, 64)
    layers = layers_of(module, example)
    ranked = rank(Dependencies(module, example).groups(), "l1", 0)
    groups = [each.group for each in ranked]
    half = 0.5 * cost_of(layers, {}).macs
    removal, cost = smallest_removal(
        ranked,
        Rules("isomorphic", 8, 0.1),
        lambda removal: cost_of(layers, lost_channels(groups, removal)).macs,
        half,
        20,
    )
    Dependencies(module, example).remove(removal)
    with torch.no_grad():
        assert module(torch.randn(2, 3, 64, 64)).shape == (2, 7)
    assert 0.85 * half <= cost <= half
    assert cost == cost_of(layers_of(module, example), {}).macs
    channels = [each.out_channels for each in module.modules() if isinstance(each, nn.Conv2d)]
    if architecture != "densenet121":  # where each concatenation adds up what is left of several
        original = import_torchvision().models.get_model(architecture, weights=None, num_classes=7)
        widths = [each.out_channels for each in original.modules() if isinstance(each, nn.Conv2d)]
        assert all(now % 8 == 0 or now == before for now, before in zip(channels, widths, strict=True))


# ---- what goes -----------------------------------------------------------------------------------------------------


def ranked_groups(draw: st.DrawFn) -> list[Ranked]:
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    groups = []
    for number in range(draw(st.integers(1, 5))):
        parts, units = draw(st.sampled_from([1, 1, 2, 4])), draw(st.integers(2, 40))
        group = ChannelGroup(f"layer{number}", parts * units, parts, (), draw(st.sampled_from(["a", "b"])))
        groups.append(Ranked(group, random.random(units)))
    return groups


@settings(max_examples=200, deadline=None)
@given(
    ranked=st.composite(ranked_groups)(),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    ranking=st.sampled_from(["local", "global", "isomorphic", "lamp"]),
    round_to=st.sampled_from([1, 2, 8]),
    least=st.floats(0.05, 1.0),
    floor=st.integers(0, 30),
)
def test_a_larger_share_removes_more_and_the_rules_hold(ranked, shares, ranking, round_to, least, floor) -> None:
    rules = Rules(ranking, round_to, least, {"layer0": floor})
    fewer, more = (removal_of(share, ranked, rules) for share in sorted(shares))
    for each in ranked:
        group = each.group
        gone = more.get(group.name, ())
        assert set(fewer.get(group.name, ())) <= set(gone)
        left = group.channels - len(gone)
        assert left >= max(least * group.channels - 1e-9, group.parts)
        assert left == group.channels or left % round_to == 0
        assert left >= min(rules.floors.get(group.name, 0), group.channels)
        units = {channel % group.units for channel in gone}
        assert len(gone) == len(units) * group.parts
        if units:
            kept = [each.importance[unit] for unit in range(group.units) if unit not in units]
            assert max(each.importance[unit] for unit in units) <= min(kept)
    assert removal_of(0.0, ranked, Rules(ranking, 1, least)) == {}


@settings(max_examples=50, deadline=None)
@given(ranked=st.composite(ranked_groups)(), share=st.floats(0, 1), scale=st.sampled_from([2.0**-10, 2.0**7]))
def test_the_scale_of_a_group_does_not_matter_to_lamp(ranked, share: float, scale: float) -> None:
    rules = Rules("lamp", 1, 0.01)
    scaled = [Ranked(ranked[0].group, ranked[0].importance * scale), *ranked[1:]]
    assert removal_of(share, scaled, rules) == removal_of(share, ranked, rules)


@pytest.mark.parametrize("kind", ["l1", "l2", "taylor", "fpgm", "bn-scale", "random"])
def test_every_importance_judges_every_unit(kind: str) -> None:
    module = with_statistics(make_net())
    state, data = make_state(module), make_data()
    if kind == "taylor":
        inputs = torch.from_numpy(data.preprocessing.normalize(data.train.pixels(range(16))))
        collect_gradients(module, state.task, [(inputs, torch.from_numpy(data.train.labels[:16]))])
    ranked = rank(Dependencies(module, EXAMPLE).groups(), kind, 0)
    assert {each.group.name: each.importance.shape for each in ranked} == {"features.0": (8,), "features.3": (16,)}
    assert all(np.isfinite(each.importance).all() and np.ptp(each.importance) > 0 for each in ranked)


@pytest.mark.parametrize("kind", ["l1", "l2", "taylor"])
def test_a_channel_that_does_nothing_goes_first(kind: str) -> None:
    module = with_statistics(make_net())
    with torch.no_grad():
        module.features[0].weight[5] = 0
        module.features[1].weight[5] = module.features[1].bias[5] = 0
        module.features[3].weight[:, 5] = 0
    state, data = make_state(module), make_data()
    inputs = torch.from_numpy(data.preprocessing.normalize(data.train.pixels(range(16))))
    collect_gradients(module, state.task, [(inputs, torch.from_numpy(data.train.labels[:16]))])
    (first,) = (
        each for each in rank(Dependencies(module, EXAMPLE).groups(), kind, 0) if each.group.name == "features.0"
    )
    assert first.importance.argmin() == 5


# ---- the pass ------------------------------------------------------------------------------------------------------


class TestPruneStructured(PassContract):
    name = "prune-structured"
    options = {"epochs": 1, "batch_size": 8, "round_to": 1}  # noqa: RUF012


@pytest.mark.parametrize("cost", ["macs", "parameters"])
def test_the_budget_is_met_in_steps_and_said(cost: str, tmp_path: Path) -> None:
    state = make_state(make_net())
    before = weights_of(state.module)
    pruned = prune(state, tmp_path, cost=cost, keep=0.4, steps=2, importance="taylor")
    found = facts(pruned)
    assert weights_of(state.module) == before
    assert 0.2 < found[f"{cost}_kept"] <= 0.4
    assert found[cost] / found[f"{cost}_before"] == found[f"{cost}_kept"]
    assert found["parameters"] == sum(parameter.numel() for parameter in pruned.module.parameters())
    for name, change in found["layers_changed"].items():
        old, _, new = change.partition(" to ")
        width = [getattr(each.get_submodule(name), "out_channels", None) for each in (state.module, pruned.module)]
        assert width == [int(old), int(new)]
    assert pruned.module.get_submodule("head.1").out_features == len(CLASSES)
    names = [curve.name for curve in pruned.history[-1].curves]
    assert names[0] == "operations left" and "step 2: training loss" in names
    assert len(pruned.history[-1].details["removed_channels"]) == 2


def test_an_absolute_budget_and_protected_layers(tmp_path: Path) -> None:
    state = make_state(make_net())
    macs = facts(prune(state, tmp_path / "a"))["macs_before"]
    pruned = prune(state, tmp_path / "b", budget=0.8 * macs, protect=("features.0",))
    assert facts(pruned)["macs"] <= 0.8 * macs
    assert set(facts(pruned)["layers_changed"]) == {"features.3"}


def test_an_allocation_bounds_what_each_layer_loses(tmp_path: Path) -> None:
    file = tmp_path / "allocation.toml"
    file.write_text('of = "sparsity"\n[layers]\n"features.0" = 0.25\n"features.3" = 0.75\n"head.1" = 0.9\n')
    state = make_state(make_net())
    for number, steps in enumerate((1, 2)):
        options = {"allocation": str(file), "least": 0.01, "keep": 0.35, "cost": "parameters", "steps": steps}
        pruned = prune(state, tmp_path / str(number), **options)
        widths = [pruned.module.get_submodule(name).out_channels for name in ("features.0", "features.3")]
        assert widths[0] >= 6 and widths[1] >= 4, "a quarter of 8 and three quarters of 16 channels may go at most"
        assert widths[1] <= 6, "and the budget needs most of that"
    file.write_text('of = "sparsity"\n[layers]\n"features.0" = 0.25\n')
    with pytest.raises(UserError, match="more than the"):
        prune(state, tmp_path / "c", allocation=str(file), keep=0.35)
    file.write_text('of = "sparsity"\n[layers]\n"features.1" = 0.25\n')
    with pytest.raises(UserError, match=r"no layer 'features\.1'"):
        prune(state, tmp_path / "d", allocation=str(file))


def test_the_answer_of_a_convolution_is_protected(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pruned = prune(make_state(ConvolutionHead()), tmp_path)
    assert pruned.module.head.out_channels == 3
    assert pruned.module.head.in_channels < 16


def test_statistics_are_collected_anew(tmp_path: Path) -> None:
    """The statistics are of the pruned network: with a learning rate of nearly nothing, they are all that changes."""
    state = make_state(with_statistics(make_net()))
    pruned = prune(state, tmp_path, learning_rate=1e-9, batch_norm_momentum=None)
    norm = pruned.module.get_submodule("features.1")
    data = make_data()
    inputs = torch.from_numpy(data.preprocessing.normalize(data.train.pixels(range(len(data.train)))))
    with torch.no_grad():
        values = pruned.module.features[0](inputs)
    assert torch.allclose(norm.running_mean, values.mean((0, 2, 3)), atol=0.02)


@pytest.mark.parametrize("cost", ["bytes", "latency"])
def test_a_file_is_measured_where_the_budget_is_in_bytes_or_ms(cost: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    wide = nn.Sequential(
        nn.Conv2d(3, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 32, 3)
    )
    wide.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()).append(nn.Linear(32, 3))
    found = facts(prune(make_state(wide), tmp_path, cost=cost, keep=0.6, round_to=8))
    kept = found["parameters_kept"]
    # bytes follow the parameters; a latency is measured on a busy machine, and follows the operations from afar
    assert 0.4 < kept <= 0.61 if cost == "bytes" else 0.05 < found["macs_kept"] < 0.95


def test_what_a_run_removed_is_removed_again(tmp_path: Path) -> None:
    state = make_state(make_net())
    first = prune(state, tmp_path / "a", importance="random", steps=2)
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"passes": [asdict(record) for record in first.history]}))
    again = prune_again(state, tmp_path, report)
    assert weights_of(again.module) == weights_of(first.module)
    assert facts(again)["layers_changed"] == facts(first)["layers_changed"]


def prune_again(state: ModelState, tmp_path: Path, report: Path) -> ModelState:
    options = {"epochs": 1, "batch_size": 16, "replay": str(report)}
    use = resolve(PassPlugin, "prune-structured", options, load_registry())
    return use.plugin.apply(state, use.options, make_context(tmp_path / "again"))


def test_a_report_that_changed_is_another_replay(tmp_path: Path) -> None:
    """The stage's key follows what is removed; what else the report says, and its time, do not matter."""
    report = tmp_path / "report.json"

    def key(removed: object, **rest: object) -> str:
        record = {"name": "prune-structured", "details": {"removed_channels": [removed]}}
        report.write_text(json.dumps({"passes": [record], **rest}))
        return make_plan(replaying(report), load_registry()).stages["pass-0-prune-structured"].key

    first = key({"features.0": [1, 2]})
    assert key({"features.0": [1, 2]}, started="later") == first
    assert key({"features.0": [1, 3]}) != first


def test_a_missing_replay_is_found_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gone\.json cannot be read") as caught:
        make_plan(replaying(tmp_path / "gone.json"), load_registry())
    (problem,) = caught.value.problems
    assert problem.hint == "give the report.json of a run"


def replaying(report: Path) -> Recipe:
    return parse_recipe(
        {
            "schema": 1,
            "name": "again",
            "dataset": {"use": "digits", "image_size": 32},
            "model": {"use": "torchvision", "arch": "resnet18"},
            "passes": [{"use": "prune-structured", "replay": str(report)}],
            "exports": [{"use": "onnx"}],
        }
    )


# ---- killed and resumed --------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.mark.parametrize("batch", [3, 9])
def test_a_killed_run_goes_on_to_the_same_bytes(batch: int, tmp_path: Path) -> None:
    def kill() -> None:
        raise Killed

    state = make_state(make_net())
    options = {"steps": 2, "importance": "taylor"}
    whole = prune(state, tmp_path / "whole", **options)
    with pytest.raises(Killed):
        prune(state, tmp_path / "killed", progress=Steps(batch, kill), **options)
    resumed = prune(state, tmp_path / "killed", **options)
    assert weights_of(resumed.module) == weights_of(whole.module)
    assert resumed.history == whole.history


# ---- refused -------------------------------------------------------------------------------------------------------


class CountsItsChannels(nn.Module):
    """Code that is written for one width, between layers that could lose channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
        self.head = nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.first(images).relu()
        if x.shape[1] != 16:
            raise ValueError("16 channels are wanted here")
        return self.head(self.second(x).relu().mean((2, 3)))


def test_channels_that_the_model_counts_on_stay(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pruned = prune(make_state(CountsItsChannels()), tmp_path, keep=0.6)
    assert set(facts(pruned)["layers_changed"]) == {"second"}


class WeightsOnly(nn.Module):
    """Uses the weights of a layer without calling it, as the attention of Swin does."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.body(images).mean((2, 3)), self.head.weight, self.head.bias)


@pytest.mark.parametrize(
    ("make", "options", "error", "text"),
    [
        (make_net, {"protect": ("feature.0",)}, NothingChangedError, "features.0"),
        (make_net, {"protect": ("features", "nothing")}, NothingChangedError, "nothing"),
        (make_net, {"protect": ("*",)}, NothingChangedError, "no channels that could be removed"),
        (make_net, {"keep": 0.01}, UserError, "when all goes that may"),
        (make_net, {"budget": 1e12}, NothingChangedError, "already costs"),
        (make_net, {"round_to": 64}, UserError, "when all goes that may"),
        (make_net, {"keep": 0.9, "steps": 20}, NothingChangedError, "removes nothing"),
        (WeightsOnly, {}, UserError, "it never calls its layer head"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(make, options, error, text: str, tmp_path: Path) -> None:
    with pytest.raises(error) as caught:
        prune(make_state(make()), tmp_path, **options)
    assert text in str(caught.value)
    assert all(problem.hint for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot be read"),
        ("{", "is not the report"),
        ('{"passes": [{"name": "prune-structured", "details": {}}]}', "is not the report"),
        ('{"passes": []}', "removed no channels"),
        (
            '{"passes": [{"name": "prune-structured", "details": {"removed_channels": [{"x": [1]}]}}]}',
            "no channels as were",
        ),
    ],
)
def test_a_replay_of_something_else_is_refused(content: str | None, text: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    if content is not None:
        report.write_text(content)
    with pytest.raises(UserError, match=text):
        prune_again(make_state(make_net()), tmp_path, report)


@pytest.mark.parametrize("options", [{"keep": 0.5, "budget": 10}, {"replay": "report.json", "keep": 0.5}])
def test_options_that_contradict_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"keep"):
        resolve(PassPlugin, "prune-structured", options, load_registry())
