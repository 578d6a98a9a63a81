"""Phones behind adb: the system's `adb` with a server of its own, and phones on loopback."""

# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from android import Android, wait_for
from conftest import TINY_PLUGIN
from phone_runners import (
    APP,
    HAS_ADBD,
    NO_ADBD,
    Desk,
    RealPhone,
    adb_server,
    linear_card,
    linear_tflite,
    made_phone,
    word,
)
from typer.testing import CliRunner

from edgeopt.cli import app
from edgeopt.plugins import (
    ConnectionLostError,
    Device,
    DeviceError,
    DeviceFile,
    DeviceJob,
    DevicePlugin,
    FileOnDevice,
    RecipeError,
    TensorInfo,
    Use,
)
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import DeviceContract
from edgeopt.testing.device import DeviceTask
from edgeopt_devices.adb.app import App

sys.path.insert(0, str(Path(__file__).parents[1] / "applications"))
from made_files import made_files

pytestmark = pytest.mark.skipif(shutil.which("adb") is None, reason="there is no adb: apt install adb")

SIDE, CLASSES, IMAGES = 8, 4, 3
OWN = "data/local/tmp/edgeopt-device"
MEANS = "times are the means of each turn's calls"


@pytest.fixture(scope="session", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with adb_server(tmp_path_factory.mktemp("adb")):
        yield


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


@pytest.fixture
def phone(desk: Desk, tmp_path: Path) -> Iterator[Android]:
    yield from made_phone(desk, tmp_path / "phone")


def phone_of(phone: Android, **options: object) -> Use[DevicePlugin]:
    """The phone as a recipe has it, with the app where no other runner is named."""
    own = {} if "runner" in options or "app" in options else {"app": APP}
    return resolve(DevicePlugin, "adb", {"serial": phone.serial, **own, **options}, load_registry())


def runner(desk: Desk, folder: Path, name: str, **options: object) -> dict[str, object]:
    """The options that name a program for phones."""
    path = folder / word(name)
    path.write_text(desk.program(name))
    kind = name.partition(" ")[0]
    return {"runner": {"kind": kind, "path": str(path), "sha256": digest(path), **options}}


def opened(use: Use[DevicePlugin], tell: Callable[[str], None] = lambda _: None) -> Device:
    return use.plugin.opened(use.options, "phone", tell)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def done(
    use: Use[DevicePlugin], job: DeviceJob, tell: Callable[[str], None] = lambda _: None
) -> dict[str, FileOnDevice]:
    device = opened(use)
    try:
        return dict(device.run(job, tell))
    finally:
        device.close()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> DeviceTask:
    return made_task(tmp_path_factory.mktemp("files"))


def made_task(folder: Path) -> DeviceTask:
    """Two `.tflite` files of one size, and one that is none; of whole numbers, which every machine adds up alike."""
    random = np.random.default_rng(7)
    pixels = random.integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    np.save(folder / "images.npy", pixels)
    card = linear_card(SIDE, CLASSES)
    files, expected = [], {}
    for name in ("first", "broken", "second"):
        path = folder / f"{name}.tflite"
        weight = random.integers(-3, 4, (3 * SIDE * SIDE, CLASSES)).astype(np.float32)
        path.write_bytes(b"no file" if name == "broken" else linear_tflite(weight, SIDE))
        files.append(DeviceFile(name, path, digest(path), (1.0,) * 3, (0.0,) * 3, card=card))
        if name != "broken":
            expected[name] = pixels.reshape(IMAGES, -1).astype(np.float32) @ weight
    images = folder / "images.npy"
    job = DeviceJob(tuple(files), images, digest(images), warmup=1, turns=((3, 0.0), (2, 0.0)), timeout_s=30.0)
    return DeviceTask(job, expected)


class TestAdb(DeviceContract):
    """With the app, which answers and tells single calls."""

    name = "adb"
    options = {"app": APP}

    @pytest.fixture(scope="class")
    @classmethod
    def phone(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Android]:
        desk = Desk()
        yield from made_phone(desk, tmp_path_factory.mktemp("contract") / "phone")
        desk.close()

    @pytest.fixture(scope="class")
    @classmethod
    def use(cls, phone: Android) -> Use[DevicePlugin]:
        return phone_of(phone)

    @pytest.fixture(scope="class")
    @classmethod
    def task(cls, tmp_path_factory: pytest.TempPathFactory) -> DeviceTask:
        return made_task(tmp_path_factory.mktemp("task"))

    def test_nothing_is_left_there(self, use: Use[DevicePlugin], phone: Android) -> None:
        device = opened(use)
        assert (phone.root / OWN).is_dir()
        device.clean()
        assert not [path for path in (phone.root / "data").rglob("*") if path.is_file()]
        assert not [path for path in (phone.root / "sdcard").rglob("*") if path.is_file()]


# ---- what each runner gives ----------------------------------------------------------------------------------------


def test_a_phone_describes_itself_with_what_runs_its_files(phone: Android, desk: Desk, tmp_path: Path) -> None:
    device = opened(phone_of(phone, **runner(desk, tmp_path, "benchmark_model")))
    facts = device.describe()
    device.close()
    assert facts.processor == "Example Phone 7 (Chips C-1)"
    assert facts.system == "Android 14 (API 34)"
    assert (facts.python, facts.temperature_c) == ("", 41.5)
    assert facts.cores == os.cpu_count()
    assert facts.memory_bytes
    assert facts.free_bytes
    assert facts.versions == {"benchmark_model": f"sha256 {digest(tmp_path / 'benchmark_model')[:12]}…"}
    device = opened(phone_of(phone))
    assert device.describe().versions == {APP: "1.0"}
    device.close()


def test_benchmark_model_answers_and_tells_means(phone: Android, desk: Desk, task: DeviceTask, tmp_path: Path) -> None:
    found = done(phone_of(phone, **runner(desk, tmp_path, "benchmark_model")), task.job)
    for name, expected in task.expected.items():
        file = found[name]
        assert file.error is None
        assert np.array_equal(file.outputs[0], expected)
        assert [len(turn) for turn in file.turns_ms] == [1, 1]
        assert file.means_of == (3, 2)
        assert all(time_ms > 0 for (time_ms,) in file.turns_ms)
        assert file.load_ms > 0
        assert file.first_ms > 0
        assert file.peak_memory_bytes == round(6.5 * 2**20)
        assert file.states == ((41.5, None), (41.5, None))
        assert (file.note or "").startswith(MEANS)
    assert "Failed to load model" in (found["broken"].error or "") or "ERROR" in (found["broken"].error or "")
    assert found["broken"].outputs is None
    kept = {path.name for path in (phone.root / OWN / "files").iterdir()}
    assert {f"{file.sha256}.tflite" for file in task.job.files} < kept, "nothing else, and under their digests"
    assert not list((phone.root / OWN / "work").iterdir())


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("benchmark_model of LiteRT", "this benchmark_model writes no outputs"),
        ("run_model", "run_model takes no inputs"),
    ],
)
def test_a_runner_without_answers_says_so(
    name: str, note: str, phone: Android, desk: Desk, task: DeviceTask, tmp_path: Path
) -> None:
    found = done(phone_of(phone, **runner(desk, tmp_path, name)), task.job)
    for file in (found["first"], found["second"]):
        assert file.error is None
        assert file.outputs is None
        assert f"answers are not given by this runner: {note}" in (file.note or "")
        assert MEANS in (file.note or "")
        assert all(time_ms > 0 for (time_ms,) in file.turns_ms)
    asked = {kind for kind, _ in desk.asked}
    assert name in asked


