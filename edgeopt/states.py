"""A model state on disk, between stages and processes.

These files are edgeopt's own and stay in its store: a module is pickled whole, because a pass may have changed its
structure. What comes from elsewhere is read by `edgeopt.checkpoints` instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path

from edgeopt.preprocessing import Preprocessing
from edgeopt.task import TASKS, Task
from edgeopt.types import Curve, Form, Json, ModelState, PassRecord

_FILES = {Form.MODULE: "module.pt", Form.PROGRAM: "program.pt2"}


def save_state(state: ModelState, folder: Path) -> None:
    """Writes the model and a `state.json` that can be read without torch."""
    import torch  # only where a model is at hand

    file = folder / _FILES[state.form]
    if state.form is Form.MODULE:
        torch.save(state.model, file)
    else:
        torch.export.save(state.model, file)  # type: ignore[arg-type]
    meta = {
        "form": state.form,
        "task": state.task.name,
        "classes": state.classes,
        "preprocessing": state.preprocessing.to_json(),
        "precision": state.precision,
        "batch_range": state.batch_range,
        "imports": state.imports,
        "history": [asdict(record) for record in state.history],
    }
    (folder / "state.json").write_text(json.dumps(meta))


@dataclass(frozen=True)
class Outline:
    """A saved state without its model: what evaluation and the report need of it."""

    form: Form
    task: Task
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    precision: str
    batch_range: tuple[int, int]
    imports: tuple[str, ...]
    history: tuple[PassRecord, ...]


def load_outline(folder: Path) -> Outline:
    """Reads a saved state without its model, and without torch."""
    meta = json.loads((folder / "state.json").read_text())
    return Outline(
        form=Form(meta["form"]),
        task=TASKS[meta["task"]],
        classes=tuple(meta["classes"]),
        preprocessing=Preprocessing(**_tuples(meta["preprocessing"])),
        precision=meta["precision"],
        batch_range=(meta["batch_range"][0], meta["batch_range"][1]),
        imports=tuple(meta["imports"]),
        history=tuple(
            PassRecord(
                name=record["name"],
                facts=record["facts"],
                curves=tuple(Curve(**_tuples(curve)) for curve in record["curves"]),
                warnings=tuple(record["warnings"]),
            )
            for record in meta["history"]
        ),
    )


def load_state(folder: Path) -> ModelState:
    """Reads what `save_state` wrote."""
    import torch  # only where a model is wanted

    outline = load_outline(folder)
    for module in outline.imports:
        import_module(module)
    file = folder / _FILES[outline.form]
    is_module = outline.form is Form.MODULE
    model = torch.load(file, weights_only=False) if is_module else torch.export.load(file)
    return ModelState(model=model, **{each.name: getattr(outline, each.name) for each in fields(outline)})


def _tuples(values: Mapping[str, Json]) -> dict[str, Json]:
    """JSON values with lists as tuples, as frozen dataclasses hold them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
