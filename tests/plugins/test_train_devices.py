"""A training on two devices, here two processes on gloo, is that of one device with the same batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import device_trainings
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: How far losses may be apart. Where every value is rounded, one that lies between two integers falls to either side.
ROUNDED = {"observed ranges": 5e-3, "learned steps": 5e-3}
EXACT = 1e-4


def processes(folder: Path, task: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(HERE), str(ROOT), str(ROOT / "plugins")])
    return subprocess.run(
        [sys.executable, str(HERE / "device_trainings.py"), str(folder), task],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all trainings on two devices left what they found."""
    folder = tmp_path_factory.mktemp("devices")
    finished = processes(folder, "2")
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture(scope="module")
def both(folder: Path) -> tuple[dict[str, device_trainings.Curves], ...]:
    """The curves of all trainings, on one device and on two."""
    return device_trainings.trainings(folder / "one", 1), json.loads((folder / "curves.json").read_text())


@pytest.mark.parametrize("name", device_trainings.NAMES)
def test_two_devices_follow_the_curves_of_one(both: tuple[dict[str, device_trainings.Curves], ...], name: str) -> None:
    one, two = (curves[name] for curves in both)
    assert set(one) == set(two) >= {"training loss", "validation loss", "validation accuracy"}
    for curve in ("training loss", "validation loss"):
        assert two[curve] == pytest.approx(one[curve], rel=ROUNDED.get(name, EXACT)), curve
    image = 1 / 45
    moved = [abs(a - b) / image for a, b in zip(one["validation accuracy"], two["validation accuracy"], strict=True)]
    assert max(moved) <= (1.01 if name in ROUNDED else 0.01)  # each image is counted once
    assert one["training loss"][-1] < one["training loss"][0]


def test_two_processes_train_one_model_and_the_first_one_writes(folder: Path) -> None:
    first, second = (json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first["weights"] == second["weights"] and first["facts"] == second["facts"]
    assert first["facts"]["devices"] == 2 and first["facts"]["batch_size"] == device_trainings.BATCH
    assert (first["written"], second["written"]) == (device_trainings.EPOCHS, 0)
    assert (first["shown"], second["shown"]) == (4 * device_trainings.EPOCHS, 0)


def test_a_device_that_dies_ends_the_training_with_its_reason(tmp_path: Path) -> None:
    finished = processes(tmp_path, "dying")
    assert finished.returncode != 0
    assert "another of the 2 processes of this training has ended" in finished.stderr
    assert time.time() - (tmp_path / device_trainings.DIED).stat().st_mtime < 60
