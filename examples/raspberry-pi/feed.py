"""Feeds a file of edgeopt as its card says, with NumPy, Pillow and the file's runtime: no edgeopt, no torch.

    import feed
    from PIL import Image

    classifier = feed.Classifier(Path("model"))          # the folder with the file and its card.json
    print(classifier.answer(Image.open("image.jpg")).label)

There is no mean, size, label or scale in this file: all numbers come from the card, so another file with its card may
take the place of the two. Written for Python 3.8 and later.
"""

from __future__ import annotations

import json
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Tuple

import numpy as np
from PIL import Image, ImageOps

Run = Callable[[np.ndarray], np.ndarray]
Opener = Callable[[Path, int], Run]

MOST_PIXELS = 50_000_000  # of an image: a board has little memory
FILTERS = {"nearest": Image.NEAREST, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
GUESSES = 5


class WrongFileError(Exception):
    """The file, or its card, cannot be used here; trying again does not help."""


# ---- from an image to the file's input -------------------------------------------------------------------------------


def pixels(image: Image.Image, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """The image upright, on its ground, resized as in training: uint8 (1, height, width, channels), RGB or grey."""
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"it has {image.width} x {image.height} pixels, and {MOST_PIXELS} at most are taken")
    image = eight_bits(ImageOps.exif_transpose(image), preprocessing["grey_bits"]).convert("RGBA")
    ground = Image.new("RGBA", image.size, (*preprocessing["background"], 255))
    image = Image.alpha_composite(ground, image).convert("RGB")
    image = image if preprocessing["channel_order"] == "RGB" else image.convert("L")
    return as_array(framed(image, preprocessing))


def framed(image: Image.Image, preprocessing: Mapping[str, Any]) -> Image.Image:
    """The image as large as the file takes it, by its card's `fit`."""
    fit, method = preprocessing.get("fit", "crop"), FILTERS[preprocessing["interpolation"]]
    tall, wide = sides(preprocessing["image_size"])
    if fit == "stretch":
        return image.resize((wide, tall), method)
    if fit == "letterbox":
        scale = min(tall / image.height, wide / image.width)
        width, height = (max(1, round(side * scale)) for side in image.size)
        whole = Image.new("RGB", (wide, tall), tuple(preprocessing["background"])).convert(image.mode)
        whole.paste(image.resize((width, height), method), ((wide - width) // 2, (tall - height) // 2))
        return whole
    least_height, least_width = sides(preprocessing["resize"])
    scale = max(least_height / image.height, least_width / image.width)
    width, height = max(wide, round(image.width * scale)), max(tall, round(image.height * scale))
    left, top = (width - wide) // 2, (height - tall) // 2
    return image.resize((width, height), method).crop((left, top, left + wide, top + tall))


def sides(size: Any) -> Tuple[int, int]:
    """Height and width of a size as a card has it: the edge of a square, or both."""
    return (size, size) if isinstance(size, int) else tuple(size)


def as_array(image: Image.Image) -> np.ndarray:
    """An image as uint8 (1, height, width, channels)."""
    values = np.asarray(image)
    return values.reshape(1, image.height, image.width, -1)


def eight_bits(image: Image.Image, bits: int) -> Image.Image:
    """Grey of 16 bits, of which a camera writes `bits`, as grey of 8; Pillow would clip it instead of scaling it."""
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers (mode {image.mode}) of unknown range")
    if not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    if values.max(initial=0) >= 2**bits:
        raise ValueError(f"it holds the value {values.max()}, and the card allows up to {2**bits - 1}")
    return Image.fromarray((values >> (bits - 8)).astype(np.uint8))


def model_input(image: np.ndarray, card: Mapping[str, Any]) -> np.ndarray:
    """What the file takes for pixels: the pixels themselves, normalized floats, or these quantized."""
    given = card["input"]
    values = image
    if given["holds"] == "values":
        mean, std = (np.array(card["preprocessing"][name], np.float64) for name in ("mean", "std"))
        values = image.astype(np.float32) * (1 / (255 * std)).astype(np.float32) + (-mean / std).astype(np.float32)
        if given["dtype"] != "float32":
            kind = np.iinfo(given["dtype"])
            values = np.rint(values * np.float32(1 / given["scale"])) + given["zero_point"]
            values = values.clip(kind.min, kind.max).astype(given["dtype"])
    return np.ascontiguousarray(values if given["layout"] == "NHWC" else values.transpose(0, 3, 1, 2))


# ---- from the file's output to classes -------------------------------------------------------------------------------


def logits(output: np.ndarray, card: Mapping[str, Any]) -> np.ndarray:
    """The file's output for one image as floats, one a class."""
    returned = card["output"]
    values = output[0].astype(np.float32)
    return values if returned["scale"] is None else (values - returned["zero_point"]) * np.float32(returned["scale"])


def shares(values: np.ndarray) -> np.ndarray:
    """Logits as shares of certainty, whose sum is 1."""
    powers = np.exp(values.astype(np.float64) - values.max())
    return powers / powers.sum()


# ---- the runtimes ----------------------------------------------------------------------------------------------------


def open_onnx(path: Path, threads: int) -> Run:
    """An .onnx file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda values: session.run(None, {name: values})[0]


def open_litert(path: Path, threads: int) -> Run:
    """A .tflite file in LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    given, returned = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(values: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given, values)
        interpreter.invoke()
        return interpreter.get_tensor(returned)

    return run


OPENERS: Mapping[str, Opener] = {"onnxruntime": open_onnx, "litert": open_litert}
"""What opens a file, by the runtime that its card names."""
ENDINGS = (".onnx", ".tflite", ".engine")


# ---- all of it -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What the file says of one image: the likeliest classes with their shares, and how long it took."""

    guesses: tuple[tuple[str, float], ...]
    prepare_ms: float
    file_ms: float

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.guesses[0][0]


class Classifier:
    """A file that is opened once and has passed the self-test of its card."""

    def __init__(self, folder: Path, threads: int = 1, openers: Mapping[str, Opener] = OPENERS) -> None:
        """Opens the one file in `folder`, fed as the `card.json` beside it says.

        Raises `WrongFileError` where the two cannot be used, or the file does not answer as it did where it was made.
        """
        self.path = _file_in(folder)
        self.card = _card_in(folder)
        runtime = self.card["runtime"]
        if runtime not in openers:
            raise WrongFileError(f"{self.path} is for {runtime}, and this service opens files of {', '.join(openers)}")
        self._run = openers[runtime](self.path, threads)
        self.is_tested = self._self_test()

    def answer(self, image: Image.Image) -> Answer:
        """Decodes, prepares and answers; raises what Pillow raises for an image that it cannot read."""
        start = time.perf_counter()
        values = model_input(pixels(image, self.card["preprocessing"]), self.card)
        prepared = time.perf_counter()
        output = self._run(values)
        end = time.perf_counter()
        found = shares(logits(output, self.card))
        likeliest = np.argsort(-found, kind="stable")[:GUESSES]
        guesses = tuple((self.card["classes"][place], float(found[place])) for place in likeliest)
        return Answer(guesses, (prepared - start) * 1000, (end - prepared) * 1000)

    def _self_test(self) -> bool:
        """Whether the card has drawn images; their pixels and answers must be those of the card, or it raises."""
        test = self.card.get("self_test") or {"vectors": ()}
        for vector in test["vectors"]:
            image = pixels(drawn(vector["image"]), self.card["preprocessing"])
            if zlib.crc32(image.tobytes()) != vector["crc32"]:
                raise WrongFileError("the self-test fails: this Pillow resizes otherwise; install the one of the card")
            values = logits(self._run(model_input(image, self.card)), self.card)
            expected = vector["file_answers"] or [value for _, value in vector["answers"]]
            for (index, _), value in zip(vector["answers"], expected):
                if not abs(values[index] - value) <= test["tolerance"]:
                    answers = f"the file answers {values[index]:.4g} here, and {value:.4g} where it was made"
                    raise WrongFileError(f"the self-test fails: {answers}")
        return bool(test["vectors"])


def drawn(image: Mapping[str, Any]) -> Image.Image:
    """An image of a self-test, drawn from its numbers."""
    y, x = np.mgrid[: image["height"], : image["width"]]
    inverted = (x // image["tile"] + y // image["tile"]) % 2 == 1
    channels = []
    for across, down, start in image["waves"]:
        value = np.minimum(255, np.abs((across * x + down * y + start) % 512 - 256))
        channels.append(np.where(inverted, 255 - value, value))
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def _file_in(folder: Path) -> Path:
    files = sorted(path for path in folder.glob("*") if path.suffix in ENDINGS) if folder.is_dir() else []
    if len(files) != 1:
        raise WrongFileError(f"{folder} must be a folder with one file ({', '.join(ENDINGS)}), and has {len(files)}")
    return files[0]


def _card_in(folder: Path) -> Mapping[str, Any]:
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WrongFileError(f"the card beside the file cannot be read: {error}") from error
    known = {"schema": [1], "holds": ["values", "pixels"], "interpolation": list(FILTERS), "channel_order": ["RGB"]}
    said = {**card["preprocessing"], "schema": card["schema"], "holds": card["input"]["holds"]}
    for name, values in known.items():
        if said[name] not in values:
            raise WrongFileError(f"the card asks for {name} = {said[name]!r}, which this service does not know")
    return card
