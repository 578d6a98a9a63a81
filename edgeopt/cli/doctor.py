"""`edgeopt doctor`: what is installed, against what was tested; what the machine has."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from rich.table import Table
from rich.text import Text

from edgeopt._version import __version__
from edgeopt.cli.consoles import stdout
from edgeopt.cores import usable_cores
from edgeopt.errors import MissingExtraError, Problem
from edgeopt.plugins.registry import load_registry

_NOT_FOR_USERS = {"all", "dev"}
_BROWSER = "EDGEOPT_BROWSER"  # in the environment: the browser that is meant
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
_LOW_DISK_BYTES = 5 * 10**9  # a run of a large data set with its cached stages


@dataclass(frozen=True)
class Package:
    """A package that edgeopt, or one of its extras, stands on; `installed` is None when it is missing."""

    name: str
    extra: str
    tested: str
    installed: str | None
    fits: bool

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.installed is None:
            return "missing"
        return "ok" if self.fits else "not the tested version"


def examine() -> None:
    """Prints versions, missing extras, tools and the machine.

    Raises `MissingExtraError` when edgeopt cannot work at all.
    """
    packages = _packages()
    console = stdout()
    console.print(f"edgeopt {__version__}, Python {platform.python_version()}, {platform.platform()}\n")
    console.print(_versions_table(packages))
    console.print(_rows("\nmachine", _machine()))
    findings = [*_missing_extras(packages), *_untested(packages), *_flatc(packages), *_low_disk(), *_broken_plugins()]
    console.print("\nadvice" if findings else "\nnothing to do", style="bold")
    for finding in findings:
        console.print(Text(finding.message), soft_wrap=True)
        if finding.hint:
            console.print(Text(f"    {finding.hint}", style="cyan"), soft_wrap=True)
    core = [package for package in packages if not package.extra and package.installed is None]
    if core:
        names = ", ".join(package.name for package in core)
        raise MissingExtraError(f"edgeopt cannot work without {names}", hint="pip install --force-reinstall edgeopt")


def _packages() -> list[Package]:
    """What edgeopt's own metadata asks for, by extra; the versions there are those that were tested together."""
    extras = [extra for extra in metadata("edgeopt").get_all("Provides-Extra") or [] if extra not in _NOT_FOR_USERS]
    requirements = [Requirement(text) for text in requires("edgeopt") or []]
    return [
        _package(requirement, extra)
        for extra in ("", *extras)
        for requirement in requirements
        if _belongs(requirement, extra)
    ]


def _belongs(requirement: Requirement, extra: str) -> bool:
    if requirement.marker is None:
        return not extra
    return requirement.marker.evaluate({"extra": extra}) and (
        not extra or not requirement.marker.evaluate({"extra": ""})
    )


def _package(requirement: Requirement, extra: str) -> Package:
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        installed = None
    fits = installed is not None and requirement.specifier.contains(installed, prereleases=True)
    return Package(requirement.name, extra, str(requirement.specifier).removeprefix("=="), installed, fits)


def _versions_table(packages: Iterable[Package]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for title in ("package", "for", "installed", "tested", ""):
        table.add_column(title, no_wrap=True)
    for package in packages:
        style = "" if package.verdict == "ok" else "yellow"
        verdict = Text(package.verdict, style=style)
        table.add_row(package.name, package.extra or "core", package.installed or "-", package.tested, verdict)
    return table


def _rows(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(title=title, title_style="bold", title_justify="left", box=None, pad_edge=False, show_header=False)
    for name, value in rows:
        table.add_row(name, value)
    return table


def _machine() -> Iterable[tuple[str, str]]:
    yield "cores", f"{usable_cores()} usable of {os.cpu_count()}"
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        if variable in os.environ:
            yield variable, os.environ[variable]
    if hasattr(os, "sysconf"):
        yield "memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    yield "free disk here", f"{shutil.disk_usage(Path()).free / 2**30:.1f} GiB"
    yield "GPU", _gpu()
    yield "flatc", _first_line([str(flatc), "--version"]) if (flatc := _find_flatc()) else "not found"
    named = os.environ.get(_BROWSER)
    browser = next(filter(None, map(shutil.which, [named] if named else _BROWSERS)), None)
    yield "browser", browser or f"{named or 'Chromium'} not found, for the exporters onnx-web and litert-web"
    for tool, option, use in (("ssh", "-V", "devices behind ssh"), ("adb", "--version", "telephones as devices")):
        yield tool, _first_line([found, option]) if (found := shutil.which(tool)) else f"not found, for {use}"


def _gpu() -> str:
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "Apple (mps)"
    tool = shutil.which("nvidia-smi")
    return _first_line([tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]) if tool else "none found"


def _first_line(command: list[str]) -> str:
    """The first line that a tool prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return f"{command[0]} does not run"
    return ((done.stdout or done.stderr).splitlines() or [""])[0].strip()  # ssh says it on standard error


def _find_flatc() -> Path | None:
    """The flatbuffer compiler that ExecuTorch writes its files with: the one in its wheel, or one in the path."""
    spec = importlib.util.find_spec("executorch")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for name in ("flatc", "flatc.exe"):
            if (carried := Path(folder) / "data" / "bin" / name).is_file():
                return carried
    found = shutil.which("flatc")
    return Path(found) if found else None


# ---- advice --------------------------------------------------------------------------------------------------------


def _missing_extras(packages: Iterable[Package]) -> Iterable[Problem]:
    missing: dict[str, list[str]] = {}
    for package in packages:
        if package.extra and package.installed is None:
            missing.setdefault(package.extra, []).append(package.name)
    for extra, names in missing.items():
        yield Problem(f"the extra {extra!r} lacks {', '.join(names)}", f"pip install 'edgeopt[{extra}]'")


def _untested(packages: Iterable[Package]) -> Iterable[Problem]:
    wrong = {package.name: package for package in packages if package.installed and not package.fits}
    for package in wrong.values():
        target = f"edgeopt[{package.extra}]" if package.extra else "edgeopt"
        yield Problem(
            f"{package.name} {package.installed} is not what was tested ({package.tested})", f"pip install '{target}'"
        )


def _flatc(packages: Iterable[Package]) -> Iterable[Problem]:
    has_executorch = any(package.name == "executorch" and package.installed for package in packages)
    if has_executorch and _find_flatc() is None:
        yield Problem("executorch is installed without its flatc, so it cannot write files", "put flatc into the PATH")


def _low_disk() -> Iterable[Problem]:
    free = shutil.disk_usage(Path()).free
    if free < _LOW_DISK_BYTES:
        yield Problem(
            f"only {free / 2**30:.1f} GiB of disk are free here", "choose another disk with `edgeopt run --out`"
        )


def _broken_plugins() -> Iterable[Problem]:
    yield from load_registry().problems
