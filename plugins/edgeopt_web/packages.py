"""The packages of npm whose code runs in the browser: pinned, checked by their digests, and kept in the user's cache.

Where `npm` is installed, it brings them: so they come from the registry that npm's own configuration names, with its
proxy, certificates and login. Otherwise they come over HTTPS from the registry that `npm_config_registry` names, which
is npm's own where it is not set. Or they are taken from a folder: see `FOLDER`. Light: the standard library.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeopt.files import user_cache, write_aside
from edgeopt.plugins import ExportError, Problem

FOLDER = "EDGEOPT_NPM_PACKAGES"
"""Names, in the environment, a folder with the packages: a `node_modules`, or one of the archives that `npm pack`
writes."""

_REGISTRY = "npm_config_registry"
_DEFAULT_REGISTRY = "https://registry.npmjs.org/"
_PATIENCE_S = 300
_LARGEST_BYTES = 200_000_000


@dataclass(frozen=True)
class NpmPackage:
    """A version of a package; `integrity` is its archive's, as npm's lock files have it.

    `files` are those that are used, each with its SHA-256.
    """

    name: str
    version: str
    licence: str
    integrity: str
    files: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def archive(self) -> str:
        """The name of the file that `npm pack` writes."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


ONNXRUNTIME_WEB = NpmPackage(
    "onnxruntime-web",
    "1.30.0",
    "MIT, (c) Microsoft Corporation",
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    {
        "dist/ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
        "dist/ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    },
)
LITERT_CORE = NpmPackage(
    "@litertjs/core",
    "2.5.3",
    "Apache-2.0, (c) Google LLC",
    "sha512-PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
    {
        "dist/index.js": "e7daccc3a31eef890848a737ccb863ded5f046a6b40c3fdc0556495adeb5d9b3",
        "wasm/litert_wasm_internal.js": "68efb69f770e3f76aff36a377de629ca496c131b86ac0f0f4b592a1543a898eb",
        "wasm/litert_wasm_internal.wasm": "7280cf4471774867e385e6c3cd53e2b45e2975b80fea338fff4ef359b0865614",
        "wasm/litert_wasm_threaded_internal.js": "92fe7a720c6deedaa1194c011c79a005ea4f6fc98f533b661cf7900760ab4849",
        "wasm/litert_wasm_threaded_internal.wasm": "b5e54eca10f043497edf9a02186332707cae260c550d7ea22b2cae55669596cf",
        "wasm/litert_wasm_compat_internal.js": "4d8f894b7883654fd6e8439730aa41e79ceaab7d19184fc4f1f0b0f1a2a2c8a5",
        "wasm/litert_wasm_compat_internal.wasm": "5255c8ad06eabdbd2522cdebf6b22fc10faf74625c23a49b9e072570cd1fa41c",
    },
)
LITERT_WASM_UTILS = NpmPackage(
    "@litertjs/wasm-utils",
    "2.5.3",
    "Apache-2.0, (c) Google LLC",
    "sha512-4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
    {"dist/index.js": "e0e20bc28ab001ac732cf40d15b6eebd24fb0deaeb95eeba5100f51eebf015f2"},
)


ARCHITECTURE = "wasm32"
"""What the code in these packages runs on, as costs name it."""


def package_files(package: NpmPackage) -> dict[str, Path]:
    """The files of a package by their names in it, fetched where they are not here yet.

    Raises `ExportError` when they cannot be had, or are not those that were pinned.
    """
    named = Path(os.environ[FOLDER]) if os.environ.get(FOLDER) else None
    if named and (named / package.name).is_dir():
        return _installed(package, named / package.name)
    from filelock import FileLock  # of two at once, one waits for the other

    kept = user_cache() / "npm" / package.archive.removesuffix(".tgz")
    kept.parent.mkdir(parents=True, exist_ok=True)
    files = {name: kept / name for name in package.files}
    with FileLock(kept.with_name(f"{kept.name}.lock")):
        if not all(_is_pinned(package, name, path) for name, path in files.items()):
            archive = _packed(package, named) if named else _fetched(package)
            for name, content in _unpacked(package, archive).items():
                write_aside(files[name], content)
    return files


def _is_pinned(package: NpmPackage, name: str, path: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == package.files[name]


def _installed(package: NpmPackage, folder: Path) -> dict[str, Path]:
    """The files in a `node_modules`."""
    files = {name: folder / name for name in package.files}
    for name, path in files.items():
        if not _is_pinned(package, name, path):
            raise ExportError(
                Problem(
                    f"{path} is not that of {package}",
                    f"run `npm install {package.name}@{package.version}` there: another version is another runtime",
                )
            )
    return files


def _packed(package: NpmPackage, folder: Path) -> bytes:
    """The archive in a folder that has it."""
    archive = folder / package.archive
    if not archive.is_file():
        raise ExportError(
            Problem(
                f"{FOLDER} names {folder}, and there is neither {package.name}/ nor {package.archive}",
                f"run `npm pack {package.name}@{package.version}` where there is a network, and put the file there",
            )
        )
    return archive.read_bytes()


def _unpacked(package: NpmPackage, archive: bytes) -> dict[str, bytes]:
    """The files of an archive, in memory. Raises `ExportError` for one that is not the package's."""
    algorithm, _, expected = package.integrity.partition("-")
    if base64.b64encode(hashlib.new(algorithm, archive).digest()).decode() != expected:
        raise ExportError(
            Problem(
                f"what came as {package} is not what was published: its {algorithm} is another",
                "look at the registry that npm is told to use, `npm config get registry`, or at the proxy before it",
            )
        )
    with tempfile.TemporaryFile() as file:
        file.write(archive)
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:gz") as unpacked:
            members = {name: unpacked.extractfile(f"package/{name}") for name in package.files}
            return {name: member.read() for name, member in members.items() if member is not None}


def _fetched(package: NpmPackage) -> bytes:
    npm = shutil.which("npm")
    return _by_npm(npm, package) if npm else _over_https(package)


def _by_npm(npm: str, package: NpmPackage) -> bytes:
    wanted = f"{package.name}@{package.version}"
    with tempfile.TemporaryDirectory(prefix="edgeopt-npm-") as folder:
        command = [npm, "pack", wanted, "--pack-destination", folder, "--ignore-scripts", "--silent"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        except subprocess.TimeoutExpired:
            raise _unavailable(package, f"`npm pack {wanted}` gave no answer for {_PATIENCE_S} s") from None
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise _unavailable(package, f"`npm pack {wanted}` failed: {said[-1] if said else 'it said nothing'}")
        return archives[0].read_bytes()


def _over_https(package: NpmPackage) -> bytes:
    from urllib.request import urlopen  # only where something is fetched

    registry = os.environ.get(_REGISTRY) or os.environ.get(_REGISTRY.upper()) or _DEFAULT_REGISTRY
    last = package.name.rpartition("/")[2]
    address = f"{registry.rstrip('/')}/{package.name}/-/{last}-{package.version}.tgz"
    if not address.startswith(("https://", "http://")):
        raise _unavailable(package, f"{_REGISTRY} = {registry} is no address")
    try:
        with urlopen(address, timeout=_PATIENCE_S) as response:  # noqa: S310 - of the two kinds above
            archive: bytes = response.read(_LARGEST_BYTES)
    except OSError as error:
        raise _unavailable(package, f"{address} cannot be had: {error}") from error
    return archive


def _unavailable(package: NpmPackage, reason: str) -> ExportError:
    return ExportError(
        Problem(
            f"the runtime {package} is not here, and {reason}",
            f"let {FOLDER} name a folder that has it: a node_modules, or what `npm pack` wrote",
        )
    )
