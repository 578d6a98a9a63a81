"""The test vectors of a card: drawn again from a few integers, with the pixels and answers that must come of them."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_files import PREPROCESSING, SIZE, made_files

from edgeopt.cards.card import Card, DrawnImage
from edgeopt.cards.images import drawn, images_for
from edgeopt.cards.reading import card_of
from edgeopt.errors import UserError
from edgeopt.export.self_test import self_test_of
from edgeopt.preprocessing import Preprocessing
from edgeopt.testing import tiny_data, tiny_program
from edgeopt.types import ModelState


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return made_files(tmp_path_factory.getbasetemp().parent / "applications")


def plainly(image: DrawnImage) -> np.ndarray:
    """What the card's documentation says, px by px."""
    pixels = np.zeros((image.height, image.width, 3), np.uint8)
    for y in range(image.height):
        for x in range(image.width):
            for channel, (across, down, start) in enumerate(image.waves):
                value = min(255, abs((across * x + down * y + start) % 512 - 256))
                odd = (x // image.tile + y // image.tile) % 2
                pixels[y, x, channel] = 255 - value if odd else value
    return pixels


@pytest.mark.parametrize("resize", [1, 7, 40])
def test_images_are_drawn_as_the_card_says(resize: int) -> None:
    for image in images_for(resize):
        assert np.array_equal(drawn(image), plainly(image))
        assert all(0 <= number < 512 for wave in image.waves for number in wave)


def test_images_exercise_resizing_and_cutting() -> None:
    sizes = [(image.width, image.height) for image in images_for(40)]
    assert {min(size) < 40 for size in sizes} == {True, False}
    assert any(width > height for width, height in sizes) and any(width < height for width, height in sizes)


def test_a_card_carries_pixels_and_answers_in_and_beside_the_file(made: dict[str, Path]) -> None:
    for path in made.values():
        beside = card_of(path)
        path_alone = path.parent / "alone" / path.name
        path_alone.parent.mkdir(exist_ok=True)
        path_alone.write_bytes(path.read_bytes())
        inside = card_of(path_alone)
        assert inside.self_test and beside.self_test
        assert len(inside.self_test.vectors) == 3
        for within, known in zip(inside.self_test.vectors, beside.self_test.vectors, strict=True):
            assert replace(known, file_answers=()) == within
            pixels = PREPROCESSING.pixels(drawn(within.image))
            assert zlib.crc32(pixels.tobytes()) == within.crc32
            for row, column, *colour in within.pixels:
                assert pixels[row, column].tolist() == colour
            for (_index, program), file in zip(known.answers, known.file_answers, strict=True):
                assert file == pytest.approx(program, abs=inside.self_test.tolerance / 10)
        assert len(beside.to_json()) < 8000


def test_many_classes_are_named_by_a_few() -> None:
    state = tiny_program(tiny_data(classes=16, image_size=16))
    test = self_test_of(state)
    assert test
    for vector in test.vectors:
        assert len(vector.answers) == 10
        pixels = state.preprocessing.pixels(drawn(vector.image))
        logits = logits_of(state, state.preprocessing.normalize(pixels[None]))
        assert int(logits.argmax()) in dict(vector.answers)
        for index, value in vector.answers:
            assert value == pytest.approx(logits[index], abs=test.tolerance / 10)


def test_the_self_test_sees_what_apps_do_wrong(made: dict[str, Path]) -> None:
    """Another order of channels and another normalization by the answers, and other geometry by the pixels."""
    test = card_of(made["onnx"]).self_test
    assert test
    state = replace(tiny_program(tiny_data(image_size=SIZE)), preprocessing=PREPROCESSING)

    def worst(preprocessing: Preprocessing, *, swapped: bool = False) -> float:
        off = []
        for vector in test.vectors:
            pixels = preprocessing.pixels(drawn(vector.image))
            batch = preprocessing.normalize(pixels[None, ..., ::-1] if swapped else pixels[None])
            logits = logits_of(state, batch)
            off += [abs(float(logits[index]) - value) for index, value in vector.expected.items()]
        return max(off) / test.tolerance

    assert worst(PREPROCESSING) < 0.1
    assert worst(PREPROCESSING, swapped=True) > 1
    assert worst(replace(PREPROCESSING, mean=(0, 0, 0), std=(1, 1, 1))) > 1
    assert worst(replace(PREPROCESSING, std=(0.5, 0.5, 0.5), mean=(0.5, 0.5, 0.5))) > 1
    for other in (replace(PREPROCESSING, resize=SIZE), replace(PREPROCESSING, interpolation="nearest")):
        for vector in test.vectors[:2]:
            pixels = other.pixels(drawn(vector.image)).astype(int)
            assert max(abs(pixels[row, column] - colour).max() for row, column, *colour in vector.pixels) > 4


def logits_of(state: ModelState, batch: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return state.program.module()(torch.from_numpy(np.repeat(batch, 2, axis=0)))[0].numpy()


# ---- reading cards -------------------------------------------------------------------------------------------------


def test_a_card_is_its_own_file_too(made: dict[str, Path]) -> None:
    card = card_of(made["onnx"])
    assert card_of(made["onnx"].with_name("card.json")) == card
    assert json.loads(card.to_json())["preprocessing"]["mean"] == list(PREPROCESSING.mean)
    assert '"mean": [0.485, 0.456, 0.406]' in card.to_json()


def test_a_card_of_another_file_beside_it_does_not_count(made: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(made["onnx"].read_bytes())
    (tmp_path / "card.json").write_text(made["executorch"].with_name("card.json").read_text())
    assert card_of(tmp_path / "model.onnx").runtime == "onnxruntime"


def test_a_card_in_an_archive_and_in_a_folder_is_found(made: dict[str, Path], tmp_path: Path) -> None:
    card: Card = card_of(made["onnx"])
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("assets.extra/edgeopt_card.json", card.to_json())
    assert card_of(tmp_path / "model.zip") == card
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        archive.extractall(tmp_path / "saved")
    assert card_of(tmp_path / "saved") == card
    (tmp_path / "saved" / "card.json").write_text(card.to_json())
    with pytest.raises(UserError, match="holds 2 files with a card each"):
        card_of(tmp_path / "saved")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.onnx", None, "gone.onnx is not there"),
        ("plain.onnx", b"no card", "has no card, neither within nor beside it"),
        ("empty.pte", b"", "has no card"),
        ("card.json", b"{", "is no card that can be read"),
        ("torn.tflite", b'xx{\n  "classes": [\n    "a"', "has no card"),
    ],
)
def test_no_card(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        card_of(tmp_path / name)
