"""Where the runtimes of the browser come from: npm as it is configured, a registry, or a folder, and nothing unchecked."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgeopt.plugins import ExportError
from edgeopt_web.packages import FOLDER, NpmPackage, package_files

CODE = b"export const answer = 42;\n"


def archive(code: bytes = CODE) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in {"package/dist/index.js": code, "package/../../evil.js": b"no"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


ARCHIVE = archive()
PACKAGE = NpmPackage(
    "@some/code",
    "1.2.3",
    "MIT",
    f"sha512-{base64.b64encode(hashlib.sha512(ARCHIVE).digest()).decode()}",
    {"dist/index.js": hashlib.sha256(CODE).hexdigest()},
)


@pytest.fixture(autouse=True)
def nothing_there(tmp_path, monkeypatch):
    """An empty cache, no npm, and no registry that answers."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")


@pytest.fixture
def registry(monkeypatch):
    """A registry that answers with `ARCHIVE`; what it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(ARCHIVE)

        def log_message(self, *_):
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/some/path")
        yield asked
        server.shutdown()


def put_npm(tmp_path: Path, script: str) -> None:
    npm = tmp_path / "bin" / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)


def test_npm_brings_it_where_there_is_npm(tmp_path):
    """So its registry, proxy and login hold, which are its own business."""
    (tmp_path / "it.tgz").write_bytes(ARCHIVE)
    put_npm(tmp_path, f'echo "$@" >> {tmp_path}/asked; /bin/cp {tmp_path}/it.tgz "$4/some-code-1.2.3.tgz"')
    files = package_files(PACKAGE)
    assert files["dist/index.js"].read_bytes() == CODE
    assert (tmp_path / "asked").read_text().startswith("pack @some/code@1.2.3 --pack-destination ")
    package_files(PACKAGE)  # from the cache
    assert len((tmp_path / "asked").read_text().splitlines()) == 1


def test_without_npm_it_comes_from_the_registry_that_npm_is_told(registry, tmp_path):
    files = package_files(PACKAGE)
    assert files["dist/index.js"].read_bytes() == CODE
    assert registry == ["/some/path/@some/code/-/code-1.2.3.tgz"]
    assert not list(tmp_path.rglob("evil.js"))
    files["dist/index.js"].write_bytes(b"changed")  # a cache that somebody else wrote to
    assert package_files(PACKAGE)["dist/index.js"].read_bytes() == CODE


def test_another_archive_is_refused(tmp_path, monkeypatch):
    put_npm(tmp_path, f'/bin/cp {tmp_path}/it.tgz "$4/"')
    (tmp_path / "it.tgz").write_bytes(archive(b"export const answer = 41;\n"))
    with pytest.raises(ExportError, match="its sha512 is another"):
        package_files(PACKAGE)


@pytest.mark.parametrize("how", ["npm says no", "no registry", "no address"])
def test_what_cannot_be_had_is_said_with_what_to_do(tmp_path, monkeypatch, how):
    reasons = {"npm says no": "npm error 404 not here", "no registry": "127.0.0.1:9", "no address": "is no address"}
    if how == "npm says no":
        put_npm(tmp_path, "echo 'npm error 404 not here' >&2; exit 1")
    if how == "no address":
        monkeypatch.setenv("npm_config_registry", "file:///etc/")
    with pytest.raises(ExportError) as raised:
        package_files(PACKAGE)
    (problem,) = raised.value.problems
    assert reasons[how] in problem.message
    assert FOLDER in problem.hint


def test_a_folder_serves_where_there_is_no_network(tmp_path, monkeypatch):
    """A `node_modules`, or what `npm pack` wrote; of another version neither."""
    modules = tmp_path / "node_modules"
    monkeypatch.setenv(FOLDER, str(modules))
    with pytest.raises(ExportError, match=r"neither @some/code/ nor some-code-1.2.3.tgz"):
        package_files(PACKAGE)
    modules.mkdir()
    (modules / "some-code-1.2.3.tgz").write_bytes(ARCHIVE)
    assert package_files(PACKAGE)["dist/index.js"].read_bytes() == CODE
    installed = modules / "@some" / "code" / "dist" / "index.js"
    installed.parent.mkdir(parents=True)
    installed.write_bytes(CODE)
    assert package_files(PACKAGE)["dist/index.js"] == installed
    installed.write_bytes(b"of another version")
    with pytest.raises(ExportError, match=r"is not that of @some/code 1.2.3"):
        package_files(PACKAGE)
