"""Runs files on this machine and under emulated ARM64, and compares what they answer: `python tests/arm64`.

Without `--files`, networks are exported for it. Exits 1 when a file answers differently, 2 when there is no answer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from board import bench_on_board, report
from prepare import PreparationError, call, prepare, with_progress

from edgeopt.preprocessing import Preprocessing
from edgeopt.types import TensorInfo
from edgeopt_onnx.fusion import fused

HERE = Path(__file__).parent
NETWORKS = HERE / "networks.py"
SUFFIXES = (".onnx", ".tflite", ".param")
IMAGES = 6

FLOAT32_TOLERANCE = 1e-5  # of the logits' range
#: For kernels that round differently on the two architectures, of the logits' range: a few steps of an int8 output.
ROUNDING_TOLERANCE = 0.05
WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Comparison:
    """How far ARM64's answers are from x86's, as a share of the logits' range, and how far they may be."""

    different: int
    logits: int
    difference: float
    tolerance: float
    why: str

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance  # False for NaN as well


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path("build/arm64"), help="folder for downloads and exports")
    parser.add_argument(
        "--files", type=Path, nargs="+", default=[], help="folders with models and a card.json beside each"
    )
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        emulated = prepare(arguments.cache.resolve())
        files = find_files(arguments.files) if arguments.files else export_files(arguments.cache.resolve() / "files")
        with tempfile.TemporaryDirectory() as work:
            inputs = [write_inputs(file, Path(work) / f"{index}.npy") for index, file in enumerate(files)]
            with_progress(f"running {len(files)} files on both architectures")
            references = [reference(file) for file in files]
            jobs = [write_job(each, inputs, Path(work), name) for each, name in ((references, "x86"), (files, "arm64"))]
            call((sys.executable, str(HERE / "answers.py"), str(jobs[0])))
            emulated.run(str(HERE / "answers.py"), str(jobs[1]))
            answers = [[np.load(each["answers"]) for each in json.loads(job.read_text())] for job in jobs]
    except PreparationError as error:
        print(f"test-arm64: {error}", file=sys.stderr)
        return 2
    comparisons = [compare(*each) for each in zip(references, *answers, strict=True)]
    width = max(len(str(short(file))) for file in files)
    for file, result in zip(files, comparisons, strict=True):
        print(
            f"{'ok  ' if result.passed else 'FAIL'} {short(file)!s:{width}}  {card(file)['precision']:8}  "
            f"{result.different} of {result.logits} logits differ, by {result.difference:.2g} of their range; "
            f"allowed {result.tolerance:g}: {result.why}"
        )
    print(f"{sum(each.passed for each in comparisons)} of {len(files)} passed in {time.monotonic() - started:.0f} s")
    passed = all(each.passed for each in comparisons)
    if not arguments.files:
        try:
            passed = report(bench_on_board(emulated, arguments.cache.resolve())) and passed
        except PreparationError as error:
            print(f"test-arm64: {error}", file=sys.stderr)
            return 2
    return 0 if passed else 1


def find_files(folders: list[Path]) -> list[Path]:
    """The models in folders such as `runs/<name>`.

    Raises `PreparationError` when there are none.
    """
    files = sorted(
        path
        for folder in folders
        for path in folder.resolve().rglob("model.*")
        if path.suffix in SUFFIXES and (path.parent / "card.json").is_file()
    )
    if not files:
        raise PreparationError(
            f"no model of {', '.join(SUFFIXES)} with a card.json beside it in {', '.join(map(str, folders))}"
        )
    return files


def export_files(folder: Path) -> list[Path]:
    """Exports the test networks anew, each in a process of its own."""
    with_progress("exporting")
    shutil.rmtree(folder, ignore_errors=True)
    one_thread = {"OMP_NUM_THREADS": "1"}  # two processes that each took all processors would wait for one another

    def export(name: str) -> None:
        call((sys.executable, str(NETWORKS), name, str(folder)), one_thread)

    with ThreadPoolExecutor() as side_by_side:
        list(side_by_side.map(export, ("residual", "mobile")))
    return find_files([folder])


def reference(file: Path) -> Path:
    """The file whose answers on x86 are expected: itself, or for one with ARM's activation type its twin with x86's."""
    twin = file.parents[2] / "onnx" / file.parent.name / file.name
    return twin if file.parents[1].name == "onnx-arm" and twin.exists() else file


def write_inputs(file: Path, path: Path) -> Path:
    """Writes images of coloured blocks as a file takes them."""
    preprocessing = Preprocessing.from_json(card(file)["preprocessing"])
    size = preprocessing.image_size
    blocks = np.random.default_rng(0).integers(0, 256, (IMAGES, -(-size // 8), -(-size // 8), 3), dtype=np.uint8)
    pixels = blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :size, :size]
    np.save(path, as_taken(pixels, preprocessing, TensorInfo(**card(file)["input"])))
    return path


def as_taken(pixels: Any, preprocessing: Preprocessing, info: TensorInfo) -> Any:
    """Pixels (n, size, size, 3) in the type and layout of an input."""
    if info.holds == "pixels":
        return pixels
    values = preprocessing.normalize(pixels)
    if info.scale is not None and info.zero_point is not None:
        limits = np.iinfo(info.dtype)
        values = np.clip(np.rint(values / np.float32(info.scale)) + info.zero_point, limits.min, limits.max)
    if info.layout == "NHWC":
        values = values.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(values, dtype=info.dtype)


def write_job(files: list[Path], inputs: list[Path], work: Path, name: str) -> Path:
    """Writes the job of one architecture for `answers.py`."""
    job = work / f"{name}.json"
    answers = [str(work / f"{name}-{index}.npy") for index in range(len(files))]
    job.write_text(
        json.dumps(
            [
                {"file": str(file), "inputs": str(given), "answers": answer}
                for file, given, answer in zip(files, inputs, answers, strict=True)
            ]
        )
    )
    return job


def compare(expected: Path, x86: Any, arm64: Any) -> Comparison:
    """Compares the answers, (n, classes), of the file `expected` on x86 and those on ARM64."""
    tolerance, why = allowed(expected)
    x86, arm64 = x86.astype(np.float64), arm64.astype(np.float64)
    difference = float(np.abs(arm64 - x86).max() / np.ptp(x86))  # a network that always answers the same is NaN: failed
    return Comparison(int((x86 != arm64).sum()), x86.size, difference, tolerance, why)


def allowed(file: Path) -> tuple[float, str]:
    """How far the answers may be apart, as a share of their range, and why."""
    precision = card(file)["precision"]
    if precision == "float32":
        return FLOAT32_TOLERANCE, "floats are added in another order"
    if precision != "int8":
        return ROUNDING_TOLERANCE, f"{precision} is rounded at run time"
    if file.suffix == ".param":
        return ROUNDING_TOLERANCE, "ncnn computes in float between its layers in int8"
    if file.suffix == ".onnx":
        fusion = fused(file)
        weighted = [node.name for node in onnx.load(file).graph.node if node.op_type in WEIGHTED]
        if left := fusion.left(weighted):
            return ROUNDING_TOLERANCE, f"{len(left)} layers are float"
        if "QLinearAdd" in fusion.operators:
            return ROUNDING_TOLERANCE, "QLinearAdd rounds in fixed point on ARM64"
    return 0.0, "integers"


def card(file: Path) -> dict[str, Any]:
    """The card beside a file."""
    values: dict[str, Any] = json.loads((file.parent / "card.json").read_text())
    return values


def short(file: Path) -> Path:
    """The end of a path that tells a run's files apart."""
    return Path(*file.parts[-4:])


if __name__ == "__main__":
    sys.exit(main())
