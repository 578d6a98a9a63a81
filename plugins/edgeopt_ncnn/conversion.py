"""From a traced program to a network of ncnn, by pnnx."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.export.refusals import OperatorPlace, unsupported
from edgeopt.networks.layers import module_path, operator_name
from edgeopt.plugins import ExportError, Problem
from edgeopt_ncnn.graph import Graph
from edgeopt_ncnn.rewrites.traced import Traced

if TYPE_CHECKING:
    from torch.fx import Node

_TOLD = 600  # characters of pnnx's own words in an error


def convert(traced: Traced, *, half: bool) -> tuple[Graph, bytes]:
    """The network and its weights, in float32 or, with `half`, in float16.

    Raises `ExportError` naming the operators, with their modules, that pnnx or ncnn does not know.
    """
    from ncnn import layer_to_index  # both are native code, which `edgeopt check` does without
    from pnnx import EXEC_PATH

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        traced.save(folder / "model.pt")
        shape = ",".join(map(str, traced.example.shape))
        command = [EXEC_PATH, "model.pt", f"inputshape=[{shape}]", f"fp16={int(half)}"]
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        written = folder / "model.ncnn.param"
        if done.returncode or not written.is_file():
            raise ExportError(
                Problem(
                    f"pnnx cannot convert this model, and ended with {done.returncode}: {done.stderr[-_TOLD:].strip()}",
                    "replace the operator in the model, or leave this export out",
                )
            )
        graph = Graph(written.read_text(encoding="utf-8"))
        kinds = dict.fromkeys(each.type for each in graph.layers)
        if unknown := [each for each in kinds if layer_to_index(each) < 0]:
            places = [place for each in unknown for place in _places(traced, each)]
            raise unsupported("ncnn", places, "pnnx leaves it as it is")
        return graph, written.with_suffix(".bin").read_bytes()


def _places(traced: Traced, kind: str) -> list[OperatorPlace]:
    """The operators that pnnx left as a layer of a type such as `torch.fft.rfft`; the type where none is called so."""
    name = kind.replace("::", ".").rpartition(".")[2].lower()
    called = [node for node in traced.module.graph.nodes if f"_{_packet(node)}".endswith(f"_{name}")]
    return [OperatorPlace(operator_name(each), module_path(each)) for each in called] or [OperatorPlace(kind, "")]


def _packet(node: Node) -> str:
    """An operator's name without its overload, such as `fft_rfft`."""
    return operator_name(node).removeprefix("aten.").partition(".")[0]
