"""Running on from a layer gives what running from the start gives, bit for bit."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_networks import KINDS, BlockNet, images, network_of
from torch import nn
from torch.nn import functional

from edgeopt.errors import ExportError
from edgeopt.sensitivity.network import Network
from edgeopt.types import Change


def halved(weight):
    return torch.where(weight.abs() < weight.abs().median(), 0.0, weight)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), st.booleans(), st.integers(0, 1000))
def test_running_on_from_any_layer_is_running_from_the_start(kinds, repeated, seed):
    torch.manual_seed(seed)
    module = BlockNet(kinds, repeated=repeated).eval()
    network = network_of(module)
    batch = images(3, seed=seed)
    with torch.inference_mode():
        torch.testing.assert_close(network.outputs(batch)[0], module(batch))
        moments = list(network.walk(batch, network.layers))  # all of them, so that runs from one can harm another
        assert [moment.layer.name for moment in moments] == list(network.layers)
        for moment in moments:
            change = Change(halved(moment.layer.weight), lambda entering: (entering * 4).round() / 4)
            changed = network.outputs_from(moment, change)[0]
            assert torch.equal(changed, network.outputs(batch, {moment.layer.name: change})[0])
            assert torch.equal(changed, network.outputs_from(moment, change)[0]), "a run changed what it started from"
            torch.testing.assert_close(changed, _really_changed(module, moment.layer.name, change)(batch))


def _really_changed(module, name, change):
    """The module with the weight in the layer itself, and a hook on its input."""
    module = copy.deepcopy(module)
    layer = module.get_submodule(name)
    layer.weight = nn.Parameter(change.weight, requires_grad=False)
    layer.register_forward_pre_hook(lambda _layer, inputs: (change.input(inputs[0]),))
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_block_keeps_its_function(kind):
    torch.manual_seed(0)
    module = BlockNet([kind, "plain"])
    batch = images(2)
    with torch.inference_mode():
        given_batch = batch.clone()
        torch.testing.assert_close(network_of(module).outputs(batch)[0], module.eval()(batch))
        assert torch.equal(batch, given_batch)


def test_only_what_is_still_read_is_kept():
    network = network_of(BlockNet(["plain", "plain", "plain"]))
    with torch.inference_mode():
        moments = list(network.walk(images(2), network.layers))
    assert [len(moment.values) for moment in moments] == [1] * len(moments)


def test_the_walk_stops_at_the_layers_that_are_named():
    network = network_of(BlockNet(["plain", "residual"]))
    with torch.inference_mode():
        moments = list(network.walk(images(2), ["head", "stem"]))
    assert [moment.layer.name for moment in moments] == ["stem", "head"]


def test_layers_have_the_names_of_their_modules_and_the_axis_of_their_channels():
    module = BlockNet(["plain", "transposed", "depthwise"])
    layers = network_of(module).layers
    assert list(layers) == ["stem", "blocks.0.conv", "blocks.1.conv", "blocks.2.conv", "head"]
    for name, layer in layers.items():
        assert torch.equal(layer.weight, module.get_submodule(name).weight)
        assert layer.is_parameter
    assert layers["blocks.1.conv"].channel_axis == 1
    assert layers["stem"].channel_axis == layers["head"].channel_axis == 0


def test_layers_that_share_a_weight_are_one():
    layers = network_of(BlockNet(["plain", "plain"], repeated=True)).layers
    assert list(layers) == ["stem", "blocks.0.conv", "blocks.1.conv", "head"]
    assert len(layers["blocks.0.conv"].nodes) == 2


def test_a_weight_that_is_computed_is_a_constant():
    class Standardized(nn.Conv2d):
        def forward(self, images):
            weight = (self.weight - self.weight.mean()) / self.weight.std()
            return functional.conv2d(images, weight, self.bias)

    module = nn.Sequential(Standardized(3, 4, 1), nn.Flatten(), nn.Linear(256, 2))
    network = network_of(module)
    layer = network.layers["0"]
    assert not layer.is_parameter
    assert layer.weight.std().item() == pytest.approx(1.0, rel=1e-5)
    assert network.layers["2"].is_parameter


def test_what_enters_layers_can_be_watched():
    network = network_of(BlockNet(["plain"]))
    seen = {}
    count = network.watch([images(2), images(3)], lambda name, entering: seen.setdefault(name, []).append(entering))
    assert count == 5
    assert list(seen) == list(network.layers)
    assert [len(each) for each in seen["stem"]] == [2, 3]
    assert torch.equal(seen["stem"][0], images(2))


def test_a_program_of_two_outputs_and_one_of_two_inputs():
    class Two(nn.Module):
        def forward(self, images):
            return images + 1, images + 2

    first, second = Network(torch.export.export(Two(), (torch.zeros(2, 3),))).outputs(torch.ones(2, 3))
    assert (first == 2).all() and (second == 3).all()

    class Sum(nn.Module):
        def forward(self, images, others):
            return images + others

    with pytest.raises(ExportError, match="2 tensors into 1"):
        Network(torch.export.export(Sum(), (torch.zeros(2, 3), torch.zeros(2, 3))))