def test_run_model_is_not_told_how_many_threads(phone: Android, desk: Desk, task: DeviceTask, tmp_path: Path) -> None:
    found = done(phone_of(phone, **runner(desk, tmp_path, "run_model")), replace(task.job, threads=2))
    assert "run_model takes no number of threads" in (found["first"].error or "")
    assert not [kind for kind, _ in desk.asked if kind == "run_model"]


@pytest.fixture(scope="module")
def pte(tmp_path_factory: pytest.TempPathFactory) -> DeviceTask:
    """A `.pte` file that takes pixels, and what it answers here."""
    from edgeopt.cards.reading import card_of
    from edgeopt_executorch.on_device import open_file

    path = made_files(tmp_path_factory.getbasetemp().parent / "applications")["executorch"]
    card = card_of(path)
    side = int(card.preprocessing["image_size"])
    pixels = np.random.default_rng(3).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    images = tmp_path_factory.mktemp("pte") / "images.npy"
    np.save(images, pixels)
    file = open_file(path, 1)
    expected = np.concatenate([file.predict(pixels[n : n + 1])[0] for n in range(2)])
    file.close()
    given = DeviceFile("made", path, digest(path), card=card)
    return DeviceTask(DeviceJob((given,), images, digest(images), turns=((3, 0.0),), warmup=1), {"made": expected})


