"""Errands as tasks of Ray, on a cluster that is running or on one that is started here for the time of a command.

Ray carries the work and nothing else: what is to be done and what came of it lie in files of the store, which all nodes
see, or go along by value. A node or a process of Ray that dies gives its errand to another one, which goes on from the
store's checkpoints.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.cores import usable_cores
from edgeopt.errors import (
    MissingExtraError,
    Problem,
    ResourceError,
    UserError,
    WorkerDiedError,
    WorkerError,
    first_line,
)
from edgeopt.workers.places import Errand, workers_of
from edgeopt.workers.pool import Listener
from edgeopt.workers.process import error_event
from edgeopt.workers.worker import Event, user_error

if TYPE_CHECKING:
    import ray

LOCAL, RUNNING = "local", "auto"


@dataclass(frozen=True)
class RayResources:
    """What each errand has of a node: processors, GPUs, and whatever nodes say that they have, such as devices.

    An errand whose process or node dies is given to another one `retries` times.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    others: Mapping[str, float] = field(default_factory=dict)
    retries: int = 3


class OnRay:
    """A cluster as a place for errands; it is left, and ended if it was started here, by `end`."""

    told = "on the cluster"

    def __init__(self, address: str, resources: RayResources) -> None:
        self._resources = resources
        self._lock = threading.Lock()
        self._on_the_way: set[ray.ObjectRef[Any]] = set()
        self._is_over = False
        self._tasks: dict[Callable[..., Any], Any] = {}
        _connect(address)

    def do(self, errand: Errand, listener: Listener) -> None:  # noqa: ARG002 - only its end comes from afar
        failure: Event | None = self.send(errand.label, errand.log, _do, errand)
        if failure is not None:
            raise user_error(failure)

    def send(self, label: str, log: Path, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of a module gives on a node, for some arguments and the folder from which paths count.

        Raises `WorkerError` where it raises one, or where Ray gave it up; `log` is where its story stands.
        """
        import ray

        with self._lock:
            if self._is_over:
                raise KeyboardInterrupt
            if function not in self._tasks:  # once: the cluster keeps each function that it is handed
                self._tasks[function] = ray.remote(function)
            task = self._tasks[function].options(
                name=label,
                num_cpus=self._resources.cpus,
                num_gpus=self._resources.gpus,
                resources=dict(self._resources.others),
                max_retries=self._resources.retries,
                retry_exceptions=[WorkerDiedError, ResourceError],
            )
            answer = task.remote(*arguments, os.getcwd())  # noqa: PTH109 - as `os.chdir` takes it
            self._on_the_way.add(answer)
        try:
            return ray.get(answer)
        except WorkerError as error:
            raise WorkerError(str(getattr(error, "cause", error)), str(log)) from error
        except ray.exceptions.RayError as error:
            raise WorkerError(f"{label}: Ray gave it up: {first_line(error)}", str(log)) from error
        finally:
            with self._lock:
                self._on_the_way.discard(answer)

    def end(self) -> None:
        import ray

        with self._lock:
            self._is_over = True
            for each in self._on_the_way:
                with contextlib.suppress(ray.exceptions.RayError, ValueError):
                    ray.cancel(each, force=True)
        ray.shutdown()

    def on_every_node(self, ask: Callable[..., Any], *arguments: Any) -> Iterator[tuple[str, Any]]:
        """What `ask`, a function of a module, gives on each living node, with the node's name; a `WorkerError` for one
        that could not be asked.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = {}
        for node in ray.nodes():
            if node["Alive"]:
                strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                task = ray.remote(ask).options(num_cpus=0, scheduling_strategy=strategy, max_retries=0)
                asked[task.remote(*arguments)] = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        for answer, name in asked.items():
            try:
                yield name, ray.get(answer)
            except (ray.exceptions.RayError, ImportError) as error:
                yield name, WorkerError(_reason(error))

    @property
    def slots(self) -> int:
        """How many errands the cluster can do at once now, at least 1."""
        import ray

        has = ray.cluster_resources()
        needs = {"CPU": self._resources.cpus, "GPU": self._resources.gpus, **self._resources.others}
        return max(1, min(int(has.get(name, 0) / count) for name, count in needs.items() if count > 0))


@contextmanager
def on_ray(address: str, resources: RayResources) -> Iterator[OnRay]:
    """Within, a cluster. Raises `MissingExtraError` without the extra `ray`, and `UserError` where there is no cluster
    at `address`.
    """
    place = OnRay(address, resources)
    try:
        yield place
    finally:
        place.end()


def _connect(address: str) -> None:
    if find_spec("ray") is None:
        raise MissingExtraError('workers = "ray" needs Ray', hint="pip install 'edgeopt[ray]'")
    import ray

    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == LOCAL:
            os.environ.setdefault("RAY_worker_niceness", "0")  # trials are measured as the reference is
            ray.init(num_cpus=usable_cores(), include_dashboard=False, address=LOCAL, **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        hint = 'start one with "ray start --head", or let edgeopt start one here: address = "local"'
        where = "no cluster of Ray is running" if address == RUNNING else f"there is no cluster of Ray at {address}"
        raise UserError(Problem(f"{where}: {first_line(error)}", hint)) from error


def _do(errand: Errand, folder: str) -> Event | None:
    """An errand on a node, in a process of its own, which ends with this one. Returns what was found wrong."""
    os.chdir(folder)
    try:
        with workers_of(errand, lambda worker, event: None) as workers:  # noqa: ARG005 - nobody listens here
            workers.finish(workers.start(errand.job, errand.label))
    except UserError as error:
        return error_event(error)
    return None


def _reason(error: BaseException) -> str:
    """Why a node could not be asked: of a long report of Ray's, the line that says it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else type(error).__name__)
