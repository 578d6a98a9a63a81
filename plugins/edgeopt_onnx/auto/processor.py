"""Which processor this is: what measured costs hold for. Light."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgeopt.plugins import digest

_CPU_INFO = Path("/proc/cpuinfo")
_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}
_MODEL = ("model name", "cpu model", "cpu implementer", "cpu architecture", "cpu variant", "cpu part", "hardware")
_FLAGS = ("flags", "features")
_SYSCTL = ("machdep.cpu.brand_string", "machdep.cpu.features", "machdep.cpu.leaf7_features")


@dataclass(frozen=True)
class Processor:
    """A processor: its architecture, such as "x86_64" or "aarch64", the name of its model, and what it can do."""

    architecture: str
    model: str
    flags: frozenset[str] = frozenset()

    @property
    def has_avx512_vnni(self) -> bool:
        """Whether it multiplies int8 with AVX-512 and VNNI, as the processor of the recorded costs does."""
        return self.architecture == "x86_64" and "avx512_vnni" in self.flags

    @property
    def key(self) -> str:
        """A text that differs between processors whose kernels may take other times."""
        return digest([self.architecture, self.model, sorted(self.flags)])

    def __str__(self) -> str:
        return f"{self.model} ({self.architecture})" if self.model else self.architecture


def this_processor() -> Processor:
    """The processor of this machine, as far as the system tells."""
    machine = platform.machine().lower()
    architecture = _NAMES.get(machine, machine)
    if _CPU_INFO.is_file():
        return described(architecture, _CPU_INFO.read_text(errors="replace"))
    if platform.system() == "Darwin":
        brand, *features = (_sysctl(name) for name in _SYSCTL)
        return Processor(architecture, brand, frozenset(" ".join(features).lower().split()))
    return Processor(architecture, platform.processor())


def described(architecture: str, cpu_info: str) -> Processor:
    """The first processor of a text as in Linux's `/proc/cpuinfo`."""
    first: dict[str, str] = {}
    for line in cpu_info.splitlines():
        name, _, value = line.partition(":")
        first.setdefault(name.strip().lower(), value.strip())
    model = " ".join(first[name] for name in _MODEL if first.get(name))
    flags = next((first[name] for name in _FLAGS if name in first), "")
    return Processor(architecture, model, frozenset(flags.split()))


def _sysctl(name: str) -> str:
    done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    return done.stdout.strip()