@pytest.mark.parametrize("name", ["executor_runner", "executor_runner on Android"])
def test_executor_runner_answers_and_tells_single_calls(
    name: str, phone: Android, desk: Desk, pte: DeviceTask, tmp_path: Path
) -> None:
    """On Android its messages are in the system's log, and not in what it prints."""
    file = done(phone_of(phone, **runner(desk, tmp_path, name)), pte.job)["made"]
    assert file.error is None
    assert np.array_equal(file.outputs[0], pte.expected["made"])
    assert [len(turn) for turn in file.turns_ms] == [3]
    assert file.load_ms > 0
    assert file.first_ms > 0
    assert (file.note, file.means_of) == (None, ())


def test_an_older_executor_runner_tells_means_or_what_it_lacks(
    phone: Android, desk: Desk, pte: DeviceTask, tmp_path: Path
) -> None:
    use = phone_of(phone, **runner(desk, tmp_path, "executor_runner without single calls"))
    file = done(use, replace(pte.job, answers=False))["made"]
    assert file.means_of == (5,), "the first call and the warm-up are among them"
    assert MEANS in (file.note or "")
    file = done(phone_of(phone, **runner(desk, tmp_path, "executor_runner that is old")), pte.job)["made"]
    assert "unknown command line flag 'inputs'" in (file.error or "")


def test_calls_last_as_long_as_a_turn_asks_for(phone: Android, desk: Desk, task: DeviceTask, tmp_path: Path) -> None:
    job = replace(task.job, files=task.job.files[:1], answers=False, turns=((1, 0.2),))
    file = done(phone_of(phone), job)["first"]
    assert sum(file.turns_ms[0]) > 20, "as many calls as by their own time fill it"
    file = done(phone_of(phone, **runner(desk, tmp_path, "benchmark_model")), job)["first"]
    assert file.means_of[0] * file.turns_ms[0][0] > 20


def test_an_app_gives_all_outputs(tmp_path: Path) -> None:
    """Of each image one after the other, as numbers of 32 bits; those that are classes come back as what they are."""
    infos = (
        TensorInfo("masks", "uint8", (1, 2, 3), "NDD"),
        TensorInfo("boxes", "int8", (1, 2, 4), "NDD", 0.5, 3),
    )
    card = replace(linear_card(SIDE, CLASSES), outputs=infos)
    masks = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    boxes = np.arange(16, dtype=np.float32).reshape(2, 2, 4) / 4
    rows = [np.concatenate([mask.reshape(-1), box.reshape(-1)]) for mask, box in zip(masks, boxes, strict=True)]

    class Phone:
        own = "/data/local/tmp/edgeopt"
        content = np.concatenate(rows).astype("<f4").tobytes()

        def send(self, name: str, path: Path) -> None:
            assert (name, path.read_bytes()) == ("pixels.bin", bytes(6))

        def put(self, path: Path, digest: str) -> str:
            return f"{self.own}/{digest}/{path.name}"

        def run(self, script: str) -> SimpleNamespace:
            return SimpleNamespace(code=0, text='{"times_ms": [1.0]}' if "result.json" in script else "")

        def require(self, said: SimpleNamespace) -> None:
            assert said.code == 0

        def fetch(self, _name: str, _path: Path) -> bytes:
            return self.content

    (tmp_path / "model").write_bytes(b"a file")
    file = DeviceFile("made", tmp_path / "model", "0", card=card)
    runner = App(Phone(), APP, "1.0")  # type: ignore[arg-type]
    job = DeviceJob((file,), tmp_path / "images.npy", "0")
    answered = runner.answers(file, np.zeros((2, 1, 1, 3), np.uint8), job, tmp_path)
    assert answered.outputs is not None
    assert [each.dtype for each in answered.outputs] == [np.uint8, np.float32]
    assert all(np.array_equal(*pair) for pair in zip(answered.outputs, (masks, boxes), strict=True))
    Phone.content += b"more"
    with pytest.raises(DeviceError, match="116 bytes instead of 112"):
        runner.answers(file, np.zeros((2, 1, 1, 3), np.uint8), job, tmp_path)
    wide = replace(card, outputs=tuple(replace(each, dtype="int16") for each in card.outputs))
    with pytest.raises(DeviceError, match="the app knows no int16"):
        runner.require(replace(file, card=wide), job)


