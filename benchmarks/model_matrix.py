"""Every classification model of torchvision, and timm's mobile ones, through `ptq` to ExecuTorch, ONNX Runtime,
LiteRT, OpenVINO and ncnn.

Each model is trained for a moment on four kinds of generated images: the answers of random weights lie so close
together that any rounding changes them. Each model, and each of its runtimes, has a process of its own with a time
limit. What was found is kept in `docs/model_matrix.json`, so that a run goes on where the last one ended;
`docs/model_matrix.md` is written from it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import re
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bars import Bar, finish
from stripes import CLASSES, stripes

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from edgeopt.arrays import Logits
    from edgeopt.types import ModelState, TrainingData

Found = dict[str, Any]

RESULTS = Path("docs/model_matrix.json")
PAGE = Path("docs/model_matrix.md")
RUNTIMES = {
    "executorch": "ExecuTorch",
    "onnx": "ONNX Runtime",
    "tflite": "LiteRT",
    "openvino": "OpenVINO",
    "ncnn": "ncnn",
}
NEWER = ("openvino", "ncnn")  # judged by themselves: in nine models of ten, the others together in nineteen of twenty
QUANTIZERS = {"ncnn": "ncnn"}  # others take "xnnpack"
HEAVY = ("edgeopt_torchao.quantize.prepare", *(f"edgeopt_{name}.exporter" for name in RUNTIMES))
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
SIZES = {
    "vit_b": 224,
    "vit_l_32": 128,
    "vit_h": 112,
    "maxvit": 224,
    "inception": 128,
    "mobilevit": 128,
    "fastvit": 128,
}  # px; others take 64
TRAIN_IMAGES = 400
TEST_IMAGES = 100
CALIBRATION_IMAGES = 32
TRAIN_STEPS, TRAIN_BATCH, WARM_UP_STEPS = 500, 16, 10
TRAIN_SECONDS = 400  # of the processor, so that a busy machine trains no worse
RATES, KNOWS = (2e-3, 1e-3, 5e-4, 1e-4), 0.95
LARGE = 25e6  # parameters
ENOUGH = 0.05  # loss, averaged over ten steps; with more, many answers of a deep network are close, and any rounding turns them
AGREEMENT = 0.98
MEANINGFUL = 0.9  # accuracy; whoever guesses alike agrees by chance
ROUNDS, CALLS = 5, 4


# ---- one model -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """The float state of a model, and for each quantizer the int8 state, its answers and its accuracy."""

    float: ModelState
    int8: Mapping[str, ModelState]
    logits: Mapping[str, Logits]
    accuracy: Mapping[str, float]
    facts: Found


def try_model(model: str, runtimes: Sequence[str], limit_seconds: float) -> dict[str, Found]:
    """What came of a model in each of `runtimes`; each gets a process that starts with the model at hand."""
    prepared = prepare(model, sorted({quantizer_of(each) for each in runtimes}))
    row = {"prepared": prepared.facts}
    for runtime in runtimes:
        child = Child(try_runtime, model, runtime, prepared)
        child.process.join(limit_seconds)
        row[runtime] = child.result(limit_seconds)
    return row


def quantizer_of(runtime: str) -> str:
    """Whose numerics the int8 program for a runtime has."""
    return QUANTIZERS.get(runtime, "xnnpack")


def prepare(model: str, quantizers: Sequence[str]) -> Prepared:
    """Makes the float and the int8 programs of a model."""
    import torch

    from edgeopt.networks.capture import program_outputs, to_program
    from edgeopt.networks.tracing import quick_tracing
    from edgeopt.plugins.declarations import PassPlugin
    from edgeopt.plugins.registry import load_registry
    from edgeopt.progress import Silent
    from edgeopt.recipe.lookup import resolve
    from edgeopt.tasks import TASKS
    from edgeopt.testing import pass_context
    from edgeopt.types import Form, ModelState

    torch.set_num_threads(1)  # processes are forked later, which a pool of threads would not survive
    torch.manual_seed(0)
    size = image_size(model)
    data = _data(size)
    module = _trained(lambda: _module(model, size), data)
    state = ModelState(module, Form.MODULE, TASKS["classification"], data.classes, data.preprocessing)
    int8, logits, accuracy = {}, {}, {}
    for quantizer in quantizers:
        quantize = resolve(PassPlugin, "ptq", {"batch_size": 8, "quantizer": quantizer}, load_registry())
        with tempfile.TemporaryDirectory() as folder, quick_tracing():
            int8[quantizer] = quantize.plugin.apply(state, quantize.options, pass_context(Path(folder), data))
        logits[quantizer] = program_outputs(int8[quantizer], data.validation, Silent(), "program")[0]
        accuracy[quantizer] = float((logits[quantizer].argmax(1) == data.validation.labels).mean())
    with quick_tracing():
        program = to_program(state, data.validation)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    facts: Found = {"parameters": parameters, "image_size": size}
    if "xnnpack" in accuracy:
        facts["int8_accuracy"] = accuracy["xnnpack"]
    return Prepared(program, int8, logits, accuracy, facts)


def try_runtime(model: str, exporter: str, prepared: Prepared) -> Found:
    """Exports both states, opens the files, compares answers and times both in turns."""
    from edgeopt.measure.answers import feeder, file_outputs
    from edgeopt.plugins.declarations import ExporterPlugin
    from edgeopt.plugins.registry import load_registry
    from edgeopt.progress import Silent
    from edgeopt.recipe.lookup import resolve
    from edgeopt.testing.exporter import export_file

    use = resolve(ExporterPlugin, exporter, {}, load_registry())
    data = _data(image_size(model))
    files, results, seconds = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, state in (("int8", prepared.int8[quantizer_of(exporter)]), ("float", prepared.float)):
            start = time.perf_counter()
            (aside := Path(folder) / name).mkdir()
            files[name], results[name] = export_file(use, state, aside)
            seconds[name] = time.perf_counter() - start
        opened = {name: use.plugin.open(file, 1) for name, file in files.items()}
        sizes = {
            name: sum(file.with_name(part).stat().st_size for part in (file.name, *results[name].companions))
            for name, file in files.items()
        }
    feed = feeder("values", data.preprocessing)
    logits = file_outputs(opened["int8"], data.validation, feed, Silent(), "file")[0]
    batch = feed(data.validation.pixels(range(1)))
    best = dict.fromkeys(opened, float("inf"))
    for _ in range(ROUNDS):
        for name, predictor in opened.items():
            best[name] = min(best[name], *(_milliseconds(predictor.predict, batch) for _ in range(CALLS)))
    expected = prepared.logits[quantizer_of(exporter)]
    return {
        "agreement": float((logits.argmax(1) == expected.argmax(1)).mean()),
        "logit_difference": float(np.abs(logits - expected).max() / max(float(np.ptp(expected)), 1e-12)),
        "size_ratio": sizes["float"] / sizes["int8"],
        "latency_ratio": best["int8"] / best["float"],
        "delegated_share": results["int8"].delegated_share,
        "export_seconds": round(seconds["int8"], 1),
        "int8_accuracy": prepared.accuracy[quantizer_of(exporter)],
    }


def image_size(model: str) -> int:
    """Edge of the images for a model, px: as small as it takes them, to save time."""
    return next((size for prefix, size in SIZES.items() if _architecture(model).startswith(prefix)), 64)


def _milliseconds(call: Callable[[NDArray[np.float32]], object], batch: NDArray[np.float32]) -> float:
    start = time.perf_counter()
    call(batch)
    return (time.perf_counter() - start) * 1e3


def _data(size: int) -> TrainingData:
    """Training data whose validation split is the test of this benchmark."""
    return stripes((CALIBRATION_IMAGES, TRAIN_IMAGES, TEST_IMAGES), size)


def _architecture(model: str) -> str:
    return model.partition(":")[2]


def _module(model: str, size: int) -> torch.nn.Module:
    import torch

    from edgeopt_torchvision.compat import import_torchvision

    torchvision = import_torchvision()
    source, _, architecture = model.partition(":")
    if source == "timm":
        import timm

        return timm.create_model(architecture, num_classes=CLASSES)
    extra: dict[str, Any] = {}
    if architecture in ("googlenet", "inception_v3"):
        extra |= {"init_weights": True, "aux_logits": False}
    if architecture.startswith("vit"):
        extra["image_size"] = size
    if architecture.startswith("maxvit"):
        extra["input_size"] = (size, size)
    if "resne" in architecture:  # ResNet, ResNeXt: blocks start as the identity, or deep ones magnify any rounding
        extra["zero_init_residual"] = True
    module = torchvision.models.get_model(architecture, weights=None, num_classes=CLASSES, **extra)
    if architecture in ("efficientnet_b6", "efficientnet_b7"):  # the same, for which torchvision has no option here
        blocks = (each for each in module.modules() if getattr(each, "use_res_connect", False))
        for block in blocks:
            torch.nn.init.zeros_(block.block[-1][1].weight)
    if architecture.startswith("squeezenet"):  # a ReLU follows the last convolution, under which a class can die
        module.classifier[1].bias.data.fill_(1.0)
    return module


def _trained(build: Callable[[], torch.nn.Module], data: TrainingData) -> torch.nn.Module:
    """The first of a few rates of learning after which the model knows the images, else the best of them."""
    from edgeopt_lightning.fit.batch_norm import collecting

    module = best = build()
    best_accuracy = -1.0
    # without BatchNorm, nothing holds the activations in range at the highest rate, and each try of a large network
    # takes minutes
    large = sum(parameter.numel() for parameter in module.parameters()) > LARGE
    for rate in RATES[2:] if large else RATES if collecting(module) else RATES[1:]:
        accuracy = _train(module, data, rate)
        if accuracy > best_accuracy:
            best, best_accuracy = module, accuracy
        if accuracy >= KNOWS:
            break
        module = build()
    return best


def _train(module: torch.nn.Module, data: TrainingData, rate: float) -> float:
    """Steps of AdamW until the model knows its images or the time is over, then BatchNorm statistics of the weights at
    the end.

    Returns the accuracy on some of the training images.
    """
    import torch

    from edgeopt_lightning.fit.batch_norm import collecting, reestimate

    def images(indices: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(data.preprocessing.normalize(data.train.pixels(indices)))

    labels = data.train.labels
    module.train()
    for each in module.modules():
        if "drop" in type(each).__name__.lower() or "stochastic" in type(each).__name__.lower():
            each.eval()
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, fused=True)  # a sixth of the time for VGG's weights
    random = np.random.default_rng(0)
    start = time.process_time()
    recent_loss = np.log(CLASSES)
    step = 0
    while (done := max(step / TRAIN_STEPS, (time.process_time() - start) / TRAIN_SECONDS)) < 1:
        step += 1
        optimizer.param_groups[0]["lr"] = rate * min(1.0, step / WARM_UP_STEPS, 2 * (1 - done))
        chosen = random.choice(len(labels), TRAIN_BATCH, replace=False)
        loss = torch.nn.functional.cross_entropy(module(images(chosen.tolist())), torch.from_numpy(labels[chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recent_loss = 0.9 * recent_loss + 0.1 * loss.item()
        if recent_loss < ENOUGH:
            break
    moved = collecting(module)
    module.eval()
    starts = range(0, len(labels) // 2, TRAIN_BATCH)
    reestimate(module, moved, (images(range(start, start + TRAIN_BATCH)) for start in starts))
    with torch.no_grad():
        answers = torch.cat([module(images(range(start, start + TRAIN_BATCH))) for start in range(0, 96, TRAIN_BATCH)])
    return float((answers.argmax(1).numpy() == labels[: len(answers)]).mean())


# ---- the run -------------------------------------------------------------------------------------------------------


def models() -> list[str]:
    """All models: the smallest of each family of torchvision, timm's, and the others by size, so that a short run says
    most.
    """
    from edgeopt_torchvision.compat import import_torchvision

    vision = import_torchvision().models

    def parameters(name: str) -> int:
        count: int = vision.get_model_weights(name).DEFAULT.meta["num_params"]
        return count

    names = sorted(vision.list_models(module=vision), key=parameters)
    smallest = {re.match(r"[a-z]+(_v\d)?", name)[0]: name for name in reversed(names)}.values()
    families = [name for name in names if name in smallest]
    others = [name for name in names if name not in smallest]
    return [
        *(f"torchvision:{name}" for name in families),
        *(f"timm:{name}" for name in TIMM),
        *(f"torchvision:{name}" for name in others),
    ]


class Child:
    """A call in a forked process, which has everything imported that its parent has."""

    def __init__(self, function: Callable[..., Found], *arguments: object) -> None:
        fork = multiprocessing.get_context("fork")
        self.answer, there = fork.Pipe(duplex=False)
        self.process = fork.Process(target=_answer, args=(there, function, arguments))
        self.process.start()
        there.close()
        self.started = time.monotonic()

    def result(self, limit_seconds: float) -> Found:
        """What the call returned, or `{"error": ...}`; ends the process where it is still at work."""
        try:
            found: Found = (
                self.answer.recv() if self.answer.poll() else {"error": f"stopped after {limit_seconds:.0f} s"}
            )
        except EOFError:  # it ended without a word
            self.process.join()
            code = self.process.exitcode or 0
            found = {"error": f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"}
        self.process.kill()
        self.process.join()
        return found


def _answer(there: Connection, function: Callable[..., Found], arguments: tuple[object, ...]) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    try:
        there.send(function(*arguments))
    except BaseException as raised:
        error = raised
        while error.__cause__ is not None:  # what wraps it says in which pass, not why
            error = error.__cause__
        there.send({"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]})


def run(chosen: Sequence[str], runtimes: Sequence[str], limit_seconds: float, until: float, jobs: int) -> None:
    """Fills in what is missing in `runtimes`, `jobs` models at a time, and writes the results after each."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    waiting = {
        model: missing
        for model in chosen
        if (missing := [runtime for runtime in runtimes if runtime not in results.get(model, {})])
    }
    if waiting:
        import_heavy()
    working: dict[str, Child] = {}
    patience = limit_seconds * (1 + len(RUNTIMES))
    while working or (waiting and time.time() < until):
        while waiting and len(working) < jobs and time.time() < until:
            model = next(iter(waiting))
            working[model] = Child(try_model, model, waiting.pop(model), limit_seconds)
        wait([child.answer for child in working.values()], timeout=10)
        for model, child in list(working.items()):
            late = time.monotonic() - child.started > patience
            if not (late or child.answer.poll() or not child.process.is_alive()):
                continue
            row = working.pop(model).result(patience)
            if "error" in row:
                row = {runtime: row for runtime in runtimes if runtime not in results.get(model, {})}
            before = results.get(model, {})
            facts = {**row.get("prepared", {}), **before.get("prepared", {})}  # an earlier run's programs stay told
            results[model] = {**before, **row, **({"prepared": facts} if facts else {})}
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
            PAGE.write_text(page(results, len(models())))
            _say(model, row)
    if waiting:
        print(f"time is up with {len(waiting)} models left; the same command goes on from here")


