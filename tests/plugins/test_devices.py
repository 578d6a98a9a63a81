"""Devices: this machine, and a real ssh server on loopback."""

# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssh_server
from PIL import Image
from ssh_server import Loopback

from edgeopt.fingerprint import parts_digest
from edgeopt.measure.on_device import device_file as measured_there
from edgeopt.plugins import (
    Device,
    DeviceError,
    DeviceFile,
    DeviceJob,
    DevicePlugin,
    ExporterPlugin,
    OnDevice,
    RecipeError,
    Use,
)
from edgeopt.plugins.device import WholeWay
from edgeopt.plugins.registry import Registry, load_registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import DeviceContract, tiny_data, tiny_program
from edgeopt.testing.exporter import export_file
from edgeopt.types import Card

needs_sshd = pytest.mark.skipif(ssh_server.SSHD is None, reason=ssh_server.MISSING)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    if ssh_server.SSHD is None:
        pytest.skip(ssh_server.MISSING)
    server = ssh_server.start(tmp_path_factory.mktemp("sshd"), {"PATH": os.environ["PATH"]})
    yield server
    server.stop()


def board_options(server: Loopback) -> dict[str, object]:
    """What leads to the server, with the packages of this Python."""
    return {"host": "board", "config": str(server.config), "python": sys.executable, "install": False}


def board(server: Loopback, **options: object) -> Use[DevicePlugin]:
    """The board behind the server."""
    return resolve(DevicePlugin, "ssh", {**board_options(server), **options}, load_registry())


class TestLocal(DeviceContract):
    name = "local"


@needs_sshd
class TestSsh(DeviceContract):
    name = "ssh"
    options = {"host": "board"}

    @pytest.fixture(scope="class")
    @classmethod
    def use(cls, registry: Registry, server: Loopback) -> Use[DevicePlugin]:
        return board(server)


# ---- a file and what it cannot be opened without --------------------------------------------------------------------


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> DeviceFile:
    """A network of OpenVINO: its weights lie beside it."""
    exporter = resolve(ExporterPlugin, "openvino", {}, load_registry())
    path, _ = export_file(exporter, tiny_program(), tmp_path_factory.mktemp("apart"))
    return device_file_of(path, exporter.plugin)


def device_file_of(path: Path, exporter: ExporterPlugin, sha256: str | None = None) -> DeviceFile:
    taken = {"takes_pixels": False, "handed": path.with_name("none")}
    return measured_there("apart", path, sha256, exporter, tiny_data().preprocessing, **taken)


def images_of(path: Path, folder: Path) -> DeviceJob:
    images = folder / "images.npy"
    np.save(images, np.random.default_rng(3).integers(0, 256, (3, *tiny_data().preprocessing.shape), dtype=np.uint8))
    return DeviceJob((), images, digest(images), timeout_s=60)


def test_companions_lie_beside_their_file_there(server: Loopback, apart: DeviceFile, tmp_path: Path) -> None:
    """Both have their names, by which they find each other, and the answers are those of this machine."""
    job = replace(images_of(apart.path, tmp_path), files=(apart,))
    outputs = []
    for use in (resolve(DevicePlugin, "local", {}, load_registry()), board(server)):
        device = opened(use)
        for _ in range(2):
            found = device.run(job, lambda _: None)["apart"]
            assert found.error is None
            outputs.append(found.outputs[0])
        device.close()
    assert all(np.array_equal(each, outputs[0]) for each in outputs)
    (there,) = server.home.rglob("model.xml")
    assert {file.name for file in there.parent.iterdir()} == {"model.xml", "model.bin"}
    require_nobody_left(server)


def test_a_companion_that_is_gone_or_changed_fails_its_file_alone(
    server: Loopback, apart: DeviceFile, tmp_path: Path
) -> None:
    exporter = load_registry().get(ExporterPlugin, "openvino")
    made = parts_digest([apart.sha256, *(sha256 for _, sha256 in apart.companions)])
    files = []
    for name, content in (("changed", b"other bytes"), ("gone", None)):
        folder = Path(shutil.copytree(apart.path.parent, tmp_path / name))
        if content is None:
            (folder / "model.bin").unlink()
        else:
            (folder / "model.bin").write_bytes(content)
        files.append(replace(device_file_of(folder / "model.xml", exporter, made), name=name))
    with_both = replace(images_of(apart.path, tmp_path), files=(*files, apart))
    device = opened(board(server))
    found = device.run(with_both, lambda _: None)
    device.close()
    assert "it changed since it was made" in (found["changed"].error or "")
    assert "it changed since it was made" in (found["gone"].error or "")
    assert found["apart"].outputs is not None


