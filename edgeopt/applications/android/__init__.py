"""An Android app around a file of a run, written from the file's card."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeopt.applications.fitting import numbers_of, problems_of_outputs, problems_of_types
from edgeopt.applications.parts import KotlinPart, kotlin_part
from edgeopt.arrays import Json
from edgeopt.cards.card import Card
from edgeopt.cards.reading import card_of
from edgeopt.errors import Problem, StorageError, UserError
from edgeopt.files import storage_errors
from edgeopt.plugins.registry import Registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.report.reading import read_report
from edgeopt.report.schema import Row

_APPLICATION_ID = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*(\.[a-zA-Z][a-zA-Z0-9_]*)+")
_TAKEN = ("float32", "int8", "uint8")
_RETURNED = (*_TAKEN, "int32", "int64")
_CORE = "core/src/main/kotlin/edgeopt/core"
_MAIN = "app/src/main"
_PROJECT = {
    "gitignore.j2": ".gitignore",
    "README.md.j2": "README.md",
    "settings.gradle.kts.j2": "settings.gradle.kts",
    "build.gradle.kts.j2": "build.gradle.kts",
    "gradle.properties.j2": "gradle.properties",
    "gradle-wrapper.properties.j2": "gradle/wrapper/gradle-wrapper.properties",
    "libs.versions.toml.j2": "gradle/libs.versions.toml",
    "core.build.gradle.kts.j2": "core/build.gradle.kts",
    "CardTest.kt.j2": "core/src/test/kotlin/edgeopt/core/CardTest.kt",
    "app.build.gradle.kts.j2": "app/build.gradle.kts",
    "AndroidManifest.xml.j2": f"{_MAIN}/AndroidManifest.xml",
    "BenchManifest.xml.j2": "app/src/bench/AndroidManifest.xml",
    "main.xml.j2": f"{_MAIN}/res/layout/main.xml",
    "strings.xml.j2": f"{_MAIN}/res/values/strings.xml",
    "themes.xml.j2": f"{_MAIN}/res/values/themes.xml",
}
_APP = {
    "Model.kt.j2": f"{_MAIN}/kotlin/edgeopt/app/Model.kt",
    "MarksView.kt.j2": f"{_MAIN}/kotlin/edgeopt/app/MarksView.kt",
    "MainActivity.kt.j2": f"{_MAIN}/kotlin/edgeopt/app/MainActivity.kt",
    "BenchActivity.kt.j2": "app/src/bench/kotlin/edgeopt/app/BenchActivity.kt",
}


@dataclass(frozen=True)
class _Runtime:
    """A runtime that there is for Android: its name, its library, and the Python distribution of the same version."""

    name: str
    module: str
    distribution: str
    opened: str
    suffix: str


_RUNTIMES = {
    "litert": _Runtime(
        "LiteRT", "com.google.ai.edge.litert:litert", "ai-edge-litert", "OpenedFile.litert.kt.j2", ".tflite"
    ),
    "executorch": _Runtime(
        "ExecuTorch", "org.pytorch:executorch-android", "executorch", "OpenedFile.executorch.kt.j2", ".pte"
    ),
}


@dataclass(frozen=True)
class AndroidFile:
    """A file that an app can be made around, with its card, and with what tells the answers of its task."""

    path: Path
    card: Card
    name: str
    part: KotlinPart

    @property
    def runtime(self) -> _Runtime:
        """Its runtime on Android."""
        return _RUNTIMES[self.card.runtime]

    @property
    def version(self) -> str:
        """The version of the runtime that the file was made for, without what follows a "+"."""
        return self.card.versions[self.runtime.distribution].partition("+")[0]


def find_file(given: Path, registry: Registry) -> AndroidFile:
    """The file to make an app of: the one given, or the optimized one of a finished run, or else its only one.

    Raises `UserError` when there is none for Android, when several could be meant, and for a file that an app cannot
    feed, or whose task has no part in Kotlin.
    """
    if given.suffix == ".json":
        raise UserError(Problem(f"{given} is a card alone", "name the model file beside it"))
    path = _file_of_run(given) if given.is_dir() else given
    card = card_of(path)
    part = _feedable(path, card, registry)
    return AndroidFile(path, card, str(card.recipe.get("name") or path.stem), part)


def write_app(file: AndroidFile, folder: Path, application_id: str | None = None) -> Path:
    """Writes the Gradle project of an app into `folder`, which must not be there, and returns it.

    Raises `StorageError` when the folder exists or cannot be written, `UserError` for an application id that Android
    does not take.
    """
    identity = application_id or default_id(file.name)
    if not _APPLICATION_ID.fullmatch(identity):
        hint = "two words or more of letters, digits and _, with a letter first and dots between, as in org.example.app"
        raise UserError(Problem(f"--id {identity}: this cannot be the id of an app", hint))
    if folder.exists():
        raise StorageError(f"{folder} exists already", hint="choose another folder with --out")
    pending = folder.absolute().parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    with storage_errors(folder.absolute().parent):
        try:
            for path, text in _texts(file, identity):
                (pending / path).parent.mkdir(parents=True, exist_ok=True)
                (pending / path).write_text(text, encoding="utf-8")
            assets = pending / _MAIN / "assets"
            assets.mkdir(parents=True)
            (assets / "card.json").write_text(file.card.to_json(), encoding="utf-8")
            shutil.copyfile(file.path, assets / f"model{file.runtime.suffix}")
            pending.rename(folder)
        finally:
            shutil.rmtree(pending, ignore_errors=True)
    return folder


def default_id(name: str) -> str:
    """The id of an app of this name, until somebody has a better one."""
    words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return f"com.example.{words if words[:1].isalpha() else f'app_{words}'}"


def _file_of_run(folder: Path) -> Path:
    rows = [row for row in read_report(folder).rows if not row.error]
    usable = [row for row in rows if row.runtime in _RUNTIMES]
    if not usable:
        runtimes = ", ".join(sorted({row.runtime for row in rows})) or "no runtime"
        raise UserError(
            Problem(
                f"{folder} has no file for Android: its files are for {runtimes}",
                'add an export, [[exports]] with use = "tflite" or use = "executorch", and run the recipe again',
            )
        )
    elsewhere = [row for row in usable if _backend(row) != "xnnpack"]
    here = [row for row in usable if row not in elsewhere]
    if not here:
        backends = ", ".join(sorted({_backend(row) for row in elsewhere}))
        raise UserError(
            Problem(
                f"{folder} has .pte files for the backend {backends} alone, which ExecuTorch's library does not hold",
                'export with backend = "xnnpack", or build ExecuTorch for Android with that backend yourself',
            )
        )
    chosen = [row for row in here if row.role == "optimized"] or here
    if len(chosen) > 1:
        files = ", ".join(str(folder / row.file) for row in chosen)
        raise UserError(Problem(f"{folder} has several files for Android", f"name one of them: {files}"))
    path = folder / chosen[0].file
    if not path.is_file():
        raise UserError(Problem(f"{path} is gone", "run the recipe again: what was made already is put back"))
    return path


def _backend(row: Row) -> str:
    return str(row.facts.get("backend", "xnnpack"))


def _feedable(path: Path, card: Card, registry: Registry) -> KotlinPart:
    """What tells the file's answers. Raises `UserError` with everything that keeps an app from feeding the file."""
    problems = []
    runtime = _RUNTIMES.get(card.runtime)
    if runtime is None:
        problems.append(
            Problem(f"{path} is for {card.runtime}", 'apps are made for files of "tflite" and "executorch"')
        )
    elif card.versions.get(runtime.distribution, "none") == "none":
        problems.append(
            Problem(f"the card of {path} does not say for which {runtime.name} it was made", "export the file again")
        )
    problems += problems_of_outputs(card, str(path), registry)
    problems += problems_of_types(card, str(path), _TAKEN, _RETURNED, "apps know")
    largest = card.input.shape[0] if card.input and card.input.shape else 1
    if isinstance(largest, int) and largest > 1:
        problems.append(
            Problem(f"{path} takes {largest} images in a call, and a camera gives one", "export it for one image")
        )
    try:
        part = kotlin_part(card, registry)
    except UserError as error:
        raise UserError(*problems, *error.problems) from error
    if problems:
        raise UserError(*problems)
    return part


