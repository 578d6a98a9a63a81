"""Detectors made smaller: what gives their boxes stays in float, pruning leaves heads whole, teachers teach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_detector import DECODING, SmallDetector, box_data, detector_state
from torch import nn

from edgeopt.cards.reading import card_of
from edgeopt.errors import TrainingError
from edgeopt.export.make import make_artifact
from edgeopt.measure.answers import feeder, file_outputs, verify
from edgeopt.networks.capture import capture_state, program_outputs
from edgeopt.options import Augmentation, Options, TrainerSettings
from edgeopt.plugins.contexts import PassContext
from edgeopt.plugins.declarations import ExporterPlugin, ModelPlugin, PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.plugins.use import Use
from edgeopt.progress import Silent
from edgeopt.recipe.card_task import task_of_card
from edgeopt.recipe.lookup import resolve
from edgeopt.types import Form, ModelState, Role, TrainingData, targets_of
from edgeopt_detection.endings.outputs import FOUND
from edgeopt_torchao.bits.mixed import choose_bits
from edgeopt_torchao.bits.rules import IN_FLOAT, covered

LAST = {"boxes.0.3", "boxes.1.3"}
HEADS = LAST | {"logits.0.3", "logits.1.3"}


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return box_data()


@pytest.fixture
def context(data: TrainingData, tmp_path: Path) -> PassContext:
    return PassContext(data, TrainerSettings(accelerator="cpu", threads=1), 17, tmp_path, Silent())


def applied(name: str, state: ModelState, context: PassContext, **options: object) -> ModelState:
    use = resolve(PassPlugin, name, options, load_registry())
    return use.plugin.apply(state, use.options, context)


@pytest.fixture(scope="module")
def int8(data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> ModelState:
    """The network with what quantizes it after training."""
    folder = tmp_path_factory.mktemp("ptq")
    return applied("ptq", detector_state(), PassContext(data, TrainerSettings(accelerator="cpu"), 17, folder, Silent()))


def bits_of(state: ModelState) -> dict[str, Any]:
    found = state.history[-1].details["bits"]
    assert isinstance(found, dict)
    return {name: bits["weights"] for name, bits in found.items()}


def rounded_boxes(state: ModelState) -> int:
    """Operators that round between the last layers and the boxes."""
    graph = state.program.graph_module.graph
    waiting, seen = [graph.output_node().args[0][state.output_names.index("boxes")]], set()
    while waiting:
        node = waiting.pop()
        if node not in seen and "convolution" not in str(node.target) and "conv2d" not in str(node.target):
            seen.add(node)
            waiting += node.all_input_nodes
    return sum("quantize" in str(node.target) for node in seen)


def test_what_gives_boxes_stays_in_float(int8: ModelState) -> None:
    assert {name for name, bits in bits_of(int8).items() if bits == 32} == LAST
    assert int8.form is Form.PROGRAM and int8.precision == "int8"
    assert not rounded_boxes(int8)


def test_it_does_with_every_quantizer_unless_the_recipe_names_it(context: PassContext) -> None:
    state = detector_state()
    program = capture_state(state, torch.zeros(2, 3, DECODING.height, DECODING.width)).program

    def in_float(**options: object) -> set[str]:
        made = resolve(PassPlugin, "ptq", options, load_registry()).options
        bits = choose_bits(program, state, made.quantizer, made, 16, context)
        chosen = covered(program.module(), made.quantizer, bits).chosen
        return {name for name, each in chosen.items() if each == IN_FLOAT}

    assert in_float(quantizer="tensorrt") == LAST
    assert in_float(layer_bits={"boxes.0": 8}) == {"boxes.1.3"}


def test_training_rounds_all_but_what_gives_boxes(context: PassContext) -> None:
    made = applied("qat", detector_state(), context, epochs=1, batch_size=16)
    assert {name for name, bits in bits_of(made).items() if bits == 32} == LAST and not rounded_boxes(made)
    assert made.history[-1].facts["conversion_same_top1"] >= 0.9


def test_training_with_rounding_sees_no_mosaics(context: PassContext) -> None:
    """`train` does, and says nothing of it; the weights of `qat` are those of a recipe without."""

    def weights_of(name: str, mosaic: float) -> tuple[list[torch.Tensor], ModelState]:
        asked = replace(context.data, augmentation=Augmentation(mosaic=mosaic, horizontal_flip=True))
        inside = replace(context, data=asked, work_dir=context.work_dir / f"{name}-{mosaic}")
        inside.work_dir.mkdir()
        made = applied(name, detector_state(), inside, epochs=1, batch_size=16)
        values = made.program.state_dict if made.form is Form.PROGRAM else made.model.state_dict()
        return list(values.values()), made

    (with_it, quantized), (without, plain) = weights_of("qat", 1.0), weights_of("qat", 0.0)
    assert all(torch.equal(one, other) for one, other in zip(with_it, without, strict=True))
    assert quantized.history[-1].facts["mosaic"] == "off" and "mosaic" not in plain.history[-1].facts
    (trained, floats), (other, _) = weights_of("train", 1.0), weights_of("train", 0.0)
    assert not all(torch.equal(one, two) for one, two in zip(trained, other, strict=True))
    assert "mosaic" not in floats.history[-1].facts


def test_pruning_leaves_heads_whole(context: PassContext) -> None:
    state = detector_state()
    images = torch.zeros(2, 3, DECODING.height, DECODING.width)
    shapes = [each.shape for each in state.module.eval()(images)]
    options = {"keep": 0.6, "importance": "taylor", "epochs": 1, "batch_size": 16, "learning_rate": 1e-3}
    made = applied("prune-structured", state, context, **options)
    assert made.task == state.task and made.output_names == state.output_names
    with torch.no_grad():
        assert [each.shape for each in made.module.eval()(images)] == shapes
    widths = {name: each.out_channels for name, each in made.module.named_modules() if isinstance(each, nn.Conv2d)}
    assert {name: widths[name] for name in HEADS} == {
        name: layer.out_channels for name, layer in state.module.named_modules() if name in HEADS
    }
    assert sum(parameter.numel() for parameter in made.module.parameters()) < 0.8 * sum(
        parameter.numel() for parameter in state.module.parameters()
    )


def teacher(state: ModelState) -> Use[ModelPlugin]:
    return Use(ModelPlugin("larger", "A network at hand.", Options, build=lambda *_: state), Options())


def test_a_larger_detector_teaches(context: PassContext) -> None:
    larger = detector_state(SmallDetector(24))
    options = {"epochs": 1, "batch_size": 16, "control": False, "teacher": teacher(larger)}
    made = applied("distill", detector_state(), context, **options)
    assert made.history[-1].facts["teacher"] == "larger"
    assert np.isfinite(made.history[-1].facts["validation_loss"])


def test_only_detectors_with_the_same_anchors_teach(context: PassContext) -> None:
    state = detector_state(SmallDetector(24))
    moved = state.task.decoding.levels[0].model_copy(update={"origin": (2.0, 2.0)})
    decoding = DECODING.model_copy(update={"levels": (moved, DECODING.levels[1])})
    other = replace(state, task=replace(state.task, decoding=decoding))
    with pytest.raises(TrainingError, match=r"cannot be compared .* 48 × 48 px and 90; they differ in levels"):
        applied("distill", detector_state(), context, epochs=1, teacher=teacher(other))


@pytest.mark.parametrize("scores", ["softmax", "sigmoid", "sigmoid-centerness"])
def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn(scores: str) -> None:
    from edgeopt_detection.networks.taught import taught_loss

    update = {"scores": scores, "background": 0 if scores == "softmax" else None}
    decoding = DECODING.model_copy(update=update)
    generator = torch.Generator().manual_seed(0)
    widths = (decoding.columns, 4, 1)[: len(decoding.outputs)]
    heads = tuple(torch.randn(2, decoding.anchors, width, generator=generator) for width in widths)
    same = taught_loss(heads[:2], heads[:2], decoding, 2.0)
    assert same.item() == pytest.approx(0.0, abs=1e-4)
    other = tuple((each + 0.3 * torch.randn(each.shape, generator=generator)).requires_grad_() for each in heads)
    loss = taught_loss(other, heads, decoding, 2.0)
    loss.backward()
    assert loss.item() > 0.01 and all(each.grad.abs().sum() > 0 for each in other)


@pytest.mark.parametrize("exporter", ["onnx", "tflite"])
def test_a_file_gives_the_boxes_of_its_int8_program(
    exporter: str, int8: ModelState, data: TrainingData, tmp_path: Path
) -> None:
    """Opened in its runtime: `ends = "boxes"`."""
    use = resolve(ExporterPlugin, exporter, {"ends": "boxes"}, load_registry())
    artifact = make_artifact(
        use, int8, tmp_path, role=Role.OPTIMIZED, recipe={}, calibration=data.calibration, progress=Silent(), seed=0
    )
    program, targets = program_outputs(int8, data.validation, Silent(), ""), targets_of(data.validation)
    feed = feeder(artifact.exported.input.holds, int8.preprocessing)
    with use.plugin.opened(artifact.path, 1) as predictor:
        outputs = file_outputs(predictor, data.validation, feed, Silent(), "")
        assert tuple(info.name for info in predictor.output_infos) == FOUND
    assert tuple(info.name for info in artifact.exported.outputs) == FOUND
    held = verify(int8.task, outputs, program, targets, FOUND)
    assert held.agreement >= 0.97
    own = [score.value for score in int8.task.scores(program, targets).all]
    assert [score.value for score in held.scores] == pytest.approx(own, abs=0.01)
    apart = {each.name: each.largest for each in held.outputs}
    assert (apart["classes"], apart["count"]) == (0, 0)
    assert apart["boxes"] < 0.01 and apart["scores"] < 0.01
    card = card_of(artifact.path)
    assert (card.decision["ends"], card.self_test) == ("boxes", None)
    task = task_of_card(card, load_registry(), "the file")
    assert task.unfit([(1, *info.shape[1:]) for info in card.outputs], 1, len(card.classes)) is None
    assert task.decode(outputs) == int8.task.decode(outputs)
    (drawing,) = task.drawings(tuple(each[:1] for each in outputs), card.classes)
    assert len(drawing.boxes) == int(outputs[3][0])
