"""The task `detection` beyond its contract: boxes go along with their images, and the report shows the worst."""

import math
from dataclasses import replace

import pytest
import torch
from random_heads import FCOS, RETINANET, SSD, heads_of, random_heads

from edgeopt.cards.card import Card
from edgeopt.cards.reading import card_from_text
from edgeopt.errors import UserError
from edgeopt.plugins import Moves
from edgeopt.preprocessing.geometry import geometry_of
from edgeopt.recipe.card_task import task_of_card
from edgeopt_detection.boxes import Boxes
from edgeopt_detection.decoding.description import BoxDecoding
from edgeopt_detection.decoding.reference import anchor_corners
from edgeopt_detection.parts import box_decoder
from edgeopt_detection.parts.box_decoder import found_boxes
from edgeopt_detection.targets import augmented_boxes, batch_of, boxes_of, crowds_of
from edgeopt_detection.task import Detection

CLASSES = ("cat", "dog", "cow")
STRICTER = SSD.model_copy(update={"score_threshold": 1.0})


# ---- targets that move with their images ---------------------------------------------------------------------------


def test_boxes_go_into_the_frame_and_what_is_cut_off_is_not_looked_for():
    task = Detection()
    boxes = Boxes.of([[100, 50, 140, 90], [0, 0, 60, 100], [0, 0, 20, 20], [90, 0, 130, 100]], [0, 1, 2, 0])
    geometry = geometry_of(100, 200, "crop", (50, 50), (50, 50))  # halved, and 25 px cut off left and right
    moved = task.moved(boxes, geometry)
    assert moved.corners.tolist() == [[25, 25, 45, 45], [0, 0, 5, 50], [20, 0, 40, 50]]
    assert moved.crowd.tolist() == [False, True, False]  # a sixth of the second box is left
    assert task.moved(boxes, geometry_of(100, 200, "stretch", (50, 50), (50, 50))).corners[0].tolist() == [
        25,
        25,
        35,
        45,
    ]


