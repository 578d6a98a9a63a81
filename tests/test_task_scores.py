"""Further scores of classification, confidences that can be believed, and tasks of any number of labels."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, top_k_accuracy_score

from edgeopt.cards.card import Card
from edgeopt.plugins.own_tasks import edgeopt_tasks
from edgeopt.tasks.calibration import calibration_error, fitted_temperature
from edgeopt.tasks.classification import Classification
from edgeopt.tasks.label_scores import average_precision, best_threshold, f1_of, ranked
from edgeopt.tasks.multilabel import MultiLabel
from edgeopt.tasks.stored import task_from_json, task_to_json

CLASSIFICATION, MULTI_LABEL, *_ = edgeopt_tasks()


def task_of(**options: object) -> Classification:
    return CLASSIFICATION.made(CLASSIFICATION.options(**options))


def answers(count: int = 400, classes: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.minimum(random.geometric(0.3, count) - 1, classes - 1)
    logits = random.normal(0, 2, (count, classes)) + 3 * np.eye(classes)[labels]
    return logits.astype(np.float32), labels


def test_scores_that_are_asked_for_are_scikit_learns() -> None:
    logits, labels = answers()
    task = task_of(scores=["calibration_error", "top5", "balanced_accuracy", "top5"])
    scores = task.scores((logits,), labels)
    assert [score.kind.name for score in scores] == ["accuracy", "calibration_error", "top5", "balanced_accuracy"]
    assert scores.get("top5").value == pytest.approx(top_k_accuracy_score(labels, logits, k=5))
    assert scores.get("balanced_accuracy").value == pytest.approx(
        balanced_accuracy_score(labels, logits.argmax(axis=1))
    )
    assert all(score.interval[0] <= score.value <= score.interval[1] and score.count == 400 for score in scores)
    assert not scores.get("calibration_error").kind.larger_is_better
    assert scores.primary == Classification().score((logits,), labels)
    assert task_from_json(json.loads(json.dumps(task_to_json(task)))) == task
    assert task_to_json(task_of()) == "classification", "nothing asked for: the task that all recipes had"


def test_the_error_of_calibration_by_its_definition() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.52, 1.0])
    right = np.array([True, False, True, True, True])
    # bins of a fifteenth: 0.95 twice and 1.0 in the last, 0.55 and 0.52 in bins 8 and 7
    expected = (abs(0.95 + 0.95 + 1.0 - 2) + abs(0.55 - 1) + abs(0.52 - 1)) / 5
    assert calibration_error(confidence, right) == pytest.approx(expected)


@pytest.mark.parametrize("heat", [0.25, 1.0, 4.0])
def test_the_temperature_is_the_likeliest_one(heat: float) -> None:
    random = np.random.default_rng(1)
    true_logits = random.normal(0, 2, (4000, 5))
    chances = np.exp(true_logits) / np.exp(true_logits).sum(axis=1, keepdims=True)
    labels = np.array([random.choice(5, p=row) for row in chances])
    logits = (true_logits * heat).astype(np.float32)
    found = fitted_temperature(logits, labels)
    assert found == pytest.approx(heat, rel=0.1)
    losses = [
        torch.nn.functional.cross_entropy(torch.from_numpy(logits) / each, torch.from_numpy(labels)).item()
        for each in (found * 0.97, found, found * 1.03)
    ]
    assert losses[1] <= min(losses) + 1e-7
    task = task_of(temperature=True, scores=["calibration_error"]).fitted((logits,), labels)
    before = task_of(scores=["calibration_error"]).scores((logits,), labels).get("calibration_error").value
    after = task.scores((logits,), labels).get("calibration_error").value
    assert after < 0.03 and (heat == 1.0 or after < before / 3)
    assert task.right((logits,), labels).sum() == Classification().right((logits,), labels).sum()
    assert [each.label for each in task.decode((logits,))] == logits.argmax(axis=1).tolist()
    (section,) = task.sections((logits,), labels, "abcde")
    assert "temperature in the card" in section.text[0] and sum(row[1] for row in section.tables[0].rows) == 4000


def test_a_temperature_of_answers_that_are_all_right_or_wrong_is_bounded() -> None:
    logits = 5 * np.eye(3, dtype=np.float32)
    assert fitted_temperature(logits, np.arange(3)) == pytest.approx(0.05)
    assert fitted_temperature(logits, np.array([1, 2, 0])) == pytest.approx(20.0)


def test_a_card_tells_what_was_chosen_and_nothing_else_is_as_before() -> None:
    card = Card(("a", "b"), {}, "r", "int8", "optimized", {}, {})
    assert "decision" not in card.to_json()
    told = replace(card, decision=task_of(temperature=True).decision())
    assert json.loads(told.to_json())["decision"] == {"temperature": 1.0}
    assert "task" not in json.loads(told.to_json()), "a classifier's card is as it was before there were others"
    assert task_of().decision() == {} and not task_of().is_fitted


# ---- any number of labels --------------------------------------------------------------------------------------------


def labelled(count: int = 300, classes: int = 6, seed: int = 0, levels: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.random((count, classes)) < np.linspace(0.05, 0.6, classes)
    logits = random.normal(-1, 1.5, (count, classes)) + 2.0 * truth
    if levels:  # as an int8 file has them: many alike
        logits = np.round(logits * levels) / levels
    return logits.astype(np.float32), truth


@pytest.mark.parametrize("levels", [0, 2])
def test_average_precision_and_f1_are_scikit_learns(levels: int) -> None:
    for seed in range(20):
        logits, truth = labelled(80, 5, seed, levels)
        task = MultiLabel(thresholds=(0.3, 0.5, 0.5, 0.6, 0.7))
        scores = task.scores((logits,), truth)
        occurs = truth.any(axis=0)
        expected = average_precision_score(truth[:, occurs], logits[:, occurs], average="macro")
        assert scores.get("map").value == pytest.approx(expected, abs=1e-9)
        told = task.told_labels(logits)
        mine = f1_of(told, truth)[occurs].mean()
        assert mine == pytest.approx(f1_score(truth[:, occurs], told[:, occurs], average="macro"), abs=1e-9)
        assert scores.get("f1").value == pytest.approx(mine)


def test_counts_are_images_drawn_several_times() -> None:
    logits, truth = labelled(60, 2, 3, levels=2)
    drawn = np.random.default_rng(0).integers(0, 60, 60)
    label = ranked(logits[:, 1].astype(float), truth[:, 1])
    expected = average_precision_score(truth[drawn, 1], logits[drawn, 1])
    assert average_precision(label, np.bincount(drawn, minlength=60)) == pytest.approx(expected)


def test_thresholds_have_the_best_f1_on_what_they_were_chosen_by() -> None:
    logits, truth = labelled(500, 6, 4, levels=4)
    truth[:, 0] = False
    task = MULTI_LABEL.made(MULTI_LABEL.options()).fitted((logits,), truth)
    assert task.thresholds[0] == 0.5, "no image to choose by"
    best = f1_of(task.told_labels(logits), truth)
    for place in range(1, 6):
        every = [f1_of((logits[:, [place]] >= each), truth[:, [place]])[0] for each in np.unique(logits[:, place])]
        assert best[place] == pytest.approx(max(every))
    plain = MULTI_LABEL.made(MULTI_LABEL.options(thresholds="half"))
    assert plain.decision() == {"threshold": 0.5} and not plain.is_fitted
    assert task.decision() == {"thresholds": list(task.thresholds)}
    assert np.nanmean(best) > np.nanmean(f1_of(plain.told_labels(logits), truth))
    assert best_threshold(ranked(np.array([2.0, 1.0, -1.0]), np.array([True, True, False])), 0.0) == 0.0
    assert task_from_json(json.loads(json.dumps(task_to_json(task)))) == task


def test_losses_weights_and_ties_of_several_labels() -> None:
    logits, truth = labelled(200, 4, 5)
    task = MultiLabel()
    weights = task.balancing_weights(truth, 4)
    assert weights == pytest.approx([(200 - each) / each for each in truth.sum(axis=0)])
    outputs, batch = (torch.from_numpy(logits),), task.batch(task.collected(truth))
    weighted = task.weighted(weights, truth).loss(outputs, batch)
    each = torch.nn.functional.binary_cross_entropy_with_logits(outputs[0], batch.float(), reduction="none")
    scale = torch.where(batch, torch.tensor(weights), torch.tensor(1.0))
    assert weighted.item() == pytest.approx((each * scale).mean().item(), rel=1e-6)
    mixed = task.mixed(batch, torch.arange(200).flip(0), torch.full((200,), 0.25), 4)
    assert torch.allclose(mixed, 0.25 * batch.float() + 0.75 * batch.flip(0).float())
    moved = logits.copy()
    moved[0, 0], moved[1, 1] = -logits[0, 0], -0.001 if logits[1, 1] >= 0 else 0.001
    reference = logits.copy()
    reference[1, 1] = -moved[1, 1]
    assert task.near_ties((moved,), (reference,), (0.01,)) == 1
    assert (~task.alike((moved,), (reference,))).sum() == 2
    assert task.relabelled((1, 0, 1), {2: 0, 1: 1}) == (1, 0) and "3 labels" in task.wrong((1, 0, 1), 2)
    guess = task.guess((np.full((200, 4), -3.0),), truth, "abcd")
    assert "answers 'no label' for all of 200" in guess.told()
    (section,) = task.sections((logits,), truth, ("a", "b", "c", "d"))
    assert len(section.tables[0].rows) == 4
    assert task.told(task.decode((np.array([[3.0, -1, 0.5, -4]]),))[0], "abcd") == "a 95 %, c 62 %"
