import itertools

import pytest
import torch
from torch import nn
from training_samples import make_net

from edgeopt_lightning.fit.optimizers import LearningRate, make_optimizer
from edgeopt_lightning.options import FitOptions


def rates(options: FitOptions, losses: list[float], steps: int = 5, resume_at: int | None = None) -> list[float]:
    """The learning rate of each step, with these validation losses at the ends of the epochs."""

    def start() -> tuple[torch.optim.Optimizer, LearningRate]:
        optimizer = make_optimizer(nn.Linear(2, 2), options, fused=False)
        return optimizer, LearningRate(optimizer, options, steps, options.epochs)

    optimizer, rate = start()
    seen = []
    for epoch in range(options.epochs):
        if epoch == resume_at:
            saved = optimizer.state_dict(), rate.state_dict()
            optimizer, rate = start()
            optimizer.load_state_dict(saved[0])
            rate.load_state_dict(saved[1])
        for _ in range(steps):
            seen.append(rate.value)
            optimizer.step()
            rate.after_step()
        rate.after_epoch(losses[epoch])
    return seen


FALLING = [1.0 / (epoch + 1) for epoch in range(10)]


def test_one_cycle_rises_and_falls() -> None:
    seen = rates(FitOptions(epochs=10, learning_rate=1e-2), FALLING)
    assert max(seen) == pytest.approx(1e-2, rel=1e-3) and seen.index(max(seen)) in (14, 15)
    assert seen[-1] < 1e-6 < seen[0] < 1e-3


def test_cosine_warms_up_and_ends_where_asked() -> None:
    seen = rates(
        FitOptions(epochs=6, schedule="cosine", learning_rate=1e-2, warmup_epochs=2, final_learning_rate=1e-4), FALLING
    )
    assert seen[:10] == sorted(seen[:10]) and seen[10:] == sorted(seen[10:], reverse=True)
    assert seen[0] == pytest.approx(1e-2 / 11) and seen[10] == pytest.approx(1e-2) and seen[-1] == pytest.approx(1e-4)


def test_step_cuts_at_epochs() -> None:
    seen = rates(FitOptions(epochs=5, schedule="step", learning_rate=1.0, decay_epochs=2, decay_factor=0.5), FALLING)
    assert seen[::5] == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_plateau_cuts_when_the_loss_stays() -> None:
    options = FitOptions(epochs=6, schedule="plateau", learning_rate=1.0, plateau_patience=1, warmup_epochs=1)
    seen = rates(options, [3.0, 2.0, 2.0, 2.0, 2.0, 1.0])
    assert seen[:5] == sorted(seen[:5]) and seen[0] < 1.0
    assert seen[5::5] == pytest.approx([1.0, 1.0, 1.0, 0.1, 0.1])


def test_constant_stays() -> None:
    assert set(rates(FitOptions(epochs=3, schedule="constant", learning_rate=0.25), FALLING)) == {0.25}


def test_swa_holds_its_learning_rate() -> None:
    options = FitOptions(epochs=4, schedule="cosine", averaging="swa", swa_start=0.5, swa_learning_rate=0.125)
    seen = rates(options, FALLING)
    assert set(seen[10:]) == {0.125} and 0.125 not in seen[:10]


@pytest.mark.parametrize(
    ("schedule", "swa", "epoch"), itertools.product(["one-cycle", "cosine", "step", "plateau"], [False, True], [1, 4])
)
def test_resumed_rates_are_those_of_an_uninterrupted_training(schedule: str, swa: bool, epoch: int) -> None:
    options = FitOptions(
        epochs=6,
        schedule=schedule,
        warmup_epochs=2,
        decay_epochs=2,
        plateau_patience=0,
        averaging="swa" if swa else "none",
        swa_learning_rate=0.5,
    )
    losses = [2.0, 2.0, 3.0, 3.0, 1.0, 1.0]
    assert rates(options, losses, resume_at=epoch) == rates(options, losses)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_smoke_run_has_fewer_steps_than_the_warm_up(steps: int) -> None:
    for options in (FitOptions(), FitOptions(schedule="cosine", warmup_epochs=4, epochs=8)):
        optimizer = make_optimizer(nn.Linear(2, 2), options, fused=False)
        rate = LearningRate(optimizer, options, steps, epochs=1)
        for _ in range(steps):
            assert 0 < rate.value <= options.learning_rate
            optimizer.step()
            rate.after_step()


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_biases_and_normalization_do_not_decay(kind: str) -> None:
    net = make_net()
    optimizer = make_optimizer(net, FitOptions(optimizer=kind, weight_decay=0.5), fused=False)
    decayed = {id(each) for group in optimizer.param_groups if group["weight_decay"] for each in group["params"]}
    assert decayed == {id(each) for each in net.parameters() if each.ndim > 1}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(net.parameters()))
    assert isinstance(optimizer, torch.optim.SGD if kind == "sgd" else torch.optim.AdamW)
