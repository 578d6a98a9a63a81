"""Plugins that break the contract, each in one way, and good ones beside them: tests/test_testing_kit.py runs the
contracts on them.
"""

from __future__ import annotations

import copy
import hashlib
import io
import itertools
from dataclasses import replace

import numpy as np  # heavy on purpose: this declaration module is what `test_declaration_is_light` must find
from pydantic import BaseModel, ConfigDict, Field

from edgeopt.arrays import normalized
from edgeopt.data.images import ArrayImages
from edgeopt.errors import DeviceError, ExportError, UserError
from edgeopt.export.predictor import outputs_of
from edgeopt.options import DatasetOptions, Options
from edgeopt.plugins.declarations import DatasetPlugin, DevicePlugin, ExporterPlugin, ModelPlugin, PassPlugin
from edgeopt.plugins.device import DeviceFacts, FileOnDevice, OnDevice
from edgeopt.plugins.hookspecs import hookimpl
from edgeopt.tasks import TASKS
from edgeopt.types import DataSurvey, ExportResult, Form, ModelState, PassRecord, RawDataset, TensorInfo

COUNTER = itertools.count()


class Inner(Options):
    bare: int = 1


class BadOptions(BaseModel):
    model_config = ConfigDict(frozen=False, extra="ignore")

    inner: Inner = Field(default_factory=Inner, description="a table with an option that nobody describes")
    arch: str = Field(description="a required option whose example does not fit", pattern="^x+$")


# ---- data sets -----------------------------------------------------------------------------------------------------


def images(labels, seed=0):
    random = np.random.default_rng(seed)
    labels = np.asarray(labels)
    return ArrayImages(random.integers(0, 255, (len(labels), 12, 12), dtype=np.uint8), labels)


LABELS = np.tile(np.arange(3, dtype=np.int64), 30)


def dataset(name, load, fingerprint=lambda options: "1"):
    return DatasetPlugin(name, "Images.", DatasetOptions, load=load, fingerprint=fingerprint)


def shared_array(options):
    images = np.zeros((90, 12, 12), dtype=np.uint8)
    return RawDataset(("a", "b", "c"), {"train": ArrayImages(images, LABELS)})


def float_images(options):
    shades = np.random.default_rng(0).random((90, 12, 12), dtype=np.float32)
    return RawDataset(("a", "b", "c"), {"train": ArrayImages(shades, LABELS)})


class Found:
    """What a look found: `more` images than there are, or a file that no other process can read."""

    def __init__(self, more=0, handle=None):
        self.more, self.handle = more, handle

    def fingerprint(self):
        return "1"

    def survey(self):
        return DataSurvey({"train": {"a": 30 + self.more, "b": 30, "c": 30}})

    def load(self):
        return RawDataset(("a", "b", "c"), {"train": images(LABELS)})


class Forgetful(Found):
    def load(self):
        return RawDataset(("a", "b", "c"), {"train": images(LABELS if self.handle else LABELS[:60])})

    def __reduce__(self):
        return Forgetful, ()


def finding(name, find):
    return DatasetPlugin(name, "Images.", DatasetOptions, find=find)


@hookimpl
def edgeopt_datasets():
    yield finding("good-found", lambda options: Found())
    yield finding("miscounted", lambda options: Found(more=1))
    yield finding("held", lambda options: Found(handle=lambda: "a function cannot be pickled"))
    yield finding("forgetful-found", lambda options: Forgetful(handle="files"))
    names = ("a", "b", "c")
    yield dataset("good-data", lambda options: RawDataset(names, {"train": images(LABELS)}))
    yield dataset("wrong-labels", lambda options: RawDataset(names, {"train": images(LABELS + 1)}))
    yield dataset("wrong-type", lambda options: RawDataset(names, {"train": images(LABELS.astype(np.float32))}))
    yield dataset("float-images", float_images)
    yield dataset("restless", lambda options: RawDataset(names, {"train": images(LABELS, next(COUNTER))}))
    yield dataset("same-images", shared_array)
    yield dataset("twice-a-name", lambda options: RawDataset(("a", "a", "c"), {"train": images(LABELS)}))
    yield dataset(
        "restless-print",
        lambda options: RawDataset(names, {"train": images(LABELS)}),
        fingerprint=lambda options: str(next(COUNTER)),
    )


