"""From a `.pt2` file of anybody to a model state. Nothing in the file is executed as code."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.ao.quantization.fx._decomposed
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from edgeopt.export.predictor import quiet
from edgeopt.files import ARCHIVE_ERRORS, require_no_bomb
from edgeopt.networks.capture import export_program, spell_out_operators
from edgeopt.networks.plain_values import UnreadableValuesError, read_plain_values
from edgeopt.plugins import (
    TASKS,
    CheckpointError,
    ExportError,
    Form,
    ModelState,
    Problem,
    chosen_size,
    first_line,
    preprocessing_of_source,
)
from edgeopt_pt2.outputs import Output, chosen_outputs, described, require_no_suppression, with_outputs
from edgeopt_pt2.two_classes import with_two_logits

if TYPE_CHECKING:
    from edgeopt_pt2.options import Pt2Options

_QUANTIZED = "quantized_decomposed"
_LARGEST_BATCH = 1024
_NAMESPACES = ("aten", "quantized_decomposed", "torchvision")
_MORE = ("aten::from_file", "aten::_print")  # those of these that do more than compute
_ARITHMETIC = ("_operator", "builtins", "math", "torch", "torch.fx.experimental.sym_node")
_NO_GRAPH = Graph()


def read_program(path: Path, options: Pt2Options) -> ModelState:
    """The program of a `.pt2` file: float32 images (batch, channels, height, width) in; out come the float32 logits
    (batch, classes) of a classifier, or outputs of any other shapes, which have the images first.

    One value an image, as behind a sigmoid, becomes the logits of two classes.

    Raises `CheckpointError` for a damaged file, one that holds pickled objects, one that removes overlapping boxes
    itself, and a program of another input.
    """
    _require_plain_data(path)
    try:
        with quiet():
            program = torch.export.load(path)
    except Exception as error:  # torch.export raises many types for a damaged or foreign file
        raise CheckpointError(f"{path}: cannot be read as a program: {first_line(error)}", hint=_SAVE) from error
    _require_computing(path, program)
    require_no_suppression(path, program)
    given = _only_input(path, program)
    batch, channels, height, width = _image_shape(given, path)
    if channels is None:
        raise CheckpointError(f"{path}: takes images of any number of channels", hint="export it for 3, or for 1")
    size = chosen_size((height, width), options.image_size, str(path))
    preprocessing = preprocessing_of_source((*size, channels), options.mean, options.std)
    spell_out_operators(program)
    batch_range = (1, _LARGEST_BATCH) if batch is None else (batch, batch)
    if height is None or width is None:
        program = _at_size(path, program, (channels, *size), batch_range)
    returned = chosen_outputs(path, program, _only_input(path, program), options.output)  # they may depend on the size
    classifies = len(returned) == 1 and returned[0].is_of_a_classifier
    program = with_outputs(program, returned, batch_range)
    precision = "int8" if any(_QUANTIZED in str(node.target) for node in program.graph.nodes) else "float32"
    state = ModelState(
        program,
        Form.PROGRAM,
        TASKS["classification" if classifies else "numbers"],
        (),
        preprocessing,
        precision=precision,
        batch_range=batch_range,
        imports=("torch.ao.quantization.fx._decomposed",) if precision == "int8" else (),
    )
    if not classifies:
        if options.classes:
            shapes = ", ".join(f"{each.name} {each.shape}" for each in returned)
            hint = "leave source.classes out, or name the output of logits with source.output"
            raise CheckpointError(Problem(f"{path}: source.classes are of logits, and it returns {shapes}", hint))
        return replace(state, output_names=tuple(each.name for each in returned))
    return _with_classes(path, state, returned[0], options.classes)


def _with_classes(path: Path, state: ModelState, logits: Output, names: tuple[str, ...] | None) -> ModelState:
    """A classifier's state, with two logits where it gives one value."""
    classes = logits.classes
    if classes == 1:
        state, classes = replace(state, model=with_two_logits(state.program, state.batch_range)), 2
    names = names or tuple(str(index) for index in range(classes))
    if len(names) != classes:
        raise CheckpointError(Problem(f"{path}: has {classes} outputs, and source.classes names {len(names)}"))
    return replace(state, classes=names)


