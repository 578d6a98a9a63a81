"""Every classification model of torchvision, and timm's mobile ones, through `ptq` to ExecuTorch, ONNX Runtime and LiteRT.

Each model has random weights, BatchNorm statistics of its inputs, and a last layer that was fitted to the digits in closed form,
so that its answers mean something. Each step runs in a process of its own with a time limit. What was found is kept in
`docs/model_matrix.json`, so that a run goes on where the last one ended; `docs/model_matrix.md` is written from it.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from bars import Bar, finish

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


RESULTS = Path("docs/model_matrix.json")
PAGE = Path("docs/model_matrix.md")
RUNTIMES = {"executorch": "ExecuTorch", "onnx": "ONNX Runtime", "tflite": "LiteRT"}
TIMM = (
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small",
    "mobilenetv4_hybrid_medium",
    "efficientnet_lite0",
    "fbnetc_100",
    "ghostnetv2_100",
    "mobileone_s0",
    "fastvit_t8",
    "repvit_m0_9",
    "mobilevit_xxs",
    "edgenext_xx_small",
    "tinynet_e",
)
FIXED_SIZE = {"vit": 224, "maxvit": 224, "inception": 128, "mobilevit": 128, "fastvit": 128}  # px; others take 64
CLASSES = 10
TEST_PICTURES = 100
CALIBRATION_PICTURES = 32
AGREEMENT = 0.98
ROUNDS, CALLS = 5, 4


# ---- the steps, each in a process of its own --------------------------------------------------------------------------


def prepare(model: str, folder: Path) -> dict[str, object]:
    """Writes the float and the int8 state of a model, and what the int8 program answers."""
    import torch

    from edgeopt.plan import resolve
    from edgeopt.plugin import PassPlugin
    from edgeopt.program import program_logits, to_program
    from edgeopt.progress import Silent
    from edgeopt.registry import load_registry
    from edgeopt.states import save_state
    from edgeopt.testing import pass_context
    from edgeopt.types import Form, ModelState

    torch.set_num_threads(2)
    torch.manual_seed(0)
    size = image_size(model)
    data, labels = _data(size)
    module = _module(model, size)
    accuracy = _fit_last_layer(module, data, labels, size)
    from edgeopt.task import TASKS

    state = ModelState(module, Form.MODULE, TASKS["classification"], data.classes, data.preprocessing)
    quantize = resolve(PassPlugin, "ptq", {"batch_size": 8}, load_registry())
    programs = {
        "float": to_program(state, data.validation),
        "int8": quantize.plugin.apply(state, quantize.options, pass_context(folder, data)),
    }
    for name, program in programs.items():
        (folder / name).mkdir()
        save_state(program, folder / name)
    np.save(folder / "logits.npy", program_logits(programs["int8"], data.validation, Silent(), "program"))
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return {"accuracy": accuracy, "parameters": parameters, "image_size": size}


def try_runtime(model: str, exporter: str, folder: Path) -> dict[str, object]:
    """Exports both states, opens the files, compares answers and times both in turns."""
    import torch

    from edgeopt.evaluate import feeder, file_logits
    from edgeopt.plan import resolve
    from edgeopt.plugin import ExporterPlugin
    from edgeopt.progress import Silent
    from edgeopt.registry import load_registry
    from edgeopt.states import load_state
    from edgeopt.testing.exporter import export_file

    torch.set_num_threads(2)
    use = resolve(ExporterPlugin, exporter, {}, load_registry())
    data, _ = _data(image_size(model))
    files, results, seconds = {}, {}, {}
    for name in ("float", "int8"):
        start = time.perf_counter()
        (aside := folder / f"{name}-{exporter}").mkdir(exist_ok=True)
        files[name], results[name] = export_file(use, load_state(folder / name), aside)
        seconds[name] = time.perf_counter() - start
    opened = {name: use.plugin.open(file, 1) for name, file in files.items()}
    feed = feeder("values", data.preprocessing)
    logits = file_logits(opened["int8"], data.validation, feed, Silent(), "file")
    expected = np.load(folder / "logits.npy")
    batch = feed(data.validation.pixels(range(1)))
    best = dict.fromkeys(opened, float("inf"))
    for _ in range(ROUNDS):
        for name, predictor in opened.items():
            best[name] = min(best[name], *(_milliseconds(predictor.predict, batch) for _ in range(CALLS)))
    sizes = {name: file.stat().st_size for name, file in files.items()}
    return {
        "agreement": float((logits.argmax(1) == expected.argmax(1)).mean()),
        "logit_difference": float(np.abs(logits - expected).max() / max(float(np.ptp(expected)), 1e-12)),
        "size_ratio": sizes["float"] / sizes["int8"],
        "latency_ratio": best["int8"] / best["float"],
        "delegated_share": results["int8"].delegated_share,
        "export_seconds": round(seconds["int8"], 1),
    }


def image_size(model: str) -> int:
    """Edge of the pictures for a model, px: as small as it takes them, to save time."""
    return next((size for prefix, size in FIXED_SIZE.items() if _architecture(model).startswith(prefix)), 64)


def _milliseconds(call: Callable[[NDArray[np.float32]], object], batch: NDArray[np.float32]) -> float:
    start = time.perf_counter()
    call(batch)
    return (time.perf_counter() - start) * 1e3


def _data(size: int):
    """The digits as training data whose validation split is the test of this benchmark, and the labels of its training split."""
    from sklearn.datasets import load_digits

    from edgeopt.preprocessing import Preprocessing
    from edgeopt.settings import Augmentation
    from edgeopt.testing import ArraySplit
    from edgeopt.types import TrainingData

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images, labels = (digits.images[order] * 255 / 16).astype(np.uint8), digits.target[order].astype(np.int64)
    preprocessing = Preprocessing(size, resize=size, crop=size)

    def split(first: int, last: int) -> ArraySplit:
        return ArraySplit(np.stack([preprocessing.pixels(image) for image in images[first:last]]), labels[first:last])

    calibration = split(0, CALIBRATION_PICTURES)
    train, test = split(100, 500), split(500, 500 + TEST_PICTURES)
    names = tuple(str(digit) for digit in range(CLASSES))
    return TrainingData(names, preprocessing, train, calibration, test, "digits", Augmentation()), train.labels


def _architecture(model: str) -> str:
    return model.partition(":")[2]


def _module(model: str, size: int) -> torch.nn.Module:
    source, _, architecture = model.partition(":")
    if source == "timm":
        import timm

        from edgeopt_torchvision.compat import import_torchvision

        import_torchvision()
        return timm.create_model(architecture, num_classes=CLASSES)
    from edgeopt_torchvision.compat import import_torchvision

    extra = {"init_weights": True} if architecture in ("googlenet", "inception_v3") else {}
    if architecture in ("googlenet", "inception_v3"):
        extra["aux_logits"] = False
    if architecture.startswith("vit"):
        extra["image_size"] = size
    if architecture.startswith("maxvit"):
        extra["input_size"] = (size, size)
    return import_torchvision().models.get_model(architecture, weights=None, num_classes=CLASSES, **extra)


def _fit_last_layer(module: torch.nn.Module, data, labels: NDArray[np.int64], size: int) -> float:
    """BatchNorm statistics from the pictures, and the head by ridge regression; returns the accuracy on the test pictures."""
    import torch

    from edgeopt.modules import find_head

    def batches(split) -> Iterable[torch.Tensor]:
        step = 8 if size > 128 else 40
        for start in range(0, len(split), step):
            pixels = split.pixels(range(start, min(start + step, len(split))))
            yield torch.from_numpy(data.preprocessing.normalize(pixels))

    for each in module.modules():
        if isinstance(each, torch.nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the common base has no public name
            each.momentum = None  # the average over all batches
            each.reset_running_stats()
    module.train()
    dropouts = [each for each in module.modules() if "drop" in type(each).__name__.lower()]
    for each in dropouts:
        each.eval()
    with torch.no_grad():
        for count, batch in enumerate(batches(data.train)):
            if count < 3:
                module(batch)
    module.eval()
    head = module.get_submodule(find_head(module, CLASSES))
    seen: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        features = given[0].detach().double()
        seen.append(features.mean(dim=tuple(range(2, features.dim()))) if features.dim() > 2 else features)

    def features(split) -> torch.Tensor:
        seen.clear()
        with torch.no_grad():
            for batch in batches(split):
                module(batch)
        return torch.cat(seen)

    handle = head.register_forward_pre_hook(keep)
    known, asked = features(data.train), features(data.validation)
    handle.remove()
    mean, scale = known.mean(0), known.std(0) + 1e-3 * known.std() + 1e-12
    design = torch.cat([(known - mean) / scale, torch.ones(len(known), 1, dtype=known.dtype)], 1)
    wanted = 10 * (torch.nn.functional.one_hot(torch.from_numpy(labels), CLASSES).double() - 1 / CLASSES)
    ridge = 0.1 * len(known) ** 0.5 * torch.eye(design.shape[1], dtype=design.dtype)
    solution = torch.linalg.solve(design.T @ design + ridge, design.T @ wanted)
    weight = solution[:-1] / scale[:, None]
    with torch.no_grad():
        head.weight.copy_(weight.T.reshape(head.weight.shape))
        head.bias.copy_(solution[-1] - mean @ weight)
    answers = (asked @ weight + head.bias.double()).argmax(1).numpy()
    return float((answers == data.validation.labels).mean())


# ---- the run ----------------------------------------------------------------------------------------------------------


def models() -> list[str]:
    """All models: one of each family first, so that a short run says most."""
    from edgeopt_torchvision.compat import import_torchvision

    vision = import_torchvision()
    names = [f"torchvision:{name}" for name in vision.models.list_models(module=vision.models)]
    first = {_family(name): name for name in reversed(names)}
    ordered = [*first.values()][::-1]
    return [*ordered, *(f"timm:{name}" for name in TIMM), *(name for name in names if name not in ordered)]


def _family(model: str) -> str:
    return "".join(letter for letter in _architecture(model).split("_")[0] if not letter.isdigit())


def run(chosen: Sequence[str], limit_seconds: float, until: float) -> None:
    """Fills in what is missing, and writes the results after each step."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for model in chosen:
        missing = [runtime for runtime in RUNTIMES if runtime not in results.get(model, {})]
        if not missing:
            continue
        if time.time() > until:
            print("time is up; the same command goes on from here")
            return
        with tempfile.TemporaryDirectory() as name:
            prepared = _step(limit_seconds, "prepare", model, name)
            row = {"prepared": prepared}
            for runtime in missing:
                row[runtime] = (
                    prepared if "error" in prepared else _step(limit_seconds, "runtime", model, runtime, name)
                )
        results[model] = {**results.get(model, {}), **row}
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        print(
            model,
            {name: each.get("error") or f"{each['agreement']:.2f}" for name, each in row.items() if name in RUNTIMES},
        )


