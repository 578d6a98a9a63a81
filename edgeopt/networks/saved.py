"""A model state on disk, between stages and processes.

These files are edgeopt's own and stay in its store: a module is pickled whole, because a pass may have changed its
structure. What comes from elsewhere is read by `edgeopt.networks.checkpoints` instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.arrays import InputKind, Json
from edgeopt.networks.copies import load_module, save_module
from edgeopt.preprocessing import Preprocessing
from edgeopt.tasks import task_from_json, task_to_json
from edgeopt.tasks.base import Task
from edgeopt.types import ONLY_LOGITS, TORCH, Curve, ForeignModel, Form, ModelState, PassRecord

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

_FILES = {Form.MODULE: "module.pt", Form.PROGRAM: "program.pt2"}
_FOREIGN = "model"  # a folder


def save_state(state: ModelState, folder: Path) -> None:
    """Writes the model and a `state.json` that can be read without its framework."""
    if state.framework != TORCH:
        (folder / _FOREIGN).mkdir()
        state.foreign.save(folder / _FOREIGN)
    else:
        _save_torch(state, folder / _FILES[state.form])
    meta = {
        "form": state.form,
        "framework": state.framework,
        "loader": state.foreign.loader if state.framework != TORCH else "",
        "input_kind": state.input_kind,
        "task": task_to_json(state.task),
        "classes": state.classes,
        "preprocessing": state.preprocessing.to_json(),
        "precision": state.precision,
        "batch_range": state.batch_range,
        "imports": state.imports,
        "untrained": state.untrained,
        "output_names": state.output_names,
        "history": [asdict(record) for record in state.history],
    }
    (folder / "state.json").write_text(json.dumps(meta))


def _save_torch(state: ModelState, file: Path) -> None:
    import torch  # heavy, and imported already where a torch model is at hand

    if state.form is Form.MODULE:
        save_module(state.module, file)
    else:
        torch.export.save(state.program, file)


@dataclass(frozen=True)
class Outline:
    """A saved state without its model: what evaluation and the report need to know."""

    form: Form
    task: Task
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    precision: str
    batch_range: tuple[int, int]
    imports: tuple[str, ...]
    history: tuple[PassRecord, ...]
    framework: str
    input_kind: InputKind
    untrained: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ONLY_LOGITS


def load_outline(folder: Path) -> Outline:
    """Reads a saved state without its model, and without its framework."""
    meta = _meta(folder)
    return Outline(
        form=Form(meta["form"]),
        task=task_from_json(meta["task"]),
        classes=tuple(meta["classes"]),
        preprocessing=Preprocessing.from_json(meta["preprocessing"]),
        precision=meta["precision"],
        batch_range=(meta["batch_range"][0], meta["batch_range"][1]),
        imports=tuple(meta["imports"]),
        history=tuple(
            PassRecord(
                name=record["name"],
                facts=record["facts"],
                curves=tuple(Curve(**_tuples(curve)) for curve in record["curves"]),
                warnings=tuple(record["warnings"]),
                details=record.get("details", {}),
            )
            for record in meta["history"]
        ),
        framework=meta["framework"],
        input_kind=InputKind(meta["input_kind"]),
        untrained=tuple(meta.get("untrained", ())),
        output_names=tuple(meta.get("output_names", ONLY_LOGITS)),
    )


def load_state(folder: Path) -> ModelState:
    """Reads what `save_state` wrote."""
    outline = load_outline(folder)
    for module in outline.imports:
        import_module(module)
    model = _load_torch(outline, folder) if outline.framework == TORCH else _load_foreign(folder)
    return ModelState(model=model, **{each.name: getattr(outline, each.name) for each in fields(outline)})


def _load_torch(outline: Outline, folder: Path) -> nn.Module | ExportedProgram:
    import torch  # heavy: only for a torch model

    file = folder / _FILES[outline.form]
    if outline.form is Form.MODULE:
        return load_module(file)
    with _types_read_once():
        program: ExportedProgram = torch.export.load(file)
    return program


@contextmanager
def _types_read_once() -> Iterator[None]:
    """Inside this context, torch reads the types of its schema's classes once each, and not once for every object of a
    program, which takes half the time of loading one.
    """
    import typing
    from types import SimpleNamespace
    from unittest.mock import patch  # torch has no switch for it

    from torch._export.serde import serialize

    if not hasattr(serialize, "typing"):
        yield  # another torch, slower perhaps, and the same programs
        return
    known: dict[Any, dict[str, Any]] = {}

    def types_of(schema_class: Any, **options: Any) -> dict[str, Any]:
        if schema_class not in known:
            known[schema_class] = typing.get_type_hints(schema_class, **options)
        return known[schema_class]

    with patch.object(serialize, "typing", SimpleNamespace(**(vars(typing) | {"get_type_hints": types_of}))):
        yield


def _load_foreign(folder: Path) -> ForeignModel:
    module, _, function = _meta(folder)["loader"].partition(":")
    model: ForeignModel = getattr(import_module(module), function)(folder / _FOREIGN)
    return model


def _meta(folder: Path) -> dict[str, Json]:
    meta: dict[str, Json] = json.loads((folder / "state.json").read_text())
    return meta


def _tuples(values: Mapping[str, Json]) -> dict[str, Json]:
    """JSON values with lists as tuples, as frozen dataclasses hold them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
