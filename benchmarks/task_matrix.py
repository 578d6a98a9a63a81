"""Every segmentation and detection model of torchvision through `ptq` to five runtimes: what exports, how far its
files are from their programs, and what is refused and why.

Weights are random, so that nothing is said of masks and boxes; each output is compared number by number. Detectors are
split at their raw heads. Each model, and each of its runtimes, has a process of its own with a time limit. What was
found is kept in `docs/task_matrix.json`, so that a run goes on where the last one ended; `docs/task_matrix.md` is
written from it.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from model_matrix import RUNTIMES, Child, import_heavy, quantizer_of

if TYPE_CHECKING:
    from edgeopt.arrays import Outputs
    from edgeopt.types import ModelState, Split, TrainingData

Found = dict[str, Any]

RESULTS = Path("docs/task_matrix.json")
PAGE = Path("docs/task_matrix.md")
CLASSES = 4
SIZE = 128  # px; as small as nearly all of them take
SIZES = {"ssd300_vgg16": 300}  # its maps shrink to nothing below that
IMAGES = 8
KINDS = {"detection": "torchvision.models.detection", "segmentation": "torchvision.models.segmentation"}


@dataclass(frozen=True)
class Prepared:
    """The float program of a model, as "float", an int8 program for each quantizer, and what each answers to the images."""

    states: Mapping[str, ModelState]
    answers: Mapping[str, Outputs]
    images: Split
    facts: Found


def models() -> list[str]:
    """All models as "kind:name", the smallest first."""
    from edgeopt_torchvision.compat import import_torchvision

    vision = import_torchvision().models
    names = [
        (vision.get_model_weights(name).DEFAULT.meta["num_params"], f"{kind}:{name}")
        for kind, module in KINDS.items()
        for name in vision.list_models(module=getattr(vision, module.rpartition(".")[2]))
    ]
    return [name for _, name in sorted(names)]


def try_model(model: str, limit_seconds: float) -> dict[str, Found]:
    """What came of a model in each runtime."""
    prepared = prepare(model)
    row = {"prepared": prepared.facts}
    for runtime in RUNTIMES:
        child = Child(try_runtime, runtime, prepared)
        child.process.join(limit_seconds)
        row[runtime] = child.result(limit_seconds)
    return row


def prepare(model: str) -> Prepared:
    """Makes both programs of a model; a detector that cannot be split is refused here."""
    import torch

    from edgeopt.networks.capture import program_outputs, to_program
    from edgeopt.plugins.declarations import PassPlugin
    from edgeopt.plugins.registry import load_registry
    from edgeopt.progress import Silent
    from edgeopt.recipe.lookup import resolve
    from edgeopt.testing import pass_context

    torch.set_num_threads(1)  # processes are forked later, which a pool of threads would not survive
    torch.manual_seed(0)
    state, data = _state(model)
    states = {"float": to_program(state, data.validation)}
    for quantizer in sorted(set(map(quantizer_of, RUNTIMES))):
        ptq = resolve(PassPlugin, "ptq", {"batch_size": 2, "quantizer": quantizer}, load_registry())
        with tempfile.TemporaryDirectory() as folder:
            states[quantizer] = ptq.plugin.apply(state, ptq.options, pass_context(Path(folder), data))
    answers = {name: program_outputs(each, data.validation, Silent(), name) for name, each in states.items()}
    parameters = sum(each.numel() for each in state.module.parameters())
    return Prepared(states, answers, data.validation, {"parameters": parameters, "outputs": list(state.output_names)})


def try_runtime(exporter: str, prepared: Prepared) -> Found:
    """Exports both programs, opens the files and compares each output."""
    from edgeopt.measure.answers import differences, feeder, file_outputs
    from edgeopt.plugins.declarations import ExporterPlugin
    from edgeopt.plugins.registry import load_registry
    from edgeopt.progress import Silent
    from edgeopt.recipe.lookup import resolve
    from edgeopt.testing.exporter import export_file

    use = resolve(ExporterPlugin, exporter, {}, load_registry())
    found: Found = {}
    sizes = {}
    for name, program in (("float", "float"), ("int8", quantizer_of(exporter))):
        state = prepared.states[program]
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            file, result = export_file(use, state, Path(folder))
            parts = (file.name, *result.companions)
            sizes[name] = sum(file.with_name(part).stat().st_size for part in parts)
            feed = feeder("values", state.preprocessing)
            with use.plugin.opened(file, 1) as predictor:
                outputs = file_outputs(predictor, prepared.images, feed, Silent(), name)
        apart = differences(outputs, prepared.answers[program], state.output_names)
        found[name] = {each.name: each.share for each in apart}
        found[f"{name}_seconds"] = round(time.perf_counter() - start, 1)
        found[f"{name}_delegated"] = result.delegated_share
    return {**found, "size_ratio": sizes["float"] / sizes["int8"]}


def _data(task: Any, size: int) -> TrainingData:
    from edgeopt.testing import tiny_data

    return tiny_data(classes=CLASSES, image_size=size, per_class=IMAGES // CLASSES, task=task)


def _state(model: str) -> tuple[ModelState, TrainingData]:
    """The untrained model, with statistics of BatchNorm from images, and what it is made for."""
    import torch

    from edgeopt.networks.heads import float_state
    from edgeopt_torchvision.compat import import_torchvision

    vision = import_torchvision()
    kind, _, name = model.partition(":")
    size = SIZES.get(name, SIZE)
    if kind == "segmentation":
        from edgeopt_segmentation.task import Segmentation

        data = _data(Segmentation(), size)
        built = vision.models.get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES)
        state = replace(float_state(built, data, {}), output_names=("out",))
    else:
        from edgeopt_detection.networks.raw_heads import split_detector
        from edgeopt_detection.task import Detection

        built = vision.models.get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES + 1)
        network, decoding = split_detector(built, size, size)
        data = _data(Detection(decoding=decoding), size)
        state = replace(float_state(network, data, {}), task=data.task, output_names=decoding.outputs)
        state = replace(state, imports=("edgeopt_detection.networks.raw_heads",))
    with torch.no_grad():
        state.module.train()(torch.from_numpy(data.preprocessing.normalize(data.train.pixels(range(IMAGES)))))
    state.module.eval()
    return state, data


# ---- the run -------------------------------------------------------------------------------------------------------


def run(chosen: Sequence[str], limit_seconds: float, until: float) -> None:
    """Tries what is missing, one model after the other, and writes the results after each."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    waiting = [model for model in chosen if model not in results]
    if waiting:
        import_heavy()
    for place, model in enumerate(waiting):
        if time.time() >= until:
            print(f"time is up with {len(waiting) - place} models left; the same command goes on from here")
            break
        child, patience = Child(try_model, model, limit_seconds), limit_seconds * (1 + len(RUNTIMES))
        child.process.join(patience)
        results[model] = child.result(patience)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        PAGE.write_text(page(results, len(models())))
        print(model, "; ".join(f"{name}: {_cell(results[model], name)}" for name in RUNTIMES), flush=True)


