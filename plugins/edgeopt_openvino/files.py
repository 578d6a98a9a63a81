"""Read and write OpenVINO's files: an `.xml` with the graph and the card, and a `.bin` with the weights beside it.

The `.bin` says nothing of itself, and OpenVINO takes any that is long enough. So the `.xml` keeps its SHA-256.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import openvino

from edgeopt.plugins import ExportError

CARD_KEY = "edgeopt_card"
"""Name of the card's JSON text in the file's `rt_info`: `model.get_rt_info("edgeopt_card")`."""
_DIGEST = re.compile(rb"<edgeopt_weights_sha256 value='([0-9a-f]{64})'")  # other tools keep it, in double quotes
_IN_QUOTES = str.maketrans({"&": r"\u0026", "<": r"\u003c", "'": r"\u0027"})
"""JSON's own spelling of what XML does not take between single quotes. So a card stays the plain text that it is in all
files that carry one; XML reads the ends of its lines as spaces, which are the same to JSON."""


def companion(path: Path) -> Path:
    """The file of the weights, where OpenVINO looks for it."""
    return path.with_suffix(".bin")


def open_model(path: Path, threads: int, **settings: object) -> tuple[openvino.Model, openvino.CompiledModel]:
    """The graph of an `.xml` file with the weights beside it, and what OpenVINO makes of it on the processor;
    `settings` are further properties of OpenVINO by their names.

    What is float is computed in float32, also where the processor has bfloat16 or float16, which OpenVINO would take by
    itself: a file answers alike on every processor, and is held against a float32 program. Threads are not tied to
    cores, because a thread that is waits for whoever else works on its own.

    Raises `ExportError` where the weights are not there or are those of another file, and `ValueError` for what
    OpenVINO cannot read or run.
    """
    content = path.read_bytes()
    if not content.startswith(b"<?xml"):  # OpenVINO would try the readers of all other formats
        raise ValueError(f"{path} is no file of OpenVINO: it does not begin as XML does")
    weights = companion(path)
    if not weights.is_file():
        raise ExportError(f"{path} cannot be opened: {weights.name} is not beside it", hint="put its own .bin there")
    digest = _DIGEST.search(content)
    if digest and digest[1].decode() != _sha256(weights):
        hint = "put the .bin that was made with this .xml beside it, or export both again"
        raise ExportError(f"{path} cannot be opened: {weights.name} is damaged, or of another file", hint=hint)
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    try:
        model = openvino.Core().read_model(path)
        return model, openvino.Core().compile_model(model, "CPU", {**properties, **settings})
    except RuntimeError as error:
        raise ValueError(f"OpenVINO cannot open {path}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What OpenVINO says, without the places in its own source that it begins with."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith(("Exception from", "Check '"))]
    return " ".join(lines) or str(error)


def add_notes(path: Path, card_json: str) -> None:
    """Write the card and what the weights are into the `rt_info` of an `.xml` file, and take its indentation out, which
    is a seventh of it.
    """
    # the file's own notes are the last; layers have some too
    before, end, after = re.sub(r"\n\t+", "\n", path.read_text(encoding="utf-8")).rpartition("</rt_info>")
    weights = f"<edgeopt_weights_sha256 value='{_sha256(companion(path))}' />"
    card = f"<{CARD_KEY} value='{card_json.translate(_IN_QUOTES)}' />"
    path.write_text(f"{before}{weights}\n{card}\n{end}{after}", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
