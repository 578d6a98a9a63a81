"""How often a run walks over the files of its data set, a folder of 50,000 small images, and what they cost besides.

Two figures. `walks`: the folders that a run and all its workers list, against those of one walk. The run is a smoke run
with four files of a model that needs no framework. `walk_seconds`: the CPU time of all that they do for the data set,
from the walk over the plan that the parent hands on to the images that the worker can open, against one walk with its
fingerprint; the least of several turns of each, as other work on the machine only ever adds to it.

    python benchmarks/walks.py [TURNS]
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bars import Bar, finish
from PIL import Image

ROOT = Path(__file__).parent.parent
CLASSES, IMAGES = 20, 2500  # of each class
LIMIT = 1.3
COUNTING = """
import os, sys
_file = os.open(os.environ["WALKS_FILE"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
def _hook(event, arguments):
    if event in ("os.scandir", "os.listdir") and str(arguments[0]).startswith(os.environ["WALKS_FOLDER"]):
        os.write(_file, b".")
sys.addaudithook(_hook)
"""
WORK = """
import sys, tempfile, time
from pathlib import Path
import numpy, PIL.Image, edgeopt_images.folder
from edgeopt.data.found import read_found
from edgeopt.pipeline.job import hand_over_plan, read_plan
from edgeopt.pipeline.runner import check, store_of
from edgeopt_images.found import find_folder
from edgeopt_images.options import ImageFolderOptions
root, recipe, plugin, out = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])

def seconds(work):
    start = time.process_time()
    work()
    return time.process_time() - start

def walk():
    find_folder(ImageFolderOptions(path=root)).fingerprint()

def parent_and_workers():
    plan = check(recipe, plugin_files=[plugin])
    with tempfile.TemporaryDirectory() as folder:
        handed = hand_over_plan(plan, store_of(out), Path(folder))
        read_plan(handed.file)
        read_found(handed.found).load()

walk()
print(seconds(walk), seconds(parent_and_workers))
"""
RECIPE = """
schema = 1
name = "walks"
dataset = {{ use = "image-folder", path = "{path}", image_size = 8 }}
model = {{ use = "abacus" }}
""" + "".join(f'\n[[exports]]\nuse = "abacus-npz"\nname = "file-{number}"\n' for number in range(4))
PLUGIN = ROOT / "tests" / "converting_plugin.py"


def fill(folder: Path, count: int) -> Path:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 100, 50)).save(buffer, "PNG")
    for number in range(CLASSES):
        (folder / f"class-{number:02}").mkdir(parents=True)
        for index in range(count):
            (folder / f"class-{number:02}" / f"{index:05}.png").write_bytes(buffer.getvalue())
    return folder


def written_recipe(images: Path, folder: Path) -> Path:
    recipe = folder / f"{images.name}.toml"
    recipe.write_text(RECIPE.format(path=images))
    return recipe


def walks(images: Path, folder: Path) -> float:
    """How often a run lists the folders of a data set, one walk being 1."""
    (folder / "counting").mkdir()
    (folder / "counting" / "sitecustomize.py").write_text(COUNTING)
    counted = folder / "listed"
    paths = [str(folder / "counting"), str(PLUGIN.parent), os.environ.get("PYTHONPATH", "")]
    settings = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "WALKS_FILE": str(counted),
        "WALKS_FOLDER": str(images),
    }
    command = [sys.executable, "-m", "edgeopt", "run", str(written_recipe(images, folder)), "--smoke"]
    with (folder / "log.txt").open("ab") as log:
        subprocess.run(
            [*command, "--out", str(folder / "runs"), "--plugin", str(PLUGIN)],
            stdout=log,
            stderr=log,
            env=os.environ | settings,
            check=True,
        )
    return counted.stat().st_size / (CLASSES + 1)


def seconds(images: Path, few: Path, folder: Path) -> tuple[float, float]:
    """CPU seconds of one walk, and of what parent and workers do for the data set; what they do without one is taken
    off.
    """
    spent = []
    for each in (images, few):
        command = [sys.executable, "-c", WORK, each, written_recipe(each, folder), PLUGIN, folder / "none"]
        done = subprocess.run(
            [str(part) for part in command],
            check=True,
            capture_output=True,
            text=True,
        )
        spent.append([float(value) for value in done.stdout.split()])
    return spent[0][0] - spent[1][0], spent[0][1] - spent[1][1]


def measure(turns: int) -> tuple[Bar, Bar]:
    folder = Path(tempfile.mkdtemp(prefix="edgeopt-walks-"))
    many, few = fill(folder / "many", IMAGES), fill(folder / "few", 1)
    times = []
    print(f"{'turn':>5} {'one walk, CPU s':>16} {'parent and workers, CPU s':>26}")
    for turn in range(turns):
        times.append(seconds(many, few, folder))
        print(f"{turn:>5} {times[-1][0]:>16.3f} {times[-1][1]:>26.3f}", flush=True)
    walk, all_of_it = map(min, zip(*times, strict=True))
    listed = walks(many, folder)
    shutil.rmtree(folder)
    return Bar("walks", listed, LIMIT), Bar("walk_seconds", all_of_it / walk, LIMIT)


if __name__ == "__main__":
    finish(*measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
