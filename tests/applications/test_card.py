"""`edgeopt card`: what is printed is run, or compiled and run, and feeds files as edgeopt does."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kotlin import Harness, odd_images
from made_files import made_files
from PIL import Image
from typer.testing import CliRunner

from edgeopt.applications.snippets import LANGUAGES, feeding_lines
from edgeopt.cards.card import Card, TensorInfo
from edgeopt.cards.reading import card_of
from edgeopt.cli import app
from edgeopt.errors import UserError
from edgeopt.measure.answers import feeder
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.tasks.classification import softmax

NAMES = ('say "käse"', "back\\slash", "$price", "plain")
INT8 = Card(
    classes=NAMES,
    preprocessing=Preprocessing(24, resize=27, crop=24, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)).to_json(),
    runtime="litert",
    precision="int8",
    role="optimized",
    recipe={},
    versions={},
    input=TensorInfo("input", "int8", (1, 24, 24, 3), "NHWC", 0.0187, -14),
    outputs=(TensorInfo("logits", "uint8", (1, 4), "NC", 0.07, 131),),
)
PIXELS = replace(
    INT8,
    preprocessing=Preprocessing(16, resize=16, crop=16, interpolation="nearest").to_json(),
    input=TensorInfo("input", "uint8", (1, 16, 16, 3), "NHWC", holds="pixels"),
    outputs=(TensorInfo("logits", "float32", (1, 4), "NC"),),
)
PLANES = replace(
    INT8,
    preprocessing=Preprocessing(20, resize=24, crop=20, interpolation="bicubic").to_json(),
    input=TensorInfo("input", "float32", ("batch", 3, 20, 20), "NCHW"),
    outputs=(TensorInfo("logits", "int8", (1, 4), "NC", 0.03, -2),),
)
LETTERBOX = replace(
    INT8,
    preprocessing=Preprocessing(
        (14, 40), (14, 40), (14, 40), (0.5,), (0.25,), channel_order="grey", background=(250, 9, 80), fit="letterbox"
    ).to_json(),
    input=TensorInfo("input", "int8", (1, 14, 40, 1), "NHWC", 0.0187, -14),
)
WIDE = replace(
    PLANES,
    preprocessing=Preprocessing((18, 30), (20, 34), (18, 30)).to_json(),
    input=TensorInfo("input", "float32", ("batch", 3, 18, 30), "NCHW"),
)
STRETCH = replace(
    PIXELS,
    preprocessing=Preprocessing((22, 13), (22, 13), (22, 13), interpolation="bicubic", fit="stretch").to_json(),
    input=TensorInfo("input", "uint8", (1, 22, 13, 3), "NHWC", holds="pixels"),
)
CARDS = {
    "int8": INT8,
    "pixels": PIXELS,
    "planes": PLANES,
    "letterbox": LETTERBOX,
    "wide": WIDE,
    "stretch": STRETCH,
}
ANSWER = np.array([3, 100, 101, 7])


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return made_files(tmp_path_factory.getbasetemp().parent / "applications")


def expected_input(card: Card, image: Image.Image) -> bytes:
    """What edgeopt's own preprocessing and the runtimes' predictors make of an image."""
    preprocessing, info = Preprocessing.from_json(card.preprocessing), card.input
    assert info
    pixels = preprocessing.pixels(image)[None]
    if info.holds == "pixels":
        return pixels.tobytes()
    values = preprocessing.normalize(pixels)
    if info.scale is not None:
        values = np.rint(values * np.float32(1 / info.scale)) + info.zero_point
        values = values.clip(-128, 127).astype(np.int8)
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1) if info.layout == "NHWC" else values).tobytes()


def expected_shares(card: Card) -> np.ndarray:
    (info,) = card.outputs
    assert info
    values = ANSWER.astype(np.float32)
    if info.scale is not None:
        values = (values - info.zero_point) * np.float32(info.scale)
    return softmax(values[None])[0]


def ordinary() -> list[Image.Image]:
    """Images that a camera might give, opaque and upright."""
    shapes = [(61, 43), (30, 44), (24, 24), (19, 17), (13, 70), (200, 120)]
    random = np.random.default_rng(3)
    return [Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in shapes]


# ---- Python: run on real files -------------------------------------------------------------------------------------


def test_the_python_lines_are_a_program_that_answers_as_edgeopt_does(made: dict[str, Path], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["card", str(made["onnx"]), "--lang", "python"])
    assert done.exit_code == 0, done.output
    (tmp_path / "feed.py").write_text(done.stdout)
    save_odd_image(tmp_path / "image.png")
    command = [sys.executable, tmp_path / "feed.py", tmp_path / "image.png"]
    said = subprocess.run(command, cwd=made["onnx"].parent, capture_output=True, text=True, check=True, timeout=120)
    expected = [f"{share:.3f} {label}" for label, share in answers("onnx", made["onnx"], tmp_path / "image.png")]
    assert said.stdout.splitlines() == expected


def test_the_python_lines_open_a_pte(made: dict[str, Path], tmp_path: Path) -> None:
    """In this process, because ExecuTorch takes long to import."""
    path = made["executorch"]
    lines: dict[str, Any] = {"__name__": "lines"}
    exec(feeding_lines(card_of(path), "python", path.name), lines)
    save_odd_image(tmp_path / "image.png")
    output = lines["open_file"](str(path))(lines["model_input"](lines["pixels"](tmp_path / "image.png")))
    expected = answers("executorch", path, tmp_path / "image.png")
    assert [label for label, _ in lines["likeliest"](output)] == [label for label, _ in expected]
    assert [share for _, share in lines["likeliest"](output)] == pytest.approx(
        [share for _, share in expected], abs=1e-6
    )


def save_odd_image(path: Path) -> None:
    next(each for name, each in odd_images(20, seed=1) if "RGBA" in name).save(path)


def answers(use: str, file: Path, image: Path) -> list[tuple[str, float]]:
    """Classes and shares that edgeopt's own code gives, the likeliest first."""
    card = card_of(file)
    preprocessing = Preprocessing.from_json(card.preprocessing)
    assert card.input
    batch = feeder(card.input.holds, preprocessing)(preprocessing.pixels(Image.open(image)).copy()[None])
    with load_registry().get(ExporterPlugin, use).opened(file, 1) as predictor:
        shares = softmax(predictor.predict(batch)[0])[0]
    return [(card.classes[place], float(shares[place])) for place in np.argsort(-shares, kind="stable")]