def _texts(file: AndroidFile, application_id: str) -> Iterator[tuple[Path, str]]:
    """Path below the project's folder and text of each file."""
    from jinja2 import Environment, StrictUndefined  # only whoever writes an app needs it

    folder, card = Path(__file__).parent, file.card
    values: dict[str, Json] = {
        "title": file.name,
        "project": re.sub(r"[^A-Za-z0-9_-]+", "-", file.name).strip("-") or "app",
        "model": f"model{file.runtime.suffix}",
        "application_id": application_id,
        "runtime_name": file.runtime.name,
        "runtime_module": file.runtime.module,
        "runtime_version": file.version,
        "precision": card.precision,
        "shape": ", ".join(map(str, Preprocessing.from_json(card.preprocessing).shape)),
        "numbers": numbers_of(card),
        "task": card.task,
        "answering": file.part.answering,
    }
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701 — code, not HTML
    opened = {file.runtime.opened: f"{_MAIN}/kotlin/edgeopt/app/OpenedFile.kt"}
    core = {f"core/{each.name}": f"{_CORE}/{each.stem}" for each in sorted((folder / "core").glob("*.j2"))}
    app = {f"app/{name}": path for name, path in (_APP | opened).items()}
    project = {f"project/{name}": path for name, path in _PROJECT.items()}
    for template, path in (core | app | project).items():
        text = (folder / template).read_text(encoding="utf-8")
        yield Path(path), environment.from_string(text).render(values)
    for part in file.part.files:
        yield Path(_CORE) / part.name, part.read_text(encoding="utf-8")
