"""Every extra of edgeopt in a fresh environment of its own: `pip install -c constraints.txt '.[EXTRA]'`, `edgeopt
doctor`, and one smoke run of what the extra is for.

The sources are copied aside first, so that nothing is built in the checkout. What an extra does not bring, a network
or a file format, comes from `extras_plugin.py`, which needs torch alone: an extra must not work by another's grace.
"""

from __future__ import annotations

import argparse
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
PLUGIN = Path(__file__).with_name("extras_plugin.py")
NOT_TRIED = ("dev",)  # it is `all`, `audio`, `testing` and the loggers, with the tools of this repository
_LEFT_OUT = (".git", ".venv*", "runs", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", "tests")

Parts = Mapping[str, Any]
_SHAPES: Parts = {"use": "shapes", "images": 240, "image_size": 32}
_PTQ: Parts = {"use": "ptq", "quantizer": "xnnpack"}


@dataclass(frozen=True)
class Smoke:
    """A recipe that an extra alone must be able to run."""

    exports: Sequence[Parts] = ({"use": "torch-program"},)
    model: Parts = field(default_factory=lambda: {"use": "three-convolutions"})
    passes: Sequence[Parts] = ()
    dataset: Parts = field(default_factory=lambda: _SHAPES)
    is_served: bool = False
    is_tuned: bool = False
    is_on_ray: bool = False
    loggers: Sequence[str] = ()
    target: str = ""  # of `edgeopt check --target`, in the place of a run

    def recipe(self, name: str) -> dict[str, Any]:
        """The recipe's tables."""
        parts = {"dataset": self.dataset, "model": self.model, "passes": self.passes, "exports": self.exports}
        trainer = {"trainer": {"loggers": list(self.loggers)}} if self.loggers else {}
        tune = {"tune": {"trials": 1, "space": {"dataset.image_size": [16, 32]}}} if self.is_tuned else {}
        return {"schema": 1, "name": name} | {key: value for key, value in parts.items() if value} | trainer | tune


#: Serves a run and asks each file about a test image that the run kept; every answer must be that of the report.
_SERVED = """
import json, subprocess, sys, urllib.parse, urllib.request
command = [sys.executable, "-m", "edgeopt", "serve", sys.argv[1], "--port", "0", "--plugin", sys.argv[2]]
server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"COLUMNS": "200"})
try:
    address = next(word.strip(",") for word in server.stdout.readline().split() if word.startswith("http"))
    ask = lambda path, body=None: urllib.request.urlopen(address + path, body).read()
    report = json.load(open(sys.argv[1] + "/report.json"))
    for sample in report["samples"]:
        run = sys.argv[1].rpartition("/")[2]
        image = ask(f"v1/samples/{run}/{sample['index']}")
        for file, predicted in sample["predictions"].items():
            query = urllib.parse.urlencode({"file": f"{run}/{file}", "prepared": "true"})
            label = json.loads(ask(f"v1/predict?{query}", image))["label"]
            assert label == report["dataset"]["classes"][predicted["label"]], (file, sample["index"], label)
finally:
    server.terminate()
    server.wait()
"""

#: `testing` has no recipe: its smoke run is a new plugin package, whose contracts must hold.
SMOKES: Mapping[str, Smoke | None] = {
    "vision": Smoke(
        dataset={"use": "digits", "image_size": 32},
        model={"use": "torchvision", "arch": "mobilenet_v3_small"},
        passes=({"use": "train", "epochs": 1},),
    ),
    "pruning": Smoke(passes=({"use": "prune-structured", "keep": 0.5, "epochs": 1},)),
    "executorch": Smoke(passes=(_PTQ,), exports=({"use": "executorch"},)),
    "onnx": Smoke(exports=({"use": "onnx"},)),
    "openvino": Smoke(exports=({"use": "openvino"},)),
    "tflite": Smoke(exports=({"use": "tflite"},)),
    "tflm": Smoke(model={"use": "mcu"}, passes=(_PTQ,), exports=({"use": "tflm"},)),
    "coreml": Smoke(exports=({"use": "coreml", "precision": "weight-only-int8"},)),
    "ncnn": Smoke(passes=({"use": "ptq", "quantizer": "ncnn"},), exports=({"use": "ncnn"},)),
    "ethos-u": Smoke(exports=({"use": "tflite"},), target="ethos-u"),
    "tensorflow": Smoke(
        model={"use": "keras-applications", "arch": "MobileNet", "alpha": 0.25},
        passes=({"use": "keras-train", "epochs": 1},),
        exports=({"use": "keras-tflite", "precision": "int8"}, {"use": "keras-onnx"}),
    ),
    "tensorrt": Smoke(passes=({"use": "ptq", "quantizer": "tensorrt"},), exports=({"use": "tensorrt"},)),
    "tensorrt-rtx": Smoke(exports=({"use": "tensorrt-rtx"},)),
    "timm": Smoke(model={"use": "timm", "arch": "mobilenetv3_small_050"}),
    "hugging-face": Smoke(dataset={"use": "hugging-face", "source": "./images", "image_size": 32}),
    "tfds": Smoke(dataset={"use": "tfds", "path": "./prepared", "image_size": 32}),
    "audio": Smoke(dataset={"use": "spoken-digits", "image_size": 32, "speakers": 6, "takes": 1}),
    "serve": Smoke(is_served=True),
    "tune": Smoke(is_tuned=True),
    "ray": Smoke(is_on_ray=True),
    "web": Smoke(exports=({"use": "onnx-web"}, {"use": "litert-web"})),
    "tensorboard": Smoke(loggers=("tensorboard",)),
    "mlflow": Smoke(loggers=("mlflow",)),
    "wandb": Smoke(loggers=("wandb",)),
    "detection": Smoke(
        dataset={"use": "shapes-boxes", "image_size": 96, "drawn_size": 96, "images": 120},
        model={"use": "torchvision-detector"},
    ),
    "testing": None,
    "all": Smoke(
        dataset={"use": "digits", "image_size": 32},
        model={"use": "torchvision", "arch": "mobilenet_v3_small"},
        passes=({"use": "train", "epochs": 1}, _PTQ),
        exports=({"use": "executorch"}, {"use": "onnx"}, {"use": "openvino"}, {"use": "tflite"}),
    ),
}


@dataclass(frozen=True)
class Row:
    """What came of one extra; a step that was not reached has no verdict."""

    extra: str
    packages: int
    megabytes: float
    seconds: float
    doctor: str = ""
    smoke: str = ""

    @property
    def works(self) -> bool:
        """Whether every step did what it should."""
        return (self.doctor, self.smoke) == ("ok", "ok")


class Environment:
    """A fresh virtual environment, and a folder to work in that holds no sources."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        self.python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        self.work = folder / "work"
        self.work.mkdir()

    def run(self, *arguments: object, cwd: Path | None = None) -> str:
        """Runs `python ARGUMENTS`; gives "ok", or the last line that it left, the whole of it on the terminal."""
        hidden = ("PYTHONPATH", "VIRTUAL_ENV")  # only what is installed here may be found
        settings = {name: value for name, value in os.environ.items() if name not in hidden}
        done = subprocess.run(
            [self.python, *map(str, arguments)],
            cwd=cwd or self.work,
            env=settings | {"PYTHONNOUSERSITE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode == 0:
            return "ok"
        print(done.stdout, file=sys.stderr, flush=True)
        last = [line for line in done.stdout.splitlines() if line.strip()] or [""]
        return f"exit {done.returncode}: {last[-1].strip()[:60]}"

    def packages(self) -> int:
        """How many distributions are installed, pip and setuptools aside."""
        names = {each.name.partition("-")[0].lower() for each in self._site().glob("*.dist-info")}
        return len(names - {"pip", "setuptools", "wheel"})

    def megabytes(self) -> float:
        """What the environment takes on disk."""
        files = (each for each in self.python.parents[1].rglob("*") if each.is_file() and not each.is_symlink())
        return sum(each.stat().st_size for each in files) / 1e6

    def _site(self) -> Path:
        (site,) = self.python.parents[1].glob("lib/python*/site-packages")  # some packages have one within
        return site


def try_extra(extra: str, sources: Path, constraints: Path, folder: Path) -> Row:
    """Installs one extra and tries it."""
    environment = Environment(folder)
    start = time.perf_counter()
    installed = environment.run(
        *("-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("-c", constraints, f"{sources}[{extra}]"),
    )
    seconds = time.perf_counter() - start
    row = (extra, environment.packages(), environment.megabytes(), seconds)
    if installed != "ok":
        return Row(*row, doctor=f"not installed, {installed}")
    doctor = environment.run("-m", "edgeopt", "doctor")
    smoke = SMOKES[extra]
    return Row(*row, doctor, _contracts(environment) if smoke is None else _smoke(extra, smoke, environment))


def _smoke(extra: str, smoke: Smoke, environment: Environment) -> str:
    import tomli_w

    recipe = environment.work / "recipe.toml"
    recipe.write_bytes(tomli_w.dumps(smoke.recipe(f"smoke-{extra}")).encode())
    write_data(extra, environment.work)
    if smoke.is_tuned:
        return environment.run("-m", "edgeopt", "tune", recipe, "--plugin", PLUGIN)
    if smoke.target:
        return environment.run("-m", "edgeopt", "check", recipe, "--target", smoke.target, "--plugin", PLUGIN)
    cluster = ("--workers", "ray", "--ray-address", "local") if smoke.is_on_ray else ()
    ran = environment.run("-m", "edgeopt", "run", recipe, "--smoke", "--plugin", PLUGIN, *cluster)
    if ran != "ok" or not smoke.is_served:
        return ran
    return environment.run("-c", _SERVED, environment.work / "runs" / f"smoke-{extra}-smoke", PLUGIN)


def _contracts(environment: Environment) -> str:
    made = environment.run("-m", "edgeopt", "new", "plugin", "edgeopt-tried")
    package = environment.work / "edgeopt-tried"
    if made == "ok":
        made = environment.run("-m", "pip", "install", "--quiet", "--no-deps", package)
    return environment.run("-m", "pytest", "-q", cwd=package) if made == "ok" else made


def write_data(extra: str, folder: Path) -> None:
    """The data sets that the smoke run of an extra reads from files."""
    _images(folder / "images")
    if extra == "tfds":
        _prepared(folder / "prepared")


def _images(folder: Path) -> None:
    """Thirty images of each of two classes: bright at the left, or at the right."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for name, bright in (("left", np.s_[:, :24]), ("right", np.s_[:, 24:])):
        (folder / name).mkdir(parents=True)
        for index in range(30):
            pixels = random.integers(0, 96, (48, 48, 3), dtype=np.uint8)
            pixels[bright] += 128
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


def _prepared(folder: Path) -> None:
    """Cats and dogs of noise, as TensorFlow Datasets prepares them; it takes the package, which writes no data here."""
    runpy.run_path(str(ROOT / "tests" / "tfds_files.py"))["pets"](folder)


def extras() -> tuple[str, ...]:
    """Those of `pyproject.toml` that are for users, the whole of them last."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return tuple(sorted(set(declared) - set(NOT_TRIED), key=lambda name: (name == "all", list(declared).index(name))))


def main() -> None:
    """Tries all extras, or those that are named, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="extras to try; all of them when none is named")
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints.txt", help="the set of versions")
    parser.add_argument("--folder", type=Path, help="where environments are made; several gigabytes, one at a time")
    given = parser.parse_args()
    if unknown := set(given.extras) - set(extras()):
        parser.error(f"no such extra: {', '.join(sorted(unknown))}; there are {', '.join(extras())}")
    rows = []
    with tempfile.TemporaryDirectory(dir=given.folder) as aside:
        sources = shutil.copytree(ROOT, Path(aside) / "sources", ignore=shutil.ignore_patterns(*_LEFT_OUT))
        for extra in given.extras or extras():
            with tempfile.TemporaryDirectory(dir=aside) as folder:
                rows.append(row := try_extra(extra, sources, given.constraints.resolve(), Path(folder)))
            print(f"{extra}: doctor {row.doctor or '-'}, smoke {row.smoke or '-'}", flush=True)
    table = Table("extra", "packages", "MB", "s to install", "doctor", "smoke run")
    for row in rows:
        sizes = (f"{row.packages}", f"{row.megabytes:.0f}", f"{row.seconds:.0f}")
        table.add_row(row.extra, *sizes, row.doctor or "-", row.smoke or "-")
    Console(width=120).print(table)
    sys.exit(0 if all(row.works for row in rows) else 1)


if __name__ == "__main__":
    main()