_SAVE = "write it with torch.export.save(torch.export.export(model, (images,)), path)"


def _at_size(
    path: Path, program: ExportedProgram, image: tuple[int, int, int], batch_range: tuple[int, int]
) -> ExportedProgram:
    """The program for images (channels, height, width) of one size. Raises `CheckpointError` where it takes others."""
    try:
        plain = program.module(check_guards=False)
        return export_program(plain, torch.zeros(max(2, batch_range[0]), *image), batch_range)
    except ExportError as error:
        _, height, width = image
        message = f"{path}: does not take images of {height} × {width} px: {first_line(error)}"
        raise CheckpointError(message, hint="choose another size, with --size") from error


def _require_plain_data(path: Path) -> None:
    """Refuses an archive in which `torch.export.load` would unpickle anything but tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            require_no_bomb(archive, path)
            for name in archive.namelist():
                if name.endswith("_config.json"):
                    entries = json.loads(archive.read(name)).get("config", {})
                    folder = name.rpartition("/")[0]
                    pickled = [f"{folder}/{one['path_name']}" for one in entries.values() if one.get("use_pickle")]
                    for entry in pickled:
                        _load_tensors(path, entry, archive.read(entry))
                elif "/sample_inputs/" in name:
                    _load_tensors(path, name, archive.read(name))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (AttributeError, TypeError, *ARCHIVE_ERRORS) as error:  # its lists and tables may be anything
        raise CheckpointError(f"{path}: is damaged, or no file of torch.export", hint=_SAVE) from error


def _require_computing(path: Path, program: ExportedProgram) -> None:
    """Refuses a program that calls anything besides operators that compute."""
    for module in program.graph_module.modules():
        for node in getattr(module, "graph", _NO_GRAPH).nodes:
            if node.op == "call_function" and not _computes(node.target):
                raise CheckpointError(
                    f"{path}: operator {node.target} ({node.name}) is none of those that networks compute with, and "
                    "edgeopt does not run it",
                    hint="export a module of torch's own operators",
                )


def _computes(target: Any) -> bool:
    if isinstance(target, torch._ops.OpOverload):  # noqa: SLF001 - there is no public name of the class
        name = str(target.name()).partition(".")[0]  # type: ignore[no-untyped-call]
        return target.namespace in _NAMESPACES and name not in _MORE
    return isinstance(target, torch._ops.HigherOrderOperator) or getattr(target, "__module__", "") in _ARITHMETIC  # noqa: SLF001 - as above


def _load_tensors(path: Path, name: str, content: bytes) -> None:
    try:
        read_plain_values(content)
    except UnreadableValuesError as error:
        raise CheckpointError(
            f"{path}: {name} holds pickled objects, which would run as code when they are read",
            hint="save a program whose constants and sample inputs are tensors",
        ) from error


def _only_input(path: Path, program: ExportedProgram) -> Node:
    names = program.graph_signature.user_inputs
    if len(names) != 1:
        raise CheckpointError(
            f"{path}: takes {len(names)} inputs: {', '.join(map(str, names))}", hint=_ONE.format("input")
        )
    return _node(path, program, names[0])


def _node(path: Path, program: ExportedProgram, name: object) -> Node:
    found: Node | None = next((node for node in program.graph.nodes if node.name == name), None)
    if found is None:
        raise CheckpointError(f"{path}: says that it takes {name}, which is not in it", hint=_SAVE)
    return found


_ONE = "edgeopt converts models of one input of images; wrap the model so that it has one {}"


def _image_shape(node: Node, path: Path) -> list[int | None]:
    """The sizes of the input, None where they are not fixed."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float32 or value.dim() != 4:
        raise CheckpointError(
            f"{path}: its input is {described(value)}, not float32 images (batch, channels, height, width)"
        )
    return [size if isinstance(size, int) else None for size in value.shape]
