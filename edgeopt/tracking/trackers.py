"""One class for each tracker; each writes the figures of one part of a run, such as a training or the files."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol


@dataclass(frozen=True)
class Identity:
    """A run as trackers know it: `key` is the same when a run that was stopped goes on, and another where the recipe
    changed. `folder` is the run's own.
    """

    name: str
    key: str
    folder: Path


class Tracker(Protocol):
    """What every tracker can do; any of it may raise what the tracker's own library raises."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Figures by their names, at a step such as an epoch."""
        ...

    def describe(self, values: Mapping[str, str]) -> None:
        """What the run was asked for, by dotted key."""
        ...

    def close(self) -> None:
        """Writes what is not written yet."""
        ...


@dataclass
class TensorBoard:
    """Event files below `tensorboard/` in the run's folder.

    They are written by the package's own record writer: its summary writers look for TensorFlow first, which does not
    belong into a process of torch.
    """

    identity: Identity
    part: str
    _file: IO[bytes] = field(init=False)
    _records: Any = field(init=False)

    def __post_init__(self) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # an extra
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = self.identity.folder / "tensorboard" / self.identity.key
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._records = RecordWriter(self._file)
        self._records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())

    def log(self, values: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write([Summary.Value(tag=name, simple_value=value) for name, value in values.items()], step)

    def describe(self, values: Mapping[str, str]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        text = "| key | value |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in values.items())
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
        self._write([Summary.Value(tag="recipe", metadata=metadata, tensor=tensor)], 0)

    def close(self) -> None:
        self._records.close()

    def _write(self, values: list[Any], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._records.write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)).SerializeToString())
        self._records.flush()


@dataclass
class MLflow:
    """A run in the experiment `edgeopt`, on the server that MLFLOW_TRACKING_URI names, or in `mlflow.db` beside the
    folder of the run.
    """

    identity: Identity
    part: str
    _client: Any = field(init=False)
    _run: str = field(init=False)

    def __post_init__(self) -> None:
        from mlflow.tracking import MlflowClient  # an extra, and heavy

        beside = (self.identity.folder.parent / "mlflow.db").resolve()
        self._client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{beside}")
        found = self._client.get_experiment_by_name("edgeopt")
        experiment = found.experiment_id if found else self._client.create_experiment("edgeopt")
        same = self._client.search_runs([experiment], f"tags.`edgeopt.key` = '{self.identity.key}'", max_results=1)
        tags = {"edgeopt.key": self.identity.key}
        run = same[0] if same else self._client.create_run(experiment, run_name=self.identity.name, tags=tags)
        self._run = run.info.run_id

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def describe(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            self._client.set_tag(self._run, f"recipe.{name}", value[:_MLFLOW_MOST])

    def close(self) -> None:
        self._client.set_terminated(self._run)


_MLFLOW_MOST = 5000  # characters of a tag


@dataclass
class WeightsAndBiases:
    """A run of the project `edgeopt`, written offline into `wandb/` of the run's folder unless WANDB_MODE says else.

    `wandb sync` sends it.
    """

    identity: Identity
    part: str
    _run: Any = field(init=False)

    def __post_init__(self) -> None:
        import wandb  # an extra

        mode: Any = os.environ.get("WANDB_MODE", "offline")  # wandb itself says which there are
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "edgeopt"),
            name=self.identity.name,
            id=self.identity.key,
            dir=self.identity.folder,
            mode=mode,
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )
        # a run has one count of steps, and each training begins anew with its epochs
        self._run.define_metric(f"{self.part}/step")
        self._run.define_metric(f"{self.part}/*", step_metric=f"{self.part}/step")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, f"{self.part}/step": step})

    def describe(self, values: Mapping[str, str]) -> None:
        self._run.config.update(dict(values), allow_val_change=True)

    def close(self) -> None:
        self._run.finish()


@dataclass
class Trackio:
    """A run of the project `edgeopt` in trackio's own folder, or where its variables say.

    Its name has the beginning of the key: trackio goes on with a run that has the same name.
    """

    identity: Identity
    part: str
    _run: Any = field(init=False)

    def __post_init__(self) -> None:
        import trackio  # which whoever wants it installs

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "edgeopt"),
            name=f"{self.identity.name}-{self.identity.key[:8]}",
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def describe(self, values: Mapping[str, str]) -> None:
        self._run.config.update(values)  # which trackio writes with the figures that come next

    def close(self) -> None:
        self._run.finish()
