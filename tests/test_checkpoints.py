"""Checkpoints of others: nothing runs, and what does not fit is named."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from edgeopt.errors import CheckpointError, RecipeError
from edgeopt.networks.checkpoints import load_checkpoint, read_checkpoint
from edgeopt.networks.heads import find_head, require_input, set_batch_norm_momentum
from edgeopt.networks.plain_values import UnreadableValuesError, read_plain_values
from edgeopt.networks.weights_option import checkpoint_fingerprint, checkpoint_path


class Net(nn.Sequential):
    def __init__(self, classes: int = 5, seed: int = 0) -> None:
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(OrderedDict(body=body, pool=pool, head=nn.Linear(4, classes)))


def save(path: Path, held: Any) -> Path:
    torch.save(held, path)
    return path


def error(path: Path, model: nn.Module | None = None, heads: tuple[str, ...] = ("head",)) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model or Net(), path, heads)
    return str(caught.value)


WRAPPED = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "args": {"lr": 0.1}},
    "parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "compiled": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "lightning": lambda state: {
        "state_dict": {f"model.{name}": value for name, value in state.items()} | {"loss.weight": torch.ones(5)},
        "pytorch-lightning_version": "2.6.6",
    },
    "much copied script": lambda state: {
        "net": {f"module.{name}": value for name, value in state.items()},
        "acc": torch.tensor(91.2),
        "epoch": 3,
    },
    "model_ema": lambda state: {"model_ema": state, "epoch": 3},
    "params": lambda state: {"params": state},
    "params_ema": lambda state: {"params_ema": state},
    "student and teacher": lambda state: {
        "teacher": {name: torch.zeros_like(value) for name, value in state.items()},
        "student": state,
    },
    "average beside": lambda state: {
        "model_ema": {name: torch.zeros_like(value) for name, value in state.items()},
        "model": state,
    },
    "weights": lambda state: {"weights": state, "loss": 0.3},
    "network": lambda state: {"network": state},
    "state": lambda state: {"state": state},
    "three deep": lambda state: {"checkpoint": {"model": {"state_dict": state}}, "optimizer": {"state": {}}},
    "optimizer with tensors": lambda state: {
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "lr": torch.tensor(0.1)},
        "model": state,
    },
    **{
        prefix: lambda state, prefix=prefix: {"state_dict": {prefix + name: each for name, each in state.items()}}
        for prefix in ("net.", "backbone.", "encoder.", "classifier.", "module.base_model.", "a.b.c.d.")
    },
    "loss beside": lambda state: {
        "state_dict": {f"net.{name}": value for name, value in state.items()} | {"criterion.weight": torch.ones(5)}
    },
    "loss beside plain names": lambda state: {**state, "criterion.weight": torch.ones(5)},
    "both": lambda state: {"model": {f"module.model.{name}": value for name, value in state.items()}},
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_every_common_wrapping(tmp_path: Path, wrapping: str) -> None:
    source, model = Net(seed=1), Net(seed=2)
    loaded = load_checkpoint(model, save(tmp_path / "w.pth", WRAPPED[wrapping](source.state_dict())), ("head",))
    assert loaded.tensors == len(source.state_dict()) and loaded.fresh == ()
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_safetensors(tmp_path: Path) -> None:
    source, model = Net(seed=1), Net(seed=2)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_checkpoint(model, tmp_path / "w.safetensors")
    assert torch.equal(model.body[0].weight, source.body[0].weight)
    (tmp_path / "bad.safetensors").write_bytes(b"hello")
    assert "is not a checkpoint" in error(tmp_path / "bad.safetensors")


def test_a_head_of_another_size_stays_fresh(tmp_path: Path) -> None:
    source, model = Net(9, seed=1), Net(5, seed=2)
    before = model.head.weight.clone()
    loaded = load_checkpoint(model, save(tmp_path / "w.pth", source.state_dict()), ("head",))
    assert loaded.fresh == ("head.bias", "head.weight") and "head replaced" in str(loaded)
    assert torch.equal(model.head.weight, before)
    assert torch.equal(model.body[0].weight, source.body[0].weight)


def test_a_backbone_without_head_and_old_files_without_counters(tmp_path: Path) -> None:
    state = Net(seed=1).state_dict()
    kept = {name: value for name, value in state.items() if not name.startswith("head") and "tracked" not in name}
    loaded = load_checkpoint(model := Net(seed=2), save(tmp_path / "w.pth", kept), ("head",))
    assert loaded.tensors == len(kept)
    assert torch.equal(model.body[1].weight, state["body.1.weight"])


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_trained_head_of_another_name_is_used_and_told(tmp_path: Path, prefix: str) -> None:
    source, model = Net(seed=1), Net(seed=2)
    state = {
        name.replace("head.", "classifier.") if name.startswith("head.") else prefix + name: value
        for name, value in source.state_dict().items()
    }
    loaded = load_checkpoint(model, save(tmp_path / "w.pth", {"state_dict": state}), ("head",))
    assert torch.equal(model.state_dict()["head.weight"], source.state_dict()["head.weight"])
    assert loaded.fresh == () and loaded.renamed == (("classifier", "head"),)
    assert "'classifier'" in loaded.warnings[0]


def test_a_head_for_other_classes_is_not_taken_under_another_name(tmp_path: Path) -> None:
    state = Net(9, seed=1).state_dict()
    renamed = {
        name.replace("head.", "classifier.") if name.startswith("head.") else f"backbone.{name}": each
        for name, each in state.items()
    }
    loaded = load_checkpoint(Net(seed=2), save(tmp_path / "w.pth", renamed), ("head",))
    assert loaded.renamed == () and "head.weight" in loaded.fresh


def test_what_does_not_fit_is_named_and_the_model_untouched(tmp_path: Path) -> None:
    state = dict(Net(seed=1).state_dict())
    state["extra.weight"] = torch.ones(1)
    state["body.0.weight"] = torch.ones(8, 3, 3, 3)
    del state["body.0.bias"]
    state["body.1.weight"] = torch.tensor([1.0, float("nan"), 1.0, 1.0])
    state["body.1.bias"] = torch.ones(4, dtype=torch.int8)
    model = Net(seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    text = error(save(tmp_path / "w.pth", state), model)
    assert "1 missing: body.0.bias" in text
    assert "1 unexpected: extra.weight" in text
    assert "body.0.weight 8x3x3x3 for 4x3x3x3" in text
    assert "1 not finite: body.1.weight" in text
    assert "body.1.bias int8 for float32" in text
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_another_network_is_not_named_in_full(tmp_path: Path) -> None:
    state = {f"layer{index}.weight": torch.ones(1) for index in range(200)}
    text = error(save(tmp_path / "w.pth", state))
    assert "200 unexpected" in text and "196 more" in text and len(text) < 900


def test_a_head_elsewhere_must_fit(tmp_path: Path) -> None:
    assert "head.weight 9x4 for 5x4" in error(save(tmp_path / "w.pth", Net(9).state_dict()), heads=())


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("legacy", [False, True])
def test_an_unsafe_pickle_is_refused_and_runs_nothing(tmp_path: Path, legacy: bool) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": Payload(mark)}, path, _use_new_zipfile_serialization=not legacy)
    text = error(path)
    assert "unsafe pickle" in text and "mkdir" in text and "model.state_dict()" in text
    assert not mark.exists()


def test_a_whole_pickled_module_is_refused_with_what_to_do(tmp_path: Path) -> None:
    text = error(save(tmp_path / "whole.pth", nn.Linear(2, 2)))
    assert "unsafe pickle" in text and "torch.nn.modules.linear.Linear" in text


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "number", "script"])
def test_files_that_are_no_checkpoints(tmp_path: Path, kind: str) -> None:
    path = save(tmp_path / "w.pth", Net().state_dict())
    match kind:
        case "text":
            path.write_text("hello")
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(path.read_bytes()[:-200])
        case "number":
            save(path, 3)
        case "script":
            torch.jit.script(nn.Linear(2, 2)).save(str(path))
    expected = {"number": "holds no state dict", "script": "TorchScript archive"}.get(kind, "is not a checkpoint")
    assert expected in error(path)


def test_paths_and_names(tmp_path: Path) -> None:
    assert checkpoint_path("DEFAULT") is None and checkpoint_path("none") is None
    assert checkpoint_path("w.pth") == Path("w.pth") and checkpoint_path("a/b") == Path("a/b")
    assert checkpoint_fingerprint("DEFAULT") == ""
    with pytest.raises(CheckpointError, match=r"gone\.pth does not exist; looked in /"):
        checkpoint_fingerprint("./gone.pth")
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoint_fingerprint(str(tmp_path / "gone.pth"))
    with pytest.raises(CheckpointError, match="is a folder"):
        read_checkpoint(tmp_path, ())
    path = save(tmp_path / "w.pth", {})
    before = checkpoint_fingerprint(str(path))
    os.utime(path, ns=(1, 1))
    assert checkpoint_fingerprint(str(path)) != before


def test_heads_norms_and_sizes() -> None:
    model = Net(7)
    assert find_head(model, 7) == "head"
    assert set_batch_norm_momentum(model, 0.3) == 1 and model.body[1].momentum == 0.3
    model.train()
    require_input(model, "net", 8, 7)
    assert model.training and next(model.parameters()).device.type == "cpu"
    with pytest.raises(RecipeError, match=r"net does not take images of 2 px: .*\n  hint: set image_size to 3 or more"):
        require_input(model, "net", 2, 7)
    with pytest.raises(RecipeError, match=r"it returns \(2, 7\) for 2 images, not logits \(batch, 6\)"):
        require_input(model, "net", 8, 6)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("plain") / "old.pt"
    torch.save({"epoch": 3, "weights": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


@given(text=st.binary(max_size=40))
def test_any_bytes_are_refused_by_one_error(text) -> None:
    try:
        read_plain_values(text)
    except UnreadableValuesError as error:
        assert error.__cause__ is not None


@given(data=st.data())
def test_any_damage_is_refused_by_one_error(saved, data) -> None:
    damaged = bytearray(saved)
    for place in data.draw(st.lists(st.integers(0, len(saved) - 1), min_size=1, max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    try:
        read_plain_values(bytes(damaged))
    except UnreadableValuesError as error:
        assert error.__cause__ is not None
