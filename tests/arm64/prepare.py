"""An emulated ARM64 Python with numpy and the two runtimes, kept in a folder and made without changing the system.

Debian's packages are downloaded and unpacked, not installed: apt works on a state of its own, for arm64, with the
system's sources and keys.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

QEMU = "qemu-aarch64-static"
#: Tool, and the Debian package that has it.
TOOLS = {QEMU: "qemu-user-static", "apt-get": "apt", "dpkg-deb": "dpkg"}
DEBIAN_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
#: In the versions that this Python has, so that both sides run the same runtime.
DISTRIBUTIONS = ("numpy", "onnxruntime", "ai-edge-litert", "ncnn", "pillow")
WHEEL_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")

CPU = "cortex-a76"
# ONNX Runtime reads this file and crashes when it describes no ARM processor; QEMU 7.2 would show the host's. It must
# not promise more than `CPU` has, because kernels are chosen by it.
CPU_INFO = """\
processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""


class PreparationError(Exception):
    """Something is missing, and the message says how to get it."""


@dataclass(frozen=True)
class EmulatedPython:
    """A Debian root folder with Python, and a folder of wheels for it."""

    root: Path
    packages: Path

    @property
    def python(self) -> Path:
        """The interpreter, for ARM64."""
        return sorted((self.root / "usr/bin").glob("python3.*"))[-1]

    def run(self, *arguments: str) -> None:
        """Runs Python on arguments; raises `PreparationError` with what it printed when it fails."""
        call(
            (QEMU, "-cpu", CPU, "-L", str(self.root), str(self.python), *arguments),
            environment={"PYTHONPATH": str(self.packages)},
        )


def prepare(folder: Path) -> EmulatedPython:
    """What `folder` has of an earlier call, or else downloads, about 70 MB.

    Raises `PreparationError` when a tool is missing or a download fails.
    """
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise PreparationError(f"missing on this machine; on Debian: apt install {' '.join(missing)}")
    root = folder / "debian"
    if not root.exists():
        with_progress("downloading a Debian arm64 Python")
        unpack_debian(aside(root), folder / "apt").rename(root)
    python_version = next((root / "usr/bin").glob("python3.*")).name.removeprefix("python")
    pins = [f"{name}=={version(name)}" for name in DISTRIBUTIONS]
    packages = folder / f"python{python_version}-{'-'.join(pins)}"
    if not packages.exists():
        with_progress(f"downloading arm64 wheels of {', '.join(pins)}")
        unpack_wheels(aside(packages), pins, python_version).rename(packages)
    return EmulatedPython(root, packages)


def unpack_debian(root: Path, apt: Path) -> Path:
    """Downloads Debian's arm64 Python and what it depends on, and unpacks all of it into `root`."""
    archives = apt / "cache/archives"
    for path in (apt / "state/lists/partial", archives / "partial"):
        path.mkdir(parents=True, exist_ok=True)
    status = apt / "status"
    status.touch()  # empty: nothing is installed yet, so that dependencies are downloaded as well
    settings = {
        "Dir::State": apt / "state",
        "Dir::State::status": status,
        "Dir::Cache": apt / "cache",
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "",
    }
    get = ["apt-get", "-q", *(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))]
    call([*get, "update"])
    call([*get, "install", "--yes", "--download-only", "--no-install-recommends", *DEBIAN_PACKAGES])
    for package in sorted(archives.glob("*.deb")):
        call(("dpkg-deb", "--extract", str(package), str(root)))
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")  # where programs look for their loader; newer releases unpack none
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(CPU_INFO)
    shutil.rmtree(apt)
    return root


def unpack_wheels(packages: Path, pins: Sequence[str], python_version: str) -> Path:
    """Installs wheels for ARM64, without dependencies that the runtimes import for their tools
    alone, into `packages`.
    """
    platforms = [part for platform in WHEEL_PLATFORMS for part in ("--platform", platform)]
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
    where = ("--target", str(packages), "--python-version", python_version, "--implementation", "cp")
    call((*pip, *where, *platforms, "--only-binary", ":all:", "--no-deps", *pins))
    return packages


def aside(path: Path) -> Path:
    """An empty folder beside `path`, to be renamed to it when it is whole."""
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def call(command: Sequence[str], environment: dict[str, str] | None = None) -> None:
    """Runs a command quietly; raises `PreparationError` with the end of what it printed when it fails."""
    done = subprocess.run(
        command,
        env={**os.environ, "LC_ALL": "C", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PreparationError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}")


def with_progress(text: str) -> None:
    print(f"{text} …", flush=True)
