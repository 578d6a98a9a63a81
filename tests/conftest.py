"""Fixtures for all tests: a tiny, complete set of plugins in one file, so that whole runs take seconds."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

import pytest
from hypothesis import settings

from edgeopt.plugins.registry import Registry, load_registry
from edgeopt.workers import pool
from edgeopt.workers.launch import Nursery, Process, can_fork, spawned
from edgeopt.workers.pool import worker_environment
from edgeopt.workers.process import collect_seldom

collect_seldom()  # as workers do: a tenth of the time of tests that make programs
settings.register_profile("edgeopt", deadline=None)  # the machine's load is not a property of the code
settings.load_profile("edgeopt")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as `make test &` of a shell has it; some tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)

TINY_PLUGIN = Path(__file__).parent / "tiny_plugin.py"

TINY_RECIPE = """\
schema = 1
name = "tiny"

[dataset]
use = "stripes"
image_size = 16

[model]
use = "linear"

[[passes]]
use = "fit-stripes"

[[passes]]
use = "round-weights"
steps = 64

[[exports]]
use = "npz"

[measure]
threads = 1
warmup = 1
runs = 5
rounds = 1
"""


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The installed plugins and the tiny ones."""
    return load_registry([TINY_PLUGIN])


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a recipe's text to a file of its own."""

    def write(text: str, name: str = "recipe.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def tiny_recipe(write_recipe: Callable[[str], Path]) -> Path:
    """A whole recipe that runs in seconds with the tiny plugins."""
    return write_recipe(TINY_RECIPE)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, nursery_of_tests: Callable[[], Nursery]) -> Path:
    """The folder of a finished run of the tiny recipe, which stands two folders above it."""
    import edgeopt  # light, and yet not for tests of what is imported

    folder = tmp_path_factory.mktemp("finished")
    (folder / "recipe.toml").write_text(TINY_RECIPE)
    with workers_forked(nursery_of_tests):
        return edgeopt.run(folder / "recipe.toml", out=folder / "runs", plugin_files=[TINY_PLUGIN]).folder


#: What the workers of runs import: most of the time of a small run. All of it starts no thread.
IMPORTED = (
    "edgeopt.pipeline.stages",
    "torch.export.pt2_archive",
    "edgeopt_lightning.train",
    "torchao.quantization.pt2e.quantize_pt2e",
    "executorch.backends.xnnpack.partition.xnnpack_partitioner",
)

PATH = "PYTHONPATH"
GIVEN_PATH = os.environ.get(PATH)  # where a test changes it, workers import from elsewhere


@pytest.fixture(scope="session")
def nursery_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Nursery]]:
    """Gives the one process from which workers of these tests are forked; it begins when the first one is."""
    begun: list[Nursery] = []

    @cache
    def nursery() -> Nursery:
        log = tmp_path_factory.mktemp("nursery") / "log.txt"
        begun.append(Nursery(IMPORTED, worker_environment(1), log))
        return begun[0]

    yield nursery
    for each in begun:
        each.end()


@contextmanager
def workers_forked(nursery_of_tests: Callable[[], Nursery]) -> Iterator[None]:
    """Within, workers that are started in this process are forks of one that has torch imported, as exports are in any
    run. So are those that are timed: how long they take is not what is tested. Not for TensorFlow, which bears no torch
    beside it, nor where a test changes what is imported.
    """

    def forked(module: str, job: Path, *, environment: Mapping[str, str], errors_to: IO[bytes]) -> Process:
        is_forked = environment.get(PATH) == GIVEN_PATH and not _needs_tensorflow(job)
        launch = nursery_of_tests().start if is_forked else spawned
        return launch(module, job, environment=environment, errors_to=errors_to)

    class Shared:
        """In the place of the nursery that a run would begin for its exports."""

        def __init__(self, *_: object) -> None:
            self.start = nursery_of_tests().start

        def end(self) -> None:
            """The next run wants it too."""

    with pytest.MonkeyPatch.context() as patch:
        if can_fork():
            patch.setattr(pool, "spawned", forked)
            patch.setattr(pool, "Nursery", Shared)
        yield


@pytest.fixture(scope="module")
def imports_done_once(nursery_of_tests: Callable[[], Nursery]) -> Iterator[None]:
    """Workers that a module starts in its own process are forks, see `workers_forked`."""
    with workers_forked(nursery_of_tests):
        yield


def _needs_tensorflow(job: Path) -> bool:
    """Whether a worker is handed plugins of TensorFlow, in one of the files that its job names."""
    told = json.loads(job.read_text())
    told = told.get("job", told)
    handed = [Path(each) for each in told.values() if isinstance(each, str) and each]
    return any(file.is_file() and b"edgeopt_tensorflow" in file.read_bytes() for file in handed)
