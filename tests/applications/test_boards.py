"""The services of `examples/raspberry-pi` and `examples/jetson`: they feed as edgeopt does, and are run like on a board."""

from __future__ import annotations

import ast
import ctypes
import importlib
import io
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kotlin import odd_images
from made_files import made_files
from patch_files import KINDS, asked
from PIL import Image
from task_cards import NAMES, SIZES, TASK_CARDS, Expected, expected, returned
from test_card import ANSWER, CARDS, answers, expected_input, expected_shares

from edgeopt.cards.card import Card, SelfTest, TensorInfo, Vector
from edgeopt.cards.images import drawn, images_for
from edgeopt.preprocessing import Preprocessing
from edgeopt.types import Role

EXAMPLES = Path(__file__).parents[2] / "examples"
PI, JETSON = EXAMPLES / "raspberry-pi", EXAMPLES / "jetson"


@pytest.fixture(scope="module")
def board() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of the two examples, which lie in one folder on a board."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(PI), str(JETSON), *sys.path])
        yield importlib.import_module
        for name in ("answers", "box_decoder", "feed", "service", "engine"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return made_files(tmp_path_factory.getbasetemp().parent / "applications")


@pytest.fixture
def model(made: dict[str, Path], tmp_path: Path) -> Path:
    """A folder of a file and its card, to spoil at will."""
    return Path(shutil.copytree(made["onnx"].parent, tmp_path / "model"))


# ---- feeding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CARDS)
def test_a_board_feeds_as_edgeopt_does(name: str, board: Callable[[str], ModuleType]) -> None:
    feed, card = board("feed"), json.loads(CARDS[name].to_json())
    for said, image in odd_images(40, seed=5):
        fed = feed.model_input(feed.pixels(image, card["preprocessing"]), card)
        assert fed.tobytes() == expected_input(CARDS[name], image), said
        assert fed.shape == tuple(1 if side == "batch" else side for side in card["input"]["shape"])
    output = ANSWER.astype(card["output"]["dtype"])[None]
    found = feed.outputs_of({"other": output[:, :1], "logits": output}, card)
    told = board("answers").classes(found, card, None).said["guesses"]
    wanted = dict(zip(NAMES, expected_shares(CARDS[name]), strict=True))
    assert told == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("name", TASK_CARDS)
def test_a_board_answers_as_the_task_does(name: str, board: Callable[[str], ModuleType]) -> None:
    feed, answers, card = board("feed"), board("answers"), json.loads(TASK_CARDS[name].to_json())
    for seed, (width, height) in enumerate(SIZES):
        arrays = returned(TASK_CARDS[name], seed)
        wanted = expected(TASK_CARDS[name], arrays, width, height)
        outputs = feed.outputs_of(dict(zip([each["name"] for each in feed.infos(card)], arrays, strict=True)), card)
        place = feed.placed(Image.new("RGB", (width, height)), card["preprocessing"])
        told = answers.ANSWERS[card.get("task", "classification")](outputs, card, place)
        require_told(told.said, told.mask, wanted)


def require_told(said: dict[str, Any], mask: np.ndarray | None, wanted: Expected) -> None:
    """What a board writes down of an answer is what the task makes of it, rounded."""
    if wanted.mask is not None:
        assert np.array_equal(mask, wanted.mask)
        assert sum(said["shares"].values()) == pytest.approx(1, abs=1e-3)
    elif "objects" in said:
        objects = [(each["label"], each["score"], each["box"]) for each in said["objects"]]
        rounded = [(label, round(score, 4), [round(side, 1) for side in box]) for label, score, box in wanted.objects]
        assert objects == rounded
    else:
        (guesses,) = (value for key, value in said.items() if key in ("guesses", "labels"))
        assert guesses == {label: round(share, 4) for label, share in wanted.guesses}


@pytest.mark.parametrize("kind", KINDS)
def test_a_board_opens_a_file_of_every_task(kind: str, board: Callable[[str], ModuleType], tmp_path: Path) -> None:
    """From an image to what is written down, in ONNX Runtime: a red and a blue patch are found where they are."""
    one = asked(kind, tmp_path / "run")
    answer = board("feed").Model(one.file.parent).answer(one.image)
    require_told(dict(answer.said), answer.mask, one.wanted)
    assert one.wanted.objects or one.wanted.mask is not None or len(one.wanted.guesses) == 2
    if one.wanted.objects:
        assert {label for label, _score, _box in one.wanted.objects} == {"red", "blue"}


def test_a_board_feeds_grey_files(board: Callable[[str], ModuleType], tmp_path: Path) -> None:
    """And says what it lacks for a task that it does not know."""
    feed = board("feed")
    (tmp_path / "card.json").write_text(CARDS["letterbox"].to_json())
    assert feed._card_in(tmp_path)["preprocessing"]["channel_order"] == "grey"
    (tmp_path / "card.json").write_text(replace(CARDS["int8"], task="angle").to_json())
    with pytest.raises(feed.WrongFileError, match="for the task angle: write a function for it into ANSWERS"):
        feed._card_in(tmp_path)


@pytest.mark.parametrize("bits", [12, 16])
def test_a_board_scales_grey_of_16_bits(bits: int, board: Callable[[str], ModuleType]) -> None:
    feed, preprocessing = board("feed"), Preprocessing(image_size=24, resize=28, crop=24, grey_bits=bits)
    grey = np.random.default_rng(0).integers(0, 2**bits, (40, 50), dtype=np.uint16)
    image = Image.fromarray(grey)
    assert np.array_equal(feed.pixels(image, preprocessing.to_json())[0], preprocessing.pixels(image))
    if bits < 16:
        with pytest.raises(ValueError, match="it holds the value 60000, and the card allows up to 4095"):
            feed.pixels(Image.fromarray(np.full_like(grey, 60000)), preprocessing.to_json())


def test_a_board_answers_as_edgeopt_does(
    made: dict[str, Path], board: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    feed = board("feed")
    model = feed.Model(made["onnx"].parent)
    assert model.is_tested
    for number, (_said, image) in enumerate(odd_images(6, seed=2)):
        image.save(file := tmp_path / f"{number}.tiff")
        guesses = model.answer(Image.open(file)).said["guesses"]
        wanted = answers("onnx", made["onnx"], file)[: len(guesses)]
        assert list(guesses) == [label for label, _ in wanted]
        assert list(guesses.values()) == pytest.approx([share for _, share in wanted], abs=1e-4)


def changed(model: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    card = json.loads((model / "card.json").read_text())
    change(card)
    (model / "card.json").write_text(json.dumps(card))
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card["self_test"]["vectors"][1].update(crc32=1), "this Pillow resizes otherwise"),
        (lambda card: card["self_test"]["vectors"][2]["file_answers"].__setitem__(0, 99.0), "99 where it was made"),
        (lambda card: card["preprocessing"].update(interpolation="lanczos"), "asks for interpolation = 'lanczos'"),
        (lambda card: card.update(schema=2), "asks for schema = 2"),
        (
            lambda card: card.update(runtime="executorch"),
            "is for executorch, and this service opens files of onnxruntime",
        ),
    ],
)
def test_a_file_that_answers_otherwise_is_not_served(
    change: Callable[[dict[str, Any]], object], message: str, model: Path, board: Callable[[str], ModuleType]
) -> None:
    feed = board("feed")
    with pytest.raises(feed.WrongFileError, match=message):
        feed.Model(changed(model, change))


