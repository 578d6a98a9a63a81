"""From raw heads to boxes: torchvision's own way as the oracle, and the other languages to the last bit."""

import dataclasses
import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from random_heads import BOX_DECODER_SCRIPT, FCOS, IMAGES, RETINANET, SSD, expected_boxes, random_heads, write_heads

from edgeopt.plugins import DataError, ExportError
from edgeopt_detection.decoding.description import BoxDecoding
from edgeopt_detection.decoding.reference import anchor_corners, decode, exponential
from edgeopt_detection.networks.build import build_detector
from edgeopt_detection.networks.losses import DetectionLoss
from edgeopt_detection.networks.raw_heads import require_raw_heads, split_detector
from edgeopt_torchvision.compat import import_torchvision, nms

CLASSES = 4
NETWORKS = {
    "ssdlite": ("mobilenet_v3_large", 320, 320),
    "retinanet": ("resnet18", 128, 160),
    "fcos": ("mobilenet_v3_small", 128, 96),
}


@pytest.fixture(scope="module")
def detectors():
    torch.manual_seed(0)
    return {name: build_detector(name, backbone, CLASSES).eval() for name, (backbone, *_) in NETWORKS.items()}


@pytest.fixture(scope="module")
def split(detectors):
    return {name: split_detector(detectors[name], *size) for name, (_, *size) in NETWORKS.items()}


def torchvision_anchors(detector, network, decoding):
    from torchvision.models.detection.image_list import ImageList

    images = torch.zeros(1, 3, decoding.height, decoding.width)
    with torch.no_grad():
        maps = network.maps(images)
    return detector.anchor_generator(ImageList(images, [(decoding.height, decoding.width)]), maps)


def class_wise_nms(boxes, scores, classes, threshold):
    kept = torch.cat(
        [
            torch.where(classes == each)[0][nms(boxes[classes == each], scores[classes == each], threshold)]
            for each in classes.unique()
        ]
    )
    return kept[scores[kept].sort(descending=True, stable=True)[1]]


@pytest.mark.parametrize("name", NETWORKS)
def test_boxes_are_those_of_torchvision(name, detectors, split, monkeypatch):
    import_torchvision()
    from torchvision.ops import boxes as box_ops

    monkeypatch.setattr(box_ops, "batched_nms", class_wise_nms)
    (network, decoding), detector = split[name], detectors[name]
    anchors = torchvision_anchors(detector, network, decoding)
    np.testing.assert_allclose(anchor_corners(decoding), anchors[0].numpy(), atol=1e-4)

    random = torch.Generator().manual_seed(1)
    widths = (decoding.columns, 4, 1)[: len(decoding.outputs)]
    heads = [torch.randn(1, decoding.anchors, width, generator=random) for width in widths]
    heads[0] = heads[0] * 1.5 - (2 if name == "retinanet" else 0)
    heads[1] = heads[1].abs() if name == "fcos" else heads[1]
    names = dict(zip(("cls_logits", "bbox_regression", "bbox_ctrness"), heads, strict=False))
    if name != "ssdlite":
        counts = [level.anchors for level in decoding.levels]
        names = {key: list(value.split(counts, dim=1)) for key, value in names.items()}
        anchors = [list(anchors[0].split(counts))]
    (wanted,) = detector.postprocess_detections(names, anchors, [(decoding.height, decoding.width)])
    (found,) = decode([head.numpy() for head in heads], decoding)

    assert len(found) == len(wanted["boxes"]) > 50
    np.testing.assert_allclose(found.scores, wanted["scores"].numpy(), atol=1e-6)
    first_label = 0 if decoding.background is None else 1
    pairs = np.abs(found.corners[:, None] - wanted["boxes"].numpy()[None]).max(axis=2) < 1e-2  # px: torch has 32 bits
    pairs &= found.classes[:, None] + first_label == wanted["labels"].numpy()[None]
    pairs &= np.abs(found.scores[:, None] - wanted["scores"].numpy()[None]) < 1e-6
    assert pairs.any(axis=0).all()
    assert pairs.any(axis=1).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_split_detector_gives_the_heads_of_its_own(name, detectors, split):
    (network, decoding), detector = split[name], detectors[name]
    images = torch.randn(2, 3, decoding.height, decoding.width)
    with torch.no_grad():
        heads = network(images)
        own = detector.head(list(detector.backbone(images).values()))
    widths = (decoding.columns, 4, 1)[: len(decoding.outputs)]
    assert [tuple(head.shape[1:]) for head in heads] == [(decoding.anchors, width) for width in widths]
    for head, name_of_torchvision in zip(heads, ("cls_logits", "bbox_regression", "bbox_ctrness"), strict=False):
        assert torch.equal(head, own[name_of_torchvision])