def test_what_an_app_must_say_of_itself_is_said(phone: Android, desk: Desk, task: DeviceTask) -> None:
    from edgeopt.cards.card import SelfTest

    card = replace(linear_card(SIDE, CLASSES), self_test=SelfTest(0.1, ()))
    job = replace(task.job, files=(replace(task.job.files[0], card=card),), turns=())
    desk.self_test_passed = False
    note = done(phone_of(phone), job)["first"].note or ""
    assert "self-test of the app failed: pixels differ by 7 grey levels" in note
    desk.app_dies = True
    assert "the app ended without a result" in (done(phone_of(phone), job)["first"].error or "")
    desk.does_jobs = False
    error = done(phone_of(phone), job)["first"].error or ""
    assert "does not exist" in error
    assert "installBench" in error


def test_files_that_a_runner_does_not_open_are_told(
    phone: Android, desk: Desk, task: DeviceTask, pte: DeviceTask, tmp_path: Path
) -> None:
    use = phone_of(phone, **runner(desk, tmp_path, "benchmark_model"))
    assert "opens .tflite files, and this one is .pte" in (done(use, pte.job)["made"].error or "")
    assert "one image in a call" in (done(use, replace(task.job, batch_size=2))["first"].error or "")
    assert "IllegalArgumentException" in (done(phone_of(phone), task.job)["broken"].error or "")


# ---- which phone, and what it must have ----------------------------------------------------------------------------


def refused(use: Use[DevicePlugin], *parts: str) -> None:
    """Opening a phone fails with one message that has `parts`."""
    with pytest.raises(DeviceError) as told:
        opened(use)
    (problem,) = told.value.problems
    assert problem.hint
    assert problem.message.startswith("phone: ")
    for part in parts:
        assert part in f"{problem.message}; {problem.hint}"


def test_a_phone_must_be_there_and_meant(phone: Android, desk: Desk, tmp_path: Path) -> None:
    nobody = resolve(DevicePlugin, "adb", {"app": APP}, load_registry())
    refused(nobody, "no phone is attached", "USB debugging")
    refused(phone_of(phone, serial="R58M00"), "no phone R58M00", "no phone is attached")
    subprocess.run(["adb", "connect", phone.serial], check=True, capture_output=True)
    device = opened(nobody)  # the only one need not be named
    device.close()
    stranger = made_phone(desk, tmp_path / "stranger", known=False)
    other = next(stranger)
    subprocess.run(["adb", "connect", other.serial], check=False, capture_output=True)
    refused(nobody, "2 phones", f"{phone.serial} (Test_Phone)", "unauthorized: unlock it", 'serial = "')
    refused(phone_of(other), f"{other.serial} is unauthorized", "unlock it and allow USB debugging")
    refused(phone_of(phone, serial="R58M00"), "no phone R58M00", phone.serial, other.serial)
    next(stranger, None)
    phone.stop()
    refused(phone_of(phone), phone.serial, "away")


def test_a_program_must_be_the_one_that_is_meant(phone: Android, desk: Desk, tmp_path: Path) -> None:
    right = runner(desk, tmp_path, "benchmark_model")
    digest_of = digest(tmp_path / "benchmark_model")
    refused(
        phone_of(phone, **runner(desk, tmp_path, "benchmark_model", sha256="0" * 64)),
        f"has the sha256 {digest_of}",
        "another program",
    )
    refused(phone_of(phone, **runner(desk, tmp_path, "run_model", path=str(tmp_path / "none"))), "cannot be read")
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00" + (40).to_bytes(2, "little") + bytes(44))
    options = {"kind": "benchmark_model", "path": str(foreign), "sha256": digest(foreign)}
    refused(
        phone_of(phone, runner=options), "is for armeabi-v7a", "runs x86_64, arm64-v8a", "take the program for x86_64"
    )
    assert not list((phone.root / OWN / "files").iterdir()), "none of them is taken there"
    desk.installed = False
    refused(phone_of(phone), f"there is no app {APP}", "./gradlew installBench")
    desk.installed = True
    opened(phone_of(phone, **right)).close()


