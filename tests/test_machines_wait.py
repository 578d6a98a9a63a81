"""Another machine waits for the first one, and never for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import TINY_PLUGIN, TINY_RECIPE

import edgeopt
from edgeopt.errors import TrainingError
from edgeopt.pipeline.machines import FirstMachine, beat_file, beating, is_other_machine, require_others


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


def test_the_first_machine_names_those_that_never_come_before_it_trains(
    tmp_path: Path, write_recipe: Callable[[str], Path]
) -> None:
    plan = edgeopt.check(write_recipe(TINY_RECIPE), overrides=["trainer.num_nodes=4"], plugin_files=[TINY_PLUGIN])
    with beating(beat_file(plan, tmp_path, 3), 0.0):
        pass  # an earlier run's
    with beating(beat_file(plan, tmp_path, 1), 0.0, every_s=0.05):
        with pytest.raises(TrainingError, match=r"of 4 machines, number 2, number 3 has not begun"):
            require_others(plan, tmp_path, start_s=0.6)
        with ExitStack() as others:
            for number in (2, 3):
                others.enter_context(beating(beat_file(plan, tmp_path, number), 0.0, every_s=0.05))
            require_others(plan, tmp_path, start_s=20)
    assert beat_file(plan, tmp_path) == beat_file(plan, tmp_path, 0)


def test_another_machine_that_failed_ends_the_wait(tmp_path: Path, write_recipe: Callable[[str], Path]) -> None:
    plan = edgeopt.check(write_recipe(TINY_RECIPE), overrides=["trainer.num_nodes=2"], plugin_files=[TINY_PLUGIN])
    failing = threading.Event()

    def helper() -> None:
        failing.wait(20)
        with pytest.raises(ZeroDivisionError), beating(beat_file(plan, tmp_path, 1), 0.0):
            raise ZeroDivisionError

    thread = threading.Thread(target=helper)
    thread.start()
    threading.Timer(0.2, failing.set).start()
    with pytest.raises(TrainingError, match="machine 1 ended with an error"):
        require_others(plan, tmp_path, start_s=20)
    thread.join()


def test_a_rank_that_is_no_number_is_told(
    monkeypatch: pytest.MonkeyPatch, write_recipe: Callable[[str], Path], tmp_path: Path
) -> None:
    monkeypatch.setenv("NODE_RANK", "one")
    plan = edgeopt.check(write_recipe(TINY_RECIPE), plugin_files=[TINY_PLUGIN])
    assert not is_other_machine(plan)  # where there is one machine, nobody asks
    with pytest.raises(TrainingError, match="NODE_RANK is 'one'"):
        edgeopt.run(
            write_recipe(TINY_RECIPE),
            overrides=["trainer.num_nodes=2"],
            out=tmp_path / "runs",
            plugin_files=[TINY_PLUGIN],
        )
