"""Another machine waits for the first one, and never for ever."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edgeopt.errors import TrainingError
from edgeopt.pipeline.machines import FirstMachine, beating


def test_the_first_machine_hands_on_the_time_before_which_results_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "first.json"
    first = FirstMachine(file)
    with beating(file, 42.0, every_s=0.05):
        assert first.not_before(0.01) == 42.0
        first.require_work()


def test_a_first_machine_that_failed_is_told(tmp_path: Path) -> None:
    file = tmp_path / "first.json"
    first = FirstMachine(file)
    with pytest.raises(ZeroDivisionError), beating(file, 0.0, every_s=0.05):
        first.not_before(0.01)
        raise ZeroDivisionError
    with pytest.raises(TrainingError, match="ended with an error"):
        first.require_work()


def test_what_an_earlier_run_left_is_not_taken_for_work(tmp_path: Path) -> None:
    file = tmp_path / "first.json"
    with beating(file, 1.0):
        pass
    first = FirstMachine(file, start_s=0.2)
    with pytest.raises(TrainingError, match="has not begun"):
        first.not_before(0.01)


def test_a_first_machine_that_was_killed_is_told(tmp_path: Path) -> None:
    file = tmp_path / "first.json"
    first = FirstMachine(file, silence_s=0.2)
    with beating(file, 0.0, every_s=1000):
        first.not_before(0.01)
        threading.Event().wait(0.3)
        with pytest.raises(TrainingError, match="not been heard of"):
            first.require_work()


def test_a_run_that_finished_with_failed_files_ends_the_wait(tmp_path: Path) -> None:
    file = tmp_path / "first.json"
    first = FirstMachine(file, shown_s=0.05)
    with beating(file, 0.0, every_s=0.05):
        first.not_before(0.01)
    first.require_work()
    threading.Event().wait(0.1)
    with pytest.raises(TrainingError, match="has finished"):
        first.require_work()
