"""The hooks. None takes arguments and none picks a first result: plugins declare, the recipe selects by name.

A plugin is a module named by an entry point of the group `edgeopt`:

```toml
[project.entry-points.edgeopt]
my-plugin = "my_package.plugin"
```

It implements one or more of these functions, each marked with `@edgeopt.hookimpl`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from edgeopt.plugins.declarations import (
    DatasetPlugin,
    DevicePlugin,
    ExporterPlugin,
    ModelPlugin,
    PassPlugin,
    ProbePlugin,
    QuantizerPlugin,
    ReaderPlugin,
    TaskPlugin,
)

GROUP = "edgeopt"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def edgeopt_datasets() -> Iterable[DatasetPlugin]:
    """Data sets, selected by `[dataset] use = "NAME"`.

    ```python
    @edgeopt.hookimpl
    def edgeopt_datasets():
        yield DatasetPlugin("faces", "Faces of my friends.", FacesOptions, load=load, fingerprint=fingerprint)
    ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def edgeopt_models() -> Iterable[ModelPlugin]:
    """Sources of models, selected by `[model] use = "NAME"`.

    ```python
    @edgeopt.hookimpl
    def edgeopt_models():
        yield ModelPlugin("tiny", "A network of three convolutions.", TinyOptions, build=build)
    ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def edgeopt_quantizers() -> Iterable[QuantizerPlugin]:
    """Numerics of a target, which `ptq` and `qat` refer to with `quantizer = "NAME"`.

    ```python
    @edgeopt.hookimpl
    def edgeopt_quantizers():
        yield QuantizerPlugin("my-npu", "Symmetric int8, per tensor.", NpuOptions, build=build_quantizer)
    ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def edgeopt_passes() -> Iterable[PassPlugin]:
    """Steps that change the model, listed in order by `[[passes]] use = "NAME"`.

    ```python
    @edgeopt.hookimpl
    def edgeopt_passes():
        yield PassPlugin("round-weights", "Rounds weights to a grid.", RoundOptions, apply=apply)
    ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def edgeopt_exporters() -> Iterable[ExporterPlugin]:
    """Runtimes, listed by `[[exports]] use = "NAME"`.

    ```python
    @edgeopt.hookimpl
    def edgeopt_exporters():
        yield ExporterPlugin(
            "my-runtime",
            "Files for my runtime.",
            MyOptions,
            export=export,
            open=open_file,
            runtime="mine",
            suffix=".my",
        )
    ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def edgeopt_readers() -> Iterable[ReaderPlugin]:
    """Model files that `edgeopt convert SOURCE --to FORMAT` opens, selected by the ending of SOURCE.

    ```python
    @edgeopt.hookimpl
    def edgeopt_readers():
        yield ReaderPlugin(
            "my-file", "Models of my framework.", MyOptions, read=read, suffixes=(".mine",), framework="mine"
        )
    ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def edgeopt_probes() -> Iterable[ProbePlugin]:
    """Kinds of compression whose effect on each layer is measured, selected by `edgeopt sensitivity RECIPE --of NAME`.

    ```python
    @edgeopt.hookimpl
    def edgeopt_probes():
        yield ProbePlugin(
            "noise",
            "Weights with noise.",
            NoiseOptions,
            prepare=prepare,
            levels=Levels((0.1, 0.2), 0.01, 1.0, untouched=0.0),
        )
    ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def edgeopt_tasks() -> Iterable[TaskPlugin]:
    """What models are for, named by `tasks` of data sets and models, and by `[task] use = "NAME"` where both know
    several.

    ```python
    @edgeopt.hookimpl
    def edgeopt_tasks():
        yield TaskPlugin("angle", "The angle of what an image shows.", AngleOptions, make=make)
    ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def edgeopt_devices() -> Iterable[DevicePlugin]:
    """Kinds of devices on which files answer and are timed, listed by `[[devices]] use = "NAME"`.

    ```python
    @edgeopt.hookimpl
    def edgeopt_devices():
        yield DevicePlugin("my-board", "A board on my desk.", BoardOptions, open=open_board)
    ```
    """
    raise AssertionError("a specification is never called")
