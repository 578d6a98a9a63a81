"""Bundles for TensorRT that end at boxes: all but the plugin that removes overlaps runs here, in ONNX Runtime and in the
parser of TensorRT for RTX; the plugin itself is what its source says, in NumPy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from random_heads import LAST_BACKGROUND, random_heads
from small_detector import DECODING, box_data, detector_state
from test_boxes_inside import made, state_of, unlike

from edgeopt.errors import ExportError
from edgeopt.networks.capture import to_program
from edgeopt.plugins import ExporterPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt_detection.boxes import overlaps
from edgeopt_detection.decoding.description import AnchorLevel, BoxDecoding, Candidates
from edgeopt_detection.decoding.reference import decode
from edgeopt_detection.endings.outputs import FOUND
from edgeopt_detection.endings.tensorrt_tail import tensorrt_tail
from edgeopt_detection.task import Detection
from edgeopt_tensorrt.build_engine import EngineSettings, build_engine
from edgeopt_tensorrt.bundle import PLUGIN, read_bundle
from edgeopt_tensorrt.gpu import can_run
from edgeopt_tensorrt.graph_check import find_problems

Arrays = dict[str, np.ndarray]
IMAGES = 100


def parts_of(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.NodeProto, onnx.ModelProto]:
    """What comes before the plugin's node, that node, and what comes after it: models of ONNX's own operators."""
    graph = model.graph
    (place,) = (place for place, node in enumerate(graph.node) if node.op_type == PLUGIN)
    node, opset = graph.node[place], helper.make_opsetid("", 17)

    def infos(names: Any, kinds: tuple[int, ...]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(names, kinds, strict=True)]

    kinds = (onnx.TensorProto.INT32, onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT, onnx.TensorProto.INT32)
    before = helper.make_graph(graph.node[:place], "before", graph.input, infos(node.input, kinds[1:3]))
    after = helper.make_graph(graph.node[place + 1 :], "after", infos(node.output, kinds), graph.output)
    for each in (before, after):
        read = {name for node in each.node for name in node.input}
        each.initializer.extend(constant for constant in graph.initializer if constant.name in read)
    return (
        helper.make_model(before, opset_imports=[opset], ir_version=8),
        node,
        helper.make_model(after, opset_imports=[opset], ir_version=8),
    )


def ran(model: onnx.ModelProto, given: Arrays) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, given))


def efficient_nms(boxes: np.ndarray, scores: np.ndarray, **options: Any) -> list[np.ndarray]:
    """What NVIDIA's source says of the plugin: scores from the threshold on, the best 4,096 of them, of equals the
    first; each drops those of its class that overlap from the threshold on, until there are enough. With a threshold
    below 0.007 the others follow with a score of -32768.
    """
    assert (options["background_class"], options["score_activation"], options["box_coding"]) == (-1, 0, 0)
    rows, classes, threshold = options["max_output_boxes"], scores.shape[2], np.float32(options["score_threshold"])
    shapes = ((1,), np.int32), ((rows, 4), np.float32), ((rows,), np.float32), ((rows,), np.int32)
    given = [np.zeros((len(boxes), *shape), kind) for shape, kind in shapes]
    for image, flat in enumerate(scores.reshape(len(boxes), -1)):
        ranked = np.where(flat >= threshold, flat, np.float32(-(1 << 15)))
        count = len(flat) if threshold < 0.007 else int((flat >= threshold).sum())
        order = np.argsort(-ranked, kind="stable")[: min(count, 4096)]
        shares = overlaps(boxes[image, order // classes], boxes[image, order // classes]).astype(np.float32)
        shares *= order[:, None] % classes == order % classes
        kept: list[int] = []
        for place in range(len(order)):
            if len(kept) < rows and not (shares[kept, place] >= np.float32(options["iou_threshold"])).any():
                kept.append(place)
        chosen = order[kept]
        given[0][image] = len(chosen)
        found = boxes[image, chosen // classes], ranked[chosen], chosen % classes
        for array, values in zip(given[1:], found, strict=True):
            array[image, : len(chosen)] = values
    return given


@pytest.mark.parametrize(("case", "score_threshold"), [(0, 0.05), (1, 0.001), (2, 0.2), (3, 0.05)])
def test_the_boxes_of_the_reference_come_out_around_the_plugin(case: int, score_threshold: float) -> None:
    """Where candidates are as many as the plugin looks at. Scores are of 32 bits, which may tell equals apart: so one
    or another of the images with rounded logits may have other boxes.
    """
    decoding, (logits, numbers, *more) = random_heads()[case]
    wide = {"candidates": Candidates(per="level", most=1000), "score_threshold": score_threshold}
    decoding = decoding.model_copy(update=wide)
    if decoding.boxes == "distances":
        numbers = np.abs(numbers)  # as a network gives them; a box of the reverse has no area
    heads = tuple(each[:IMAGES] for each in (logits, numbers, *more))
    model = onnx.load_from_string(tensorrt_tail(decoding).model)
    assert not find_problems(model)
    before, node, after = parts_of(model)
    boxes, scores = ran(before, dict(zip((each.name for each in model.graph.input), heads, strict=True)))
    options = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    given = efficient_nms(boxes, scores, **options)
    outputs = ran(after, dict(zip(node.output, given, strict=True)))
    found, expected = Detection(decoding=decoding).found(tuple(outputs)), decode(heads, decoding)
    assert len(unlike(found, expected)) <= 2
    assert [int(count) for count in outputs[3]] == [int((row > 0).sum()) for row in outputs[2]]
    assert sum(map(len, expected)) > 4 * IMAGES


# ---- TensorRT's own code, as far as it runs without a GPU ------------------------------------------------------------


def test_the_parser_of_tensorrt_gives_the_plugin_what_it_is_told() -> None:
    """TensorRT for RTX has the parser and not the plugin: a stand-in of that name takes down the fields."""
    trt = pytest.importorskip("tensorrt_rtx")
    fields = trt.PluginFieldType
    names = {"score_threshold": fields.FLOAT32, "iou_threshold": fields.FLOAT32} | dict.fromkeys(
        ("max_output_boxes", "background_class", "score_activation", "class_agnostic", "box_coding"), fields.INT32
    )
    told: dict[str, float] = {}

    class Creator(trt.IPluginCreatorV3One):
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_version, self.plugin_namespace = PLUGIN, "1", ""
            self.field_names = trt.PluginFieldCollection(
                [trt.PluginField(name, np.zeros(0, np.int32), kind) for name, kind in names.items()]
            )

        def create_plugin(self, _name: str, given: Any, _phase: Any) -> None:
            told.update({each.name: each.data.item() for each in given if each.type == names[each.name]})

    creator, registry = Creator(), trt.get_plugin_registry()
    messages = trt.Logger(trt.Logger.INTERNAL_ERROR)
    parser = trt.OnnxParser(network := trt.Builder(messages).create_network(0), messages)
    assert registry.register_creator(creator, "")
    try:
        parser.parse(tensorrt_tail(LAST_BACKGROUND).model)
    finally:
        registry.deregister_creator(creator)
    assert network.num_inputs == 2
    assert told.pop("score_threshold") == pytest.approx(0.05)
    assert told.pop("iou_threshold") == np.finfo(np.float32).tiny  # from it on: of more than 0
    assert told == {
        "max_output_boxes": 5, "background_class": -1, "score_activation": 0, "class_agnostic": 0, "box_coding": 0
    }  # fmt: skip
    errors = [parser.get_error(place) for place in range(parser.num_errors)]
    assert [PLUGIN in each.node_name() for each in errors] == [True]  # all nodes before it were read


# ---- the bundle ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    state = to_program(detector_state(), box_data(8).calibration)
    return state, made(state, "tensorrt", tmp_path_factory.mktemp("bundle"), batch={"max": 4})


def test_a_bundle_ends_at_boxes_and_nobody_claims_that_it_was_run(bundle: tuple[Any, Any]) -> None:
    _, artifact = bundle
    members = read_bundle(artifact.path)
    card, model = json.loads(members["card.json"]), onnx.load_from_string(members["model.onnx"])
    assert (card["decision"]["ends"], artifact.card.self_test) == ("boxes", None)
    assert [each.name for each in model.graph.output] == [each["name"] for each in card["outputs"]] == list(FOUND)
    assert [each.domain for each in model.opset_import] == ["", "trt.plugins"]
    exported = artifact.exported
    if not can_run("tensorrt"):
        assert exported.stand_in == "" and not exported.warnings
        assert "no engine was built" in exported.not_run and PLUGIN in exported.not_run
        plugin = load_registry().get(ExporterPlugin, "tensorrt")
        with pytest.raises(ExportError, match=f"ends in {PLUGIN}") as caught, plugin.opened(artifact.path, 1):
            pass
        assert "build.sh" in (caught.value.problems[0].hint or "")


def test_what_comes_before_the_plugin_is_the_program_and_its_boxes(bundle: tuple[Any, Any]) -> None:
    """In ONNX Runtime; TensorRT for RTX builds it too."""
    state, artifact = bundle
    before, _, _ = parts_of(onnx.load_from_string(read_bundle(artifact.path)["model.onnx"]))
    images = np.random.default_rng(0).normal(size=(3, *state.input_shape)).astype(np.float32)
    boxes, scores = ran(before, {"input": images})
    assert (boxes.shape, scores.shape) == ((3, DECODING.anchors, 4), (3, DECODING.anchors, DECODING.classes))
    assert (scores > DECODING.score_threshold).any() and ((boxes >= 0) & (boxes <= 1)).all()
    trt = pytest.importorskip("tensorrt_rtx")
    settings = EngineSettings("input", state.input_shape, 1, 1, 4)
    assert build_engine(trt, before.SerializeToString(), settings).plan


def test_more_boxes_than_the_plugin_keeps_are_refused(tmp_path: Path) -> None:
    level = AnchorLevel(rows=60, columns=60, origin=(0, 0), step=(1, 1), boxes=((-1, -1, 1, 1),))
    decoding: BoxDecoding = LAST_BACKGROUND.model_copy(update={"levels": (level,), "most": 5000})
    with pytest.raises(
        ExportError, match="looks at the best 4,096 boxes of an image, and its decoding keeps up to 5,000"
    ):
        made(state_of(decoding), "tensorrt", tmp_path)
