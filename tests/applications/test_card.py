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
from task_cards import SIZES, TASK_CARDS, expected, registry, returned
from typer.testing import CliRunner

from edgeopt.applications.snippets import LANGUAGES, feeding_lines
from edgeopt.cards.card import Card, TensorInfo
from edgeopt.cards.reading import card_of
from edgeopt.cli import app
from edgeopt.errors import UserError
from edgeopt.measure.answers import feeder
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.preprocessing import Preprocessing
from edgeopt.tasks.parts.classes import softmax
from edgeopt_detection.parts import box_decoder

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
INT16 = replace(
    INT8,
    precision="16x8",
    input=TensorInfo("input", "int16", (1, 24, 24, 3), "NHWC", 7.3e-05, 0),
    outputs=(TensorInfo("logits", "int16", (1, 4), "NC", 0.0005, 0),),
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
    "int16": INT16,
    "pixels": PIXELS,
    "planes": PLANES,
    "letterbox": LETTERBOX,
    "wide": WIDE,
    "stretch": STRETCH,
}
ALL = {**CARDS, **TASK_CARDS}
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
        limits = np.iinfo(info.dtype)
        values = values.clip(limits.min, limits.max).astype(info.dtype)
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
    exec(feeding_lines(card_of(path), "python", path.name, registry()), lines)
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
    with registry().get(ExporterPlugin, use).opened(file, 1) as predictor:
        shares = softmax(predictor.predict(batch)[0])[0]
    return [(card.classes[place], float(shares[place])) for place in np.argsort(-shares, kind="stable")]


@pytest.mark.parametrize("name", CARDS)
def test_the_python_lines_feed_as_the_card_says(name: str) -> None:
    lines: dict[str, Any] = {"__name__": "lines"}
    exec(feeding_lines(CARDS[name], "python", "model.tflite", registry()), lines)
    for image in ordinary():
        image.save(file := io.BytesIO(), "PNG")
        fed = lines["model_input"](lines["pixels"](file))
        assert fed.tobytes() == expected_input(CARDS[name], image)
    dtype = CARDS[name].outputs[0].dtype
    guesses = lines["likeliest"]([ANSWER.astype(dtype)[None]])
    require_guesses([label for label, _ in guesses], [share for _, share in guesses], CARDS[name])