def test_a_folder_without_one_file_and_its_card_is_refused(model: Path, board: Callable[[str], ModuleType]) -> None:
    feed = board("feed")
    (model / "card.json").rename(model / "cards.json")
    with pytest.raises(feed.WrongFileError, match="the card beside the file cannot be read"):
        feed.Model(model)
    (model / "second.tflite").touch()
    with pytest.raises(feed.WrongFileError, match="and has 2"):
        feed.Model(model)
    with pytest.raises(feed.WrongFileError, match="and has 0"):
        feed.Model(model / "nowhere")


def test_boards_need_neither_edgeopt_nor_torch() -> None:
    wanted = {
        "answers",
        "box_decoder",
        "feed",
        "service",
        "engine",
        "numpy",
        "PIL",
        "onnxruntime",
        "ai_edge_litert",
        "tensorrt",
    }
    for file in (*PI.glob("*.py"), *JETSON.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(), feature_version=(3, 8))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= wanted | sys.stdlib_module_names, file


# ---- the service -----------------------------------------------------------------------------------------------------


def test_the_service_answers_for_a_folder_until_it_is_told_to_stop(made: dict[str, Path], tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    image = next(image for said, image in odd_images(9, seed=4) if "RGBA" in said)
    image.save(incoming / "a.png")
    (incoming / "broken.jpg").write_bytes(b"no image")
    (incoming / "notes.txt").write_text("left alone")
    expected = answers("onnx", made["onnx"], incoming / "a.png")
    command = [sys.executable, PI / "service.py", made["onnx"].parent, "--folder", incoming, "--log", tmp_path / "log"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        lines = [json.loads(running.stdout.readline()) for _ in range(3)]
        running.send_signal(signal.SIGTERM)
        lines += [json.loads(line) for line in running.stdout]
    assert running.returncode == 0
    opened, *answered, last = lines
    assert opened["self_test"] == "passed"
    by_image = {line["image"]: line for line in answered}
    assert by_image["a.png"]["label"] == expected[0][0]
    assert by_image["a.png"]["guesses"][expected[0][0]] == pytest.approx(expected[0][1], abs=1e-3)
    assert "cannot identify image file" in by_image["broken.jpg"]["error"]
    assert last["last_images"] == 1
    kept = sorted(path.relative_to(incoming).as_posix() for path in incoming.rglob("*") if path.is_file())
    assert kept == ["done/a.png", "failed/broken.jpg", "notes.txt"]
    assert [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()] == lines


def test_the_service_stops_when_nobody_reads_its_answers(made: dict[str, Path], tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(tmp_path / f"{number}.png")
    command = [sys.executable, PI / "service.py", made["onnx"].parent, "--folder", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout and running.stderr
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == 0
    assert len(list(tmp_path.glob("*.png"))) >= 2, "what nobody heard of is still there"


def test_the_service_ends_with_2_for_a_wrong_file(tmp_path: Path) -> None:
    command = [sys.executable, PI / "service.py", tmp_path / "nowhere", "--folder", tmp_path / "incoming"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "must be a folder with one file" in done.stderr and "Traceback" not in done.stderr


def test_a_camera_gives_its_newest_frame(board: Callable[[str], ModuleType], tmp_path: Path) -> None:
    """Frames come in pieces that do not end where frames do; those that nobody waited for are gone."""
    service = board("service")
    frames = []
    for grey in range(3):
        Image.new("RGB", (40, 30), (80 * grey,) * 3).save(file := io.BytesIO(), "JPEG")
        frames.append(file.getvalue())
    (tmp_path / "frames").write_bytes(b"".join(frames))
    go, split = tmp_path / "go", len(frames[0]) + 50
    program = (
        "import os, sys, time\n"
        f"content = open({str(tmp_path / 'frames')!r}, 'rb').read()\n"
        f"for piece in (content[:100], content[100:{split}]):\n"
        "    sys.stdout.buffer.write(piece); sys.stdout.flush(); time.sleep(0.05)\n"
        f"while not os.path.exists({str(go)!r}):\n    time.sleep(0.01)\n"
        f"sys.stdout.buffer.write(content[{split}:])\n"
    )
    camera = service.Camera(shlex.join([sys.executable, "-c", program]))
    images = camera.images()
    assert next(images) == ("frame 1", frames[0])
    go.touch()
    camera._program.wait(10)
    time.sleep(0.05)
    assert next(images) == ("frame 2", frames[2]), "the second one was not waited for"
    with pytest.raises(service.CameraEndedError, match="ended with 0"):
        next(images)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("folder", [PI, JETSON], ids=lambda folder: folder.name)
def test_systemd_reads_the_units(folder: Path, tmp_path: Path) -> None:
    text = (folder / "edge-camera.service").read_text()
    for python in ("/opt/edge-camera/venv/bin/python", "/usr/bin/python3"):
        text = text.replace(python, sys.executable)
    (tmp_path / "edge-camera.service").write_text(text)
    command = ["systemd-analyze", "verify", tmp_path / "edge-camera.service"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (start,) = [line for line in text.replace("\\\n", "").splitlines() if line.startswith("ExecStart=")]
    _python, script, *arguments = shlex.split(start.partition("=")[2])
    assert (folder / script).is_file()
    assert arguments[0] == "model" and arguments[1::2] == ["--log", "--camera"]


# ---- TensorRT --------------------------------------------------------------------------------------------------------


class Modes(IntEnum):
    INPUT = 0
    OUTPUT = 1


class StandIn:
    """TensorRT's interface and the CUDA runtime's, over this machine's memory: the mean of each
    channel and the largest of these, as floats."""

    TensorIOMode = Modes
    num_io_tensors = 3

    class Logger:
        WARNING = 2

        def __init__(self, level: int) -> None:
            self.level = level

    def __init__(self, side: int = 8, smallest: int = 1) -> None:
        self.side, self.smallest = side, smallest
        self.memory: dict[int, Any] = {}
        self.addresses: dict[str, int] = {}
        self.fails = self.has_plugins = False

    def init_libnvinfer_plugins(self, _logger: object, _namespace: str) -> None:
        self.has_plugins = True

    def Runtime(self, _logger: object) -> StandIn:
        return self

    def nptype(self, dtype: str) -> type:
        return np.dtype(dtype).type

    def deserialize_cuda_engine(self, plan: bytes) -> StandIn | None:
        return self if plan == b"plan" and self.has_plugins else None

    def create_execution_context(self) -> StandIn:
        return self

    def get_tensor_name(self, index: int) -> str:
        return ("largest", "input", "logits")[index]

    def get_tensor_mode(self, name: str) -> Modes:
        return Modes.INPUT if name == "input" else Modes.OUTPUT

    def get_tensor_dtype(self, _name: str) -> str:
        return "float32"

    def get_tensor_profile_shape(self, _name: str, _profile: int) -> list[tuple[int, ...]]:
        return [(batch, 3, self.side, self.side) for batch in (self.smallest, 4, 4)]

    def set_input_shape(self, _name: str, shape: tuple[int, ...]) -> None:
        assert shape == (1, 3, self.side, self.side)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (1, 1 if name == "largest" else 3)

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, _stream: int) -> bool:
        given, returned, largest = (
            np.ctypeslib.as_array((ctypes.c_float * size).from_address(self.addresses[name]))
            for name, size in (("input", 3 * self.side**2), ("logits", 3), ("largest", 1))
        )
        returned[:] = given.reshape(3, -1).mean(-1)
        largest[:] = returned.max()
        return not self.fails

    # the CUDA runtime, whose arguments are ctypes'
    def cudaMalloc(self, address: Any, size: ctypes.c_size_t) -> int:
        held = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(held)
        self.memory[ctypes.addressof(held)] = held
        return 0

    def cudaMemcpy(self, target: ctypes.c_void_p, source: ctypes.c_void_p, size: ctypes.c_size_t, kind: int) -> int:
        inside = target if kind == 1 else source
        if size.value > len(self.memory[inside.value or 0]):
            return 1
        ctypes.memmove(target, source, size.value)
        return 0


def red_green_blue(side: int) -> Card:
    """The card of an engine that answers with the means of normalized channels, and its self-test."""
    preprocessing = Preprocessing(side, side, side)
    vectors = []
    for image in images_for(side):
        pixels = preprocessing.pixels(drawn(image))
        means = preprocessing.normalize(pixels[None]).mean((0, 2, 3))
        found = tuple((index, float(mean)) for index, mean in enumerate(means))
        vectors.append(Vector(image, zlib.crc32(pixels.tobytes()), (), found))
    given = TensorInfo("input", "float32", ("batch", 3, side, side), "NCHW")
    returned = TensorInfo("logits", "float32", ("batch", 3), "NC")
    card = Card(("red", "green", "blue"), preprocessing.to_json(), "tensorrt", "int8", Role.OPTIMIZED, {}, {}, given)
    return replace(card, outputs=(returned,), self_test=SelfTest(1e-4, tuple(vectors)))


def test_an_engine_is_fed_and_its_answer_read(tmp_path: Path, board: Callable[[str], ModuleType]) -> None:
    feed, engine, stand_in = board("feed"), board("engine"), StandIn()
    (tmp_path / "model.engine").write_bytes(b"plan")
    (tmp_path / "card.json").write_text(red_green_blue(8).to_json())
    openers = {"tensorrt": lambda path, _threads: engine.Engine(path, stand_in, engine.Cuda(stand_in))}
    model = feed.Model(tmp_path, openers=openers)
    assert model.is_tested
    assert model.answer(Image.new("RGB", (20, 30), (10, 200, 30))).said["label"] == "green"
    found = engine.Engine(tmp_path / "model.engine", stand_in, engine.Cuda(stand_in))(np.ones((1, 3, 8, 8), np.float32))
    assert {name: output.tolist() for name, output in found.items()} == {"largest": [[1]], "logits": [[1, 1, 1]]}
    stand_in.fails = True
    with pytest.raises(RuntimeError, match="could not run"):
        model.answer(Image.new("RGB", (20, 30)))


def test_engines_that_do_not_fit_are_refused(tmp_path: Path, board: Callable[[str], ModuleType]) -> None:
    feed, engine = board("feed"), board("engine")
    (file := tmp_path / "model.engine").write_bytes(b"of another GPU")
    with pytest.raises(feed.WrongFileError, match=r"run build\.sh here"):
        engine.Engine(file, StandIn(), engine.Cuda(StandIn()))
    file.write_bytes(b"plan")
    with pytest.raises(feed.WrongFileError, match="takes 2 images at once"):
        engine.Engine(file, StandIn(smallest=2), engine.Cuda(StandIn()))
    with pytest.raises(RuntimeError, match="cudaMemcpy failed with error 1"):
        cuda = engine.Cuda(stand_in := StandIn())
        cuda.to_device(cuda.allocated(4), np.zeros(2, np.float32))
    assert stand_in.memory
    if importlib.util.find_spec("tensorrt") is None:
        with pytest.raises(feed.WrongFileError, match="TensorRT is not here"):
            engine.open_engine(file, 1)
