"""From a model state to a file with its card: the one way in which recipes, conversions and contract tests export."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.arrays import InputKind, Json
from edgeopt.errors import ExportError
from edgeopt.export.endings import EndedState, ended
from edgeopt.export.self_test import self_test_of
from edgeopt.fingerprint import file_digest, parts_digest
from edgeopt.networks.bits import has_wide_activations
from edgeopt.networks.tracing import quick_tracing
from edgeopt.options import ExporterOptions
from edgeopt.plugins.blame import blamed
from edgeopt.plugins.contexts import ExportContext
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.use import Use
from edgeopt.plugins.versions import versions_behind
from edgeopt.recipe.endings import ends_of
from edgeopt.recipe.lookup import no_int16_activations
from edgeopt.tasks.endings import OUTPUTS
from edgeopt.types import TORCH, Card, ExportResult, ModelState, Role

if TYPE_CHECKING:
    from edgeopt.progress import Progress
    from edgeopt.types import Split


@dataclass(frozen=True)
class Artifact:
    """A file that an exporter wrote, what it says of it, and the card that goes beside it."""

    path: Path
    exported: ExportResult
    card: Card

    @property
    def files(self) -> tuple[Path, ...]:
        """The file and those that it cannot be opened without."""
        return (self.path, *(self.path.with_name(name) for name in self.exported.companions))

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def sha256(self) -> str:
        """The file's SHA-256; with companions, that of the list of all of theirs."""
        return parts_digest([*self.parts.values()])

    @cached_property
    def parts(self) -> Mapping[str, str]:
        """The SHA-256 of each file, by its name."""
        return {file.name: file_digest(file) for file in self.files}

    @property
    def precision(self) -> str:
        """The file's precision: the program's, or what the exporter made of it."""
        return self.card.precision


def make_artifact(
    use: Use[ExporterPlugin],
    state: ModelState,
    folder: Path,
    *,
    role: Role,
    recipe: Mapping[str, Json],
    calibration: Split,
    progress: Progress,
    seed: int,
    stem: str = "model",
    has_self_test: bool = True,
) -> Artifact:
    """Exports a state into `folder`, as `stem` with the exporter's suffix; `recipe` is what the card says of the file's
    making. The card of a file that nobody will use needs no self-test.

    Raises `ExportError` when the exporter wrote nothing, or other files beside it than those that it names, and for
    activations of more bits than its runtime computes with.
    """
    plugin = use.plugin
    path = folder / f"{stem}{plugin.suffix}"
    is_torch = state.framework == TORCH
    if is_torch:
        _use_one_thread()
    # answers stand in no place of their own: which of two equal boxes comes first is for the runtime to say
    self_test = self_test_of(state) if has_self_test and ends_of(use.options) == OUTPUTS else None
    state, answering = as_exported(use, state)
    if is_torch and plugin.no_int16 and has_wide_activations(state.program):
        raise ExportError(no_int16_activations(plugin))
    there = set(folder.iterdir())
    card = Card(
        classes=state.classes,
        preprocessing=state.preprocessing.to_json(),
        runtime=plugin.runtime,
        precision=state.precision,
        role=role,
        recipe=recipe,
        versions=versions_behind([use], state.framework),
        self_test=self_test,
        task=state.task.name,
        decision=state.task.decision(),
    )
    with quick_tracing() if is_torch else nullcontext(), blamed(plugin, "export"):
        context = ExportContext(path, card, progress, calibration, seed)
        if answering is not None:
            context = replace(context, tail=answering.tail, output_names=answering.output_names)
        exported = plugin.export(state, use.options, context)
    if not path.is_file() or path.stat().st_size == 0:
        raise ExportError(f"exporter {plugin.name!r} wrote no file")
    written = {file.name for file in folder.iterdir() if file not in there and file != path}
    _require_companions(plugin.name, written, {*exported.companions, *exported.beside})
    card = replace(card, precision=exported.precision or state.precision, footprint=exported.footprint)
    return Artifact(path, exported, card.with_tensors(exported.input, exported.outputs))


def as_exported(use: Use[ExporterPlugin], state: ModelState) -> tuple[ModelState, EndedState | None]:
    """A state as an export is handed it: with the input that the device has, and with what the exporter's options put
    behind it, if anything.
    """
    if state.framework == TORCH:
        state = _as_the_device_has_it(state, use)
    answering = ended(use, state)
    return (state if answering is None else answering.state), answering


def _require_companions(exporter: str, written: set[str], named: set[str]) -> None:
    """A file that comes without what it needs cannot be opened; one that brings along what it does not need is too
    large.
    """
    if missing := sorted(named - written):
        raise ExportError(f"exporter {exporter!r} names {', '.join(missing)}, which it did not write")
    if left_over := sorted(written - named):
        raise ExportError(
            f"exporter {exporter!r} wrote files beside its own that it does not name: {', '.join(left_over)}",
            hint="let ExportResult(companions=..., beside=...) name those that go along, and delete the others",
        )


def _use_one_thread() -> None:
    import torch  # heavy, and imported already where a torch model is at hand

    torch.set_num_threads(1)  # exports run side by side, and their bytes must not depend on how many do


def _as_the_device_has_it(state: ModelState, use: Use[ExporterPlugin]) -> ModelState:
    options = use.options
    if isinstance(options, ExporterOptions) and options.input.kind is InputKind.UINT8_NHWC:
        from edgeopt.export.pixels_input import take_pixels

        return take_pixels(state)
    return state
