"""Classes of unequally many images, images made of two, and policies of changes: in training, and before it in `check`."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from training_samples import (
    CLASSES,
    ArraySplit,
    Steps,
    make_context,
    make_data,
    make_net,
    make_split,
    make_state,
    weights_of,
)

from edgeopt.data.mixing import mixed_images
from edgeopt.errors import RecipeError, TrainingError
from edgeopt.options import Augmentation, to_json
from edgeopt.plugins.registry import Registry
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import read_recipe
from edgeopt.tasks.classification import Classification
from edgeopt_distillation.options import TaughtOptions
from edgeopt_lightning.fit.balance import order_of, weighted_task
from edgeopt_lightning.fit.data import Mixing, Shuffled, training_loader
from edgeopt_lightning.options import FitOptions, TrainOptions
from edgeopt_lightning.train import train_model


def uneven(counts: tuple[int, ...] = (90, 20, 10)) -> ArraySplit:
    """Few images of some classes."""
    every = make_split(3 * max(counts), 5)
    chosen = np.concatenate([np.flatnonzero(every.labels == label)[:count] for label, count in enumerate(counts)])
    return ArraySplit(every.labels[chosen], every.images[chosen])


def test_balanced_epochs_show_each_class_equally_often() -> None:
    split, options = uneven(), FitOptions(sampling="balanced")
    order = order_of(split, options, Classification())
    epoch = order(3)
    assert len(epoch) == 120 and Counter(split.labels[epoch].tolist()) == {0: 40, 1: 40, 2: 40}
    shown = Counter(epoch.tolist())
    assert {shown[place] for place in range(90, 110)} == {2} and {shown[place] for place in range(110, 120)} == {4}
    assert max(shown[place] for place in range(90)) == 1
    assert epoch.tolist() == order(3).tolist() != order(4).tolist()
    assert set(chain(*(order(seed) for seed in range(12)))) == set(range(120)), (
        "other images of the large class each time"
    )
    shuffled = Shuffled(120, 32, seed=1, order=order)
    assert all(min(np.bincount(split.labels[request.indices], minlength=3)) > 2 for request in list(shuffled)[:3])


def test_weights_make_classes_count_alike_in_the_loss() -> None:
    data = replace(make_data(), train=uneven())
    balanced = weighted_task(Classification(), FitOptions(class_weights="balanced"), data)
    assert balanced.class_weights == pytest.approx([120 / 270, 120 / 60, 120 / 30])
    named = weighted_task(Classification(), FitOptions(class_weights={"plain": 3}), data)
    assert named.class_weights == pytest.approx([weight * 120 / 140 for weight in (1, 1, 3)]), "1 on average"
    logits = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(9) % 3
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = (each * torch.tensor(named.class_weights)[labels]).sum() / 9
    assert named.loss((logits,), labels).item() == pytest.approx(expected.item(), rel=1e-6)
    soft = torch.nn.functional.one_hot(labels, 3).float()
    for smoothing in (0.0, 0.1):
        assert named.loss((logits,), soft, smoothing).item() == pytest.approx(
            named.loss((logits,), labels, smoothing).item(), rel=1e-6
        )


def test_a_rare_class_is_found_by_training_that_balances(tmp_path: Path) -> None:
    data = replace(make_data(), train=uneven((120, 120, 6)))
    found = {}
    for name, given in {
        "as-it-is": {},
        "weights": {"class_weights": "balanced"},
        "sampling": {"sampling": "balanced"},
    }.items():
        options = TrainOptions(epochs=6, batch_size=16, **given)
        after = train_model(make_state(make_net()), options, make_context(tmp_path / name, data)).model
        pixels = data.preprocessing.normalize(data.validation.pixels(slice(None)))
        with torch.no_grad():
            answers = after(torch.from_numpy(pixels)).argmax(dim=1).numpy()
        found[name] = (answers[data.validation.labels == 2] == 2).mean()
    assert found["weights"] > found["as-it-is"] + 0.2 and found["sampling"] > found["as-it-is"] + 0.2, found


def test_mixed_images_have_labels_by_their_shares(tmp_path: Path) -> None:
    pixels = torch.stack([torch.full((3, 16, 16), 10 * index, dtype=torch.uint8) for index in range(24)])
    for name in ("mixup", "cutmix"):
        before = pixels.clone()
        mixed, partner, share = mixed_images(pixels, Augmentation(**{name: 1.0}), torch.Generator().manual_seed(2))
        assert torch.equal(pixels, before) and mixed.dtype == torch.uint8
        own = pixels[:, 0, 0, 0].double()
        expected = own * share + own[partner] * (1 - share)
        assert (mixed.double().mean(dim=(1, 2, 3)) - expected).abs().max() <= 0.51, name
        if name == "cutmix":
            assert all(
                set(image.unique().tolist()) <= {10 * index, 10 * int(other)}
                for index, (image, other) in enumerate(zip(mixed, partner, strict=True))
            )
        labels = Classification().mixed(torch.arange(24) % 3, partner, share, 3)
        assert labels.shape == (24, 3) and torch.allclose(labels.sum(dim=1), torch.ones(24))
        assert torch.allclose(labels[:, 0], share * (torch.arange(24) % 3 == 0) + (1 - share) * (partner % 3 == 0))
    both = Augmentation(mixup=0.4, cutmix=1.0)
    kinds = {
        bool((mixed_images(pixels, both, torch.Generator().manual_seed(seed))[0] % 10 == 0).all()) for seed in range(20)
    }
    assert kinds == {True, False}, "a batch takes one of the two"


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(policy="rand-augment", policy_operations=3, policy_magnitude=15),
        Augmentation(policy="trivial-augment", horizontal_flip=True),
        Augmentation(mixup=0.2, cutmix=1.0, policy="trivial-augment"),
    ],
)
def test_batches_repeat_with_their_seed_whatever_torch_drew_before(augmentation: Augmentation) -> None:
    data, task = make_data(40, augmentation), Classification()
    loads = []
    for workers in (0, 2):
        torch.manual_seed(workers)
        loads.append(
            list(
                training_loader(
                    data.train, task, Shuffled(40, 16, seed=1), augmentation, workers, mixing=Mixing(task, 3)
                )
            )
        )
    state = torch.random.get_rng_state()
    plain = list(training_loader(data.train, task, Shuffled(40, 16, seed=1), Augmentation(), 0))
    assert torch.equal(state, torch.random.get_rng_state())
    for here, there, unchanged in zip(*loads, plain, strict=True):
        assert torch.equal(here[0], there[0]) and torch.equal(here[1], there[1])
        assert here[0].shape == unchanged[0].shape and not torch.equal(here[0], unchanged[0])
        assert here[1].is_floating_point() == bool(augmentation.mixup)


def test_a_mixed_training_that_was_killed_ends_with_the_same_weights(tmp_path: Path) -> None:
    data = replace(make_data(60, Augmentation(mixup=0.2, cutmix=1.0)), train=uneven((40, 12, 8)))
    options = TrainOptions(epochs=2, batch_size=16, sampling="balanced", class_weights={"plain": 2.0})

    def killed() -> None:
        raise RuntimeError("killed")

    whole = train_model(make_state(make_net()), options, make_context(tmp_path / "whole", data))
    with pytest.raises(RuntimeError, match="killed"):
        train_model(make_state(make_net()), options, make_context(tmp_path / "half", data, progress=Steps(6, killed)))
    resumed = train_model(make_state(make_net()), options, make_context(tmp_path / "half", data))
    assert weights_of(resumed.model) == weights_of(whole.model)


def test_what_is_not_asked_for_leaves_keys_and_cards_alone() -> None:
    later = {"policy", "policy_operations", "policy_magnitude", "mixup", "cutmix", "iou_crop", "scale_jitter", "mosaic"}
    assert not later & set(to_json(Augmentation()))
    for options in (FitOptions(), TrainOptions(), TaughtOptions()):
        assert not {"class_weights", "sampling"} & set(to_json(options))
    asked = TrainOptions(class_weights={"cat": 2.0})
    assert to_json(asked)["class_weights"] == {"cat": 2.0} and TrainOptions(**to_json(asked)) == asked
    policy = Augmentation(policy="rand-augment", mixup=0.2, scale_jitter=(0.5, 2.0), mosaic=0.5)
    assert Augmentation(**to_json(policy)) == policy


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: FitOptions(class_weights="balanced", sampling="balanced"), "choose"),
        (lambda: FitOptions(class_weights={"cat": 0}), "greater than 0"),
        (lambda: Augmentation(policy_magnitude=3), "policy_magnitude are for policy"),
        (lambda: Augmentation(policy="trivial-augment", policy_operations=3), "policy_operations and"),
        (lambda: Augmentation(mixup=-1), "mixup"),
        (lambda: Augmentation(scale_jitter=(2.0, 0.5)), "from the smaller to the larger, not from 2 to 0.5"),
    ],
)
def test_options_that_do_not_fit(make: Callable[[], object], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        make()


def test_weights_of_a_class_that_is_none_name_the_option() -> None:
    with pytest.raises(TrainingError, match="'strips', which is no class") as caught:
        weighted_task(Classification(), FitOptions(class_weights={"strips": 2.0}), make_data())
    assert caught.value.problems[0].option == "class_weights" and "stripes" in str(caught.value)
    assert CLASSES[0] == "stripes"


RECIPE = """\
schema = 1
name = "mixed"

[dataset]
use = "digits"

[dataset.augmentation]
mixup = 0.2
policy = "trivial-augment"

[model]
use = "keras-applications"
arch = "MobileNetV2"

[[passes]]
use = "keras-train"

[[exports]]
use = "keras-tflite"
"""


def test_check_refuses_by_line_what_a_framework_has_not(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE)
    with pytest.raises(RecipeError) as caught:
        make_plan(read_recipe(file), registry)
    said = str(caught.value)
    assert f"{file}:8: augmentation.mixup is not there in keras" in said
    assert f"{file}:9: augmentation.policy is not there in keras" in said
