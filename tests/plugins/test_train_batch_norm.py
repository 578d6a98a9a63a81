import copy

import pytest
import torch
from training_samples import make_net

from edgeopt_lightning.fit import batch_norm
from edgeopt_lightning.fit.averaging import Averaging


@pytest.fixture
def inputs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(8, 3, 12, 12, generator=generator) * 3 + 1 for _ in range(3)]


def test_statistics_are_the_mean_over_the_batches(inputs) -> None:
    net = make_net(momentum=0.01).eval()
    batch_norm.reestimate(net, ["features.1"], inputs)
    outputs = [net.features[0](batch) for batch in inputs]
    mean = torch.stack([each.mean((0, 2, 3)) for each in outputs]).mean(0)
    variance = torch.stack([each.var((0, 2, 3)) for each in outputs]).mean(0)
    torch.testing.assert_close(net.features[1].running_mean, mean)
    torch.testing.assert_close(net.features[1].running_var, variance)
    assert torch.equal(net.norm.running_mean, torch.zeros(16)), "a layer that was not named keeps its statistics"
    assert not any(layer.training for layer in net.modules()) and net.features[1].momentum == 0.01


def test_collecting_leaves_out_layers_in_evaluation_mode() -> None:
    net = make_net().train()
    assert batch_norm.collecting(net) == ["features.1", "norm"]
    net.norm.eval()
    assert batch_norm.collecting(net) == ["features.1"]


def test_momentum_is_set_for_a_while() -> None:
    net = make_net(momentum=0.01)
    with batch_norm.momentum(net, 0.1):
        assert net.norm.momentum == net.features[1].momentum == 0.1
    assert net.norm.momentum == net.features[1].momentum == 0.01
    with batch_norm.momentum(net, None):
        assert net.norm.momentum == 0.01


def nets_with_weights(*values: float):
    for value in values:
        net = make_net()
        with torch.no_grad():
            for each in net.parameters():
                each.fill_(value)
        yield net


def test_swa_is_the_mean_from_its_start_on() -> None:
    averaging = Averaging("swa", make_net(), 0.999, start_epoch=1)
    for epoch, net in enumerate(nets_with_weights(8.0, 1.0, 3.0)):
        averaging.after_step(net)
        averaging.after_epoch(net, epoch)
        assert (averaging.module is None) == (epoch == 0)
    assert all(torch.allclose(each, torch.tensor(2.0)) for each in averaging.module.parameters())


def test_ema_forgets_the_first_weights_fast_and_can_be_resumed() -> None:
    averaging, other = (Averaging("ema", make_net(), 0.999, start_epoch=0) for _ in range(2))
    nets = list(nets_with_weights(100.0, *[1.0] * 40))
    for net in nets[:20]:
        averaging.after_step(net)
    other.load_state_dict(copy.deepcopy(averaging.state_dict()))
    for each in (averaging, other):
        for net in nets[20:]:
            each.after_step(net)
    for ours, resumed in zip(averaging.module.parameters(), other.module.parameters(), strict=True):
        assert torch.equal(ours, resumed)
        assert 1.0 < ours.flatten()[0].item() < 1.1
