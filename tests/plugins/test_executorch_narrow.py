"""Fewer than eight bits are refused where XNNPACK has no kernel, and stored as int8 where that is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_programs import capture, float_net, images, outputs, quantized
from torch.export import ExportedProgram

from edgeopt.errors import ExportError
from edgeopt.plugins.declarations import Bits, ExporterPlugin, Numerics
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt_executorch.lowering import export_executorch
from edgeopt_executorch.predictor import ExecuTorchPredictor


@pytest.fixture(scope="module")
def w4() -> ExportedProgram:
    return quantized(capture(float_net()), weight_bits=4)


def test_four_bit_weights_are_refused_with_their_layers(w4: ExportedProgram, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"weights of 4 bits in 4 layers \(stem\.0, block\.0, squeeze\.1, head\)"
    ) as e:
        export_executorch(w4, tmp_path / "model.pte", card_json="{}")
    assert e.value.problems[0].option == "int4_weights"
    assert not list(tmp_path.iterdir())


def test_four_bit_weights_are_exact_as_int8_where_that_is_asked_for(w4: ExportedProgram, tmp_path: Path) -> None:
    report = export_executorch(w4, tmp_path / "model.pte", card_json="{}", int4_weights="int8")
    assert report.quantized_layers == report.weighted_layers == 4
    batch = images(16)
    expected = outputs(w4, batch).numpy()
    got = ExecuTorchPredictor(report.path, threads=1).predict(batch.numpy())[0]
    assert np.abs(got - expected).max() < 0.03 * np.abs(expected).max()  # a few steps of 255, as with eight bits


def test_narrow_activations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="those of this program take 6 bits"):
        export_executorch(quantized(capture(float_net()), activation_bits=6), tmp_path / "m.pte", card_json="{}")


@pytest.mark.parametrize(
    ("options", "bits", "problems"),
    [
        ({}, Bits(4, 8), 1),
        ({}, Bits(4, 4), 2),
        ({"int4_weights": "int8"}, Bits(4, 8), 0),
        ({}, Bits(5, 8), 0),
    ],
)
def test_check_tells_before_anything_runs(options: dict[str, str], bits: Bits, problems: int) -> None:
    use = resolve(ExporterPlugin, "executorch", options, load_registry())
    assert use.plugin.check is not None
    assert len(list(use.plugin.check(use.options, Numerics(bits=bits)))) == problems