def _step(limit_seconds: float, *arguments: str) -> dict[str, object]:
    command = [sys.executable, __file__, "--step", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {limit_seconds:.0f} s"}
    if done.returncode == 0:
        found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return found
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith(" ")]
    return {"error": lines[-1][:300] if lines else f"ended with code {done.returncode}"}


def page(results: dict[str, dict[str, dict]]) -> str:
    """The results in Markdown."""
    lines = [
        "# Model matrix",
        "",
        "Written by `python benchmarks/model_matrix.py`; see its first lines for how. For each runtime: top-1 agreement of the int8 file",
        "with its program on 100 test pictures, float size over int8 size, int8 latency over float latency (one thread), and the share",
        f"of the operators that the delegate takes. {platform.machine()}, {platform.system()}.",
        "",
        "| model | " + " | ".join(RUNTIMES.values()) + " |",
        "|---|" + "---|" * len(RUNTIMES),
    ]
    for model in sorted(results):
        cells = [_cell(results[model].get(runtime)) for runtime in RUNTIMES]
        lines.append(f"| {_architecture(model)} ({model.partition(':')[0]}) | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(found: dict | None) -> str:
    if found is None:
        return "not run"
    if "error" in found:
        return str(found["error"]).replace("|", "/")
    share = "" if found["delegated_share"] is None else f", {100 * found['delegated_share']:.0f} % inside"
    return f"{100 * found['agreement']:.0f} %, {found['size_ratio']:.1f}×, {found['latency_ratio']:.2f}{share}"


def passing_share(results: dict[str, dict[str, dict]]) -> float:
    """Share of torchvision's models that were run and agree well enough in all three runtimes."""
    ran = [row for model, row in results.items() if model.startswith("torchvision:")]
    good = [row for row in ran if all(row.get(runtime, {}).get("agreement", 0.0) >= AGREEMENT for runtime in RUNTIMES)]
    return len(good) / len(ran) if ran else 0.0


def main() -> None:
    """Runs what is missing and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--models", nargs="+", help="only these, as torchvision:NAME or timm:NAME")
    parser.add_argument("--limit-seconds", type=float, default=1200, help="time limit of one step")
    parser.add_argument("--minutes", type=float, default=1e6, help="start no further model after this time")
    given = parser.parse_args()
    if given.step:
        step, *arguments = given.step
        *names, folder = arguments
        found = prepare(*names, Path(folder)) if step == "prepare" else try_runtime(*names, Path(folder))
        print(json.dumps(found))
        return
    run(given.models or models(), given.limit_seconds, time.time() + 60 * given.minutes)
    results = json.loads(RESULTS.read_text())
    PAGE.write_text(page(results))
    finish(Bar(f"{len(results)} models, share in all runtimes", passing_share(results), 0.95, at_least=True))


if __name__ == "__main__":
    main()
