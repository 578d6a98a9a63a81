"""Networks of several outputs: what is taken of what they return, in which order, and what is refused."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeopt.applications.snippets import feeding_lines
from edgeopt.arrays import as_outputs, joined, load_outputs, of_images, save_outputs
from edgeopt.cards.card import Card, TensorInfo
from edgeopt.cards.reading import card_from_text
from edgeopt.errors import ExportError, RecipeError, UserError
from edgeopt.measure.answers import Verification, differences, rounding_step, verify
from edgeopt.networks.capture import capture, to_program
from edgeopt.networks.outputs import outputs_in, require_outputs, tensors
from edgeopt.networks.saved import load_outline, save_state
from edgeopt.plugins import Classification
from edgeopt.plugins.registry import load_registry
from edgeopt.testing import tiny_data, tiny_model, tiny_two_outputs
from edgeopt_segmentation.task import Segmentation


class Returns(nn.Module):
    """Gives what a function makes of two values of an image."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer, self.scale = answer, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Any:
        return self.answer(x.mean((2, 3)) * self.scale, x.amax((2, 3)))


IMAGES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
MEAN, MOST = IMAGES.mean((2, 3)), IMAGES.amax((2, 3))

ANSWERS: dict[str, tuple[Any, tuple[str, ...], tuple[Tensor, ...]]] = {
    "dictionary in another order": (lambda a, b: {"b": b, "aux": a * 2, "a": a}, ("a", "b"), (MEAN, MOST)),
    "one of a dictionary": (lambda a, b: {"out": a, "aux": b}, ("out",), (MEAN,)),
    "a list in a dictionary": (lambda a, b: {"maps": [a, b]}, ("maps.1", "maps.0"), (MOST, MEAN)),
    "tuple": (lambda a, b: (a, b), ("first", "second"), (MEAN, MOST)),
    "classes": (lambda a, b: (a, b.argmax(1).to(torch.uint8)), ("values", "class"), (MEAN, MOST.argmax(1).byte())),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_program_returns_what_its_state_names(kind: str) -> None:
    answer, names, expected = ANSWERS[kind]
    program = capture(Returns(answer).eval(), IMAGES, (1, 4), names)
    answered = program.module()(IMAGES[:1])
    assert isinstance(answered, Tensor) == (len(names) == 1)
    for own, other in zip(tensors(answered), expected, strict=True):
        assert own.dtype == other.dtype
        torch.testing.assert_close(own, other[:1])


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(ExportError, match=r"a dict with out \([12], 3\), and its outputs are called 'boxes' and 'out'"):
        capture(Returns(lambda a, b: {"out": a}).eval(), IMAGES, (1, 4), ("boxes", "out"))
    with pytest.raises(ExportError, match="the first axis of every output must be that of the images"):
        capture(Returns(lambda a, b: (a, b.sum(0))).eval(), IMAGES, (1, 4), ("a", "b"))
    with pytest.raises(ExportError, match="are called 'a' and 'b'"):
        outputs_in((MEAN, MEAN, MEAN), ("a", "b"))


@dataclass(frozen=True)
class OfPlaces(Classification):
    """A task whose networks answer for each place of an image."""

    name: str = "of-places"
    is_of_classes = False

    def unfit(self, shapes: Any, images: int, classes: int | None) -> str | None:
        return None if all(len(shape) == 4 for shape in shapes) else f"{shapes[0]}, and no map"


def test_the_task_says_what_a_network_must_give() -> None:
    """Whatever its outputs are called."""
    state = replace(tiny_model(), task=OfPlaces())
    batch = torch.zeros(2, *state.input_shape)
    with pytest.raises(RecipeError, match=r"TinyNet returns \(2, 3\), and no map"):
        require_outputs(state, batch)
    with pytest.raises(ExportError, match="and no map"):
        to_program(state, tiny_data().validation)
    maps = replace(state, model=nn.Conv2d(3, 3, 1))
    require_outputs(maps, batch)
    assert to_program(maps, tiny_data().validation).program.module()(batch).shape == batch.shape


def test_the_state_keeps_its_names(tmp_path: Any) -> None:
    state = to_program(tiny_two_outputs(), tiny_data().validation)
    save_state(state, tmp_path)
    assert load_outline(tmp_path).output_names == ("image", "places")


def test_answers_are_joined_chosen_and_kept(tmp_path: Any) -> None:
    pieces = [(np.zeros((2, 3), np.float16), np.array([1, 2], np.uint8)), (np.ones((1, 3)), np.array([3], np.uint8))]
    whole = joined([as_outputs(piece) for piece in pieces])
    assert [each.dtype for each in whole] == [np.float32, np.uint8]
    save_outputs(tmp_path / "kept", of_images(whole, slice(1, 3)))
    values, classes = load_outputs(tmp_path / "kept")
    assert values.tolist() == [[0, 0, 0], [1, 1, 1]] and classes.tolist() == [2, 3]
    with pytest.raises(TypeError, match="not a tuple with an array for each output"):
        as_outputs(np.zeros((2, 3)))


def test_each_output_of_a_file_is_judged() -> None:
    logits, places = np.eye(3, dtype=np.float32), np.arange(12, dtype=np.float32).reshape(3, 4)
    classes = np.array([[1, 2], [0, 0], [1, 1]], np.uint8)
    names = ("logits", "places", "classes")
    wrong = places.copy()
    wrong[1, 2] += 1.1
    found = verify(Classification(), (logits, wrong, classes ^ 1), (logits, places, classes), np.arange(3), names)
    assert found.max_logit_difference == pytest.approx(1.1, rel=1e-5)
    assert [each.name for each in found.outputs] == list(names)
    assert [each.share for each in found.outputs] == pytest.approx([0.0, 0.1, 1.0], rel=1e-5)
    with pytest.raises(ExportError, match=r"output 'places' of shape \(3, 2\), its program \(3, 4\)"):
        differences((logits, places[:, :2]), (logits, places), names[:2])
    with pytest.raises(ExportError, match="not finite in its output 'places' for 1 of 3 images"):
        differences((logits, np.where(places == 5, np.nan, places)), (logits, places), names[:2])
    with pytest.raises(ExportError, match="returns 1 outputs, its program 2"):
        differences((logits,), (logits, places), names[:2])


def test_a_card_of_several_outputs_is_read_back_and_gets_no_lines_of_a_classifier() -> None:
    card = Card(("a", "b"), {}, "onnx", "int8", "optimized", {}, {})
    given = TensorInfo("input", "float32", (1, 3, 8, 8), "NCHW")
    one, two = TensorInfo("logits", "float32", (1, 2), "NC"), TensorInfo("boxes", "float32", (1, 9, 4), "NDD")
    assert '"output": {' in card.with_tensors(given, (one,)).to_json()
    assert '"output": null' in card.to_json()
    several = card.with_tensors(given, (one, two))
    assert '"outputs": [' in several.to_json() and '"output":' not in several.to_json()
    for each in (card, card.with_tensors(given, (one,)), several):
        assert card_from_text(each.to_json()) == each
    with pytest.raises(UserError, match=r"logits \(1, 2\) and boxes \(1, 9, 4\)"):
        feeding_lines(several, "python", "model.onnx", load_registry())


def test_answers_for_every_place_are_compared_some_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the figures of a comparison of all at once, and in less memory than one copy of the answers."""
    random = np.random.default_rng(0)
    task = Segmentation()
    reference = random.normal(size=(24, 6, 128, 128)).astype(np.float32)
    outputs = reference + random.normal(scale=2e-5, size=reference.shape).astype(np.float32)
    outputs[3, 1] += 4.0
    grid = (np.round(reference * 20).clip(-127, 127) / 20).astype(np.float32)
    targets = reference.argmax(axis=1).astype(np.uint8)

    def compared(own: np.ndarray[Any, Any]) -> Verification:
        return verify(task, (own,), (reference,), targets, ("masks",))

    monkeypatch.setattr("edgeopt.arrays._TOGETHER", 1 << 17)
    tracemalloc.start()
    found = compared(outputs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.9 * outputs.nbytes
    assert found.max_logit_difference == float(np.abs(outputs - reference).max()) and found.differing == 1
    rounded = compared(grid)
    step = max(rounding_step(grid), rounding_step(reference))
    assert step == float(np.diff(np.unique(grid)).min())
    assert rounded.differing == 24 and rounded.near_ties > 0
    monkeypatch.setattr("edgeopt.arrays._TOGETHER", 1 << 40)
    assert (compared(outputs), compared(grid)) == (found, rounded)
