"""Finds a value of the program among the tensors that a file shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgeopt.plugins.tap import Seen, SeenTensor

_RECOGNIZED = 0.01
"""The largest squared difference, as a share of the squares, at which a tensor is taken for a value of the program."""
_RECOGNIZED_LAYER = 0.5
"""The same behind a layer with weights: few tensors are like its result, and its kernel may be what errs."""
_CHANNELS_LAST = (0, 3, 1, 2)


@dataclass(frozen=True)
class Found:
    """A tensor of the file by its name, the order of its axes, and the shape of one image's value in the program."""

    name: str
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def value(self, seen: Seen) -> Tensor | None:
        """What the file has for other images, as the program has it."""
        tensor = next((each for each in seen.tensors if each.name == self.name), None)
        if tensor is None:
            return None
        given = torch.from_numpy(np.ascontiguousarray(tensor.values)).permute(self.axes)
        return given.reshape(len(given), *self.shape)


def recognized(node: str, expected: Tensor, seen: Seen, *, is_layer: bool) -> Found | None:
    """The tensor that holds what the program has at `node`: the one that says so, or the one that is most like it."""
    named = [tensor for tensor in seen.tensors if tensor.node == node]
    best, found = float("inf") if named else _RECOGNIZED_LAYER if is_layer else _RECOGNIZED, None
    whole = float(expected.double().square().sum())
    if not whole:
        return None  # of zeros, no tensor can be told from another
    for tensor in named or seen.tensors:
        if tensor.node and not named:
            continue
        for candidate in _layouts(tensor, expected):
            value = candidate.value(seen)
            assert value is not None
            apart = float((value - expected).double().square().sum()) / whole
            if apart < best:
                best, found = apart, candidate
    return found


def _layouts(tensor: SeenTensor, expected: Tensor) -> Iterator[Found]:
    """The ways in which a tensor can be read so that it has the sizes of the program's value."""
    given, wanted = tuple(tensor.values.shape), tuple(expected.shape)
    inner = wanted[1:]
    if given == wanted:
        yield Found(tensor.name, tuple(range(len(given))), inner)
    if len(given) == len(wanted) == 4 and tuple(given[axis] for axis in _CHANNELS_LAST) == wanted:
        yield Found(tensor.name, _CHANNELS_LAST, inner)
    if given != wanted and tensor.values.size == expected.numel() and given[:1] == wanted[:1]:
        yield Found(tensor.name, tuple(range(len(given))), inner)
        if len(given) == 4:
            yield Found(tensor.name, _CHANNELS_LAST, inner)
