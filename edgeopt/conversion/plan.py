"""`edgeopt convert`: from one model file to another format, verified by running both on the same images.

```
SOURCE ─▶ reader ─▶ state ─▶ pass … pass ─▶ exporter ─▶ FILE
                      └──────── outputs ───────▶ difference ◀─ outputs ──┘
```

This module is light: it finds the plugins and all mistakes, and lets workers (`edgeopt.conversion.worker`) do the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgeopt.arrays import Json
from edgeopt.conversion.delivery import bench, bytes_of, deliver, require_free
from edgeopt.conversion.labelled import Answered, LabelledAnswers
from edgeopt.errors import ExportError, Problem, RecipeError, UserError, did_you_mean
from edgeopt.json_values import from_text
from edgeopt.measure.answers import OutputDifference
from edgeopt.plugins.declarations import DatasetPlugin, ExporterPlugin, PassPlugin, ReaderPlugin, TaskPlugin
from edgeopt.plugins.handed import hand_over
from edgeopt.plugins.registry import Registry, load_registry
from edgeopt.plugins.use import Use
from edgeopt.preprocessing import Preprocessing
from edgeopt.recipe.lookup import Lookup, checked, numerics_of, resolve
from edgeopt.recipe.read import Source, overridden
from edgeopt.recipe.tasks import tasks_of
from edgeopt.report.figures import percent
from edgeopt.tasks import Classification, Task
from edgeopt.tasks.stored import DEFAULT as DEFAULT_TASK
from edgeopt.tasks.stored import task_from_json
from edgeopt.types import ONLY_LOGITS
from edgeopt.workers.pool import Workers

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console

FLOAT_TOLERANCE = 1e-2
"""Largest difference of a float file from its source, as a share of the logits' range; more is another function."""


@dataclass(frozen=True)
class ConversionRequest:
    """What was asked for: a source, a format, and the plugins and options on the way.

    `overrides` are `TABLE.OPTION=VALUE`, where the table is `source`, `export`, `dataset`, or the name of a pass.
    """

    source: str
    format: str
    passes: tuple[str, ...] = ()
    dataset: str | None = None
    overrides: tuple[str, ...] = ()
    plugin_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conversion:
    """A request that can be carried out."""

    source: Path
    reader: Use[ReaderPlugin]
    passes: tuple[Use[PassPlugin], ...]
    exporter: Use[ExporterPlugin]
    dataset: Use[DatasetPlugin] | None
    images_for: Task = field(default_factory=Classification)
    """What the images of the data set are for."""


@dataclass(frozen=True)
class ConversionResult:
    """A file that was made and compared with its source.

    `max_difference` is the largest absolute difference of the logits, or of another output, `relative_difference` the
    same as a share of the range of the source's; where there are several outputs, these are the largest of them, and
    `outputs` has each. `agreement` is the share of `images` with the same answer, as the `task` has it: of a classifier
    the same top-1 class, 0 to 1. `companions` are the files beside `path` that it cannot be opened without.

    `labelled` holds how often each side is right, where the images' labels are classes of the model; where they are
    not, `why_not_labelled` says why. `verdicts` are what a reader should know first.
    """

    path: Path
    source_bytes: int
    runtime: str
    precision: str
    size_bytes: int
    images: int
    images_from: str
    max_difference: float
    relative_difference: float
    agreement: float
    companions: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    labelled: LabelledAnswers | None = None
    why_not_labelled: str = ""
    outputs: tuple[OutputDifference, ...] = ()
    task: str = DEFAULT_TASK


@dataclass(frozen=True)
class ConvertedFile:
    """What the first process says of the file that it made; `holds`, `preprocessing` and `task` say how the second one
    feeds it, `answered` how the source answered the images whose labels are known.
    """

    runtime: str
    precision: str
    size_bytes: int
    companions: tuple[str, ...]
    warnings: tuple[str, ...]
    holds: str
    preprocessing: Preprocessing
    task: Json
    classes: tuple[str, ...]
    output_names: tuple[str, ...] = ONLY_LOGITS
    answered: Answered | None = None
    verdicts: tuple[str, ...] = ()
    why_not_labelled: str = ""


