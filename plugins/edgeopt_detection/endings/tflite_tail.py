"""TFLite's own operator that removes overlapping boxes, behind `PlacedBoxes`.

Source: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/kernels/detection_postprocess.cc
"""

from __future__ import annotations

import numpy as np
from flatbuffers import flexbuffers

from edgeopt.plugins import TfliteTail
from edgeopt_detection.decoding.description import BoxDecoding
from edgeopt_detection.endings.outputs import rows_of

_UNIT = (0.0, 0.0, 1.0, 1.0)  # an anchor: y and x of its middle, height and width


def tflite_tail(decoding: BoxDecoding) -> TfliteTail:
    """The operator `TFLite_Detection_PostProcess` with what the description says of scores and overlaps.

    "Regular" is its form in which boxes of one class alone suppress each other; in the other, "fast", any do. It takes
    scores of its threshold on, and the description those above.
    """
    rows = rows_of(decoding)
    options = {
        "max_detections": rows,
        "max_classes_per_detection": 1,
        "detections_per_class": decoding.most,
        "use_regular_nms": True,
        "nms_score_threshold": float(np.nextafter(np.float32(decoding.score_threshold), np.float32(2))),
        "nms_iou_threshold": decoding.iou_threshold,
        "num_classes": decoding.classes,
        **{f"{side}_scale": 1.0 for side in "yxhw"},
    }
    return TfliteTail(
        "TFLite_Detection_PostProcess",
        bytes(flexbuffers.Dumps(options)),
        (np.tile(np.array(_UNIT, np.float32), (decoding.anchors, 1)),),
        ((1, rows, 4), (1, rows), (1, rows), (1,)),
    )