# ---- models --------------------------------------------------------------------------------------------------------


def linear(data, classes):
    from torch import nn

    size = data.preprocessing.image_size
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, classes))
    return ModelState(model, Form.MODULE, TASKS["classification"], data.classes, data.preprocessing)


def unpicklable(options, data):
    state = linear(data, len(data.classes))
    state.model.register_forward_hook(lambda module, inputs, outputs: outputs)
    return state


def unseeded(options, data):
    import torch

    state = linear(data, len(data.classes))
    state.model[1].bias.data.fill_(float(next(COUNTER)))
    assert isinstance(state.model, torch.nn.Module)
    return state


@hookimpl
def edgeopt_models():
    yield ModelPlugin("good-model", "A model.", Options, build=lambda options, data: linear(data, len(data.classes)))
    yield ModelPlugin("fixed-head", "A model.", Options, build=lambda options, data: linear(data, 3))
    yield ModelPlugin("unpicklable", "A model.", Options, build=unpicklable)
    yield ModelPlugin("unseeded", "A model.", Options, build=unseeded)
    yield ModelPlugin(
        "bad-options", "A model.", BadOptions, build=lambda options, data: linear(data, len(data.classes))
    )


# ---- passes --------------------------------------------------------------------------------------------------------


def scaled(state, factor, in_place=False):
    import torch

    model = state.model if in_place else copy.deepcopy(state.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    return model


def scale(name, **options):
    def apply(state, given, context):
        return state.after(PassRecord(name, {"scaled": 1}), scaled(state, 0.5, **options))

    return apply


def forgetful(state, options, context):
    return replace(state, model=scaled(state, 0.5))


def random_scale(state, options, context):
    return state.after(PassRecord("random", {"scaled": 1}), scaled(state, float(next(COUNTER)) + 2))


def idle(state, options, context):
    return state.after(PassRecord("idle", {"scaled": 0}), copy.deepcopy(state.model))


@hookimpl
def edgeopt_passes():
    yield PassPlugin("good-pass", "A pass.", Options, apply=scale("good-pass"))
    yield PassPlugin("in-place", "A pass.", Options, apply=scale("in-place", in_place=True))
    yield PassPlugin("forgetful", "A pass.", Options, apply=forgetful)
    yield PassPlugin("random-pass", "A pass.", Options, apply=random_scale)
    yield PassPlugin("idle", "A pass.", Options, apply=idle)
    yield PassPlugin("wrong-form", "A pass.", Options, apply=scale("wrong-form"), produces=Form.PROGRAM)


# ---- exporters -----------------------------------------------------------------------------------------------------


class Predictor:
    """Runs the saved program; `largest` is the batch that it takes, `only` the one that it does not refuse, `offset`
    what it adds; with `one_scale` it rounds the images of a call together.
    """

    def __init__(self, path, largest=1000, offset=0.0, one_scale=False, only=0):
        import torch

        try:
            self.module = torch.export.load(path).module()
        except Exception as error:
            raise UserError(f"{path} is damaged") from error
        self.largest, self.offset, self.one_scale, self.only = largest, offset, one_scale, only

    def predict(self, batch):
        import torch

        if self.only not in (0, len(batch)):
            raise ValueError(f"a call has {self.only} images")
        if self.one_scale:  # of all images of the call, as a dynamic quantizer of ONNX takes it
            step = np.float32(np.abs(batch).max() / 2**7)
            batch = np.rint(batch / step) * step
        with torch.no_grad():
            answer = self.module(torch.from_numpy(batch[: self.largest]))
        outputs = answer if isinstance(answer, tuple) else (answer,)
        return tuple(each.numpy() + np.float32(self.offset) for each in outputs)


def write(state, options, context, *, salt=False, litter=False, batch="batch"):
    import torch

    if isinstance(batch, int) and state.batch_range[1] < batch:
        raise ExportError(f"the program takes {state.batch_range[1]} images, and a file has {batch}")
    torch.export.save(state.model, context.path)
    _without_times(context.path, str(next(COUNTER)) if salt else "")
    if litter:
        context.path.with_suffix(".tmp").touch()
    size = state.preprocessing.image_size
    return ExportResult(
        TensorInfo("input", "float32", (batch, 3, size, size), "NCHW"),
        outputs_of(state, batch),
    )


def _without_times(path, salt):
    """Archives of torch repeat byte by byte but for their id; written anew with fixed times."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("serialization_id")}
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = salt.encode()
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), content)


def exporter(name, open_file=lambda path, threads: Predictor(path), on_device=None, **how):
    return ExporterPlugin(
        name,
        "Files.",
        Options,
        export=lambda state, options, context: write(state, options, context, **how),
        open=open_file,
        runtime="torch",
        suffix=".pt2",
        on_device=on_device,
    )


@hookimpl
def edgeopt_exporters():
    yield exporter("good-export")
    yield exporter("salted", salt=True)
    yield exporter("litter", litter=True)
    yield exporter("off", lambda path, threads: Predictor(path, offset=1.0))
    yield exporter("one-image", lambda path, threads: Predictor(path, largest=1))
    yield exporter("in-tens", lambda path, threads: Predictor(path, only=10), batch=10)
    yield exporter("tens-unsaid", lambda path, threads: Predictor(path, only=10))
    yield exporter("tens-of-nine", lambda path, threads: Predictor(path, largest=9), batch=10)
    yield exporter("other-there", on_device=OnDevice(("edgeopt.testing.linear_file",), ("numpy",)))
    yield exporter("heavy-there", on_device=OnDevice(("edgeopt.measure.calls",), ("numpy",)))
    yield exporter("one-scale", lambda path, threads: Predictor(path, one_scale=True))
    yield exporter("trusting", lambda path, threads: Predictor.__new__(Predictor))


# ---- devices -------------------------------------------------------------------------------------------------------


class InProcess:
    """A device that is this process; it knows files by their bytes, or wrongly by their size."""

    def __init__(self, *, by_size=False, trusting=False):
        self.by_size, self.trusting, self.files = by_size, trusting, {}

    def describe(self):
        return DeviceFacts("a processor", "x86_64", 1, "Linux", "3.11")

    def put(self, file, sha256):
        content = file.read_bytes()
        if not self.trusting and hashlib.sha256(content).hexdigest() != sha256:
            raise DeviceError("other bytes")
        return self.files.setdefault(len(content) if self.by_size else sha256, content)

    def run(self, job, tell):
        return {file.name: self._answer(file, job) for file in job.files}

    def _answer(self, file, job):
        images = normalized(np.load(job.images), file.scale, file.offset)
        try:
            weight = np.load(io.BytesIO(self.put(file.path, file.sha256)))
        except ValueError as error:
            return FileOnDevice(error=str(error))
        turns = tuple((0.1,) * calls for calls, _ in job.turns)
        return FileOnDevice((images.reshape(len(images), -1) @ weight,), turns, 1.0, 0.2)

    def clean(self):
        self.files.clear()

    def close(self):
        pass


def device(name, **how):
    return DevicePlugin(name, "A device.", Options, open=lambda options, name, waiting: InProcess(**how))


@hookimpl
def edgeopt_devices():
    yield device("good-device")
    yield device("by-size", by_size=True)
    yield device("trusting-device", trusting=True)
