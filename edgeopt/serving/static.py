"""A folder with a page in whose browser the files of runs answer by themselves: any static host serves it.

```
site/  index.html, page.css, page.js …      the page
       site.json, samples/                  which files and test images there are
       files/N/   the file and its card     runtimes/N/   what opens it     tasks/N/   what its outputs mean
```
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeopt.errors import Problem, UserError
from edgeopt.files import storage_errors
from edgeopt.plugins.browser_runtime import BrowserRuntime
from edgeopt.plugins.declarations import ExporterPlugin, TaskPlugin
from edgeopt.plugins.registry import Registry
from edgeopt.report.finished_files import CARD, Catalogue, FinishedFile
from edgeopt.report.style import style_sheet
from edgeopt.serving.limits import Limits
from edgeopt.serving.page import make_static_page, own_text
from edgeopt.serving.served_tasks import task_uses
from edgeopt.tasks import DEFAULT as DEFAULT_TASK

SITE = "site.json"
_SCRIPTS = ("drawing.js", "page.js", "static_page.js", "preprocessing.js", "placing.js", "self_test.js")
# Netlify, Cloudflare and others read it; elsewhere the server itself must say so, or there is one thread
_HEADERS = """/*
  Cross-Origin-Opener-Policy: same-origin
  Cross-Origin-Embedder-Policy: require-corp
"""


@dataclass(frozen=True)
class SiteFile:
    """A file of the page: in `folder` as `file`, with its card; `module` is the runtime's to import, and `task_module`
    the task's, null for a classifier.
    """

    name: str
    run: str
    export: str
    runtime: str
    precision: str
    role: str
    task: str
    size_bytes: int
    test_accuracy: float | None
    folder: str
    file: str
    module: str
    task_module: str | None


@dataclass(frozen=True)
class SiteSample:
    """A test image of the page, `image`, with its truth."""

    run: str
    index: int
    truth: str
    image: str


@dataclass(frozen=True)
class Site:
    """What was written, and in `left_out`, a sentence each, which files a browser does not open."""

    files: tuple[SiteFile, ...]
    samples: tuple[SiteSample, ...]
    size_bytes: int
    left_out: tuple[str, ...]


def write_site(catalogue: Catalogue, registry: Registry, target: Path, limits: Limits) -> Site:
    """Writes the folder `target` anew, aside first; one that is there already is replaced where it is such a folder.

    Raises `UserError` where no file can be opened by a browser or something else stands in the way, and `ExportError`
    where a runtime cannot be had.
    """
    _require_free(target)
    tasks = {name: use.plugin for name, use in task_uses(catalogue.files, registry).items()}
    reasons = {file.name: _reason_against(file, tasks[file.name]) for file in catalogue.files}
    opened = [file for file in catalogue.files if reasons[file.name] is None]
    left_out = tuple(f"{name} is left out: {reason}" for name, reason in reasons.items() if reason)
    if not opened:
        able = any(file.exporter.browser is not None for file in catalogue.files)
        hint = "edgeopt serve without --static answers with it" if able else _which_do(registry)
        raise UserError(Problem("no file of this run opens in a browser", hint), *(left_out if able else ()))
    runtimes = _runtimes(opened)
    target.parent.mkdir(parents=True, exist_ok=True)
    with storage_errors(target), tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as aside:
        folder = Path(aside) / "site"
        files = tuple(_put_file(file, number, runtimes, tasks[file.name], folder) for number, file in enumerate(opened))
        samples = tuple(_samples(catalogue, {file.run for file in opened}, folder))
        _put_page(files, samples, runtimes, limits, folder)
        size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if target.exists():
            target.rename(Path(aside) / "before")
        folder.rename(target)
    return Site(files, samples, size_bytes, left_out)


def _reason_against(file: FinishedFile, task: TaskPlugin) -> str | None:
    """Why a file is left out, or None."""
    if file.exporter.browser is None:
        return "no browser opens it"
    if task.name != DEFAULT_TASK and not task.page_files:
        return f"the task {task.name} has no code for browsers (TaskPlugin.page_files)"
    return None


def _require_free(target: Path) -> None:
    if not target.exists() or (target / SITE).is_file():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise UserError(Problem(f"{target} is there, and is no folder of such a page", "give another one with --out"))


def _which_do(registry: Registry) -> str:
    names = registry.names(ExporterPlugin)
    makers = [name for name in names if registry.get(ExporterPlugin, name).browser is not None]
    return f"export with one that does: {', '.join(makers)}" if makers else "no plugin of this machine makes such files"


def _runtimes(files: Sequence[FinishedFile]) -> dict[str, BrowserRuntime]:
    """What opens the files, by the names of their exporters."""
    makers = {file.exporter.name: file.exporter.browser for file in files}
    return {name: browser() for name, browser in makers.items() if browser is not None}


def _put_task(task: TaskPlugin, folder: Path) -> str | None:
    """Writes the code of a task; returns what of it is to be imported."""
    if task.name == DEFAULT_TASK:
        return None
    own = folder / "tasks" / task.name
    own.mkdir(parents=True, exist_ok=True)
    for module in task.page_files:
        shutil.copyfile(module, own / module.name)
    return f"tasks/{task.name}/{task.page_files[0].name}"


def _put_file(
    file: FinishedFile, number: int, runtimes: dict[str, BrowserRuntime], task: TaskPlugin, folder: Path
) -> SiteFile:
    own = folder / "files" / str(number)
    own.mkdir(parents=True)
    shutil.copyfile(file.path, own / file.path.name)
    (own / CARD).write_text(file.card.to_json(), encoding="utf-8")
    exporter = file.exporter.name
    return SiteFile(
        name=file.name,
        run=file.run,
        export=file.row.export,
        runtime=file.row.runtime,
        precision=file.row.precision,
        role=file.row.role,
        task=task.name,
        size_bytes=file.size_bytes,
        test_accuracy=file.row.test_accuracy,
        folder=f"files/{number}",
        file=file.path.name,
        module=f"runtimes/{exporter}/{runtimes[exporter].module}",
        task_module=_put_task(task, folder),
    )


def _samples(catalogue: Catalogue, runs: set[str], folder: Path) -> list[SiteSample]:
    (folder / "samples").mkdir(parents=True)
    samples = []
    for number, sample in enumerate(each for each in catalogue.samples if each.run in runs):
        image = f"samples/{number}{sample.path.suffix}"
        shutil.copyfile(sample.path, folder / image)
        samples.append(SiteSample(sample.run, sample.index, sample.truth, image))
    return samples


def _put_page(
    files: tuple[SiteFile, ...],
    samples: tuple[SiteSample, ...],
    runtimes: dict[str, BrowserRuntime],
    limits: Limits,
    folder: Path,
) -> None:
    title = " and ".join(dict.fromkeys(file.run for file in files))
    described = {"files": [asdict(file) for file in files], "samples": [asdict(sample) for sample in samples]}
    texts = {
        "index.html": make_static_page(title, limits),
        "page.css": style_sheet() + own_text("page.css"),
        SITE: json.dumps(described, indent=2) + "\n",
        "_headers": _HEADERS,
        "NOTICE.txt": "\n".join(dict.fromkeys(runtime.notice for runtime in runtimes.values())) + "\n",
        **{name: own_text(name) for name in _SCRIPTS},
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for exporter, runtime in runtimes.items():
        own = folder / "runtimes" / exporter
        own.mkdir(parents=True)
        for name, content in runtime.files.items():
            if isinstance(content, Path):
                shutil.copyfile(content, own / name)
            else:
                (own / name).write_bytes(content)