@pytest.mark.parametrize("name", CARDS)
def test_the_python_lines_feed_as_the_card_says(name: str) -> None:
    lines: dict[str, Any] = {"__name__": "lines"}
    exec(feeding_lines(CARDS[name], "python", "model.tflite"), lines)
    for image in ordinary():
        image.save(file := io.BytesIO(), "PNG")
        fed = lines["model_input"](lines["pixels"](file))
        assert fed.tobytes() == expected_input(CARDS[name], image)
    dtype = CARDS[name].outputs[0].dtype
    guesses = lines["likeliest"](ANSWER.astype(dtype)[None])
    require_guesses([label for label, _ in guesses], [share for _, share in guesses], CARDS[name])


# ---- C++ and Kotlin: compiled and run; Kotlin in test_android.py, which starts the compiler once --------------------

CPP_HEADERS = """
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <numeric>
#include <string>
#include <utility>
#include <vector>
"""
CPP_CASE = """
void run_NAME(char** given) {
    std::ifstream file(given[2], std::ios::binary);
    std::vector<std::uint8_t> rgb((std::istreambuf_iterator<char>(file)), {});
    const auto input = NAME::model_input(NAME::pixels(rgb.data(), std::stoi(given[3]), std::stoi(given[4])));
    std::ofstream(given[5], std::ios::binary).write(reinterpret_cast<const char*>(input.data()), input.size() * sizeof(input[0]));
    const OUTPUT answer[] = {3, 100, 101, 7};
    for (const auto& [label, share] : NAME::likeliest(answer)) std::printf("%s\\t%.9f\\n", label.c_str(), share);
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
def test_the_cpp_lines_feed_as_the_card_says(tmp_path: Path) -> None:
    """All cards in one program, each in a namespace of its own, so that the compiler works once."""
    text, cases = CPP_HEADERS, ""
    for name, card in CARDS.items():
        output = {"float32": "float", "int8": "std::int8_t", "uint8": "std::uint8_t"}[card.outputs[0].dtype]
        text += f"namespace {name} {{\n{feeding_lines(card, 'cpp', 'model.tflite')}}}\n"
        text += CPP_CASE.replace("NAME", name).replace("OUTPUT", output)
        cases += f'    if (given[1] == std::string("{name}")) run_{name}(given);\n'
    source = tmp_path / "feed.cpp"
    source.write_text(f"{text}int main(int, char** given) {{\n{cases}}}\n")
    command = ["g++", "-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", source, "-o", tmp_path / "feed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    for name, card in CARDS.items():
        for image in ordinary():
            (tmp_path / "rgb").write_bytes(image.tobytes())
            arguments = [name, tmp_path / "rgb", str(image.width), str(image.height), tmp_path / "input"]
            said = subprocess.run(
                [tmp_path / "feed", *arguments], capture_output=True, text=True, check=True, timeout=60
            )
            assert (tmp_path / "input").read_bytes() == expected_input(card, image)
            rows = [line.split("\t") for line in said.stdout.splitlines()]
            require_guesses([label for label, _ in rows], [float(share) for _, share in rows], card)


KOTLIN_MAIN = """
fun main(given: Array<String>) {
    val input = modelInput(pixels(java.io.File(given[0]).readBytes(), given[1].toInt(), given[2].toInt()))
    java.io.File(given[3]).writeBytes(ByteArray(input.remaining()).also { input.get(it) })
    val answer = ByteBuffer.allocate(16).order(ByteOrder.nativeOrder())
    for (value in listOf(3, 100, 101, 7)) ANSWER
    answer.rewind()
    for ((label, share) in likeliest(answer)) println(label + "\\t" + share)
}
"""


def kotlin_sources(folder: Path) -> Iterator[Path]:
    """The Kotlin lines of each card with a program around them, in a package of its own."""
    for name, card in CARDS.items():
        put = "answer.putFloat(value.toFloat())" if card.outputs[0].dtype == "float32" else "answer.put(value.toByte())"
        text = feeding_lines(card, "kotlin", "model.tflite") + KOTLIN_MAIN.replace("ANSWER", put)
        (folder / f"{name}.kt").write_text(f"package {name}\n{text}")
        yield folder / f"{name}.kt"


def require_kotlin_lines_feed(classes: Path, tmp_path: Path) -> None:
    """The compiled lines give the input tensors and answers of edgeopt."""
    for name, card in CARDS.items():
        for image in (ordinary()[0], ordinary()[-1]):
            (tmp_path / "rgb").write_bytes(image.tobytes())
            arguments = (tmp_path / "rgb", image.width, image.height, tmp_path / "input")
            said = Harness.run(classes, f"{name}.{name.capitalize()}Kt", *arguments)
            assert (tmp_path / "input").read_bytes() == expected_input(card, image)
            rows = [line.split("\t") for line in said.splitlines()]
            require_guesses([label for label, _ in rows], [float(share) for _, share in rows], card)


def require_guesses(labels: list[str], shares: list[float], card: Card) -> None:
    expected = expected_shares(card)
    order = np.argsort(-expected, kind="stable")
    assert labels == [NAMES[place] for place in order]
    assert shares == pytest.approx(expected[order], abs=1e-6)


# ---- Swift, which nothing here compiles ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CARDS)
def test_the_swift_lines_are_whole(name: str) -> None:
    """Brackets close, and every number of the card is there."""
    text = feeding_lines(CARDS[name], "swift", "model.tflite")
    for opening, closing in ("()", "[]", "{}"):
        assert text.count(opening) == text.count(closing)
    scale, offset = Preprocessing.from_json(CARDS[name].preprocessing).scale_and_offset()
    if CARDS[name].input.holds != "pixels":  # type: ignore[union-attr]
        for value in (*scale, *offset):
            assert f"{np.float32(value):#.9g}" in text
    assert ("Int(" in text) and ("func likeliest" in text) and '"say \\"käse\\""' in text


# ---- the command ---------------------------------------------------------------------------------------------------


def test_without_a_language_the_card_itself_is_printed(made: dict[str, Path]) -> None:
    done = CliRunner().invoke(app, ["card", str(made["onnx"])])
    assert json.loads(done.stdout) == json.loads(made["onnx"].with_name("card.json").read_text())
    beside = CliRunner().invoke(app, ["card", str(made["onnx"].with_name("card.json")), "--lang", "swift"])
    assert beside.exit_code == 0
    assert "func modelInput" in beside.stdout


@pytest.mark.parametrize("language", LANGUAGES)
def test_types_that_the_lines_do_not_know_are_refused(language: str) -> None:
    with pytest.raises(UserError, match="the input of the file is float16"):
        feeding_lines(replace(INT8, input=replace(INT8.input, dtype="float16")), language, "x")  # type: ignore[type-var]
    with pytest.raises(UserError, match="does not say what the output of the file is"):
        feeding_lines(replace(INT8, outputs=()), language, "x")


def test_what_cannot_be_printed_is_said(made: dict[str, Path], tmp_path: Path) -> None:
    for arguments, message in (
        ([str(made["onnx"]), "--lang", "pyton"], "did you mean 'python'?"),
        ([str(tmp_path / "gone.onnx")], "is not there"),
        ([str(tmp_path)], "has no card"),
    ):
        done = CliRunner().invoke(app, ["card", *arguments])
        assert done.exit_code == 2
        assert message in " ".join(done.output.split())
