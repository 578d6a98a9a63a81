"""The pass keeps the contract, and does what its options say."""

# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

import pytest
import torch
from edgeopt_example.coarse import coarsen_weights, round_to_grid

from edgeopt.plugins import NothingChangedError
from edgeopt.testing import PassContract, tiny_model


class TestCoarseWeights(PassContract):
    name = "coarse-weights"
    options = {"values": 15}


@pytest.mark.parametrize("values", [3, 15, 255])
def test_each_channel_takes_no_more_values(values):
    weight = torch.randn(8, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    rounded = round_to_grid(weight, values)
    assert all(len(channel.unique()) <= values for channel in rounded)
    step = 2 * weight.abs().flatten(1).amax(dim=1) / (values - 1)
    assert ((rounded - weight).abs().flatten(1).amax(dim=1) <= step / 2 * 1.001).all()


def test_a_channel_of_zeros_stays_zero():
    assert torch.equal(round_to_grid(torch.zeros(2, 3, 1, 1), 15), torch.zeros(2, 3, 1, 1))


def test_what_it_reports_is_what_changed():
    before = tiny_model()
    after = coarsen_weights(before, 15)
    changed = sum(
        int((new != old).sum()) for new, old in zip(after.model.parameters(), before.model.parameters(), strict=True)
    )
    assert after.history[-1].facts["changed_weights"] == changed > 0


def test_nothing_to_round_is_an_error():
    rounded = coarsen_weights(tiny_model(), 3)
    for parameter in rounded.model.parameters():
        parameter.data.zero_()
    with pytest.raises(NothingChangedError, match="no weight changed"):
        coarsen_weights(rounded, 3)
