"""Boxes of the outputs that were asked about last: whoever judges a file asks a task many things of the same outputs,
and decoding them takes longer than all the rest.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from edgeopt_detection.decoding.reference import decode

if TYPE_CHECKING:
    from edgeopt.plugins import Outputs
    from edgeopt_detection.boxes import Detections
    from edgeopt_detection.decoding.description import BoxDecoding

_MOST = 3  # a report compares a file with its float file and with the float program
_kept: dict[tuple[bytes, BoxDecoding], tuple[Detections, ...]] = {}


def decoded(outputs: Outputs, decoding: BoxDecoding) -> list[Detections]:
    """The boxes of each image, as `reference.decode` gives and raises; nobody changes them.

    Outputs are known again by their bytes, not by their arrays, which are often read anew from a file.
    """
    key = _digest(outputs), decoding
    found = _kept.pop(key, None)
    if found is None:
        found = tuple(decode(outputs, decoding))
    _kept[key] = found  # the one that was asked about last stands last
    for oldest in list(_kept)[:-_MOST]:
        _kept.pop(oldest, None)
    return list(found)


def _digest(outputs: Outputs) -> bytes:
    told = hashlib.sha256()
    for each in outputs:
        told.update(f"{each.dtype} {each.shape}".encode())
        told.update(np.ascontiguousarray(each).data)
    return told.digest()