@dataclass(frozen=True)
class ComparedFile:
    """What the second process found: the file's answers against its source's.

    The largest differences are those of all outputs, and `outputs` has them one by one where there are several.
    `program_difference` is the largest difference from what the passes made of the source, as a share of the range of
    its logits: from the source itself where there are no passes.
    """

    images: int
    max_difference: float
    relative_difference: float
    program_difference: float
    agreement: float
    labelled: LabelledAnswers | None = None
    outputs: tuple[OutputDifference, ...] = ()


CONVERTED, COMPARED, LABELS = "converted.json", "compared.json", "labels.npy"
PROGRAM = "program.npz"


@dataclass(frozen=True)
class ConversionJob:
    """What a worker is to do: one `step` ("convert" or "answer") of the conversion that `conversion`, a file, holds, in
    `folder`.

    The new file is `file`, under the stem that it will keep.
    """

    module: ClassVar[str] = "edgeopt.conversion.worker"

    conversion: Path
    folder: Path
    file: Path
    step: str


def make_conversion(request: ConversionRequest, registry: Registry) -> Conversion:
    """Finds the plugins of a request and checks their options; nothing is opened.

    Raises `RecipeError` with every problem.
    """
    source = Path(request.source)
    if not source.exists():
        raise RecipeError(Problem(f"{source}: there is no such file"))
    reader = _reader_of(source, registry)
    exporter = _exporter_to(request.format, reader, registry)
    tables = ("source", "export", "dataset", *request.passes)
    values, lines = overridden({name: {} for name in tables}, Source(), request.overrides)
    problems = [
        Problem(f"--set {table}.…: there is no such table here", f"the tables are {', '.join(tables)}")
        for table in values
        if table not in tables
    ]
    if "dataset" in values and values["dataset"] and not request.dataset:
        problems.append(Problem("--set dataset.…: no data set is named", "name one with --dataset"))

    def use(kind: type[Any], name: str, table: str) -> Any:
        try:
            return resolve(kind, name, _table(values, table), registry, lines, (table,))
        except UserError as error:
            problems.extend(error.problems)
            return None

    passes = [use(PassPlugin, name, name) for name in request.passes]
    conversion = Conversion(
        source,
        use(ReaderPlugin, reader.name, "source"),
        tuple(passes),
        use(ExporterPlugin, exporter.name, "export"),
        use(DatasetPlugin, request.dataset, "dataset") if request.dataset else None,
    )
    if not problems:
        problems += _misfits(conversion, Lookup(lines, registry))
    if problems:
        raise RecipeError(*problems)
    served = tasks_of(conversion.dataset)
    if not served or served[0] == DEFAULT_TASK:
        return conversion
    task = resolve(TaskPlugin, served[0], {}, registry)
    return replace(conversion, images_for=task.plugin.made(task.options))


def convert(
    request: ConversionRequest,
    out: Path | None = None,
    *,
    force: bool = False,
    console: Console | None = None,
) -> ConversionResult:
    """Converts a model file, runs both sides on the same images, and only then puts the new file into place.

    `out` is the new file, by default the source's name with the format's ending in the current folder.

    Raises `UserError` for what does not fit or cannot be converted, `ExportError` when the file computes another
    function.
    """
    from rich.console import Console as RichConsole

    from edgeopt.workers.display import Display  # rich

    registry = load_registry(Path(file) for file in request.plugin_files)
    conversion = make_conversion(request, registry)
    plugin = conversion.exporter.plugin
    target = out or Path(conversion.source.with_suffix("").name + plugin.suffix)
    require_free([target], force=force)
    with bench() as folder:
        made_name = target.name if target.name.endswith(plugin.suffix) else f"{target.name}{plugin.suffix}"
        made_file = folder.made / made_name
        display = Display(console or RichConsole(quiet=True))
        with display, Workers(folder.jobs, folder.log, display) as workers:
            job = ConversionJob(workers.folder / "conversion.pickle", folder.root, made_file, "convert")
            hand_over(conversion, job.conversion, registry)
            workers.run(job, f"convert: {conversion.source.name}")
            workers.run(replace(job, step="answer"), f"open: {target.name}")
        made = from_text(ConvertedFile, (folder.root / CONVERTED).read_text())
        compared = from_text(ComparedFile, (folder.root / COMPARED).read_text())
        _require_same(made, compared, conversion, target)
        unpacked = plugin.is_folder and target.suffix != ".zip"
        beside = deliver(made_file, made.companions, target, unpacked=unpacked, force=force)
    return ConversionResult(
        path=target,
        source_bytes=bytes_of(conversion.source),
        runtime=made.runtime,
        precision=made.precision,
        size_bytes=made.size_bytes,
        images=compared.images,
        images_from=conversion.dataset.plugin.name if conversion.dataset else "",
        max_difference=compared.max_difference,
        relative_difference=compared.relative_difference,
        outputs=compared.outputs,
        agreement=compared.agreement,
        companions=beside,
        warnings=made.warnings,
        verdicts=(*made.verdicts, *(compared.labelled.verdicts if compared.labelled else ())),
        labelled=compared.labelled,
        why_not_labelled=made.why_not_labelled,
        task=task_from_json(made.task).name,
    )


