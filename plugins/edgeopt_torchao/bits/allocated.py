"""Bits by layer, from a file that `edgeopt sensitivity` wrote, or a person. Light: the plan reads it as well."""

from __future__ import annotations

from pathlib import Path

from edgeopt.networks.bits import FLOAT_BITS
from edgeopt.plugins import UserError
from edgeopt.sensitivity.allocation import Allocation, read_allocation
from edgeopt_torchao.options import BitOptions


def read_bits(file: str) -> Allocation:
    """The bits in a file; one of "quantization", which says which layers stay in float, fits as well.

    Raises `UserError` for what is wrong in it, with its line.
    """
    try:
        return read_allocation(Path(file), "bits", _problem)
    except UserError as error:
        try:
            return read_allocation(Path(file), "quantization", _problem)
        except UserError:
            raise error from None


def fingerprint_allocation(options: BitOptions) -> str:
    """What the allocation says, "" for none; raises `UserError` when it cannot be read."""
    return "" if options.allocation is None else read_bits(options.allocation).fingerprint


def _problem(level: float) -> str | None:
    if level == FLOAT_BITS or (level == int(level) and 2 <= level <= 8):
        return None
    return f"{level:g} is neither of 2 to 8 bits nor {FLOAT_BITS}, which stays in float"
