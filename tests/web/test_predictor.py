"""Files answered in a page of headless Chromium: as the native runtime answers, timed by the page's own clock."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from browser_runtimes import needs
from web_files import made

from edgeopt.plugins import ExporterPlugin, ExportError, Numerics, RemotePredictor
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import tiny_data
from edgeopt_web.browser import BROWSER, Browser, BrowserError, find_browser, require_browser
from edgeopt_web.runtime import litert_web, onnx_web


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    """One that takes pixels."""
    needs(onnx_web)
    return made("onnx-web", tmp_path_factory.mktemp("onnx-web"), input={"kind": "uint8-nhwc"})


@pytest.fixture(scope="module")
def litert_file(tmp_path_factory):
    needs(litert_web)
    return made("litert-web", tmp_path_factory.mktemp("litert-web"))


def test_the_board_of_the_examples_answers_as_the_browser_does(litert_file, pixels, monkeypatch):
    """The service of `examples/raspberry-pi` opens the file in LiteRT's own package."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2] / "examples" / "raspberry-pi"), *sys.path])
    feed = importlib.import_module("feed")
    model = feed.Model(litert_file.path.parent, openers={"litert-js": feed.open_litert})
    assert model.is_tested
    values = feed.model_input(pixels[:1], model.card)
    with load_registry().get(ExporterPlugin, "tflite").opened(litert_file.path, 1) as native:
        expected = native.predict(tiny_data().preprocessing.normalize(pixels[:1]))[0]
    run = feed.open_litert(litert_file.path, 1)
    (logits,) = feed.outputs_of(run(values), model.card)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.fixture(scope="module")
def pixels():
    size = tiny_data().preprocessing.image_size
    return np.random.default_rng(3).integers(0, 256, (60, size, size, 3), dtype=np.uint8)


def test_onnx_runtime_web_answers_as_the_native_file(onnx_file, pixels):
    """With two threads, which only a page that is isolated gets; in batches of any size, pixels as they are."""
    with (
        load_registry().get(ExporterPlugin, "onnx").opened(onnx_file.path, 1) as native,
        onnx_file.exporter.opened(onnx_file.path, 2) as web,
    ):
        expected = native.predict(pixels)[0]
        answered = np.concatenate([web.predict(pixels[:1])[0], web.predict(pixels[1:])[0]])
        assert isinstance(web, RemotePredictor)
        assert web.input_info == onnx_file.exported.input
        assert web.browser.evaluate("crossOriginIsolated")
        assert 0 < web.call_ms < 10_000
        assert 0 < web.load_ms < 100_000
        assert 0 < web.peak_memory_bytes() < 1e9
        with pytest.raises(ValueError, match="not float32"):
            web.predict(pixels.astype(np.float32))
        _kill_pages(web)
        with pytest.raises(BrowserError, match=r"the page ended|the browser ended"):
            web.predict(pixels)
    assert np.array_equal(answered.argmax(1), expected.argmax(1))
    assert np.abs(answered - expected).max() < 1e-4 * np.ptp(expected)


def _kill_pages(web) -> None:
    for process in web.browser.page_processes():
        os.kill(process, signal.SIGKILL)


def test_litert_js_answers_as_the_native_file(litert_file, pixels):
    images = tiny_data().preprocessing.normalize(pixels)
    with (
        load_registry().get(ExporterPlugin, "tflite").opened(litert_file.path, 1) as native,
        litert_file.exporter.opened(litert_file.path, 1) as web,
    ):
        expected, answered = native.predict(images)[0], web.predict(images)[0]
        assert web.call_ms > 0
        children = web.browser.page_processes()
    assert np.array_equal(answered.argmax(1), expected.argmax(1))
    assert np.abs(answered - expected).max() < 1e-4 * np.ptp(expected)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in children):  # nothing is left behind
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_file_that_does_not_open_is_said_to_be_damaged(onnx_file, tmp_path):
    torn = tmp_path / "torn.onnx"
    torn.write_bytes(onnx_file.path.read_bytes()[:-2_000])
    with pytest.raises(ExportError, match=r"cannot open .*torn.onnx"):
        onnx_file.exporter.open(torn, 1)


@pytest.fixture
def shallow():
    """A folder for temporary files whose path is short enough for a profile."""
    with TemporaryDirectory(dir="/tmp", prefix="web-") as folder:
        yield Path(folder)


def test_a_browser_starts_where_temporary_files_lie_deep(tmp_path, monkeypatch):
    if find_browser() is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    deep = tmp_path / "a-folder-with-a-long-name" / "and-another-one-below-it"
    deep.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    browser = Browser.start(require_browser())
    assert browser.evaluate("1 + 1") == 2
    browser.close()
    assert not list(deep.iterdir())


def test_nothing_outlives_a_killed_process(shallow):
    """Neither the browser nor its profile."""
    if find_browser() is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    program = (
        "import time\nfrom edgeopt_web.browser import Browser, require_browser\n"
        "browser = Browser.start(require_browser())\n"
        "browser.evaluate('1')\n"
        "print(*browser.page_processes(), flush=True)\ntime.sleep(60)\n"
    )
    environment = os.environ | {"TMPDIR": str(shallow)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    ) as started:
        assert started.stdout
        pages = started.stdout.readline().split()
        assert pages
        assert list(shallow.glob("edgeopt-browser-*"))
        started.kill()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{page}").exists() for page in pages) or list(shallow.glob("edgeopt-browser-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_a_browser_check_says_so(monkeypatch):
    use = resolve(ExporterPlugin, "onnx-web", {}, load_registry())
    monkeypatch.setenv(BROWSER, "no-such-browser")
    (problem,) = use.plugin.check(use.options, Numerics())
    assert "names 'no-such-browser', which is no program" in problem.message
    assert "apt-get install chromium" in problem.hint
    with pytest.raises(ExportError, match="no-such-browser"):
        require_browser()


def test_a_browser_that_ends_at_once_is_said_with_its_words(tmp_path, monkeypatch):
    browser = tmp_path / "browser"
    browser.write_text("#!/bin/sh\necho '[1:1:ERROR] no room for a sandbox' >&2; exit 3\n")
    browser.chmod(0o755)
    with pytest.raises(BrowserError, match="ended with code 3: no room for a sandbox"):
        Browser.start(str(browser))
