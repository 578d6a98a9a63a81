"""Kotlin for tests: the compiler where there is one, a program that runs the plain module of an app, and odd images."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from edgeopt.plugins.registry import load_registry
from edgeopt.plugins.task import TaskPlugin

HARNESS = Path(__file__).with_name("Harness.kt")
HOME = "EDGEOPT_KOTLIN"
_LIBRARIES = (
    "kotlin-compiler",
    "kotlin-stdlib",
    "kotlin-script-runtime",
    "kotlin-reflect",
    "kotlinx-coroutines-core-jvm",
    "annotations-13.0",
)
_QUICK = ("-Xmx768M", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


def kotlin_home() -> Path | None:
    """The folder of a Kotlin compiler: that of the environment, or where `make kotlin` puts it; None without one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    places = [cache / "edgeopt" / "kotlin" / "node_modules" / "kotlin-compiler"]
    if named := os.environ.get(HOME):
        places.insert(0, Path(named))
    found = [place for place in places if (place / "lib" / "kotlin-compiler.jar").is_file()]
    return found[0] if found and shutil.which("java") else None


def libraries(*names: str) -> list[Path]:
    """Libraries that come with the compiler."""
    home = kotlin_home()
    assert home
    return [home / "lib" / f"{name}.jar" for name in names]


def compiled(sources: Sequence[Path], folder: Path, *, classpath: Sequence[Path] = ()) -> Path:
    """Classes of Kotlin `sources` below `folder`, compiled without a warning, once for all processes that ask."""
    home = kotlin_home()
    assert home
    key = hashlib.sha256(b"".join(each.name.encode() + each.read_bytes() for each in sorted(sources))).hexdigest()[:16]
    target = folder / key
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            on_path = ["-classpath", os.pathsep.join(map(str, classpath))] if classpath else []
            command = [
                "java",
                *_QUICK,
                *(
                    "-cp",
                    os.pathsep.join(map(str, libraries(*_LIBRARIES))),
                    "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler",
                ),
                *("-no-reflect", "-Werror", "-kotlin-home", str(home), *on_path),
                *map(str, sources),
                *("-d", str(target.with_suffix(".new"))),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            assert done.returncode == 0, done.stderr
            target.with_suffix(".new").rename(target)
    return target


def kotlin_of_tasks() -> Iterator[Path]:
    """The Kotlin files of every task but a classifier's, which are in no app for it: what `HARNESS` names beside one."""
    for task in ("multi-label", "segmentation", "detection"):
        yield from load_registry().get(TaskPlugin, task).kotlin_files


def called(file: Path) -> Iterator[tuple[str, str, str]]:
    """Class, name and descriptor of every method that a class file refers to, from its table of constants."""
    content = file.read_bytes()
    sizes = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4, 19: 2, 20: 2}
    (count,) = struct.unpack(">H", content[8:10])
    texts, pairs, place, number = {}, {}, 10, 1
    while number < count:
        tag = content[place]
        if tag == 1:
            (length,) = struct.unpack(">H", content[place + 1 : place + 3])
            texts[number] = content[place + 3 : place + 3 + length].decode("utf-8", "replace")
            place += 3 + length
        else:
            pairs[number] = (tag, content[place + 1 : place + 1 + sizes[tag]])
            place += 1 + sizes[tag]
        number += 2 if tag in (5, 6) else 1  # numbers of 64 bits count twice
    for tag, bytes_ in pairs.values():
        if tag in (10, 11):
            owner, both = struct.unpack(">HH", bytes_)
            name, descriptor = struct.unpack(">HH", pairs[both][1])
            yield texts[struct.unpack(">H", pairs[owner][1])[0]], texts[name], texts[descriptor]


@dataclass
class Harness:
    """The running program; `ask` gives it a job and returns what it says."""

    process: subprocess.Popen[str]

    @classmethod
    def start(cls, classes: Path) -> Self:
        """Starts the classes of `HARNESS` and a plain module."""
        path = os.pathsep.join(map(str, [classes, *libraries("kotlin-stdlib")]))
        command = ["java", *_QUICK, "-cp", path, "HarnessKt"]
        return cls(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    @staticmethod
    def run(classes: Path, main: str, *arguments: object, folder: Path | None = None) -> str:
        """What another program of compiled classes prints; it works in `folder`."""
        path = os.pathsep.join(map(str, [classes, *libraries("kotlin-stdlib", "kotlin-test")]))
        command = ["java", *_QUICK, "-cp", path, main, *map(str, arguments)]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=60).stdout

    def ask(self, *job: object) -> str:
        """The answer to a job."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\t".join(map(str, job)) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def fed(self, card: Path, image: Image.Image, folder: Path) -> tuple[bytes, bytes]:
        """Pixels and input tensor of a decoded image."""
        rgba, pixels, tensor = (folder / name for name in ("image.rgba", "pixels", "input"))
        rgba.write_bytes(np.asarray(image.convert("RGBA")).tobytes())
        orientation = image.getexif().get(0x0112, 1)
        said = self.ask("feed", card, rgba, image.width, image.height, orientation, pixels, tensor)
        assert said == "fed", said
        return pixels.read_bytes(), tensor.read_bytes()

    def close(self) -> None:
        """Ends the program."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)


def odd_images(count: int, *, largest: int = 300, seed: int = 0) -> Iterator[tuple[str, Image.Image]]:
    """Images of any size and shape, grey, with alpha, with palettes, turned by EXIF, and very long ones, as decoded."""
    random = np.random.default_rng(seed)
    modes = ("RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "RGBA")
    for number in range(count):
        mode = modes[number % len(modes)]
        width, height = (int(each) for each in random.integers(1, largest, 2))
        if number % 10 == 9:
            width, height = (int(random.integers(1, 3)), int(random.integers(2000, 9000)))[
                :: 1 if number % 20 == 9 else -1
            ]
        grid = random.integers(0, 256, (1 + number % 9, 1 + number % 7, 4), dtype=np.uint8)
        smooth = Image.fromarray(grid, "RGBA").resize((width, height), Image.Resampling.BICUBIC)
        noise = random.integers(-20, 20, (height, width, 4))
        whole = np.clip(np.asarray(smooth).astype(int) + noise, 0, 255).astype(np.uint8)
        image = Image.fromarray(whole, "RGBA").convert("RGB" if mode == "CMYK" else "RGBA").convert(mode)
        exif = Image.Exif()
        exif[0x0112] = orientation = number % 9  # 0 is none
        kind = "TIFF" if mode == "CMYK" else "PNG"
        file = io.BytesIO()
        image.save(file, kind, exif=exif)
        decoded = Image.open(file)
        decoded.load()
        yield f"{number}: {mode} {width}x{height} orientation {orientation}", decoded
