"""Files of tensors and plain values that others wrote, read without running what is in them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import torch

from edgeopt.files import require_no_bomb


class UnreadableValuesError(ValueError):
    """What torch's restricted unpickler cannot or will not read; `__cause__` is what it said."""


def read_plain_values(source: Path | bytes) -> object:
    """What `torch.save` wrote, as long as it is tensors and plain values, on the CPU.

    Raises `UnreadableValuesError` for everything else: damaged bytes, and objects that would have to be run.
    """
    try:
        if isinstance(source, Path) and zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                require_no_bomb(archive, source)
        file = source if isinstance(source, Path) else io.BytesIO(source)
        return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise  # says something about the machine, not about the file
    except Exception as error:  # the unpickler is a machine with a stack: damaged bytes end in errors of any type
        raise UnreadableValuesError(str(error)) from error
