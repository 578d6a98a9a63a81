"""Feeds a file of edgeopt as its card says, with NumPy, Pillow and the file's runtime: no edgeopt, no torch.

    import feed
    from PIL import Image

    model = feed.Model(Path("model"))                    # the folder with the file and its card.json
    print(model.answer(Image.open("image.jpg")).said)

What becomes of the file's outputs is in `answers.py`, for each task. There is no mean, size, label or scale in these
files: all numbers come from the card, so another file with its card may take the place of the two. Written for Python
3.8 and later.
"""

from __future__ import annotations

import json
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Mapping, Optional, Tuple

import numpy as np
from answers import ANSWERS, Placed
from PIL import Image, ImageOps

Run = Callable[[np.ndarray], Mapping[str, np.ndarray]]
Opener = Callable[[Path, int], Run]

MOST_PIXELS = 50_000_000  # of an image: a board has little memory
FILTERS = {"nearest": Image.NEAREST, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
FITS = ("crop", "letterbox", "stretch")


class WrongFileError(Exception):
    """The file, or its card, cannot be used here; trying again does not help."""


# ---- from an image to the file's input -------------------------------------------------------------------------------


def pixels(image: Image.Image, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """The image upright, on its ground, resized as in training: uint8 (1, height, width, channels), RGB or grey."""
    return as_array(framed(prepared(image, preprocessing), preprocessing))


def prepared(image: Image.Image, preprocessing: Mapping[str, Any]) -> Image.Image:
    """The image upright, on its ground, in the colours that the file takes, as large as it was."""
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"it has {image.width} x {image.height} pixels, and {MOST_PIXELS} at most are taken")
    image = eight_bits(ImageOps.exif_transpose(image), preprocessing["grey_bits"]).convert("RGBA")
    ground = Image.new("RGBA", image.size, (*preprocessing["background"], 255))
    image = Image.alpha_composite(ground, image).convert("RGB")
    return image if preprocessing["channel_order"] == "RGB" else image.convert("L")


def framed(image: Image.Image, preprocessing: Mapping[str, Any]) -> Image.Image:
    """The image as large as the file takes it, by its card's `fit`."""
    tall, wide = sides(preprocessing["image_size"])
    place = placed(image, preprocessing)
    (left, top), method = place.offset, FILTERS[preprocessing["interpolation"]]
    resized = image.resize(place.resized[::-1], method)
    if preprocessing.get("fit", "crop") == "letterbox":
        whole = Image.new("RGB", (wide, tall), tuple(preprocessing["background"])).convert(image.mode)
        whole.paste(resized, (left, top))
        return whole
    return resized.crop((-left, -top, wide - left, tall - top))


def placed(image: Image.Image, preprocessing: Mapping[str, Any]) -> Placed:
    """Where the image comes to lie in what the file sees."""
    fit, (tall, wide) = preprocessing.get("fit", "crop"), sides(preprocessing["image_size"])
    original = (image.height, image.width)
    if fit == "stretch":
        return Placed(original, (tall, wide), (0, 0))
    if fit == "letterbox":
        scale = min(tall / image.height, wide / image.width)
        width, height = min(wide, max(1, round(image.width * scale))), min(tall, max(1, round(image.height * scale)))
        return Placed(original, (height, width), ((wide - width) // 2, (tall - height) // 2))
    least_height, least_width = sides(preprocessing["resize"])
    scale = max(least_height / image.height, least_width / image.width)
    width, height = max(wide, round(image.width * scale)), max(tall, round(image.height * scale))
    return Placed(original, (height, width), (-((width - wide) // 2), -((height - tall) // 2)))


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


# ---- from what the file gives to numbers -----------------------------------------------------------------------------


def outputs_of(found: Mapping[str, np.ndarray], card: Mapping[str, Any]) -> List[np.ndarray]:
    """The file's outputs in the order of the card: of quantized numbers what they stand for, others as they are."""
    outputs = []
    for info in infos(card):
        values = found[info["name"]]
        if info["scale"] is not None:
            values = (values.astype(np.float32) - info["zero_point"]) * np.float32(info["scale"])
        outputs.append(values.astype(np.float32) if values.dtype.kind == "f" else values)
    return outputs


def infos(card: Mapping[str, Any]) -> List[Mapping[str, Any]]:
    """What a card says of the file's outputs: a list where there are several."""
    return card["outputs"] if "outputs" in card else [card["output"]]


# ---- the runtimes ----------------------------------------------------------------------------------------------------


def open_onnx(path: Path, threads: int) -> Run:
    """An .onnx file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    names = [each.name for each in session.get_outputs()]
    return lambda values: dict(zip(names, session.run(names, {name: values})))


def open_litert(path: Path, threads: int) -> Run:
    """A .tflite file in LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    given, returned = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()

    def run(values: np.ndarray) -> Mapping[str, np.ndarray]:
        interpreter.set_tensor(given, values)
        interpreter.invoke()
        return {each["name"]: interpreter.get_tensor(each["index"]) for each in returned}

    return run


OPENERS: Mapping[str, Opener] = {"onnxruntime": open_onnx, "litert": open_litert}
"""What opens a file, by the runtime that its card names."""
ENDINGS = (".onnx", ".tflite", ".engine")


# ---- all of it -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What the file says of one image, as it is written down; the class of each px, uint8 (height, width), where it
    gives masks; and how long it took.
    """

    said: Mapping[str, Any]
    mask: Optional[np.ndarray]
    prepare_ms: float
    file_ms: float


class Model:
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
        self._answers = ANSWERS[self.card.get("task", "classification")]
        self.is_tested = self._self_test()

    def answer(self, image: Image.Image) -> Answer:
        """Decodes, prepares and answers; raises what Pillow raises for an image that it cannot read."""
        start = time.perf_counter()
        preprocessing = self.card["preprocessing"]
        whole = prepared(image, preprocessing)
        values = model_input(as_array(framed(whole, preprocessing)), self.card)
        fed = time.perf_counter()
        found = self._run(values)
        end = time.perf_counter()
        told = self._answers(outputs_of(found, self.card), self.card, placed(whole, preprocessing))
        return Answer(told.said, told.mask, (fed - start) * 1000, (end - fed) * 1000)

    def _self_test(self) -> bool:
        """Whether the card has drawn images; their pixels and answers must be those of the card, or it raises."""
        test = self.card.get("self_test") or {"vectors": ()}
        for vector in test["vectors"]:
            image = pixels(drawn(vector["image"]), self.card["preprocessing"])
            if zlib.crc32(image.tobytes()) != vector["crc32"]:
                raise WrongFileError("the self-test fails: this Pillow resizes otherwise; install the one of the card")
            values = outputs_of(self._run(model_input(image, self.card)), self.card)[0].reshape(-1)
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
    known = {
        "schema": [1],
        "holds": ["values", "pixels"],
        "interpolation": list(FILTERS),
        "channel_order": ["RGB", "grey"],
        "fit": list(FITS),
    }
    said = {"fit": "crop", **card["preprocessing"], "schema": card["schema"], "holds": card["input"]["holds"]}
    for name, values in known.items():
        if said[name] not in values:
            raise WrongFileError(f"the card asks for {name} = {said[name]!r}, which this service does not know")
    task = card.get("task", "classification")
    if task not in ANSWERS:
        raise WrongFileError(f"the card is for the task {task}: write a function for it into ANSWERS in answers.py")
    return card
