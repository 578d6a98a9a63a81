"""Image files as cameras, phones, microscopes and editors leave them, through `FileImages` and `prepare`."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeopt.data.images import FileImages, open_image
from edgeopt.data.prepare import prepare, preprocessing_of
from edgeopt.data.splits import SPLITS
from edgeopt.errors import DataError
from edgeopt.options import DatasetOptions
from edgeopt.progress import Silent
from edgeopt.types import RawDataset

OPTIONS = DatasetOptions(image_size=8)
SKIPPING = DatasetOptions(image_size=8, on_error="skip")


def folder_of(tmp_path: Path, count: int = 20, **broken: bytes) -> RawDataset:
    """Images of two classes in files; `broken` holds the bytes of some by name."""
    files, labels = [], []
    for label in (0, 1):
        for index in range(count):
            name = f"{'ab'[label]}{index}"
            file = tmp_path / f"{name}.png"
            if name in broken:
                file.write_bytes(broken[name])
            else:
                Image.new("RGB", (12, 9), (index, 100 * label, 7)).save(file)
            files.append(file)
            labels.append(label)
    return RawDataset(("a", "b"), {"train": FileImages(tuple(files), np.array(labels))})


# ---- EXIF ----------------------------------------------------------------------------------------------------------


def exif(tag: int, kind: int, count: int, value: bytes) -> bytes:
    """A TIFF block with one tag, and Orientation 6: the top of the scene is on the right."""
    entries = [struct.pack("<HHL4s", tag, kind, count, value), struct.pack("<HHLHH", 0x0112, 3, 1, 6, 0)]
    return b"II*\0" + struct.pack("<LH", 8, 2) + b"".join(sorted(entries)) + struct.pack("<L", 0)


UNWRITABLE = {
    "width as text": exif(0x0100, 2, 4, b"640\0"),
    "width as float": exif(0x0100, 11, 1, struct.pack("<f", 1.5)),
    "width negative": exif(0x0100, 9, 1, struct.pack("<l", -4)),
    "strips as text": exif(0x0111, 2, 4, b"640\0"),
    "resolution as text": exif(0x011A, 2, 4, b"72 \0"),
}


@pytest.mark.parametrize("block", UNWRITABLE.values(), ids=UNWRITABLE)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_photo_whose_exif_cannot_be_written_stands_upright(block: bytes, suffix: str, tmp_path: Path) -> None:
    sideways = Image.new("RGB", (40, 40), "black")
    sideways.paste((255, 255, 255), (0, 0, 40, 20))
    file = tmp_path / f"7{suffix}"
    prefix = b"" if suffix == ".png" else b"Exif\0\0"
    sideways.save(file, exif=prefix + block, **({"lossless": True} if suffix == ".webp" else {}))
    pixels = preprocessing_of(OPTIONS).pixels(open_image(file, "7"))
    assert pixels[:, -2:].mean() > 200 > 50 > pixels[:, :2].mean()  # what was the top is on the right


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_a_broken_exif_block_costs_no_image(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"7{suffix}"
    Image.new("RGB", (9, 9), (200, 10, 10)).save(file, exif=b"X" * 32)
    assert preprocessing_of(OPTIONS).pixels(open_image(file, "7"))[0, 0, 0] > 180


# ---- what goes wrong with one image --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [struct.error("bad"), TypeError("bad operand"), MemoryError(), ValueError("bad"), OSError("bad"), IndexError()],
)
@pytest.mark.parametrize("place", ["load", "convert"])
def test_whatever_pillow_raises_is_named_with_its_file(
    error: Exception, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = folder_of(tmp_path)
    bad = tmp_path / "a7.png"
    Image.new("L", (3, 3)).save(bad)  # the only one of this size
    owner = Image.Image if place == "convert" else type(Image.open(bad))
    works = getattr(owner, place)

    def fails(self: Any, *args: Any, **more: Any) -> Any:
        if self.size == (3, 3):
            raise error
        return works(self, *args, **more)

    monkeypatch.setattr(owner, place, fails)
    with pytest.raises(DataError, match=r"a7\.png cannot be read"):
        prepare(raw, OPTIONS, tmp_path, Silent())
    values = prepare(raw, SKIPPING, tmp_path, Silent())
    assert len(values.skipped) == 1 and "a7.png" in values.skipped[0]


# ---- depth ---------------------------------------------------------------------------------------------------------


def deep(folder: Path, most: int, suffix: str = ".png", count: int = 20) -> RawDataset:
    """Two classes of 16-bit grey images with values up to `most`."""
    random = np.random.default_rng(0)
    files = []
    for index in range(2 * count):
        values = random.integers(0, most // 2, (8, 8)).astype(np.uint16)
        if index == 3:
            values[0, 0] = most
        files.append(folder / f"{index}{suffix}")
        Image.fromarray(values).save(files[-1])
    return RawDataset(("a", "b"), {"train": FileImages(tuple(files), np.array([0, 1] * count))})


@pytest.mark.parametrize(("most", "bits"), [(200, 8), (1023, 10), (4095, 12), (3000, 12), (16_000, 14), (60_000, 16)])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_the_depth_of_16_bit_images_is_seen_and_said(most: int, bits: int, suffix: str, tmp_path: Path) -> None:
    values = prepare(deep(tmp_path, most, suffix), OPTIONS, tmp_path, Silent())
    assert values.preprocessing["grey_bits"] == bits
    said = [each for each in values.warnings if "grey_bits" in each]
    assert len(said) == (bits < 16) and all(f"values of {bits} bits" in each for each in said)
    stored = np.concatenate([np.load(tmp_path / f"{name}-pixels.npy") for name in SPLITS])
    assert stored.max() == most >> (bits - 8)


def test_a_stated_depth_is_not_doubted_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    raw = deep(tmp_path, 3000)
    values = prepare(raw, DatasetOptions(image_size=8, grey_bits=16), tmp_path, Silent())
    assert values.preprocessing["grey_bits"] == 16 and not any("grey_bits" in each for each in values.warnings)
    with pytest.raises(DataError, match=r"\d\.png cannot be read: it holds the value \d+, and grey_bits = 10"):
        prepare(raw, DatasetOptions(image_size=8, grey_bits=10), tmp_path, Silent())


def test_a_tiff_file_tells_its_depth(tmp_path: Path) -> None:
    ramp = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    info = Image.Exif()
    info[281] = 4095  # MaxSampleValue
    Image.fromarray(ramp).save(tmp_path / "said.tif", tiffinfo=dict(info))
    twelve = np.stack([ramp.reshape(-1, 2)[:, 0] >> 4, (ramp.reshape(-1, 2)[:, 0] & 15) << 4], axis=1)
    second = ramp.reshape(-1, 2)[:, 1]
    packed = np.stack([twelve[:, 0], twelve[:, 1] | (second >> 8), second & 255], axis=1).astype(np.uint8).tobytes()
    tags = [(256, 4, 8), (257, 4, 8), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 8)]
    tags.append((279, 4, len(packed)))
    block = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHLL", tag, kind, 1, value) for tag, kind, value in tags
    )
    (tmp_path / "packed.tif").write_bytes(b"II*\0" + struct.pack("<L", 8 + len(packed)) + packed + block + b"\0" * 4)
    for name in ("said.tif", "packed.tif"):
        pixels = preprocessing_of(OPTIONS).pixels(open_image(tmp_path / name, name))
        np.testing.assert_array_equal(pixels[..., 0], (ramp >> 4).astype(np.uint8))


def test_a_deep_pgm_file_is_read(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1023, 64).astype(">u2")
    (tmp_path / "ramp.pgm").write_bytes(b"P5 8 8 1023\n" + ramp.tobytes())
    pixels = preprocessing_of(OPTIONS).pixels(open_image(tmp_path / "ramp.pgm", "ramp.pgm"))
    np.testing.assert_allclose(pixels[..., 0].reshape(-1), ramp / 1023 * 255, atol=1)