# ---- what goes wrong behind ssh ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> DeviceJob:
    """Two files that answer for a few images."""
    folder = tmp_path_factory.mktemp("files")
    random = np.random.default_rng(1)
    np.save(folder / "images.npy", random.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8))
    files = []
    for name in ("first", "second"):
        np.save(folder / f"{name}.npy", random.integers(-3, 4, (192, 4)).astype(np.float32))
        files.append(device_file(folder / f"{name}.npy"))
    images = folder / "images.npy"
    return DeviceJob(tuple(files), images, digest(images), turns=((2, 0.0),), warmup=1, timeout_s=60)


def device_file(path: Path, opener: OnDevice | None = None) -> DeviceFile:
    opener = opener or OnDevice(("edgeopt.testing.linear_file",), ("numpy",))
    return DeviceFile(path.stem, path, digest(path), (1.0,) * 3, (0.0,) * 3, opener)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def opened(use: Use[DevicePlugin], tell: Callable[[str], None] = lambda _: None) -> Device:
    return use.plugin.opened(use.options, "board", tell)


def agents(server: Loopback) -> list[str]:
    """The processes that work in the home of the server's user."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"HOME={server.home}".encode() in entry.read_bytes().split(b"\0"):
                found.append((entry.parent / "cmdline").read_text())
        except OSError:
            continue
    return found


def require_nobody_left(server: Loopback) -> None:
    for _ in range(100):
        if not agents(server):
            return
        time.sleep(0.1)
    raise AssertionError(agents(server))


def test_a_lost_connection_goes_on_where_it_broke(server: Loopback, job: DeviceJob) -> None:
    slow = OnDevice(("slow_linear_file", "edgeopt.testing.linear_file"), ("numpy",))
    job = replace(job, files=(job.files[0], replace(job.files[1], on_device=slow)))
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if text == "second: answers" and told.count(text) == 1:
            for process in server.sessions():
                os.kill(process, signal.SIGKILL)

    device = opened(board(server), tell)
    found = device.run(job, tell)
    device.close()
    assert told.count("second: answers") == 2
    assert told.count("first: answers") == 1, "what was done is not done again"
    assert any("the connection broke" in text for text in told)
    for file in job.files:
        assert found[file.name].error is None
        assert np.array_equal(found[file.name].outputs[0], pixels_of(job) @ np.load(file.path))
        assert found[file.name].turns_ms
    require_nobody_left(server)
    assert not list(server.home.glob(".edgeopt-device/jobs/*"))


def pixels_of(job: DeviceJob) -> Any:
    images = np.load(job.images)
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1).astype(np.float32)


def test_nobody_is_left_there_when_this_side_is_killed(server: Loopback, job: DeviceJob) -> None:
    hold = f"""
