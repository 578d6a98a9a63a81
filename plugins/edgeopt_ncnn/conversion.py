"""From a traced program to a network of ncnn, by pnnx."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from edgeopt.export.compilers import run_compiler
from edgeopt.export.refusals import OperatorPlace, not_converted, place_of, unsupported
from edgeopt.networks.layers import operator_name
from edgeopt_ncnn.graph import Graph
from edgeopt_ncnn.rewrites.traced import Traced

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
        done = run_compiler(command, folder, OMP_NUM_THREADS="1")
        written = folder / "model.ncnn.param"
        if done.returncode or not written.is_file():
            said = done.stderr[-_TOLD:].strip()
            raise not_converted(f"pnnx cannot convert this model, and ended with {done.returncode}: {said}")
        graph = Graph(written.read_text(encoding="utf-8"))
        kinds = dict.fromkeys(each.type for each in graph.layers)
        if unknown := [each for each in kinds if layer_to_index(each) < 0]:
            places = [place for each in unknown for place in _places(traced, each)]
            raise unsupported("ncnn", places, "pnnx leaves it as it is")
        return graph, written.with_suffix(".bin").read_bytes()


def _places(traced: Traced, kind: str) -> list[OperatorPlace]:
    """The operators that pnnx left as a layer of a type such as `torch.fft.rfft`; the type where none is called so."""
    name = re.escape(kind.replace("::", ".").rpartition(".")[2].lower())
    is_called_so = re.compile(rf"aten\.(\w*_)?{name}\.\w+").fullmatch  # such as aten.fft_rfft.default
    called = [node for node in traced.module.graph.nodes if is_called_so(operator_name(node))]
    return [place_of(each) for each in called] or [OperatorPlace(kind, "")]