def test_a_split_detector_is_exported(split):
    network, decoding = split["ssdlite"]
    images = torch.randn(2, 3, decoding.height, decoding.width)
    with torch.no_grad():
        for head, exported in zip(
            network(images), torch.export.export(network, (images,)).module()(images), strict=True
        ):
            torch.testing.assert_close(head, exported)


def test_splitting_leaves_a_detector_as_it_was(detectors):
    assert not any(module.training for module in detectors["ssdlite"].modules())
    training = build_detector("fcos", "resnet18", CLASSES)
    training.backbone.body.bn1.eval()
    network, _ = split_detector(training, 64, 64)
    assert network.training
    assert [module.training for module in (training.backbone.body.bn1, training.head)] == [False, True]


def test_loss_is_that_of_torchvision(detectors, split):
    import_torchvision()
    corners = torch.tensor([[5.0, 8, 50, 60], [40, 30, 90, 80]])
    boxes = [(corners, torch.tensor([0, 3])), (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))]
    for name in NETWORKS:
        (network, decoding), detector = split[name], detectors[name]
        images = torch.randn(2, 3, decoding.height, decoding.width)
        heads = network(images)
        found = DetectionLoss(decoding)(heads, boxes)
        anchors = [torchvision_anchors(detector, network, decoding)[0]] * 2
        shift = 0 if decoding.background is None else 1
        targets = [{"boxes": corners, "labels": classes + shift} for corners, classes in boxes]
        names = dict(zip(("cls_logits", "bbox_regression", "bbox_ctrness"), heads, strict=False))
        if name == "ssdlite":
            from torchvision.ops import box_iou

            matched = [
                detector.proposal_matcher(box_iou(each["boxes"], corners))
                if len(each["boxes"])
                else torch.full((len(corners),), -1)
                for each, corners in zip(targets, anchors, strict=True)
            ]
            wanted = detector.compute_loss(targets, names, anchors, matched)
        elif name == "retinanet":
            wanted = detector.compute_loss(targets, names, anchors)
        else:
            wanted = detector.compute_loss(targets, names, anchors, [level.anchors for level in decoding.levels])
        assert found.keys() == wanted.keys()
        for part, value in found.items():
            torch.testing.assert_close(value, wanted[part], rtol=1e-4, atol=1e-5)
        sum(found.values()).backward()
        assert all(parameter.grad is not None for parameter in network.head.parameters())


def test_detectors_that_no_file_holds_are_refused():
    import_torchvision()
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    faster = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=3)
    for refuse in (lambda: split_detector(faster, 64, 64), lambda: require_raw_heads(torch.nn.Sequential(faster))):
        with pytest.raises(ExportError, match="export SSDLite, RetinaNet or FCOS"):
            refuse()
    with pytest.raises(ExportError, match="two stages"):
        split_detector(faster, 64, 64)
    with pytest.raises(ExportError, match="without resizing and without NMS"):
        split_detector(torch.nn.Linear(1, 1), 64, 64)
    require_raw_heads(torch.nn.Linear(1, 1))


def test_a_whole_detector_is_refused_with_how_to_split_it(detectors):
    with pytest.raises(ExportError, match="split_detector"):
        require_raw_heads(detectors["ssdlite"])


# ---- other languages -----------------------------------------------------------------------------------------------

