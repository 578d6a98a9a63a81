"""Each file of edgeopt against what its runtime's own toolchain makes of the same float model: latency and size, in one
run.

In no wheel is ncnn's tool: where `ncnn2int8` is not on the PATH, its files are compared with float alone. OpenVINO's
toolchain is NNCF (`pip install nncf==3.4.0`).

Random weights with real BatchNorm statistics, 224 px, 2 threads. The files of one runtime are opened in one process and
called in turns; a figure is the smallest of all its calls, which a busy machine disturbs least.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from bars import Bar, finish
from rich.console import Console
from rich.table import Table
from untrained import untrained

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODELS = ("mobilenet_v2", "mobilenet_v3_small", "resnet18")
RUNTIMES: Mapping[str, str] = {
    "onnx": ".onnx",
    "tflite": ".tflite",
    "openvino": ".xml",
    "executorch": ".pte",
    "ncnn": ".ncnn.param",
}
WEIGHTS_BESIDE = ("openvino", "ncnn")  # in a file that ends in .bin
AUTO = ("onnx", "tflite")  # the exporters that can leave operators in float
SIZE = 224
THREADS = 2
ROUNDS = 30
CALLS = 10
TOOLCHAIN_LIMIT = 1.05
SIZE_LIMIT = 1.03


def make(model: str, folder: Path, runtimes: Sequence[str]) -> None:
    """Writes the files of one model for `runtimes` into `folder`, that in int8 last."""
    import toolchains
    import torch

    from edgeopt.plugins.declarations import ExporterPlugin
    from edgeopt.plugins.registry import load_registry
    from edgeopt.recipe.lookup import resolve
    from edgeopt.testing.exporter import export_file
    from edgeopt_executorch.quantizer import build_xnnpack
    from edgeopt_ncnn.on_device import read_param
    from edgeopt_ncnn.quantizer import NcnnQuantizer

    torch.set_num_threads(2)
    registry = load_registry()
    images = _images()
    module = untrained(model, map(torch.from_numpy, _images(count=6, seed=1)))
    quantizers = {
        "xnnpack": build_xnnpack(per_channel=True, qat=False),
        "ncnn": NcnnQuantizer(qat=False, observer="histogram", all_layers=False),
    }
    numerics = {each: "ncnn" if each == "ncnn" else "xnnpack" for each in runtimes}
    by_numerics = {each: _states(module, images, quantizers[each]) for each in set(numerics.values())}

    def write(exporter: str, name: str, precision: str = "program") -> None:
        states = by_numerics[numerics[exporter]]
        use = resolve(ExporterPlugin, exporter, {"precision": precision}, registry)
        with tempfile.TemporaryDirectory() as aside:
            made, result = export_file(use, states["float" if name == "float" else "int8"], Path(aside))
            for file in (made.name, *result.companions):
                (folder / f"{name}{file.removeprefix('model')}").write_bytes(made.with_name(file).read_bytes())

    for exporter in runtimes:
        write(exporter, "float")
        toolchain = folder / f"toolchain{RUNTIMES[exporter]}"
        if exporter == "onnx":
            toolchains.onnx_static(folder / "float.onnx", images, toolchain)
        elif exporter == "tflite":
            toolchains.tflite_static(folder / "float.tflite", images, toolchain)
        elif exporter == "openvino":
            toolchains.openvino_static(folder / "float.xml", images, toolchain)
        elif exporter == "executorch":
            toolchains.xnnpack_plain(module, images, toolchain)
        else:  # its tool rounds all layers
            everything = _states(module, images, NcnnQuantizer(qat=False, observer="histogram", all_layers=True))
            toolchains.ncnn2int8(everything["int8"], read_param(folder / "float.ncnn.param").card_json, toolchain)
        if exporter in AUTO:
            write(exporter, "auto", "auto")
        write(exporter, "int8")


def race(exporter: str, folder: Path) -> dict[str, dict[str, float]]:
    """Milliseconds and bytes of the files of one runtime, called in turns."""
    from edgeopt.plugins.declarations import ExporterPlugin
    from edgeopt.plugins.registry import load_registry
    from edgeopt.recipe.lookup import resolve

    use = resolve(ExporterPlugin, exporter, {}, load_registry())
    files = sorted(folder.glob(f"*{RUNTIMES[exporter]}"))
    predict = {file.name.partition(".")[0]: use.plugin.open(file, THREADS).predict for file in files}
    batch = _images()[0][:1]
    best = dict.fromkeys(predict, float("inf"))
    for _ in range(ROUNDS):
        for name, call in predict.items():
            best[name] = min(best[name], *(_milliseconds(call, batch) for _ in range(CALLS)))
    size = {file.name.partition(".")[0]: _bytes(file, exporter) for file in files}
    return {name: {"ms": best[name], "bytes": size[name]} for name in predict}


def _bytes(file: Path, exporter: str) -> int:
    """With those of its weights where they are beside it."""
    parts = [file, file.with_suffix(".bin")] if exporter in WEIGHTS_BESIDE else [file]
    return sum(part.stat().st_size for part in parts)


def _milliseconds(call: Callable[[NDArray[np.float32]], object], batch: NDArray[np.float32]) -> float:
    start = time.perf_counter()
    call(batch)
    return (time.perf_counter() - start) * 1e3


def _images(count: int = 4, seed: int = 0) -> list[NDArray[np.float32]]:
    """Batches of four, smooth as photographs are: float32 (4, 3, 224, 224)."""
    random = np.random.default_rng(seed)
    coarse = random.standard_normal((count, 4, 3, SIZE // 16, SIZE // 16)).astype(np.float32)
    noise = random.standard_normal((count, 4, 3, SIZE, SIZE)).astype(np.float32)
    return list(np.repeat(np.repeat(coarse, 16, axis=3), 16, axis=4) + 0.3 * noise)


def _states(module, images: list[NDArray[np.float32]], quantizer):
    """The float program and the one that `ptq` makes of it for a target, as model states."""
    import torch

    from edgeopt.networks.capture import capture
    from edgeopt.preprocessing import Preprocessing
    from edgeopt.tasks import TASKS
    from edgeopt.types import Form, ModelState
    from edgeopt_torchao.quantize.convert import OPERATORS, convert
    from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq

    example = torch.from_numpy(images[0][:2])
    program = capture(module, example, (1, 64))
    prepared = prepare_ptq(program, quantizer)
    calibrate(prepared, [torch.from_numpy(each) for each in images])
    quantized = capture(convert(prepared), example, (1, 64))
    classes = tuple(str(index) for index in range(1000))
    preprocessing = Preprocessing(SIZE, resize=SIZE, crop=SIZE)
    task = TASKS["classification"]
    return {
        "float": ModelState(program, Form.PROGRAM, task, classes, preprocessing),
        "int8": ModelState(quantized, Form.PROGRAM, task, classes, preprocessing, precision="int8", imports=OPERATORS),
    }


def _run(*arguments: str) -> str:
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Makes all files, races them and judges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", nargs="?", choices=("make", "race"), help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="keep the files here, and take those that are there already")
    parser.add_argument("--models", nargs="+", default=MODELS, help="models of torchvision")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=tuple(RUNTIMES), help="only these")
    given = parser.parse_args()
    if given.step == "make":
        return make(given.arguments[0], Path(given.arguments[1]), given.arguments[2:])
    if given.step == "race":
        print(json.dumps(race(given.arguments[0], Path(given.arguments[1]))))
        return None
    with tempfile.TemporaryDirectory() as temporary:
        bars = _compare(given.models, given.runtimes, given.folder or Path(temporary))
    return finish(*bars)


def _compare(models: Sequence[str], runtimes: Sequence[str], root: Path) -> list[Bar]:
    table = Table("model", "runtime", "file", "ms", "against float", "against toolchain", "bytes", "against toolchain")
    bars = []
    for model in models:
        folder = root / model
        folder.mkdir(parents=True, exist_ok=True)
        missing = [each for each in runtimes if not (folder / f"int8{RUNTIMES[each]}").exists()]
        if missing:
            _run("make", model, str(folder), *missing)
    for model in models:
        for exporter in runtimes:
            files = json.loads(_run("race", exporter, str(root / model)).splitlines()[-1])
            ms = {name: each["ms"] for name, each in files.items()}
            size = {name: each["bytes"] for name, each in files.items()}
            has_toolchain = "toolchain" in files
            for name in files:
                table.add_row(
                    model,
                    exporter,
                    name,
                    f"{ms[name]:.2f}",
                    f"{ms[name] / ms['float']:.2f}",
                    f"{ms[name] / ms['toolchain']:.2f}" if has_toolchain else "–",
                    str(size[name]),
                    f"{size[name] / size['toolchain']:.3f}" if has_toolchain else "–",
                )
            shipped = min(("int8", "auto"), key=lambda name: ms.get(name, float("inf")))
            bars.append(Bar(f"{exporter} {model} against float", ms[shipped] / ms["float"], 1.0))
            if not has_toolchain:
                print(f"{exporter} {model}: its toolchain's own tool is not here")
                continue
            bars += [
                Bar(f"{exporter} {model} against its toolchain", ms[shipped] / ms["toolchain"], TOOLCHAIN_LIMIT),
                Bar(f"{exporter} {model} size against its toolchain", size["int8"] / size["toolchain"], SIZE_LIMIT),
            ]
    Console(width=140).print(table)
    return bars


if __name__ == "__main__":
    main()