def page(results: Mapping[str, Mapping[str, Any]], total: int) -> str:
    """The results in Markdown."""
    lines = [
        "# Model matrix of segmentation and detection",
        "",
        "Written by `python benchmarks/task_matrix.py`; see its first lines for how. For each runtime: the largest",
        "difference of the float file from its program, and of the int8 file from its own, as a share of the range of the",
        "output that differs most, then float size over int8 size. Weights are random: an output can be a few integers wide,",
        "of which one step of one value is many percent.",
        f"{platform.machine()}, {platform.system()}. {len(results)} of {total} models so far.",
        "",
        "| model | outputs | " + " | ".join(RUNTIMES.values()) + " |",
        "|---|---|" + "---|" * len(RUNTIMES),
    ]
    for model in sorted(results):
        kind, _, name = model.partition(":")
        outputs = ", ".join(results[model].get("prepared", {}).get("outputs", ())) or "–"
        cells = [_cell(results[model], runtime) for runtime in RUNTIMES]
        lines.append(f"| {name} ({kind}) | {outputs} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: Mapping[str, Any], runtime: str) -> str:
    error = row.get("error") or row.get(runtime, {}).get("error")
    if error:
        return f"refused: {error}".replace("|", "\\|")
    found = row[runtime]
    shares = (f"{100 * max(found[name].values()):.2g} %" for name in ("float", "int8"))
    return ", ".join((*shares, f"{found['size_ratio']:.1f}×"))


def main() -> None:
    """Tries the models that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="as in segmentation:lraspp_mobilenet_v3_large; all when left out")
    parser.add_argument("--limit", type=float, default=600, help="seconds for a model and for each of its runtimes")
    parser.add_argument("--minutes", type=float, default=np.inf, help="begin no model after so long")
    given = parser.parse_args()
    run(given.models or models(), given.limit, time.time() + 60 * given.minutes)


if __name__ == "__main__":
    main()
