"""What is known of TensorFlow Lite Micro without a network: its operators, and gates on RAM and flash."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import TINY_RECIPE

from edgeopt.errors import Problem, RecipeError
from edgeopt.pipeline.untrained import require_taken
from edgeopt.plugins import CycleEstimate, ExporterPlugin, Footprint, Options
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.use import Use
from edgeopt.recipe.gates import Gates
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import read_recipe
from edgeopt.report.gates import judge
from edgeopt.report.schema import Row
from edgeopt.report.verdicts import verdicts
from edgeopt.testing.values import tiny_data, tiny_model
from edgeopt.types import Role
from edgeopt_tflm.operators import KNOWN, method, unknown

_PROBE = """
import os, sys, tempfile
import flatbuffers, numpy as np
from ai_edge_litert import schema_py_generated as schema
from tflite_micro import runtime

def model(code):
    made = schema.ModelT()
    made.version, made.buffers = 3, [schema.BufferT()]
    kind = schema.OperatorCodeT()
    kind.builtinCode, kind.deprecatedBuiltinCode, kind.version = code, min(code, 127), 1
    made.operatorCodes = [kind]
    graph, operator = schema.SubGraphT(), schema.OperatorT()
    graph.tensors = []
    for _ in range(2):
        tensor = schema.TensorT()
        tensor.shape, tensor.type = np.array([1, 2], np.int32), schema.TensorType.FLOAT32
        graph.tensors.append(tensor)
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([1], np.int32)
    operator.inputs, operator.outputs = graph.inputs, graph.outputs
    graph.operators, made.subgraphs = [operator], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(made.Pack(builder), b"TFL3")
    return bytes(builder.Output())

for name, code in vars(schema.BuiltinOperator).items():
    if name.startswith("_") or name in ("CUSTOM", "PLACEHOLDER_FOR_GREATER_OP_CODES"):
        continue
    content = model(code)
    with tempfile.TemporaryFile() as said:
        if not (child := os.fork()):  # an operator of nonsense may end its process
            os.dup2(said.fileno(), 2)
            try:
                runtime.Interpreter.from_bytes(content, arena_size=1 << 16)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        said.seek(0)
        if b"Didn't find op for builtin opcode" not in said.read():
            print(name)
"""


def test_operators_are_those_of_the_interpreter() -> None:
    """Each of the schema's operators, asked for in a file of its own."""
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=True, timeout=300)
    assert set(done.stdout.split()) == KNOWN


def test_operators_are_registered_by_their_methods() -> None:
    names = {"CONV_2D": "AddConv2D", "PADV2": "AddPadV2", "RELU6": "AddRelu6", "BATCH_MATMUL": "AddBatchMatMul"}
    assert {kind: method(kind) for kind in names} == names
    assert unknown(["CONV_2D", "GELU", "CUSTOM", "GELU"]) == ["GELU", "CUSTOM"]


# ---- gates --------------------------------------------------------------------------------------------------------


def row(runtime: str, footprint: Footprint | None) -> Row:
    return Row(
        runtime=runtime,
        export=runtime,
        file=f"{runtime}/optimized/model",
        precision="int8",
        role=Role.OPTIMIZED,
        footprint=footprint,
    )


TAKEN = Footprint(9_000, 21_000, {"head": 8_000, "tail": 1_000}, ("stem (CONV_2D)", 7_500), ("head", 4_000))


def test_a_gate_says_by_how_much_and_which_layer() -> None:
    rows = (row("tflm", TAKEN), row("onnx", None))
    ram, flash = judge(Gates(ram_bytes=8_192, flash_bytes=21_000), rows)
    assert not ram.passed
    assert ram.message == (
        "gate ram_bytes of tflm/optimized/model was missed: 9,000 bytes "
        "(limit ≤ 8,192 bytes; over by 808 bytes; stem (CONV_2D) takes the most, 7,500 bytes)"
    )
    assert flash.passed
    assert flash.limit_text == "≤ 21,000 bytes"


def test_a_gate_without_a_file_that_tells_is_missed() -> None:
    (result,) = judge(Gates(ram_bytes=1), (row("onnx", None),))
    assert not result.passed
    assert "no file tells what it takes" in result.message


def test_a_gate_without_an_exporter_that_tells_is_refused_at_its_line(
    write_recipe: Callable[[str], Path], registry: Registry
) -> None:
    path = write_recipe(f"{TINY_RECIPE}\n[gates]\naccuracy = 0.1\nram_bytes = 65536\n")
    with pytest.raises(RecipeError, match="ram_bytes is about microcontrollers") as caught:
        make_plan(read_recipe(path), registry)
    assert caught.value.problems[0].location.line == TINY_RECIPE.count("\n") + 4


def test_the_report_says_what_takes_the_most_and_that_an_estimate_is_one() -> None:
    estimate = CycleEstimate("ethos-u55-128", "Vela 5.2.0, a system", 125_000, 500, 4_000, on_cpu=2)
    *_, takes, estimated = said = verdicts([row("tflm", replace(TAKEN, estimate=estimate))])
    assert "9,000 bytes of RAM, of which stem (CONV_2D) has the most (7,500)" in takes
    assert estimated == (
        "tflm int8, estimated and not measured: 125,000 cycles an image on ethos-u55-128, without 2 operators that are "
        "left to the CPU, 4,000 images/s at 500 MHz (Vela 5.2.0, a system)."
    )
    assert verdicts([row("tflm", TAKEN)]) == said[:-1]


# ---- before training ----------------------------------------------------------------------------------------------


def test_what_an_exporter_refuses_of_an_untrained_network_is_said_at_its_line(
    write_recipe: Callable[[str], Path], registry: Registry
) -> None:
    seen = []

    def refuses(state: object, _options: object) -> list[Problem]:
        seen.append(state.form)
        return [Problem("no operator GELU")] if len(seen) == 1 else []

    plugin = ExporterPlugin(
        "picky", "Refuses.", Options, export=print, open=print, runtime="none", suffix=".x", refuses=refuses
    )
    recipe = read_recipe(write_recipe(TINY_RECIPE))
    plan = SimpleNamespace(exports=[SimpleNamespace(step=0, use=Use(plugin, Options()))], recipe=recipe)
    data = tiny_data()
    with pytest.raises(RecipeError, match="no operator GELU") as caught:
        require_taken(plan, tiny_model(data), data.validation)
    line = TINY_RECIPE[: TINY_RECIPE.index("[[exports]]")].count("\n") + 1
    assert caught.value.problems[0].location.line == line
    require_taken(plan, tiny_model(data), data.validation)
    assert seen == ["program", "program"]