def _say(model: str, row: Mapping[str, Found]) -> None:
    cells = (f"{RUNTIMES[name]}: {_cell(each)}" for name, each in row.items() if name in RUNTIMES)
    print(model, "; ".join(cells), flush=True)


def import_heavy() -> None:
    """Imports once, for all processes that are forked later, what each of them needs."""
    from edgeopt_torchvision.compat import import_torchvision

    import_torchvision()
    for name in HEAVY:
        importlib.import_module(name)


def page(results: dict[str, dict[str, dict]], total: int) -> str:
    """The results in Markdown."""
    lines = [
        "# Model matrix",
        "",
        "Written by `python benchmarks/model_matrix.py`; see its first lines for how. For each runtime: top-1 agreement of the int8 file",
        "with its program on 100 test images, the largest difference of a logit as a share of the logits' range, float size over int8",
        "size, int8 latency over float latency (one thread), and the share of the operators that the delegate takes.",
        f"{platform.machine()}, {platform.system()}. {len(results)} of {total} models so far; the same command goes on from here.",
        "",
        "| model | accuracy of the int8 program | " + " | ".join(RUNTIMES.values()) + " |",
        "|---|---|" + "---|" * len(RUNTIMES),
    ]
    for model in sorted(results):
        cells = [_cell(results[model].get(runtime)) for runtime in RUNTIMES]
        accuracy = results[model].get("prepared", {}).get("int8_accuracy")
        known = "–" if accuracy is None else f"{100 * accuracy:.0f} %"
        lines.append(f"| {_architecture(model)} ({model.partition(':')[0]}) | {known} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(found: dict | None) -> str:
    if found is None:
        return "not run"
    if "error" in found:
        return str(found["error"]).replace("|", "/")
    share = "" if found["delegated_share"] is None else f", {100 * found['delegated_share']:.0f} % inside"
    return f"{100 * found['agreement']:.0f} %, ±{100 * found['logit_difference']:.1f} %, {found['size_ratio']:.1f}×, {found['latency_ratio']:.2f}{share}"


def passing_share(results: dict[str, dict[str, dict]], runtimes: Sequence[str]) -> float:
    """Share of torchvision's models that were run, whose answers mean something, and that agree in all `runtimes`."""
    ran = [row for model, row in results.items() if model.startswith("torchvision:")]
    good = [row for row in ran if all(_passes(row, runtime) for runtime in runtimes)]
    return len(good) / len(ran) if ran else 0.0


def _passes(row: Mapping[str, Found], runtime: str) -> bool:
    found = row.get(runtime, {})
    accuracy = found.get("int8_accuracy", row.get("prepared", {}).get("int8_accuracy", 0.0))
    return bool(accuracy >= MEANINGFUL and found.get("agreement", 0.0) >= AGREEMENT)


def main() -> None:
    """Runs what is missing and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", help="only these, as torchvision:NAME or timm:NAME")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES), help="only these")
    parser.add_argument("--limit-seconds", type=float, default=1200, help="time limit of a model in one runtime")
    parser.add_argument("--minutes", type=float, default=1e6, help="start no further model after this time")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time, one thread each")
    given = parser.parse_args()
    until = time.time() + 60 * given.minutes
    run(given.models or models(), given.runtimes, given.limit_seconds, until, given.jobs)
    results = json.loads(RESULTS.read_text())
    judged = [([each for each in given.runtimes if each not in NEWER], 0.95)]
    judged += [([each], 0.9) for each in given.runtimes if each in NEWER]
    bars = [
        Bar(
            f"{len(results)} models, share in {', '.join(map(RUNTIMES.get, together))}",
            passing_share(results, together),
            limit,
            at_least=True,
        )
        for together, limit in judged
        if together
    ]
    finish(*bars)


if __name__ == "__main__":
    main()