import time
from edgeopt.plugins.registry import load_registry
from edgeopt.plugins import DevicePlugin
from edgeopt.recipe.lookup import resolve
options = {board_options(server)!r}
use = resolve(DevicePlugin, "ssh", options, load_registry())
device = use.plugin.opened(use.options, "board")
print("open", flush=True)
time.sleep(1000)
"""
    process = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "open\n"
    assert agents(server)
    # as scp leaves it when it is killed
    (server.home / ".edgeopt-device" / "files" / f"{'0' * 64}.part").write_bytes(b"half")
    process.kill()
    process.wait()
    process.stdout.close()
    require_nobody_left(server)
    assert not list(server.home.glob(".edgeopt-device/files/*.part"))


def test_two_runs_take_turns(server: Loopback) -> None:
    told: list[str] = []
    first = opened(board(server))
    with ThreadPoolExecutor() as pool:
        second = pool.submit(opened, board(server), told.append)
        while not told:
            time.sleep(0.05)
        assert not second.done()
        first.close()
        second.result(30).close()
    assert told == ["board: another run has it"]


def test_a_server_without_sftp_takes_files_and_keeps_nothing(tmp_path: Path, job: DeviceJob) -> None:
    if ssh_server.SSHD is None:
        pytest.skip(ssh_server.MISSING)
    server = ssh_server.start(tmp_path / "old", {"PATH": os.environ["PATH"]}, sftp=False)
    try:
        device = opened(board(server))
        for _ in range(2):
            device.put(job.images, job.images_sha256)
        (kept,) = server.home.glob(".edgeopt-device/files/*")
        assert kept.name == f"{job.images_sha256}.npy"
        assert kept.read_bytes() == job.images.read_bytes()
        device.clean()
        assert not list(server.home.iterdir())
    finally:
        server.stop()


def refused(use: Use[DevicePlugin], *parts: str) -> None:
    """Opening a device fails with one message that has `parts`."""
    with pytest.raises(DeviceError) as told:
        opened(use)
    (problem,) = told.value.problems
    assert problem.hint
    for part in parts:
        assert part in f"{problem.message}; {problem.hint}"
    assert problem.message.startswith("board: ")


def test_whatever_keeps_ssh_away_is_told_with_what_to_do(server: Loopback, tmp_path: Path) -> None:
    other = tmp_path / "other_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    kind, key, *_ = other.with_suffix(".pub").read_text().split()
    changed = tmp_path / "changed"
    changed.write_text(f"[127.0.0.1]:{server.port} {kind} {key}\n")
    (tmp_path / "empty").write_text("")

    def other_config(name: str, **settings: str) -> Use[DevicePlugin]:
        return board(server, config=str(server.variant(name, **settings)))

    refused(
        other_config("changed", UserKnownHostsFile=str(changed)), "not the one that ssh knows", "ssh-keygen -R board"
    )
    refused(
        other_config("unknown", UserKnownHostsFile=str(tmp_path / "empty")), "does not know its host key", "ssh board"
    )
    refused(other_config("nokey", IdentityFile=str(other)), "lets nobody in", "ssh-copy-id board")
    refused(other_config("away", Port=str(ssh_server.free_port())), "it is away", "switch it on")
    refused(board(server, host="no-such-host.invalid"), "there is no host no-such-host.invalid")
    refused(board(server, config=str(tmp_path / "none")), "no such configuration", "config")
    refused(board(server, python="/no/such/python3"), "no such Python", "option python")
    require_nobody_left(server)


def test_a_python_that_is_too_old_says_so(server: Loopback, tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    shown = "import sys, platform; sys.version_info = (3, 9, 2); platform.python_version = lambda: '3.9.2'"
    old.write_text(f'#!/bin/sh\nshift\ncode=$1\nshift\nexec {sys.executable} -c "{shown}\n$code" "$@"\n')
    old.chmod(0o755)
    refused(board(server, python=str(old)), "3.9.2, which is too old", "Python 3.11")


def test_a_folder_that_cannot_be_written_is_told(server: Loopback) -> None:
    (server.home / "taken").write_text("a file")
    refused(board(server, folder="taken/inside"), "option folder")
    (server.home / "taken").unlink()


@pytest.mark.parametrize(
    "options", [{"host": "-oProxyCommand=id"}, {"host": "a b"}, {"folder": "../x"}, {"folder": "."}]
)
def test_options_that_lead_elsewhere_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(RecipeError):
        resolve(DevicePlugin, "ssh", {"host": "board", **options}, load_registry())


def test_a_full_disk_leaves_nothing_by_half(server: Loopback, job: DeviceJob, tmp_path: Path) -> None:
    small = server.home / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        small.rmdir()
        pytest.skip("a small file system cannot be mounted by this user")
    try:
        large = tmp_path / "large.npy"
        np.save(large, np.zeros((300, 400), np.float32))
        device = opened(board(server, folder="small/edgeopt"))
        with pytest.raises(DeviceError) as told:
            device.run(replace(job, files=(device_file(large),)), lambda _: None)
        assert "its disk is full" in str(told.value)
        assert "edgeopt devices clean" in str(told.value)
        assert not list(small.rglob("*.part"))
        found = device.run(job, lambda _: None)  # what fits is done
        assert found["second"].outputs is not None
        device.close()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    require_nobody_left(server)


def test_an_environment_is_made_of_wheels_or_not_at_all(server: Loopback, job: DeviceJob, tmp_path: Path) -> None:
    """Those of another architecture are told; nothing is asked of the network."""
    version = importlib.metadata.version("numpy")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    wheel = foreign / f"numpy-{version}-cp311-cp311-manylinux_2_28_riscv64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            f"numpy-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: numpy\nVersion: {version}\n"
        )
    one = replace(job, files=job.files[:1], turns=())
    device = opened(board(server, install=True, wheels=str(foreign), folder="made"))
    error = device.run(one, lambda _: None)["first"].error or ""
    device.close()
    for part in (f"numpy=={version}", platform.machine(), "pip download --platform"):
        assert part in error
    assert not list(server.home.glob("made/environments/*"))
    own = tmp_path / "own"
    own.mkdir()
    repack("numpy", own)
    device = opened(board(server, install=True, wheels=str(own), folder="made"))
    for _ in range(2):
        found = device.run(one, lambda _: None)["first"]
        assert found.error is None
        assert np.array_equal(found.outputs[0], pixels_of(job) @ np.load(job.files[0].path))
    assert device.describe().versions == {"numpy": version}
    assert len(list(server.home.glob("made/environments/*/ready.json"))) == 1
    device.clean()
    assert not (server.home / "made").exists()


_WITHOUT_PILLOW = """\
import importlib.metadata as metadata

