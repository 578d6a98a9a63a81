import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from training_samples import Steps, make_context, make_data, make_net, make_split, make_state, weights_of

from edgeopt.errors import DataError, NothingChangedError, PausedError, TrainingError
from edgeopt.options import Augmentation
from edgeopt.plugins.contexts import Budget
from edgeopt.tasks.classification import Classification
from edgeopt_lightning.fit.hooks import FitHooks
from edgeopt_lightning.fit.loop import fit
from edgeopt_lightning.options import FitOptions, TrainOptions
from edgeopt_lightning.plugin import edgeopt_passes, train

ROOT = Path(__file__).parents[2]
OPTIONS = TrainOptions(epochs=3, batch_size=16, learning_rate=1e-2)


def logits_of(net: nn.Module, context) -> torch.Tensor:
    validation = context.data.validation
    with torch.no_grad():
        inputs = torch.from_numpy(context.data.preprocessing.normalize(validation.pixels(slice(None))))
        return net(inputs)


def score(net: nn.Module, context) -> float:
    return float((logits_of(net, context).argmax(1).numpy() == context.data.validation.labels).mean())


# ---- the pass ------------------------------------------------------------------------------------------------------


def test_declaring_is_light() -> None:
    code = (
        "import sys, edgeopt_lightning.plugin; print([n for n in ('torch', 'lightning', 'numpy') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == "[]"
    (declared,) = edgeopt_passes()
    assert declared.name == "train" and not declared.optimizes and declared.requires == ("lightning",)


def test_it_learns_and_says_so(tmp_path) -> None:
    context = make_context(tmp_path)
    state = make_state(make_net())
    before = weights_of(state.model)
    after = train(state, OPTIONS.model_copy(update={"epochs": 8}), context)
    record = after.history[-1]
    assert (
        record.facts["validation_accuracy"] > 0.9 and score(after.model, context) == record.facts["validation_accuracy"]
    )
    assert weights_of(state.model) == before and not state.history, "the state that came in is as it was"
    assert not after.model.training and after.model.features[0].weight.is_contiguous()
    assert {curve.name for curve in record.curves} == {
        "training loss",
        "validation loss",
        "validation accuracy",
        "learning rate",
    }
    assert all(curve.x == tuple(range(1, 9)) and len(curve.y) == 8 for curve in record.curves)
    json.dumps(record.facts)


def test_batch_norm_with_a_small_momentum_evaluates_as_it_learned(tmp_path) -> None:
    data = make_data(48)
    hopeless = OPTIONS.model_copy(update={"batch_norm_momentum": None, "reestimate_batch_norm": False})
    reestimated = hopeless.model_copy(update={"reestimate_batch_norm": True})
    momentum = OPTIONS.model_copy(update={"reestimate_batch_norm": False, "epochs": 8})
    found = {}
    for name, options in {"hopeless": hopeless, "reestimated": reestimated, "momentum": momentum}.items():
        net = make_net(momentum=0.001)
        context = make_context(tmp_path / name, data)
        result = train(make_state(net), options.model_copy(update={"epochs": 8}), context)
        found[name] = result.history[-1].facts["validation_accuracy"]
        assert result.model.norm.momentum == 0.001
    assert found["hopeless"] < 0.7 < 0.85 < min(found["reestimated"], found["momentum"]), found


@pytest.mark.parametrize(
    "changes",
    [
        {"averaging": "ema"},
        {"averaging": "swa", "swa_start": 0.5, "schedule": "cosine", "swa_learning_rate": 5e-3},
        {"optimizer": "sgd", "learning_rate": 0.1, "schedule": "step", "decay_epochs": 5, "warmup_epochs": 1},
        {"schedule": "plateau", "accumulate": 2, "gradient_clip": 1.0, "label_smoothing": 0.1},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_way_of_training_learns_and_repeats(tmp_path, changes) -> None:
    options = TrainOptions(**{"epochs": 8, "batch_size": 16, "learning_rate": 1e-2, **changes})
    ended = [train(make_state(make_net()), options, make_context(tmp_path / name)) for name in "ab"]
    assert ended[0].history[-1].facts["validation_accuracy"] > 0.85
    assert ended[0].history[-1].facts["averaged"] is ("averaging" in changes)
    assert weights_of(ended[0].model) == weights_of(ended[1].model)


def test_another_seed_gives_other_weights(tmp_path) -> None:
    ended = [train(make_state(make_net()), OPTIONS, make_context(tmp_path / str(seed), seed=seed)) for seed in (1, 2)]
    assert weights_of(ended[0].model) != weights_of(ended[1].model)


def test_nothing_is_printed_and_nothing_global_changes(tmp_path, capfd) -> None:
    state = make_state(make_net())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = torch.get_num_threads(), logging.getLogger("lightning.pytorch").level, signal.getsignal(signal.SIGINT)
    capfd.readouterr()
    train(state, OPTIONS, make_context(tmp_path, threads=2))
    assert capfd.readouterr() == ("", "")
    after = torch.get_num_threads(), logging.getLogger("lightning.pytorch").level, signal.getsignal(signal.SIGINT)
    assert after == before and torch.equal(torch.rand(3), expected)


def test_progress_counts_every_batch(tmp_path) -> None:
    steps = Steps()
    train(make_state(make_net()), OPTIONS, make_context(tmp_path, progress=steps))
    assert (steps.label, steps.total, steps.done) == ("train", 24, 24)
    assert steps.said and "epoch 1/3, loss " in steps.said[0]


def test_a_budget_bounds_the_work(tmp_path) -> None:
    steps = Steps()
    context = make_context(tmp_path, progress=steps, budget=Budget(epochs=1, batches=2))
    result = train(make_state(make_net()), OPTIONS, context)
    assert (steps.total, steps.done) == (2, 2) and result.history[-1].facts["epochs_run"] == 1


def test_augmentation_reaches_training_only(tmp_path) -> None:
    changed = make_data(augmentation=Augmentation(crop_padding=2, horizontal_flip=True))
    plain, augmented = (
        train(make_state(make_net()), OPTIONS, make_context(tmp_path / name, data))
        for name, data in {"plain": make_data(), "augmented": changed}.items()
    )
    assert weights_of(plain.model) != weights_of(augmented.model)
    context = make_context(tmp_path, changed)
    assert score(augmented.model, context) == augmented.history[-1].facts["validation_accuracy"]


# ---- which epoch is kept, and when it ends -------------------------------------------------------------------------


class Scripted:
    """Scores epochs as a script says: this many validation images right, and logits of this size."""

    def __init__(self, data, right: list[int], sizes: list[float] | None = None) -> None:
        self.labels = torch.from_numpy(data.validation.labels)
        self.right, self.sizes = right, sizes or [1.0] * len(right)
        self.seen: list[dict[str, bytes]] = []

    def __call__(self, module: nn.Module):
        assert not module.training
        epoch = len(self.seen)
        self.seen.append(weights_of(module))
        wrong = torch.arange(len(self.labels)) >= self.right[epoch]
        said = torch.where(wrong, (self.labels + 1) % 3, self.labels)
        logits = iter((nn.functional.one_hot(said, 3).float() * self.sizes[epoch]).split(16))
        return lambda inputs: next(logits)


def fit_scripted(tmp_path, right, sizes=None, **changes):
    context = make_context(tmp_path)
    scripted = Scripted(context.data, right, sizes)
    net = make_net()
    hooks = FitHooks(scored=scripted, reestimate_batch_norm=False)
    options = FitOptions(**{"epochs": len(right), "batch_size": 16, **changes})
    return net, scripted, fit(net, context.data, Classification(), options, context, hooks)


def test_the_best_epoch_is_restored(tmp_path) -> None:
    net, scripted, result = fit_scripted(tmp_path, [10, 40, 30, 20])
    assert result.best_epoch == 2 and result.best_score == 40 / 45 and result.epochs_run == 4
    assert weights_of(net) == scripted.seen[1] != scripted.seen[3]


def test_of_equal_scores_the_lower_loss_wins_and_then_the_earlier(tmp_path) -> None:
    # with 30 of 45 right, larger logits lower the loss
    for changes in ({"schedule": "constant"}, {"patience": 4}):
        _, _, result = fit_scripted(tmp_path, [30, 30, 30, 30], [0.1, 0.5, 0.5, 0.2], **changes)
        assert result.best_epoch == 2


@pytest.mark.parametrize(
    ("right", "best"),
    [
        ([10, 40, 39, 38], 4),  # of 45: the standard error of 40 is two images
        ([10, 40, 39, 37], 3),
        ([38, 39, 40, 39, 30], 4),
        ([30, 36, 39, 41, 43], 5),
        ([45, 44, 45, 44], 3),  # the better the score, the smaller its error
    ],
)
@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
def test_where_the_learning_rate_comes_down_the_last_of_those_like_the_best_is_kept(
    tmp_path, right, best, schedule
) -> None:
    net, scripted, result = fit_scripted(tmp_path, right, schedule=schedule)
    assert (result.best_epoch, result.epochs_run) == (best, len(right))
    assert result.best_score == right[best - 1] / 45
    assert weights_of(net) == scripted.seen[best - 1]


def test_without_validation_loss_an_epoch_is_not_kept_for_its_place(tmp_path) -> None:
    _, _, result = fit_scripted(tmp_path, [40, 40], [0.1, float("nan")])
    assert result.best_epoch == 1


def test_a_validation_loss_that_is_not_finite_loses(tmp_path) -> None:
    _, _, result = fit_scripted(tmp_path, [30, 30], [float("nan"), 0.1])
    assert result.best_epoch == 2


def test_it_stops_early_when_nothing_gets_better(tmp_path) -> None:
    _, _, result = fit_scripted(tmp_path, [10, 20, 19, 18, 45, 45], patience=2)
    assert (result.epochs_run, result.best_epoch, result.stopped) == (4, 2, "no better epoch in 2")


class Exploding(nn.Module):
    """Layers that multiply: a learning rate too high for them ends in infinity."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), *[nn.Linear(432, 432) for _ in range(4)], nn.Linear(432, 3))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs)


def test_a_loss_that_is_not_finite_stops_with_what_to_do(tmp_path) -> None:
    options = TrainOptions(epochs=5, batch_size=16, optimizer="sgd", learning_rate=50.0, schedule="constant")
    with pytest.raises(TrainingError) as caught:
        train(make_state(Exploding()), options, make_context(tmp_path))
    (problem,) = caught.value.problems
    assert "not finite at epoch 1, batch " in problem.message and "learning rate 50" in problem.message
    assert "lower learning_rate" in problem.hint and "gradient_clip" in problem.hint


# ---- killed and resumed --------------------------------------------------------------------------------------------


class Killed(Exception):
    pass


def raise_killed() -> None:
    raise Killed


RESUMED = {
    "one-cycle ema": {"averaging": "ema"},
    "plateau swa": {"schedule": "plateau", "plateau_patience": 0, "averaging": "swa", "swa_start": 0.4, "patience": 5},
    "sgd accumulate": {"optimizer": "sgd", "accumulate": 3, "schedule": "cosine", "warmup_epochs": 1.5},
    "freeze": {"freeze": ["features"], "unfreeze_epoch": 3},
}


@pytest.mark.parametrize("changes", RESUMED.values(), ids=RESUMED)
def test_a_training_that_died_ends_as_if_it_had_not(tmp_path, changes) -> None:
    data = make_data(augmentation=Augmentation(crop_padding=1))
    options = TrainOptions(**{"epochs": 5, "batch_size": 16, **changes})
    whole = train(make_state(make_net()), options, make_context(tmp_path / "whole", data))
    for batch in (3, 20, 33, 40):  # before the first checkpoint, inside two epochs, and in the last batch of all
        steps = Steps(batch, raise_killed)
        with pytest.raises(Killed):
            train(make_state(make_net()), options, make_context(tmp_path / "killed", data, progress=steps))
    resumed = train(make_state(make_net()), options, make_context(tmp_path / "killed", data))
    assert weights_of(resumed.model) == weights_of(whole.model)
    assert resumed.history == whole.history


def test_a_training_that_paused_ends_as_if_it_had_not(tmp_path) -> None:
    options = TrainOptions(epochs=5, batch_size=16, averaging="ema", warmup_epochs=1.5)
    whole = train(make_state(make_net()), options, make_context(tmp_path / "whole"))
    scores = next(curve.y for curve in whole.history[-1].curves if curve.name == "validation accuracy")
    done = []
    for pause in (3, 3, 2):  # asked again, and for less than was done: nothing is trained
        steps = Steps()
        context = make_context(tmp_path / "paused", progress=steps)
        with pytest.raises(PausedError) as paused:
            train(make_state(make_net()), options, replace(context, pause_epochs=pause))
        assert (paused.value.epochs, paused.value.score) == (pause, max(scores[:pause]))
        done.append(steps.done)
    assert done[0] > 0 and done[1:] == [0, 0]
    resumed = train(make_state(make_net()), options, replace(make_context(tmp_path / "paused"), pause_epochs=5))
    assert weights_of(resumed.model) == weights_of(whole.model)
    assert resumed.history == whole.history


def test_a_finished_training_is_not_repeated(tmp_path) -> None:
    whole = train(make_state(make_net()), OPTIONS, make_context(tmp_path))
    again = train(make_state(make_net()), OPTIONS, make_context(tmp_path, progress=Steps(1, raise_killed)))
    assert weights_of(again.model) == weights_of(whole.model) and again.history == whole.history


@pytest.mark.parametrize("damage", ["half", "empty", "text", "pickle"])
def test_a_damaged_checkpoint_is_ignored(tmp_path, damage) -> None:
    whole = train(make_state(make_net()), OPTIONS, make_context(tmp_path))
    file = tmp_path / "train.ckpt"
    content = file.read_bytes()
    if damage == "pickle":
        torch.save({"fingerprint": Path("not a plain value")}, file)
    else:
        file.write_bytes({"half": content[: len(content) // 2], "empty": b"", "text": b"epoch 3"}[damage])
    again = train(make_state(make_net()), OPTIONS, make_context(tmp_path))
    assert weights_of(again.model) == weights_of(whole.model)


@pytest.mark.parametrize("other", ["options", "seed", "data"])
def test_a_checkpoint_of_another_training_is_ignored(tmp_path, other) -> None:
    train(make_state(make_net()), OPTIONS, make_context(tmp_path))
    steps = Steps()
    options = OPTIONS.model_copy(update={"label_smoothing": 0.1}) if other == "options" else OPTIONS
    data = make_data(96) if other == "data" else make_data()
    train(
        make_state(make_net()), options, make_context(tmp_path, data, seed=3 if other == "seed" else 17, progress=steps)
    )
    assert steps.done == steps.total > 0


SCRIPT = """
    import os, signal, sys
    from pathlib import Path
    from training_samples import Steps, make_context, make_net, make_state, weights_of
    from edgeopt_lightning.options import TrainOptions
    from edgeopt_lightning.plugin import train
    options = TrainOptions(epochs=3, batch_size=16, learning_rate=1e-2)
    folder = Path(sys.argv[1])
"""


def run_script(folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    file = folder / "script.py"
    file.write_text(textwrap.dedent(SCRIPT) + textwrap.dedent(code))
    paths = os.pathsep.join([str(Path(__file__).parent), str(ROOT), str(ROOT / "plugins")])
    return subprocess.run(
        [sys.executable, str(file), str(folder)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_killed_process_is_resumed_to_the_same_bytes(tmp_path) -> None:
    code = """
        killer = Steps(13, lambda: os.kill(os.getpid(), signal.SIGKILL))
        train(make_state(make_net()), options, make_context(folder, progress=killer))
    """
    assert run_script(tmp_path, code).returncode == -signal.SIGKILL
    steps = Steps()
    resumed = train(make_state(make_net()), OPTIONS, make_context(tmp_path, progress=steps))
    whole = train(make_state(make_net()), OPTIONS, make_context(tmp_path / "whole"))
    assert weights_of(resumed.model) == weights_of(whole.model)
    assert [file.name for file in tmp_path.glob("*.ckpt")] == ["train.ckpt"] and not list(tmp_path.glob(".*"))


def test_an_interrupt_comes_through_and_the_next_one_is_heard(tmp_path) -> None:
    before = signal.getsignal(signal.SIGINT)
    steps = Steps(10, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(make_state(make_net()), OPTIONS, make_context(tmp_path, progress=steps))
    assert signal.getsignal(signal.SIGINT) is before


# ---- devices -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            {"accelerator": "gpu"},
            "cannot be used",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_devices_that_are_not_there(tmp_path, settings, message) -> None:
    with pytest.raises(TrainingError, match=message):
        train(make_state(make_net()), OPTIONS, make_context(tmp_path, **settings))


def test_mixed_precision_and_contiguous_layout(tmp_path) -> None:
    mixed = train(make_state(make_net()), OPTIONS, make_context(tmp_path / "bf16", precision="bf16-mixed"))
    assert mixed.history[-1].facts["precision"] == "bf16-mixed" and not mixed.history[-1].warnings
    assert all(each.dtype == torch.float32 for each in mixed.model.parameters())
    plain = train(make_state(make_net()), OPTIONS, make_context(tmp_path / "plain", channels_last=False))
    assert weights_of(mixed.model) != weights_of(plain.model)


def test_the_compiled_step_trains_alike(tmp_path, monkeypatch) -> None:
    compiled = []
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda step: compiled.append(step) or original(step, backend="aot_eager"))
    fast = train(make_state(make_net()), OPTIONS, make_context(tmp_path / "compiled", compile=True))
    plain = train(make_state(make_net()), OPTIONS, make_context(tmp_path / "plain"))
    assert len(compiled) == 1
    for ours, theirs in zip(fast.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


# ---- what cannot be ------------------------------------------------------------------------------------------------


def test_one_image_is_too_few(tmp_path) -> None:
    data = replace(make_data(), train=make_split(1, 0))
    with pytest.raises(DataError, match="1 training images are too few for 1 device"):
        train(make_state(make_net()), OPTIONS, make_context(tmp_path, data))


def test_a_model_without_weights(tmp_path) -> None:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(NothingChangedError, match="no weights to train"):
        train(make_state(net), OPTIONS, make_context(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_epochs": 3, "epochs": 3}, "warmup_epochs .3. must be less than epochs .3."),
        ({"final_learning_rate": 1.0}, "final_learning_rate .1. is above"),
        ({"unfreeze_last": 2}, "unfreeze_last needs freeze"),
        ({"freeze": ["backbone"], "unfreeze_epoch": 10}, "unfreeze_epoch .10. must be less"),
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"patiance": 3}, "patiance"),
    ],
)
def test_options_that_make_no_sense(changes, message) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainOptions(**changes)


def test_hooks_can_replace_loss_and_see_every_epoch(tmp_path) -> None:
    seen, shapes = [], set()

    def loss(inputs, outputs, labels):
        (logits,) = outputs
        shapes.add((tuple(inputs.shape[1:]), inputs.dtype, logits.shape[1], labels.dtype))
        return nn.functional.mse_loss(logits, nn.functional.one_hot(labels, 3).float())

    def before_epoch(module, epoch):
        assert module.training
        seen.append(epoch)

    context = make_context(tmp_path)
    options = FitOptions(epochs=6, batch_size=16, learning_rate=1e-2)
    hooks = FitHooks(before_epoch=before_epoch, loss=loss)
    result = fit(make_net(), context.data, Classification(), options, context, hooks, label="distil")
    assert seen == list(range(6)) and shapes == {((3, 12, 12), torch.float32, 3, torch.int64)}
    assert result.best_score > 0.8 and (tmp_path / "distil.ckpt").exists()


def test_a_constraint_holds_after_every_step_and_on_averages(tmp_path) -> None:
    constrained, seen = [], []

    def constrain(module, epochs):
        constrained.append(epochs)
        with torch.no_grad():
            module.head[1].weight[0] = 0.0 if epochs >= 1 else 1.0  # the average remembers what came before

    def loss(inputs, outputs, labels):
        (logits,) = outputs
        seen.append(constrained[-1])
        return nn.functional.cross_entropy(logits, labels)

    def scored(module):
        assert not module.head[1].weight[0].any() and module.head[1].weight[1].all()
        return module

    context = make_context(tmp_path)
    options = FitOptions(epochs=2, batch_size=16, accumulate=3, averaging="ema", optimizer="sgd", weight_decay=0.1)
    hooks = FitHooks(constrain=constrain, loss=loss, scored=scored)
    fit(make_net(), context.data, Classification(), options, context, hooks)
    # 8 batches in 3 steps an epoch; its end comes once more for the average, and its start before the first step
    thirds = [0, 1 / 3, 2 / 3, 1, 1, 1, 4 / 3, 5 / 3, 2, 2]
    assert constrained == thirds
    assert [round(3 * each) for each in seen] == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5]


@pytest.mark.parametrize(
    ("first_epoch", "patience", "best", "run"), [(2, None, 5, 5), (2, 1, 3, 4), (9, 1, 5, 5), (0, 1, 1, 2)]
)
def test_epochs_before_the_first_that_counts_are_not_chosen(tmp_path, first_epoch, patience, best, run) -> None:
    context = make_context(tmp_path)
    scripted = Scripted(context.data, [45, 44, 20, 10, 30])
    net = make_net()
    hooks = FitHooks(scored=scripted, reestimate_batch_norm=False, first_epoch=first_epoch)
    options = FitOptions(epochs=5, batch_size=16, patience=patience)
    result = fit(net, context.data, Classification(), options, context, hooks)
    assert (result.best_epoch, result.epochs_run) == (best, run)
    assert weights_of(net) == scripted.seen[best - 1]
