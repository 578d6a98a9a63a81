"""Which line of a recipe is named for what was found, and the recipe that tries it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from edgeopt.why.advice import advice
from edgeopt.why.page import render_page
from edgeopt.why.sentences import sentences
from edgeopt.why.table import LayerNoise, Noise, OutputNoise, Why, together
from edgeopt.why.trial import changed_recipe

PTQ: dict[str, Any] = {
    "use": "ptq",
    "quantizer": {"use": "xnnpack", "per_channel": True},
    "weight_bits": 8,
    "edge_bits": 8,
    "layer_bits": {},
    "equalize": False,
}


def recipe(**options: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "made",
        "dataset": {"use": "digits", "shares": {"calibration": 0.1}},
        "model": {"use": "torchvision", "arch": "resnet18"},
        "passes": [{"use": "train"}, {**PTQ, **options}],
        "exports": [{"use": "onnx", "name": "onnx"}, {"use": "tflite", "name": "tflite"}],
        "trainer": {"loggers": ["tensorboard"]},
        "gates": {"test_accuracy": 0.9},
    }


def layer(name: str, at_output: float = 1.0, **changes: Any) -> LayerNoise:
    """A sound layer of eight bits whose weights have most of its error."""
    sound = LayerNoise(
        name=name,
        kind="convolution",
        module=name,
        weight_bits=8,
        activation_bits=8,
        total=Noise(100.0, 1.0),
        weights=Noise(100.0, 0.01),
        activation=Noise(100.0, 0.005),
        kernel=Noise(100.0, 0.0),
        at_output=Noise(100.0, at_output),
        clipped=0.0,
        clipping=0.0,
        range=(-1.0, 1.0),
        seen=(-0.9, 0.9),
        per_channel=True,
        spread=0.6,
        readers=("next",),
    )
    return replace(sound, **changes)


LOGITS = Noise(100.0, 10.0)


def found(*layers: LayerNoise, logits: Noise = LOGITS, **more: Noise) -> Why:
    return Why(
        edgeopt="0.1.0",
        file="onnx/optimized/model.onnx",
        run="made",
        runtime="onnxruntime",
        precision="int8",
        images=8,
        layers=layers,
        outputs=tuple(OutputNoise(name, noise) for name, noise in {"logits": logits, **more}.items()),
        agreement=0.75,
        tap_changes=0.0,
        how="a copy",
    )


BLAMED_RANGE = {"activation": Noise(100.0, 20.0)}


@pytest.mark.parametrize(
    ("layers", "options", "lines"),
    [
        ([layer("a", weight_bits=4)], {"edge_bits": 4}, ["edge_bits = 8"]),
        (
            [layer("a"), layer("b", 9, weight_bits=4), layer("c", 5, weight_bits=3), layer("d")],
            {"layer_bits": {"d": 6}},
            ['layer_bits = { "d" = 6, "b" = 8, "c" = 8, "a" = "float" }'],
        ),
        ([layer("a", weights=Noise(100, 5))], {}, ['layer_bits = { "a" = "float" }']),
        (
            [layer("a", per_channel=False)],
            {"quantizer": {"use": "xnnpack", "per_channel": False}},
            ['quantizer = { use = "xnnpack", per_channel = true }'],
        ),
        ([layer("a", **BLAMED_RANGE, activation_bits=4)], {}, ['layer_bits = { "next" = 8 }']),
        ([layer("a", **BLAMED_RANGE, clipped=0.2, clipping=0.99)], {}, ["calibration = 0.4"]),
        ([layer("a", **BLAMED_RANGE, seen=(-0.1, 0.1))], {}, ["calibration = 0.4"]),
        (
            [layer("a", **BLAMED_RANGE, seen=(0.0, 0.4))],
            {"quantizer": {"use": "xnnpack-symmetric"}},
            ['quantizer = "xnnpack"'],
        ),
        ([layer("a", **BLAMED_RANGE, spread=0.02)], {}, ["equalize = true"]),
        ([layer("a", **BLAMED_RANGE)], {}, [""]),
        ([layer("a", kernel=Noise(100.0, 50.0))], {}, ['layer_bits = { "a" = "float" }']),
        ([layer("a#2", kernel=Noise(100.0, 50.0))], {}, ['layer_bits = { "a" = "float" }']),
    ],
)
def test_the_line_fits_what_is_blamed(layers: list[LayerNoise], options: dict[str, Any], lines: list[str]) -> None:
    why = advice(found(*layers), recipe(**options))
    assert [each.line for each in why.advice] == lines
    page = render_page(why)
    for each in why.advice:
        assert each.reason
        assert each.layer in page


def test_a_sound_file_needs_no_line() -> None:
    why = advice(found(layer("a"), logits=Noise(1e6, 1.0)), recipe())
    assert why.advice == ()
    assert sentences(why)[-1] == "That is as close as eight bits come: nothing needs mending."


def test_outputs_are_told_by_name_and_count_alike() -> None:
    """A thousand values of an output are no more than four of another."""
    heads = {"class_logits": Noise(1e6, 1e3), "boxes": Noise(10.0, 1.0)}
    assert together([*heads.values()]).db == pytest.approx(-10 * math.log10((1e-3 + 0.1) / 2))
    assert together([Noise(10.0, 1.0)]) == Noise(10.0, 1.0)
    assert together([Noise(4.0, 0.0), Noise(0.0, 0.0)]).db is None
    why = found(layer("a"), logits=heads["class_logits"], boxes=heads["boxes"])
    told = sentences(why)
    assert told[0].startswith("The file's outputs are 13.0 dB above")
    assert told[1] == "By output: logits 30.0 dB, boxes 10.0 dB; each counts alike."
    assert json.loads(why.to_json())["outputs"]["boxes"]["sqnr_db"] == pytest.approx(10.0)
    assert "do to the outputs" in render_page(why)
    assert sentences(found(layer("a")))[0].startswith("The file's logits are 10.0 dB above")


def test_what_is_not_seen_or_changes_by_looking_is_said() -> None:
    why = replace(found(layer("a", total=None, kernel=None)), unseen=("a",), tap_changes=0.25)
    told = " ".join(sentences(why))
    assert "differ from the file's by up to 0.25" in told
    assert "1 of 1 values are not in the file as they are in the program, the first a" in told
    assert "–" in render_page(why)


def test_the_recipe_that_tries_lines_has_them_all_and_one_export() -> None:
    given = recipe(layer_bits={"d": 6})
    why = advice(found(layer("a"), layer("b", 9, weight_bits=4), layer("c", 5, **BLAMED_RANGE, spread=0.01)), given)
    tried = changed_recipe(given, why.advice, "tflite")
    assert tried.name == "made-mended"
    assert tried.passes[1].options["layer_bits"] == {"d": 6, "b": 8, "a": "float"}
    assert tried.passes[1].options["equalize"] is True
    assert [step.use for step in tried.exports] == ["tflite"]
    assert tried.trainer.loggers == ()
    assert tried.gates == type(tried.gates)()
    assert given["passes"][1]["layer_bits"] == {"d": 6}, "what was given stays as it is"
