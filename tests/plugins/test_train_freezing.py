import pytest
import torch
from torch import nn
from training_samples import make_context, make_net, make_state, weights_of

from edgeopt.errors import NothingChangedError
from edgeopt_lightning.freezing import choose_frozen
from edgeopt_lightning.options import TrainOptions
from edgeopt_lightning.plugin import train

FEATURES = {"features.0.weight", "features.1.weight", "features.1.bias", "features.3.weight", "features.3.bias"}
NORM = {"norm.weight", "norm.bias"}


def test_backbone_is_all_but_the_last_part() -> None:
    assert choose_frozen(make_net(), ["backbone"]).parameters == FEATURES | NORM


def test_backbone_of_a_model_that_wraps_another() -> None:
    wrapped = nn.Sequential(make_net())
    assert choose_frozen(wrapped, ["backbone"]).parameters == {f"0.{name}" for name in FEATURES | NORM}


class HeadFirst(nn.Module):
    """Registers its head before its features, as some networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_head_is_found_by_its_outputs_wherever_it_was_registered(wrapped: bool) -> None:
    net = nn.Sequential(HeadFirst()) if wrapped else HeadFirst()
    prefix = "0." if wrapped else ""
    names = {
        f"{prefix}{name}" for name in ("features.0.weight", "features.0.bias", "features.1.weight", "features.1.bias")
    }
    assert choose_frozen(net, ["backbone"], classes=3).parameters == names


def test_patterns_name_modules_with_all_below_them() -> None:
    net = make_net()
    assert choose_frozen(net, ["features"]).parameters == FEATURES == choose_frozen(net, ["feat*"]).parameters
    assert choose_frozen(net, ["features.1", "norm"]).parameters == NORM | {"features.1.weight", "features.1.bias"}
    assert choose_frozen(net, ["*.bias"]).parameters == {name for name, _ in net.named_parameters() if "bias" in name}


def test_the_last_layers_of_the_frozen_part_can_train() -> None:
    frozen = choose_frozen(make_net(), ["backbone"], unfreeze_last=2)
    assert frozen.parameters == {"features.0.weight", "features.1.weight", "features.1.bias"}
    assert frozen.layers == {"features.0", "features.1"}


@pytest.mark.parametrize(
    ("patterns", "unfreeze_last", "message"),
    [
        (["featurs"], 0, "(?s)no part of the model is named 'featurs'.*did you mean 'features'"),
        (["xyz"], 0, "(?s)'xyz'.*known: features,.*head"),
        (["backbone"], 4, "unfreeze_last = 4 leaves nothing frozen"),
        (["*"], 0, "training would change nothing"),
    ],
)
def test_a_request_that_changes_nothing_is_an_error(patterns: list[str], unfreeze_last: int, message: str) -> None:
    with pytest.raises(NothingChangedError, match=message):
        choose_frozen(make_net(), patterns, unfreeze_last)


def test_a_model_of_one_layer_has_no_backbone() -> None:
    with pytest.raises(NothingChangedError, match="'backbone'"):
        choose_frozen(nn.Sequential(nn.Flatten(), nn.Linear(432, 3)), ["backbone"])


def test_normalization_without_weights_is_frozen_too() -> None:
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)), nn.Linear(4, 2)).train()
    choose_frozen(net, ["backbone"]).apply(net, 0)
    assert not net[0][1].training and net[1].training


def test_frozen_weights_and_statistics_stay_and_are_counted(tmp_path) -> None:
    net = make_net()
    before = weights_of(net)
    options = TrainOptions(epochs=1, freeze=["backbone"], batch_size=16)
    after = train(make_state(net), options, make_context(tmp_path))
    kept = {name for name, value in weights_of(after.model).items() if value == before[name]}
    assert kept == {name for name in before if not name.startswith("head")}
    facts = after.history[-1].facts
    backbone = sum(each.numel() for name, each in net.named_parameters() if not name.startswith("head"))
    assert facts["frozen_parameters"] == backbone and facts["frozen_layers"] == 4
    assert facts["trainable_parameters"] == 16 * 3 + 3
    assert facts["batch_norm_reestimated"] == 0
    assert all(each.requires_grad for each in after.model.parameters()), "the next pass trains everything"


def test_the_frozen_part_trains_from_unfreeze_epoch_on(tmp_path) -> None:
    net = make_net()
    frozen = choose_frozen(net, ["features"], until_epoch=2)
    for epoch, trains in [(0, False), (1, False), (2, True)]:
        net.train()
        frozen.apply(net, epoch)
        assert net.features[0].weight.requires_grad is trains and net.features[1].training is trains
        assert net.norm.training
    options = TrainOptions(epochs=2, freeze=["features"], unfreeze_epoch=1, batch_size=16, schedule="constant")
    after = train(make_state(net), options, make_context(tmp_path))
    assert not torch.equal(after.model.features[0].weight, net.features[0].weight)
