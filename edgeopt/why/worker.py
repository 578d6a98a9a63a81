"""The process of `edgeopt why`: the program and the file, image by image: `python -m edgeopt.why.worker JOB.json`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgeopt.arrays import InputKind, as_outputs
from edgeopt.errors import NothingChangedError
from edgeopt.json_values import from_text, to_text
from edgeopt.networks.bits import FLOAT_BITS
from edgeopt.options import without_augmentation
from edgeopt.plugins.blame import BlamedLoad, blamed
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.handed import handed
from edgeopt.plugins.tap import Seen, TapRequest
from edgeopt.why.subject import Subject
from edgeopt.why.table import LayerNoise, OutputNoise
from edgeopt.workers.process import Events, die_with_parent, leave, work

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from edgeopt.progress import Progress
    from edgeopt.types import Split

_AT_ONCE = 4  # images; all inner values of them are in memory together


@dataclass(frozen=True)
class WhyJob:
    """What a worker is to do: to look at the `Subject` that `subject`, a file, holds, and write a `Looked` to
    `answer`.
    """

    module: ClassVar[str] = "edgeopt.why.worker"

    subject: Path
    answer: Path
    images: int
    threads: int


@dataclass(frozen=True)
class Looked:
    """What the worker found; see `edgeopt.why.table.Why`."""

    layers: tuple[LayerNoise, ...]
    outputs: tuple[OutputNoise, ...]
    agreement: float
    images: int
    unseen: tuple[str, ...]
    tap_changes: float
    how: str


def main(events: Events) -> None:
    """Looks at the file that the command line's job names."""
    job = from_text(WhyJob, Path(sys.argv[1]).read_text())
    die_with_parent()
    looked = look(handed(Subject, job.subject), job.images, job.threads, job.answer.parent, events)
    job.answer.write_text(to_text(looked))


def look(subject: Subject, images: int, threads: int, folder: Path, progress: Progress) -> Looked:
    """What each layer of the file adds to its error, on the first `images` of the validation split."""
    import torch  # heavy, as all below: the parent imports this module for the job alone

    from edgeopt.networks.saved import load_state

    torch.set_num_threads(threads)
    state = load_state(subject.program)
    if subject.takes_pixels:
        from edgeopt.export.pixels_input import take_pixels

        state = take_pixels(state)
    request = TapRequest(subject.path, state, subject.exporter.options, (), threads, folder)
    return look_at(subject.exporter.plugin, request, _validation(subject), images, progress)


def look_at(plugin: ExporterPlugin, request: TapRequest, split: Split, images: int, progress: Progress) -> Looked:
    """What each layer of a file adds to its error, on the first `images` of `split`.

    `request` says which file of which program; the nodes are filled in here. Raises `NothingChangedError` where nothing
    of the program is rounded.
    """
    from edgeopt.export.pixels_input import INSIDE  # torch, from here on
    from edgeopt.measure.answers import feeder
    from edgeopt.networks.tracing import quick_tracing
    from edgeopt.why.engine import measure
    from edgeopt.why.points import rounded_program

    state = request.state
    takes_pixels = state.input_kind is InputKind.UINT8_NHWC
    program = rounded_program(state.program, INSIDE if takes_pixels else "")
    if not any(point.quantize or point.weight_bits not in (None, FLOAT_BITS) for point in program.points):
        raise NothingChangedError(f"no layer of the program behind {request.path} is rounded")
    assert plugin.tap is not None  # whoever made the subject has looked
    feed = feeder("pixels" if takes_pixels else "values", state.preprocessing)
    count = min(images, len(split))
    nodes = tuple(point.shown.name for point in program.points)
    with quick_tracing(), blamed(plugin, "tap"):
        tapped = plugin.tap(replace(request, nodes=nodes))
    differences = [0.0]
    with (
        closing(tapped),
        plugin.opened(request.path, request.threads) as own,
        progress.bar("why: layer by layer", count) as bar,
    ):

        def run(batch: NDArray[Any]) -> Seen:
            with blamed(plugin, "tap"):
                seen = tapped.run(batch)
            answers = as_outputs(own.predict(batch))
            differences.extend(
                float(abs(one - other).max()) if other.dtype.kind == "f" else float((one != other).mean())
                for one, other in zip(seen.outputs, answers, strict=True)
            )
            return seen

        found = measure(program, _batches(split, count, feed), run, state.task.alike, bar.advance)
        how = tapped.how
    outputs = tuple(map(OutputNoise, state.output_names, found.outputs))
    return Looked(found.layers, outputs, found.agreement, found.images, found.unseen, max(differences), how)


def _validation(subject: Subject) -> Split:
    from edgeopt.data.cache import load_split, opener

    dataset = subject.dataset
    plugin, options = dataset.plugin, without_augmentation(dataset.options)
    load = BlamedLoad(plugin.name, plugin.load, options)
    return load_split(subject.data, "validation", opener(subject.data, load))


def _batches(split: Split, count: int, feed: Callable[[Any], NDArray[Any]]) -> Iterator[NDArray[Any]]:
    for start in range(0, count, _AT_ONCE):
        yield feed(split.pixels(range(start, min(start + _AT_ONCE, count))))


if __name__ == "__main__":
    leave(work(main))
