"""Builds a Cortex-M image around files for microcontrollers, runs it in QEMU, and compares what it answers with Python:
`python tests/mcu --source TFLITE-MICRO`.

Without `--files`, a recipe makes one. Exits 1 when an image answers otherwise, 2 when there is no answer.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np

import edgeopt
from edgeopt.cards.card import Card
from edgeopt.cards.reading import card_of
from edgeopt.data.images import read_pixels
from edgeopt.preprocessing import Preprocessing
from edgeopt_images.digits import read_digits
from edgeopt_tflite.graph import Graph
from edgeopt_tflm.interpreter import MicroFile
from edgeopt_tflm.predictor import quantized

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "recipes" / "person_detect_mcu_digits.toml"
IMAGES = 50
BOARD = "mps2-an385"  # a Cortex-M3; `board.ld` has its memory
#: What must be there, and the Debian package that has it.
NEEDED = {
    "arm-none-eabi-g++": "gcc-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "flatc": "flatbuffers-compiler",
    "make": "make",
    "/usr/include/flatbuffers/flatbuffers.h": "libflatbuffers-dev",
    "/usr/include/gemmlowp/fixedpoint/fixedpoint.h": "libgemmlowp-dev",
    "/usr/include/newlib/stdio.h": "libnewlib-arm-none-eabi",
    "/usr/include/newlib/c++": "libstdc++-arm-none-eabi-newlib",
}
_PATIENCE_S = 900


class UnpreparedError(Exception):
    """Why there is no answer."""


@dataclass(frozen=True)
class Answered:
    """What an image answered, int8 (n, values), and the bytes of its arena's two ends and of its flash."""

    values: Any
    head: int
    tail: int
    flash: int


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--source", type=Path, help="a clone of github.com/tensorflow/tflite-micro")
    parser.add_argument("--files", type=Path, nargs="+", default=[], help="folders with model.tflite, .h and .cc")
    parser.add_argument("--cache", type=Path, default=Path("build/mcu"), help="folder for the run and what is compiled")
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    try:
        require(arguments.source)
        folders = [each.resolve() for each in arguments.files] or [make_file(cache / "runs")]
        passed = [check(folder, arguments.source.resolve(), cache) for folder in folders]
    except UnpreparedError as error:
        print(f"test-mcu: {error}", file=sys.stderr)
        return 2
    print(f"{sum(passed)} of {len(passed)} passed")
    return 0 if all(passed) else 1


def require(source: Path | None) -> None:
    """Raises `UnpreparedError` for what is missing, all at once."""
    there = [name for name in NEEDED if (Path(name).exists() if name.startswith("/") else shutil.which(name))]
    missing = [package for name, package in NEEDED.items() if name not in there]
    said = [f"apt-get install --no-install-recommends {' '.join(missing)}"] if missing else []
    if source is None or not (source / "tensorflow/lite/micro/micro_interpreter.h").is_file():
        built = re.search(r"commit\s+\[(\w+)\]", distribution("tflite-micro").read_text("METADATA") or "")
        of = f"; the interpreter here is of commit {built[1]}" if built else ""
        said.append(f"TFLM_SOURCE must be a clone of github.com/tensorflow/tflite-micro{of}")
    if said:
        raise UnpreparedError("\n          ".join(said))


def make_file(out: Path) -> Path:
    """The folder of an int8 file that a recipe makes; a minute or two, and a second where it is there."""
    result = edgeopt.run(RECIPE, out=out)
    return (result.folder / next(row.file for row in result.report.rows if row.role == "optimized")).parent


def check(folder: Path, source: Path, cache: Path) -> bool:
    """Compares one file's answers, and prints what they are and what the image takes."""
    card = card_of(folder / "card.json")
    if card.footprint is None or card.input is None or card.input.dtype != "int8" or not (folder / "model.h").is_file():
        raise UnpreparedError(f"{folder} has no int8 file of the exporter tflm with its model.h")
    pixels = real_images(card)
    expected = python_answers(folder / "model.tflite", card, pixels)
    found = image_answers(folder, source, cache, pixels)
    differing = int((found.values != expected).sum()) if found.values.shape == expected.shape else expected.size
    various = len(np.unique(expected, axis=0))
    model = (folder / "model.tflite").stat().st_size
    head, tail = (card.footprint.ram_parts[name] for name in ("head", "tail"))
    fits = found.head == head and found.tail <= tail
    passed = not differing and various > 1 and fits
    print(f"{'ok  ' if passed else 'FAIL'} {folder}")
    print(
        f"  answers: {differing} of {expected.size} values of {len(expected)} images differ from Python's ({various} different answers)"
    )
    print(f"  arena:   {found.head + found.tail:,} bytes used, on the card {head + tail:,}")
    print(f"           activations {found.head:,}, on the card {head:,}: must be equal")
    print(
        f"           what the runtime keeps {found.tail:,}, on the card {tail:,}, by 64-bit pointers and with a recorder of allocations"
    )
    print(
        f"  flash:   {found.flash:,} bytes, of which {model:,} are the model and {found.flash - model:,} code, tables and the C library"
    )
    return passed


def real_images(card: Card) -> Any:
    """Handwritten digits as a file takes them, uint8 (n, height, width, channels)."""
    preprocessing = Preprocessing.from_json(card.preprocessing)
    digits = read_digits().splits["train"]
    indices = range(0, len(digits), len(digits) // IMAGES)[:IMAGES]
    return np.stack([read_pixels(digits, "digits", index, preprocessing) for index in indices])


def python_answers(file: Path, card: Card, pixels: Any) -> Any:
    """What the interpreter of the Python package answers, as the file has it: int8 (n, values)."""
    content = file.read_bytes()
    opened = MicroFile(content, Graph(content))
    assert card.input is not None
    inputs = quantized(Preprocessing.from_json(card.preprocessing).normalize(pixels), card.input)
    return np.stack([np.concatenate([each.ravel() for each in opened.run(one[None])]) for one in inputs])


def image_answers(folder: Path, source: Path, cache: Path, pixels: Any) -> Answered:
    """Builds the image around a file and runs it.

    Raises `UnpreparedError` where it cannot be built or does not end.
    """
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        image = work / "image.elf"
        variables = {"MODEL": folder, "TFLM_SOURCE": source, "OUT": cache, "IMAGE": image}
        make = ["make", "--silent", f"--jobs={os.cpu_count()}", "-C", str(HERE)]
        called(make + [f"{key}={value}" for key, value in variables.items()], work)
        (work / "images.bin").write_bytes(pixels.tobytes())
        semihosting = ["-semihosting-config", "enable=on,target=native"]
        said = called(["qemu-system-arm", "-M", BOARD, "-nographic", *semihosting, "-kernel", str(image)], work)
        told = dict(line.split() for line in said.splitlines() if len(line.split()) == 2)
        if told.get("images") != str(len(pixels)):
            raise UnpreparedError(f"the image ended early:\n{said}")
        values = np.frombuffer((work / "answers.bin").read_bytes(), np.int8).reshape(len(pixels), -1)
        sections = called(["arm-none-eabi-size", str(image)], work).splitlines()[1].split()
        return Answered(values, int(told["head"]), int(told["tail"]), int(sections[0]) + int(sections[1]))


def called(command: list[str], folder: Path) -> str:
    """What a program prints.

    Raises `UnpreparedError` where it fails or takes too long.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnpreparedError(f"{command[0]} did not end in {_PATIENCE_S} s") from error
    if done.returncode:
        raise UnpreparedError(f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