known = metadata.version

def version(name):
    if name == "pillow":
        raise metadata.PackageNotFoundError(name)
    return known(name)

metadata.version = version
"""


def on_its_way(job: DeviceJob, folder: Path, task: str, *answering: str) -> DeviceJob:
    """The first file of a job, through which an image goes the whole way to an answer of a task."""
    picture = folder / "picture.jpg"
    Image.new("RGB", (64, 48), (200, 30, 60)).save(picture)
    preprocessing = Preprocessing(8, 8, 8).to_json()
    card = Card(("a", "b", "c", "d"), preprocessing, "numpy", "float32", "baseline", {}, {}, task=task)
    card = replace(card, decision={"threshold": 0.5})
    file = replace(job.files[0], card=card, answering=answering)
    return replace(job, files=(file,), whole=WholeWay(picture, digest(picture), warmup=1, runs=3))


def test_the_answer_of_the_whole_way_is_that_of_the_task(server: Loopback, job: DeviceJob, tmp_path: Path) -> None:
    """Its module gets what the file gave for one image, and the decision of the card. A task without one is told."""
    device = opened(board(server))
    asked = device.run(on_its_way(job, tmp_path, "asked", "asked_answers"), lambda _: None)["first"]
    none = device.run(on_its_way(job, tmp_path, "level"), lambda _: None)["first"]
    device.close()
    for found in (asked, none):
        assert found.error is None
        assert found.turns_ms
        assert not found.whole_ms
    assert asked.no_whole == "asked for answers of (1, 4) by {'threshold': 0.5}"
    assert (none.no_whole or "").startswith("the answer is not timed there because the task level has no code")
    require_nobody_left(server)


def test_an_image_goes_the_whole_way_where_it_can_be_decoded(server: Loopback, job: DeviceJob, tmp_path: Path) -> None:
    """By the code that goes there and Pillow; where that is missing, files are measured and only this is not known."""
    asked = on_its_way(job, tmp_path, "multi-label", "edgeopt.tasks.parts.labels")
    (tmp_path / "sitecustomize.py").write_text(_WITHOUT_PILLOW)
    without = tmp_path / "python"
    without.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    without.chmod(0o755)
    for python, can in ((sys.executable, True), (str(without), False)):
        device = opened(board(server, python=python))
        found = device.run(asked, lambda _: None)["first"]
        device.close()
        assert found.error is None
        assert found.turns_ms
        assert [len(parts) for parts in found.whole_ms] == ([4] * 3 if can else [])
        assert all(part > 0 for parts in found.whole_ms for part in parts)
        assert (found.no_whole is None) == can
    assert "images cannot be decoded there" in (found.no_whole or "")
    assert "pillow" in (found.no_whole or "")
    require_nobody_left(server)


def repack(name: str, folder: Path) -> None:
    """An installed distribution as the wheel that it came from."""
    distribution = importlib.metadata.distribution(name)
    tag = next(
        line.partition(": ")[2]
        for line in (distribution.read_text("WHEEL") or "").splitlines()
        if line.startswith("Tag")
    )
    with zipfile.ZipFile(folder / f"{name}-{distribution.version}-{tag}.whl", "w") as wheel:
        for file in distribution.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts and "tests" not in file.parts:
                wheel.write(file.locate(), file.as_posix())