def test_augmentation_moves_boxes_and_drops_those_that_leave():
    targets = Detection().collected(
        [Boxes.of([[10, 20, 30, 60], [0, 0, 8, 8]], [1, 2]), Boxes.of([[0, 0, 9, 9]], [0], [True])]
    )
    batch = batch_of(targets)
    assert [len(each) for _, each in boxes_of(batch)] == [2, 0]  # no box is learnt of a crowd
    assert [each.tolist() for each in crowds_of(batch)] == [[], [[0, 0, 9, 9]]]
    mirror = torch.tensor([[-1.0, 0, 100], [0, 1, 0]])
    shifted = torch.tensor([[1.0, 0, -6], [0, 1, -3]])
    found = boxes_of(augmented_boxes(batch, Moves(torch.stack([mirror, shifted]), 100, 100)))
    assert found[0][0].tolist() == [[70, 20, 90, 60], [92, 0, 100, 8]]
    found = boxes_of(augmented_boxes(batch, Moves(torch.stack([shifted, shifted]), 100, 100)))
    assert (found[0][0].tolist(), found[0][1].tolist()) == ([[4, 17, 24, 57]], [1])
    crowds = crowds_of(augmented_boxes(batch, Moves(torch.stack([shifted, shifted]), 100, 100)))
    assert [each.tolist() for each in crowds] == [[[0, 0, 2, 5]], [[0, 0, 3, 6]]]  # a sixth of a box is one as well
    turn = math.radians(90)
    turned = torch.tensor([[math.cos(turn), -math.sin(turn), 100], [math.sin(turn), math.cos(turn), 0]])
    found = boxes_of(augmented_boxes(batch, Moves(torch.stack([turned, turned]), 100, 100)))
    torch.testing.assert_close(found[0][0], torch.tensor([[40.0, 10, 80, 30], [92, 0, 100, 8]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("decoding", [SSD, RETINANET, FCOS])
def test_nothing_is_learnt_in_crowd_regions_but_the_boxes_there(decoding):
    """Whatever heads say there, the loss is the same; elsewhere, and where a box lies in the crowd, it is not."""
    task = Detection(decoding=decoding)
    box, region = [2, 2, 15, 15], [0, 0, 18, 33]
    crowded = task.batch(task.collected([Boxes.of([box, region], [1, 0], [False, True])]))
    alone = task.batch(task.collected([Boxes.of([box], [1])]))
    random = torch.Generator().manual_seed(0)
    widths = (decoding.columns, 4, 1)[: len(decoding.outputs)]
    heads = [torch.randn(1, decoding.anchors, width, generator=random) for width in widths]
    middles = torch.from_numpy(anchor_corners(decoding)).unflatten(1, (2, 2)).mean(dim=1)
    deep = (middles[:, 0] < 13) & (middles[:, 1] > 22)  # in the region, and far from the box
    heads[0][0, deep, 1] = 9.0  # where all is wrong, SSD looks at first
    heads = [each.requires_grad_() for each in heads]
    task.loss(heads, crowded).backward()
    moved = heads[0].grad.abs().sum(dim=2)[0] > 0
    assert deep.any() and not moved[deep].any()
    assert moved[middles[:, 0] > 24].any() and moved[(middles < 14).all(dim=1)].any()
    heads[0].grad = None
    task.loss(heads, alone).backward()
    assert (heads[0].grad.abs().sum(dim=2)[0] > 0)[deep].any()


def test_boxes_of_some_classes_are_kept_and_wrong_ones_told():
    task = Detection()
    boxes = Boxes.of([[0, 0, 5, 5], [1, 1, 6, 6]], [0, 2])
    kept = task.relabelled(boxes, {2: 0})
    assert (kept.corners.tolist(), kept.classes.tolist()) == ([[1, 1, 6, 6]], [0])
    assert task.wrong(boxes, 3) is None
    assert task.wrong(boxes, 2) == "class 2 of a box, and the data set has 2 classes"
    assert "without area" in task.wrong(Boxes.of([[0, 0, 0, 5]], [0]), 2)


def test_a_network_of_other_heads_is_told():
    task = Detection(decoding=SSD)
    assert "its raw heads would be (2, 44, 4), (2, 44, 4)" in task.unfit([(2, 44, 3), (2, 44, 4)], 2, 3)
    assert "boxes of 3 classes, and the data set has 5" in task.unfit([(2, 44, 4), (2, 44, 4)], 2, 5)
    with pytest.raises(ValueError, match="said by the model"):
        Detection().found(())


def test_the_section_shows_the_worst_images_with_both_boxes():
    boxes = [Boxes.of([[2, 2, 14, 15]], [0]), Boxes.of([[5, 3, 22, 20]], [1]), Boxes.of([], [])]
    outputs = heads_of([boxes[0], Boxes.of([], []), boxes[2]], SSD)
    task = Detection(decoding=SSD)
    (section,) = task.sections(outputs, task.collected(boxes), CLASSES)
    assert [row[0] for row in section.tables[0].rows] == ["cat", "dog"]
    assert section.images[0].index == 1
    assert (section.images[0].truth, section.images[0].answer, section.images[0].right) == ("dog", "nothing", False)
    assert [outline.is_truth for outline in section.images[1].outlines] == [True, False]
    assert [task.told(each, CLASSES) for each in task.decode(outputs)] == ["1 cat", "nothing", "nothing"]
    assert [line[0] for line in section.plots[0].lines][:2] == ["all, overlap 0.5", "all, overlap 0.75"]


def test_the_card_of_a_detector_is_its_decoding_again(registry):
    rough = SSD.model_copy(update={"weights": (0.1, 1 / 3, 5.0, 2 / 7), "scale_limit": math.log(1000 / 16)})
    task = Detection(decoding=rough, shown_score=0.3)
    recipe = {"task": {"use": "detection"}}
    made = Card(CLASSES, {}, "onnxruntime", "int8", "optimized", recipe, {}, task="detection", decision=task.decision())
    card = card_from_text(made.to_json())
    assert BoxDecoding.from_json(card.decision["decoding"]) == rough
    assert task_of_card(card, registry, "model.onnx") == task
    assert len(made.to_json()) < 3000, "anchors are told by level, so a card within a file stays small"
    spoiled = {"decoding": {**rough.to_json(), "most": 0}, "shown_score": 0.3}
    with pytest.raises(UserError, match=r"model\.onnx: the card: decoding\.most: "):
        task_of_card(replace(card, decision=spoiled), registry, "model.onnx")
    with pytest.raises(UserError, match=r"model\.onnx: `decision` in its card is none of the task detection"):
        task_of_card(replace(card, decision={}), registry, "model.onnx")
    with pytest.raises(UserError, match=r"model\.onnx: there is no task 'boxes'"):
        task_of_card(replace(card, task="boxes"), registry, "model.onnx")


def test_shown_boxes_are_the_confident_ones_of_those_found():
    """Also where those below are left out before boxes are compared, as apps and devices do."""
    for decoding, every_head in random_heads():
        heads = tuple(head[:40] for head in every_head)
        every = Detection(decoding=decoding).found(heads)
        score = sorted(float(score) for each in every for score in each.scores)[-60]  # which a box has itself
        task = Detection(decoding=decoding, shown_score=score)
        shown, answers = task.shown(heads), task.decode(heads)
        assert sum(map(len, shown)) >= 60
        for few, answer, all_of_them in zip(shown, answers, every, strict=True):
            good = all_of_them.scores >= score
            assert few.corners.tobytes() == all_of_them.corners[good].tobytes()
            assert few.scores.tolist() == all_of_them.scores[good].tolist()
            assert few.classes.tolist() == all_of_them.classes[good].tolist()
            assert [list(each.corners) for each in answer.objects] == few.corners.tolist()
            assert [each.score for each in answer.objects] == few.scores.tolist()
            assert [each.label for each in answer.objects] == few.classes.tolist()


def test_the_same_outputs_are_decoded_once_whatever_is_asked_of_them(monkeypatch):
    """Also where they are read anew from a file. Answers are decoded each time, because that is timed."""
    decodings = []

    def counted(heads, decoding):
        decodings.append(decoding)
        return found_boxes(heads, decoding)

    monkeypatch.setattr(box_decoder, "found_boxes", counted)
    boxes = [Boxes.of([[2, 2, 14, 15]], [0]), Boxes.of([[5, 3, 22, 20]], [1])]
    task, outputs = Detection(decoding=SSD), heads_of(boxes, SSD)
    targets = task.collected(boxes)
    first = task.scores(outputs, targets)
    for again in (outputs, tuple(each.copy() for each in outputs)):
        task.sections(again, targets, CLASSES)
        assert task.right(again, targets).all()
        assert task.compare(outputs, again, targets).p_value == 1.0
        assert task.scores(again, targets) == first
    assert len(decodings) == 1
    for asked, others in ((task, heads_of(boxes[::-1], SSD)), (replace(task, decoding=STRICTER), outputs)):
        assert not asked.right(others, targets).all()
    assert len(decodings) == 3, "other outputs, and another way to decode"
    for _ in range(2):
        task.decode(outputs)
    assert len(decodings) == 5