def _table(values: Mapping[str, Json], name: str) -> dict[str, Json]:
    table = values.get(name, {})
    return table if isinstance(table, dict) else {}


def _reader_of(source: Path, registry: Registry) -> ReaderPlugin:
    """The one reader of a file's ending. Raises `RecipeError` where there is none, or several."""
    ending = "/" if source.is_dir() else source.suffix.lower()
    what = "folders" if ending == "/" else repr(ending)
    if reader := registry.reader(ending):
        return reader
    readers = [entry.plugin for entry in registry if isinstance(entry.plugin, ReaderPlugin)]
    known = ", ".join(sorted("a folder" if each == "/" else each for reader in readers for each in reader.suffixes))
    raise RecipeError(Problem(f"{source}: no reader opens {what}", f"there are readers of {known}"))


def _exporter_to(wanted: str, reader: ReaderPlugin, registry: Registry) -> ExporterPlugin:
    if exporter := registry.exporter(wanted, reader.framework):
        return exporter
    formats = [
        entry.plugin.written_format
        for entry in registry
        if isinstance(entry.plugin, ExporterPlugin) and entry.plugin.framework == reader.framework
    ]
    raise RecipeError(
        Problem(
            f"--to {wanted}: a model of {reader.framework} cannot be converted to it",
            did_you_mean(wanted, formats),
        )
    )


def _misfits(conversion: Conversion, lookup: Lookup) -> Iterable[Problem]:
    framework = conversion.reader.plugin.framework
    for use in conversion.passes:
        if use.plugin.framework != framework:
            yield Problem(
                f"--pass {use.plugin.name}: takes models of {use.plugin.framework}, and this is one of {framework}"
            )
        elif conversion.dataset is None:
            yield Problem(f"--pass {use.plugin.name}: needs images", "name a data set with --dataset")
    if conversion.passes:
        lookup.check_order(list(conversion.passes), starts_as=conversion.passes[0].plugin.accepts)
        lookup.check_kept(list(conversion.passes))
        yield from lookup.problems
    yield from checked(conversion.exporter, numerics_of(conversion.passes, framework))


def _require_same(made: ConvertedFile, compared: ComparedFile, conversion: Conversion, target: Path) -> None:
    """A float file that computes something else, or one that tells nothing apart, is not put into place."""
    if made.precision == "float32" and compared.program_difference > FLOAT_TOLERANCE:
        passes = ", ".join(use.plugin.name for use in conversion.passes)
        what = f"what {passes} made of {conversion.source.name}" if passes else conversion.source.name
        raise ExportError(
            f"{target.name} would differ from {what} by {100 * compared.program_difference:.1f} % of the range of its "
            "outputs",
            hint="the conversion is wrong, or the source depends on something besides its input: nothing was written",
        )
    if compared.labelled and compared.labelled.is_spoiled:
        raise ExportError(
            f"{target.name} {compared.labelled.file.doubt}, and {conversion.source.name} is right for "
            f"{percent(compared.labelled.source.score.value)}: nothing was written",
            hint="take another precision, milder passes, or more images to calibrate with",
        )