@pytest.mark.parametrize(
    "options",
    [
        {"app": APP, "runner": {"kind": "run_model", "path": "x", "sha256": "0" * 64}},
        {"app": "flowers; rm"},
        {"runner": {"kind": "run_model", "path": "x", "sha256": "abc"}},
        {"runner": {"kind": "other", "path": "x", "sha256": "0" * 64}},
        {"app": APP, "folder": "/data/../x"},
        {"app": APP, "folder": "tmp"},
        {"app": APP, "serial": "-a b"},
    ],
)
def test_options_that_lead_elsewhere_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        resolve(DevicePlugin, "adb", options, load_registry())


def test_without_adb_it_says_what_to_install(phone: Android, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DeviceError) as told:
        opened(phone_of(phone))
    assert "there is no adb here" in str(told.value)
    assert "apt install adb" in (told.value.problems[0].hint or "")


# ---- what breaks ---------------------------------------------------------------------------------------------------


def test_a_full_storage_leaves_nothing_by_half(phone: Android, desk: Desk, task: DeviceTask, tmp_path: Path) -> None:
    device = opened(phone_of(phone, **runner(desk, tmp_path, "run_model")))
    phone.capacity = 100
    with pytest.raises(DeviceError) as told:
        device.run(task.job, lambda _: None)
    assert "its storage is full" in str(told.value)
    assert "edgeopt devices clean" in (told.value.problems[0].hint or "")
    assert not list((phone.root / OWN / "files").iterdir())
    phone.capacity = None
    assert device.run(task.job, lambda _: None)["second"].turns_ms
    device.close()


def test_a_push_that_fails_is_told(phone: Android, task: DeviceTask) -> None:
    device = opened(phone_of(phone))
    (phone.root / OWN / "files").rmdir()
    found = device.run(task.job, lambda _: None)
    device.close()
    assert "first.tflite could not be taken there" in (found["first"].error or "")
    assert "No such file or directory" in (found["first"].error or "")
    shutil.rmtree(phone.root / OWN)
    (phone.root / OWN).write_text("a file")
    refused(phone_of(phone), "its folder cannot be made", "option folder")


def test_a_lost_connection_goes_on_where_it_broke(phone: Android, desk: Desk, task: DeviceTask, tmp_path: Path) -> None:
    broken: list[str] = []

    def pull_the_cable(script: str) -> None:
        if "job.sh </dev/null" in script:
            broken.append(script)
            if len(broken) == 2:  # at work on the answers of the second file
                phone.drop()

    job = replace(task.job, files=(task.job.files[0], task.job.files[2]))
    told: list[str] = []
    device = opened(phone_of(phone, **runner(desk, tmp_path, "benchmark_model")), told.append)
    phone.on_command = pull_the_cable
    found = device.run(job, lambda _: None)
    device.close()
    assert told == ["phone: the connection broke, it is made again"]
    for name, expected in task.expected.items():
        assert np.array_equal(found[name].outputs[0], expected)
        assert found[name].means_of == (3, 2)
    answers = [arguments for kind, arguments in desk.asked if any("output_filepath" in each for each in arguments)]
    first = [each for each in answers if task.job.files[0].sha256 in each[0]]
    assert len(first) == IMAGES, "what was done is not done again"
    wait_for(lambda: not phone.pids)


