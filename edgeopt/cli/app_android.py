"""`edgeopt app android`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgeopt.applications.android import find_file, write_app
from edgeopt.cli.consoles import stderr, stdout
from edgeopt.plugins.registry import load_registry


def write_android_app(given: Path, out: Path, application_id: str | None, plugin_files: Iterable[Path]) -> None:
    """Writes the project of an app and says what to do next; `plugin_files` may hold the file's task.

    Raises `UserError` and `StorageError` as `find_file` and `write_app` do.
    """
    file = find_file(given, load_registry(plugin_files))
    folder = write_app(file, out, application_id)
    if file.card.self_test is None:
        note = "the card has no self-test, as an older edgeopt wrote it: the app cannot check itself"
        stderr().print(note, style="yellow", markup=False, soft_wrap=True)
    console = stdout()
    for line in (
        f"wrote {folder}, around {file.path} ({file.runtime.name} {file.version})",
        "next, with Android Studio or Gradle and an Android SDK:",
        f"    cd {folder} && gradle wrapper && ./gradlew installBench",
    ):
        console.print(line, markup=False, soft_wrap=True)