_RUNNER = """
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
const [script, folder, images] = process.argv.slice(1);
const { BoxDecoder } = await import(pathToFileURL(script));
const file = readFileSync(`${folder}/heads`);
const bytes = file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
let at = 0;
const floats = (count) => { at += 4 * count; return new Float32Array(bytes, at - 4 * count, count); };
const written = new DataView(new ArrayBuffer(1 << 22));
let to = 0;
for (const decoding of JSON.parse(readFileSync(`${folder}/decodings.json`))) {
  const decoder = new BoxDecoder(decoding);
  for (let image = 0; image < Number(images); image += 1) {
    const heads = [floats(decoder.count * decoder.columns), floats(decoder.count * 4)];
    if (decoding.scores === "sigmoid-centerness") heads.push(floats(decoder.count));
    const found = decoder.decode(...heads);
    written.setInt32(to, found.length, true); to += 4;
    for (const { x1, y1, x2, y2, score, label } of found) {
      for (const value of [x1, y1, x2, y2, score]) { written.setFloat32(to, value, true); to += 4; }
      written.setInt32(to, label, true); to += 4;
    }
  }
}
writeFileSync(`${folder}/boxes`, new Uint8Array(written.buffer, 0, to));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here, which runs the JavaScript")
def test_javascript_finds_the_boxes_of_a_thousand_raw_heads(tmp_path):
    cases = write_heads(tmp_path)
    script = shutil.copy(BOX_DECODER_SCRIPT, tmp_path / "decoding.mjs")
    subprocess.run(
        ["node", "--input-type=module", "-e", _RUNNER, str(script), str(tmp_path), str(IMAGES)], check=True, timeout=60
    )
    assert (tmp_path / "boxes").read_bytes() == expected_boxes(cases)


# ---- the reference -------------------------------------------------------------------------------------------------


def test_the_exponential_is_right_to_two_units_in_the_last_place():
    values = np.random.default_rng(0).uniform(-700, 700, 20_000)
    assert np.abs(exponential(values) / np.exp(values) - 1).max() < 5e-16
    at_the_ends = exponential(np.array([-1e9, 1e9, 0.0])) / np.exp([-708, 708, 0])
    np.testing.assert_allclose(at_the_ends, 1, rtol=1e-12)
    assert np.isnan(exponential(np.array([np.nan])))


def test_equals_stand_as_they_were_found_and_overlaps_fall():
    decoding = RETINANET.model_copy(update={"iou_threshold": 0.4})
    logits = np.full((1, decoding.anchors, 3), -9, dtype=np.float32)
    logits[0, [3, 7, 40], [1, 1, 2]] = 2
    boxes = np.zeros((1, decoding.anchors, 4), dtype=np.float32)
    (found,) = decode([logits, boxes], decoding)
    assert found.classes.tolist() == [1, 1, 2]
    np.testing.assert_array_equal(
        found.corners[0], np.clip(anchor_corners(decoding)[3], 0, [40, 33, 40, 33]).astype(np.float32)
    )
    logits[0, 2, 1] = 2.5  # the box beside anchor 3, on the same place: they share more than 0.4
    (fewer,) = decode([logits, boxes], decoding)
    assert len(fewer) == 3
    assert fewer.scores[0] > fewer.scores[1]


def test_a_description_survives_json_and_says_what_does_not_fit():
    for decoding in (SSD, RETINANET, FCOS):
        assert BoxDecoding.from_json(json.loads(json.dumps(decoding.to_json()))) == decoding
    broken = {**SSD.to_json(), "most": 0, "heigth": 3, "score_threshold": float("nan")}
    with pytest.raises(DataError) as caught:
        BoxDecoding.from_json(broken, "card.json")
    told = str(caught.value)
    assert all(word in told for word in ("card.json: decoding.most", "decoding.heigth", "decoding.score_threshold"))
    with pytest.raises(DataError, match="background"):
        BoxDecoding.from_json({**SSD.to_json(), "background": None})


def test_heads_of_another_shape_are_an_error():
    heads = [head[:1] for head in dict(enumerate(random_heads()))[0][1]]
    with pytest.raises(ValueError, match="the description is for"):
        decode([heads[0][:, 1:], heads[1]], SSD)
    assert dataclasses.is_dataclass(decode(heads, SSD)[0])