@pytest.mark.parametrize("name", TASK_CARDS)
def test_the_python_lines_answer_as_the_task_does(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where edgeopt is not: the decoder of boxes is a file that lies beside them."""
    monkeypatch.setitem(sys.modules, "box_decoder", box_decoder)
    monkeypatch.chdir(tmp_path)
    card, lines = TASK_CARDS[name], {"__name__": "lines"}
    exec(feeding_lines(card, "python", "model.tflite", registry()), lines)
    for seed, (width, height) in enumerate(SIZES):
        arrays = returned(card, seed)
        wanted = expected(card, arrays, width, height)
        Image.new("RGB", (width, height)).save(tmp_path / "image.png")
        lines["show"](list(arrays), tmp_path / "image.png")  # type: ignore[operator]
        said = capsys.readouterr().out.splitlines()
        if wanted.mask is not None:
            assert np.array_equal(np.asarray(Image.open("mask.png")), wanted.mask)
            assert len(said) == len(np.unique(wanted.mask[wanted.mask != 255]))
        elif wanted.objects:
            objects = lines["boxes"](list(arrays), width, height)  # type: ignore[operator]
            assert [(label, score, tuple(sides)) for label, score, sides in objects] == list(wanted.objects)
            assert [line.split()[0] for line in said] == [f"{score:.3f}" for _, score, _ in wanted.objects]
        else:
            assert said == [f"{share:.3f} {label}" for label, share in wanted.guesses]


# ---- C++ and Kotlin: compiled and run; Kotlin in test_android.py, which starts the compiler once --------------------

CPP_HEADERS = """
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>
#include <string>
#include <utility>
#include <vector>
"""
CPP_READ = """
template <typename T> std::vector<T> read(const std::vector<char>& bytes, std::size_t count, std::size_t& at) {
    std::vector<T> values(count);
    std::memcpy(values.data(), bytes.data() + at, count * sizeof(T));
    at += count * sizeof(T);
    return values;
}
"""
CPP_CASE = """
void run_NAME(char** given) {
    std::ifstream file(given[2], std::ios::binary), answers(given[6], std::ios::binary);
    std::vector<std::uint8_t> rgb((std::istreambuf_iterator<char>(file)), {});
    std::vector<char> bytes((std::istreambuf_iterator<char>(answers)), {});
    const int width = std::stoi(given[3]), height = std::stoi(given[4]);
    const auto input = NAME::model_input(NAME::pixels(rgb.data(), width, height));
    std::ofstream(given[5], std::ios::binary).write(reinterpret_cast<const char*>(input.data()), input.size() * sizeof(input[0]));
    std::size_t at = 0;
    READS
    std::printf("%d %d\\n", width, height);
    ANSWER
}
"""
CPP_ANSWERS = {
    "classification": 'for (const auto& [label, share] : NAME::likeliest(GIVEN)) std::printf("%s\\t%.17g\\n", label.c_str(), share);',
    "multi-label": 'for (const auto& [label, share] : NAME::labels(GIVEN)) std::printf("%s\\t%.17g\\n", label.c_str(), share);',
    "segmentation": 'for (int each : NAME::mask(GIVEN, width, height)) std::printf("%d\\n", each);',
    "detection": "for (const auto& [label, score, sides] : NAME::found_boxes(GIVEN, width, height)) "
    'std::printf("%s\\t%.9g\\t%.17g\\t%.17g\\t%.17g\\t%.17g\\n", label.c_str(), score, sides[0], sides[1], sides[2], sides[3]);',
}
CPP_TYPES = {
    "float32": "float",
    "int8": "std::int8_t",
    "uint8": "std::uint8_t",
    "int16": "std::int16_t",
    "int64": "std::int64_t",
}


def cpp_case(name: str, card: Card) -> str:
    """A function that feeds an image to the lines of a card, and a file's answer."""
    reads, given = [], []
    for place, info in enumerate(card.outputs):
        count = int(np.prod([int(side) for side in info.shape[1:]]))
        reads.append(f"const auto output_{place} = read<{CPP_TYPES[info.dtype]}>(bytes, {count}, at);")
        given.append(f"output_{place}.data()")
    text = CPP_CASE.replace("READS", " ".join(reads)).replace("ANSWER", CPP_ANSWERS[card.task])
    return text.replace("GIVEN", ", ".join(given)).replace("NAME", name)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
def test_the_cpp_lines_feed_and_answer_as_the_card_says(tmp_path: Path) -> None:
    """All cards in one program, each in a namespace of its own, so that the compiler works once."""
    text, cases = CPP_HEADERS + CPP_READ, ""
    for name, card in ALL.items():
        lines = feeding_lines(card, "cpp", "model.tflite", registry())
        text += f"namespace {name} {{\n{lines}}}\n{cpp_case(name, card)}"
        cases += f'    if (given[1] == std::string("{name}")) run_{name}(given);\n'
    source = tmp_path / "feed.cpp"
    source.write_text(f"{text}int main(int, char** given) {{\n{cases}}}\n")
    command = ["g++", "-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", source, "-o", tmp_path / "feed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    for name, card in ALL.items():
        for seed, image in enumerate(ordinary() if name in CARDS else ordinary()[:2]):
            (tmp_path / "rgb").write_bytes(image.tobytes())
            arrays = write_answer(tmp_path / "answer", card, seed)
            arguments = [name, tmp_path / "rgb", str(image.width), str(image.height), tmp_path / "input"]
            said = subprocess.run(
                [tmp_path / "feed", *arguments, tmp_path / "answer"], capture_output=True, check=True, timeout=60
            )
            assert (tmp_path / "input").read_bytes() == expected_input(card, image)
            require_answer(said.stdout.decode().splitlines()[1:], card, arrays, image.size)


def write_answer(path: Path, card: Card, seed: int) -> tuple[np.ndarray, ...]:
    """Writes what a file of the card might return, and returns it."""
    fixed = (ANSWER.astype(card.outputs[0].dtype)[None],)
    arrays = fixed if card.task == "classification" else returned(card, seed)
    path.write_bytes(b"".join(array.tobytes() for array in arrays))
    return arrays


def require_answer(rows: list[str], card: Card, arrays: tuple[np.ndarray, ...], size: tuple[int, int]) -> None:
    """What lines print for a file's answer is what the card's task makes of it."""
    wanted = expected(card, arrays, *size)
    parts = [row.split("\t") for row in rows]
    if wanted.mask is not None:
        assert list(map(int, rows)) == wanted.mask.reshape(-1).tolist()
    elif card.task == "detection":
        objects = [(label, np.float32(score), tuple(map(float, sides))) for label, score, *sides in parts]
        assert objects == [(label, np.float32(score), sides) for label, score, sides in wanted.objects]
    else:
        assert [label for label, _ in parts] == [label for label, _ in wanted.guesses]
        assert [float(share) for _, share in parts] == pytest.approx([share for _, share in wanted.guesses], abs=1e-6)


KOTLIN_CASE = """
fun run(given: List<String>) {
    val (width, height) = given[1].toInt() to given[2].toInt()
    val input = modelInput(pixels(java.io.File(given[0]).readBytes(), width, height))
    java.io.File(given[3]).writeBytes(ByteArray(input.remaining()).also { input.get(it) })
    val answer = ByteBuffer.wrap(java.io.File(given[4]).readBytes()).order(ByteOrder.nativeOrder())
    ANSWER
}
"""
KOTLIN_ANSWERS = {
    "classification": 'for ((label, share) in likeliest(answer)) println(label + "\\t" + share)',
    "multi-label": 'for ((label, share) in labels(answer)) println(label + "\\t" + share)',
    "segmentation": "println(mask(answer, width, height).joinToString(System.lineSeparator()))",
    "detection": "for (found in boxes(GIVEN, width, height)) "
    'println(found.label + "\\t" + found.score + "\\t" + found.sides.joinToString("\\t"))',
}


def kotlin_sources(folder: Path) -> Iterator[Path]:
    """The Kotlin lines of each card with a program around them, in a package of its own, and one that runs them all."""
    cases = []
    for name, card in ALL.items():
        answer = KOTLIN_ANSWERS[card.task].replace("GIVEN", ", ".join(["answer"] * len(card.outputs)))
        lines = feeding_lines(card, "kotlin", "model.tflite", registry())
        (folder / f"{name}.kt").write_text(f"package {name}\n{lines}{KOTLIN_CASE.replace('ANSWER', answer)}")
        cases.append(f'            "{name}" -> {name}.run(job.drop(1))\n')
        yield folder / f"{name}.kt"
    (folder / "Lines.kt").write_text(
        "package lines\n\nfun main(given: Array<String>) {\n    for (line in java.io.File(given[0]).readLines()) {\n"
        f'        val job = line.split("\\t")\n        when (job[0]) {{\n{"".join(cases)}        }}\n'
        '        println("end")\n    }\n}\n'
    )
    yield folder / "Lines.kt"


def require_kotlin_lines_feed(classes: Path, tmp_path: Path) -> None:
    """The compiled lines give the input tensors and answers of edgeopt."""
    jobs, cases = [], []
    for name, card in ALL.items():
        for seed, image in enumerate((ordinary()[0], ordinary()[-1])):
            rgb, tensor, answer = (tmp_path / f"{name}-{seed}.{kind}" for kind in ("rgb", "input", "answer"))
            rgb.write_bytes(image.tobytes())
            cases.append((card, image, tensor, write_answer(answer, card, seed)))
            jobs.append("\t".join(map(str, (name, rgb, image.width, image.height, tensor, answer))))
    (tmp_path / "jobs").write_text("\n".join(jobs))
    said = Harness.run(classes, "lines.LinesKt", tmp_path / "jobs").split("end\n")[:-1]
    for (card, image, tensor, arrays), rows in zip(cases, said, strict=True):
        assert tensor.read_bytes() == expected_input(card, image)
        require_answer(rows.splitlines(), card, arrays, image.size)


def require_guesses(labels: list[str], shares: list[float], card: Card) -> None:
    expected = expected_shares(card)
    order = np.argsort(-expected, kind="stable")
    assert labels == [NAMES[place] for place in order]
    assert shares == pytest.approx(expected[order], abs=1e-6)


# ---- Swift, which nothing here compiles ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_the_swift_lines_are_whole(name: str) -> None:
    """Brackets close, and every number of the card is there."""
    text = feeding_lines(ALL[name], "swift", "model.tflite", registry())
    for opening, closing in ("()", "[]", "{}"):
        assert text.count(opening) == text.count(closing)
    scale, offset = Preprocessing.from_json(ALL[name].preprocessing).scale_and_offset()
    if ALL[name].input.holds != "pixels":  # type: ignore[union-attr]
        for value in (*scale, *offset):
            assert f"{np.float32(value):#.9g}" in text
    told = {"classification": "likeliest", "multi-label": "labels", "segmentation": "mask", "detection": "onImage"}
    assert ("Int(" in text) and (f"func {told[ALL[name].task]}(" in text) and '"say \\"käse\\""' in text
    assert "{{" not in text and "{%" not in text


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
        feeding_lines(replace(INT8, input=replace(INT8.input, dtype="float16")), language, "x", registry())  # type: ignore[type-var]
    with pytest.raises(UserError, match="does not say what the output of the file is"):
        feeding_lines(replace(INT8, outputs=()), language, "x", registry())


def test_what_cannot_be_printed_is_said(made: dict[str, Path], tmp_path: Path) -> None:
    for arguments, message in (
        ([str(made["onnx"]), "--lang", "pyton"], "did you mean 'python'?"),
        ([str(tmp_path / "gone.onnx")], "is not there"),
        ([str(tmp_path)], "has no card"),
    ):
        done = CliRunner().invoke(app, ["card", *arguments])
        assert done.exit_code == 2
        assert message in " ".join(done.output.split())
