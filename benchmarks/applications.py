"""What an app makes of images against edgeopt: the plain Kotlin module of `edgeopt app android` on 200 odd images.

Any size from 1 px, grey, palettes, alpha, CMYK, turned by EXIF, very long ones. Pixels are compared in grey levels, and
input tensors and answers as they are: four cards differ in interpolation, layout, type and normalization, and the
answers are those of a real file, in ONNX Runtime, given the tensors of Kotlin and of Python.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from bars import Bar, finish
from rich.console import Console
from rich.table import Table

IMAGES = 200


def measure() -> list[Bar]:
    """All figures, printed, and their bars; none where there is no Kotlin compiler."""
    tests = Path(__file__).parents[1] / "tests"
    sys.path += [str(tests), str(tests / "applications")]
    from kotlin import HARNESS, Harness, compiled, kotlin_home, kotlin_of_tasks, odd_images
    from made_files import PREPROCESSING, made_files
    from test_card import CARDS, expected_input

    from edgeopt.applications import android
    from edgeopt.cards.reading import card_of
    from edgeopt.plugins.declarations import ExporterPlugin
    from edgeopt.plugins.registry import load_registry
    from edgeopt.preprocessing import Preprocessing

    console = Console()
    if kotlin_home() is None:
        console.print("no Kotlin compiler: what apps make of images is not compared; `make kotlin` brings one")
        return []
    with tempfile.TemporaryDirectory(prefix="edgeopt-applications-") as name:
        folder = Path(name)
        made = made_files(folder / "files")
        project = android.write_app(android.find_file(made["executorch"], load_registry()), folder / "app")
        sources = [*project.glob("core/src/main/**/*.kt"), *kotlin_of_tasks(), HARNESS]
        harness = Harness.start(compiled(sources, folder / "classes"))
        cards = {**CARDS, "file": card_of(made["onnx"])}
        table = Table("card", "images", "grey levels", "other tensors", title="Kotlin against Python")
        levels, tensors = [], []
        for number, (title, plain) in enumerate(cards.items()):
            card = replace(plain, versions={"pillow": plain.versions.get("pillow", _pillow())})
            (folder / "card.json").write_text(card.to_json())
            preprocessing = Preprocessing.from_json(card.preprocessing)
            worst = other = 0
            for _description, image in odd_images(IMAGES, seed=number):
                pixels, tensor = harness.fed(folder / "card.json", image, folder)
                expected = preprocessing.pixels(image).astype(int)
                off = np.abs(np.frombuffer(pixels, np.uint8).reshape(expected.shape) - expected)
                worst, other = max(worst, int(off.max())), other + (tensor != expected_input(card, image))
            levels.append(worst)
            tensors.append(other)
            table.add_row(title, str(IMAGES), str(worst), str(other))
        answers = 0
        with load_registry().get(ExporterPlugin, "onnx").opened(made["onnx"], 1) as predictor:
            (folder / "card.json").write_text(card_of(made["onnx"]).to_json())
            for _description, image in odd_images(IMAGES, seed=9):
                tensor = np.frombuffer(harness.fed(folder / "card.json", image, folder)[1], np.float32)
                logits = predictor.predict(tensor.reshape(1, 3, PREPROCESSING.image_size, PREPROCESSING.image_size))[0]
                (folder / "output").write_bytes(logits.tobytes())
                said = json.loads(harness.ask("answer", folder / "card.json", folder / "output", *image.size))
                guess = said["guesses"][0][0]
                own = predictor.predict(PREPROCESSING.normalize(PREPROCESSING.pixels(image)[None]))[0]
                answers += guess != card_of(made["onnx"]).classes[int(own.argmax())]
        harness.close()
    console.print(table)
    return [
        Bar(f"Kotlin's pixels on {IMAGES} odd images, grey levels off", max(levels), 0),
        Bar(f"Kotlin's tensors on {IMAGES} odd images, other than Python's", sum(tensors), 0),
        Bar(f"Kotlin's answers on {IMAGES} odd images, other than Python's", answers, 0),
    ]


def _pillow() -> str:
    from edgeopt.fingerprint import versions_of

    return versions_of(["pillow"])["pillow"]


if __name__ == "__main__":
    finish(*measure())