def test_a_phone_that_stays_away_fails_with_the_reason(
    phone: Android, task: DeviceTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeopt_devices.adb.device._PAUSES_S", (0.05, 0.05))
    device = opened(phone_of(phone))
    phone.on_command = lambda script: phone.stop() if "am start" in script else None
    with pytest.raises(ConnectionLostError) as told:
        device.run(task.job, lambda _: None)
    device.close()
    assert phone.serial in str(told.value)
    assert told.value.problems[0].hint


def test_nobody_is_left_there_when_this_side_is_killed(phone: Android, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\necho $$ > $PHONE/working\nsleep 1000\n")
    options = {"serial": phone.serial, "runner": {"kind": "run_model", "path": str(slow), "sha256": digest(slow)}}
    path = tmp_path / "file.tflite"
    path.write_bytes(b"a file")
    work = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from phone_runners import linear_card
from edgeopt.plugins import DeviceFile, DeviceJob, DevicePlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
use = resolve(DevicePlugin, "adb", {options!r}, load_registry())
device = use.plugin.opened(use.options, "phone")
file = DeviceFile("slow", Path({str(path)!r}), {digest(path)!r}, card=linear_card(8, 4))
device.run(DeviceJob((file,), Path(), "", answers=False, turns=((3, 0.0),)), lambda _: None)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(TINY_PLUGIN.parent), *sys.path))}
    process = subprocess.Popen([sys.executable, "-c", work], env=environment)
    working = phone.root / "working"
    wait_for(lambda: working.exists() and working.read_text().strip(), 30)
    there = int(working.read_text())
    (phone.root / OWN / "files" / f"{'0' * 64}.part").write_bytes(b"half")
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not phone.pids)
    wait_for(lambda: not Path(f"/proc/{there}").exists())
    assert not list((phone.root / OWN / "files").glob("*.part"))
    opened(phone_of(phone)).close()  # and the next one has it at once


def test_a_runner_that_says_nothing_is_ended(phone: Android, task: DeviceTask, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\necho $$ > $PHONE/working\nsleep 1000\n")
    options = {"kind": "run_model", "path": str(slow), "sha256": digest(slow)}
    job = replace(task.job, files=task.job.files[:1], answers=False, timeout_s=0.5)
    assert "no sign of life for 0.5 s" in (done(phone_of(phone, runner=options), job)["first"].error or "")
    there = int((phone.root / "working").read_text())
    wait_for(lambda: not Path(f"/proc/{there}").exists())


@pytest.mark.skipif(not HAS_ADBD, reason=NO_ADBD)
def test_the_real_adbd(desk: Desk, task: DeviceTask, tmp_path: Path) -> None:
    """It waits for all that holds what a command reads, and ends nothing by itself."""
    phone = RealPhone(tmp_path / "phone")
    phone.root.mkdir()
    desk.furnish(phone)
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\necho $$ > $PHONE/working\nsleep 1000\n")
    options = {"serial": phone.serial, "folder": str(phone.root / "tmp")}
    silent = {"kind": "run_model", "path": str(slow), "sha256": digest(slow)}
    told: list[str] = []
    with phone.on():
        use = resolve(DevicePlugin, "adb", {**options, **runner(desk, tmp_path, "benchmark_model")}, load_registry())
        device = opened(use, told.append)

        def pull_the_cable(text: str) -> None:
            if text == "second: answers":
                threading.Timer(0.1, subprocess.run, (["adb", "disconnect"],), {"capture_output": True}).start()

        found = device.run(task.job, pull_the_cable)
        device.close()
        assert told == ["phone: the connection broke, it is made again"]
        for name, expected in task.expected.items():
            assert np.array_equal(found[name].outputs[0], expected)
            assert found[name].means_of == (3, 2)
        use = resolve(DevicePlugin, "adb", {**options, "runner": silent}, load_registry())
        job = replace(task.job, files=task.job.files[:1], answers=False, timeout_s=0.5)
        device = opened(use)
        assert "no sign of life" in (device.run(job, lambda _: None)["first"].error or "")
        there = int((phone.root / "working").read_text())
        wait_for(lambda: not Path(f"/proc/{there}").exists())
        device.clean()
        assert not list((phone.root / "tmp").iterdir())


def test_two_runs_take_turns(phone: Android) -> None:
    told: list[str] = []
    first = opened(phone_of(phone))
    with ThreadPoolExecutor() as pool:
        second = pool.submit(opened, phone_of(phone), told.append)
        wait_for(lambda: told)
        assert not second.done()
        first.close()
        second.result(30).close()
    assert told == ["phone: another run has it"]


def test_mistakes_have_their_lines(tmp_path: Path) -> None:
    recipe = tmp_path / "devices.toml"
    program = f'{{ kind = "run_model", path = "x", sha256 = "{"0" * 64}" }}'
    recipe.write_text(f'[[devices]]\nuse = "adb"\nname = "phone"\napp = "{APP}"\nrunner = {program}\n')
    told = CliRunner().invoke(app, ["devices", "--recipe", str(recipe)])
    assert told.exit_code == 2
    said = " ".join(told.stderr.split())
    assert "devices.toml:1" in said
    assert "app and runner: one of them has the files" in said
