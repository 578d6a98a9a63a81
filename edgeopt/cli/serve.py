"""`edgeopt serve`."""

from __future__ import annotations

import threading
import webbrowser
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.text import Text

from edgeopt.cli.consoles import stderr, stdout
from edgeopt.errors import MissingExtraError, Problem, UserError
from edgeopt.plugins.registry import load_registry

_NEEDS = ("starlette", "uvicorn")


def serve_runs(
    runs: Sequence[Path],
    *,
    host: str,
    port: int,
    threads: int,
    megabytes: float,
    megapixels: float,
    wait_s: float,
    in_browser: bool,
    plugin_files: Sequence[Path],
) -> None:
    """Serves the files of finished runs until it is interrupted.

    Raises `MissingExtraError` without the extra `serve`, and `UserError` for options out of range and as
    `edgeopt.serving.server.serve` does.
    """
    if missing := [name for name in _NEEDS if find_spec(name) is None]:
        names = " and ".join(missing)
        raise MissingExtraError(f"edgeopt serve needs {names}", hint="pip install 'edgeopt[serve]'")
    _check(port, threads, megabytes, megapixels, wait_s)
    from edgeopt.report.finished_files import find_files  # not before the extra is known to be there
    from edgeopt.serving.limits import Limits
    from edgeopt.serving.server import ServerSettings, serve

    registry = load_registry(plugin_files)
    catalogue = find_files(runs, registry)
    limits = Limits(image_bytes=round(megabytes * 1e6), pixels=round(megapixels * 1e6), queue_s=wait_s)
    messages, results = stderr(), stdout()
    for sentence in catalogue.left_out:
        messages.print(Text(sentence, style="yellow"), soft_wrap=True)

    def tell(text: str) -> None:
        messages.print(Text(text, style="dim"), soft_wrap=True)

    def at_address(address: str) -> None:
        count = len(catalogue.files)
        text = f"{count} {'file' if count == 1 else 'files'} at {address}, until Ctrl-C"
        results.print(Text(text, style="bold"), soft_wrap=True)
        results.file.flush()
        if in_browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    serve(catalogue, registry, ServerSettings(host, port, threads, limits), tell, at_address)


def write_static(
    runs: Sequence[Path], target: Path, *, megabytes: float, megapixels: float, plugin_files: Sequence[Path]
) -> None:
    """Writes a folder whose page answers by itself, in the browser.

    Raises `UserError` for options out of range and as `edgeopt.serving.static.write_site` does.
    """
    from edgeopt.report.finished_files import find_files  # opens reports: not for --help
    from edgeopt.serving.limits import Limits
    from edgeopt.serving.static import write_site

    _check(0, 1, megabytes, megapixels, 1)
    registry = load_registry(plugin_files)
    catalogue = find_files(runs, registry)
    limits = Limits(image_bytes=round(megabytes * 1e6), pixels=round(megapixels * 1e6))
    site = write_site(catalogue, registry, target, limits)
    messages, results = stderr(), stdout()
    for sentence in (*catalogue.left_out, *site.left_out):
        messages.print(Text(sentence, style="yellow"), soft_wrap=True)
    count = len(site.files)
    text = f"{count} {'file' if count == 1 else 'files'} with a page in {target}, {site.size_bytes / 1e6:.0f} MB"
    results.print(Text(text, style="bold"), soft_wrap=True)
    results.print(Text(f"any static host serves it; to look at it: python -m http.server -d {target}"), soft_wrap=True)


def _check(port: int, threads: int, megabytes: float, megapixels: float, wait_s: float) -> None:
    problems = []
    if not 0 <= port <= 65535:
        problems.append(Problem(f"--port {port}: give 0 to 65535", "0 is any port that is free"))
    if threads < 1:
        problems.append(Problem(f"--threads {threads}: give 1 or more"))
    for option, value in (("--max-megabytes", megabytes), ("--max-megapixels", megapixels), ("--wait", wait_s)):
        if not 0 < value < float("inf"):
            problems.append(Problem(f"{option} {value:g}: give more than 0"))
    if problems:
        raise UserError(*problems)
