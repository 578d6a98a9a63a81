"""What a kind of device must keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest

from edgeopt.errors import DeviceError
from edgeopt.fingerprint import file_digest
from edgeopt.plugins.declarations import Plugin
from edgeopt.plugins.device import Device, DeviceFile, DeviceJob, DevicePlugin, FileOnDevice, OnDevice
from edgeopt.plugins.use import Use
from edgeopt.testing.contracts import PluginContract

if TYPE_CHECKING:
    from edgeopt.arrays import Logits

_IMAGES, _SIDE, _CLASSES = 5, 8, 4
_TURNS = ((3, 0.0), (2, 0.0))
_OPENER = OnDevice(("edgeopt.testing.linear_file",), ("numpy",))


@dataclass(frozen=True, eq=False)
class DeviceTask:
    """A job whose files' answers are known: of whole numbers, which every machine adds up alike."""

    job: DeviceJob
    expected: Mapping[str, Logits]


class DeviceContract(PluginContract):
    """Subclass it, and set `name` and `options` so that they lead to a device that is there.

    The device runs a file that needs Python and NumPy; a kind of device without Python overrides `task` with files that
    its devices open, the one called "broken" aside. What is left there by the last test is what `clean` leaves.
    """

    kind: ClassVar[type[Plugin]] = DevicePlugin

    @pytest.fixture(scope="class")
    @classmethod
    def task(cls, tmp_path_factory: pytest.TempPathFactory) -> DeviceTask:
        """Two files of the same size and other bytes, and one that is none."""
        folder = tmp_path_factory.mktemp("device")
        random = np.random.default_rng(5)
        pixels = random.integers(0, 256, (_IMAGES, _SIDE, _SIDE, 3), dtype=np.uint8)
        np.save(folder / "images.npy", pixels)
        flat = pixels.transpose(0, 3, 1, 2).reshape(_IMAGES, -1).astype(np.float32)
        files, expected = [], {}
        for name in ("first", "second"):
            weight = random.integers(-3, 4, (flat.shape[1], _CLASSES)).astype(np.float32)
            np.save(folder / f"{name}.npy", weight)
            files.append(_file(folder / f"{name}.npy"))
            expected[name] = flat @ weight
        (folder / "broken.npy").write_bytes(b"no array")
        files.insert(1, _file(folder / "broken.npy"))
        images = folder / "images.npy"
        job = DeviceJob(tuple(files), images, file_digest(images), batch_size=2, warmup=1, turns=_TURNS, timeout_s=60.0)
        return DeviceTask(job, expected)

    @pytest.fixture(scope="class")
    @classmethod
    def device(cls, use: Use[DevicePlugin]) -> Iterator[Device]:
        """The device, opened; in the end it is cleaned."""
        device = use.plugin.opened(use.options, "device")
        try:
            yield device
        finally:
            device.clean()
            device.close()

    @pytest.fixture(scope="class")
    @classmethod
    def results(cls, device: Device, task: DeviceTask) -> Mapping[str, FileOnDevice]:
        """What the files did."""
        return device.run(task.job, lambda _: None)

    def test_it_describes_itself(self, device: Device) -> None:
        facts = device.describe()
        assert facts.processor
        assert facts.machine
        assert facts.system
        assert facts.cores >= 1

    def test_files_answer_there_as_here(self, results: Mapping[str, FileOnDevice], task: DeviceTask) -> None:
        """Two files of one size are two files: a device knows them by their bytes."""
        for name, expected in task.expected.items():
            found = results[name]
            assert found.error is None
            assert found.outputs is not None
            (logits,) = found.outputs
            assert logits.dtype == np.float32
            assert np.array_equal(logits, expected), f"the answers of {name} are not those of this machine"

    def test_files_are_timed_in_turns(self, results: Mapping[str, FileOnDevice], task: DeviceTask) -> None:
        for name in task.expected:
            found = results[name]
            assert [len(turn) for turn in found.turns_ms] == [calls for calls, _ in _TURNS]
            assert all(time_ms > 0 for turn in found.turns_ms for time_ms in turn)
            assert found.load_ms > 0
            assert found.first_ms > 0

    def test_a_file_that_cannot_be_opened_fails_alone(self, results: Mapping[str, FileOnDevice]) -> None:
        broken = results["broken"]
        assert broken.error
        assert broken.outputs is None
        assert not broken.turns_ms

    def test_a_file_of_other_bytes_is_refused(self, device: Device, task: DeviceTask) -> None:
        file = task.job.files[0]
        with pytest.raises(DeviceError):
            device.put(file.path, "0" * 64)
        device.put(file.path, file.sha256)
        device.put(file.path, file.sha256)

    def test_it_can_be_had_again(self, use: Use[DevicePlugin], device: Device, task: DeviceTask) -> None:
        """After it was closed, and after everything was taken away from it."""
        device.close()
        for end in ("clean", "close"):
            again = use.plugin.opened(use.options, "device")
            found = again.run(_short(task.job), lambda _: None)["second"]
            assert found.outputs is not None
            assert np.array_equal(found.outputs[0], task.expected["second"])
            getattr(again, end)()


def _file(path: Path) -> DeviceFile:
    return DeviceFile(path.stem, path, file_digest(path), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), _OPENER)


def _short(job: DeviceJob) -> DeviceJob:
    return DeviceJob((job.files[-1],), job.images, job.images_sha256, timeout_s=job.timeout_s)
