"""The pictures of the documentation, taken of the real thing.

    python benchmarks/screenshots.py RUN... [--web RUN]

serves the runs, opens the page in Chromium, asks about the test image that most files differ on, and writes
`docs/images/serve.png`; times the files of the first run and writes `docs/images/bench.png`; compares the first run with the
others, where there are others, and writes `docs/images/compare.png`; looks where the first ONNX file of the last run errs,
and writes `docs/images/why.png`. Of a run for web pages, `--web`, it makes a folder, opens its page, and
writes `docs/images/web.png`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

TARGET = Path(__file__).parents[1] / "docs" / "images" / "serve.png"
COMPARED = TARGET.with_name("compare.png")
TIMED = TARGET.with_name("bench.png")
IN_BROWSER = TARGET.with_name("web.png")
LOOKED_AT = TARGET.with_name("why.png")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


@contextmanager
def serving(runs: list[Path]) -> Iterator[str]:
    """The address of a server with the runs, when all files are open."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeopt", "serve", *map(str, runs), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    try:
        assert process.stdout
        address = next(word.strip(",") for word in process.stdout.readline().split() if word.startswith("http"))
        while b'"opening"' in urllib.request.urlopen(f"{address}v1/files").read():
            time.sleep(0.2)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def picture(page: Page, address: str) -> None:
    """Asks about each test image until the files differ, and takes the picture."""
    page.goto(address)
    count = len(json.loads(urllib.request.urlopen(f"{address}v1/samples").read()))
    for number in range(count):
        _ask(page, number)
        if page.locator(".badge.differs").count():
            _ask(page, number)  # once more, with everything warm
            break
    page.screenshot(path=TARGET, full_page=True)


def _ask(page: Page, number: int) -> None:
    """Asks about a test image, and waits until all have answered."""
    page.locator("#summary").evaluate("summary => summary.replaceChildren()")
    page.locator("#samples button").nth(number).click()
    page.locator("#summary").get_by_text("It is").wait_for()


def picture_of_benchmark(page: Page, run: Path, folder: Path) -> None:
    """Times the files of a run, and takes the picture of the top of the page."""
    options = ["--batch", "1,2,4,8", "--threads", "1,2", "--out", str(folder)]
    subprocess.run(
        [sys.executable, "-m", "edgeopt", "bench", str(run), *options], check=True, stdout=subprocess.DEVNULL
    )
    page.goto((folder / "bench.html").as_uri())
    page.screenshot(path=TIMED)


def picture_of_comparison(page: Page, runs: list[Path], folder: Path) -> None:
    """Times the files of all runs together, and takes the picture of the top of the page."""
    command = [sys.executable, "-m", "edgeopt", "compare", *map(str, runs), "--measure-together", "--html"]
    subprocess.run([*command, str(folder / "compare.html")], check=True, stdout=subprocess.DEVNULL)
    page.goto((folder / "compare.html").as_uri())
    page.screenshot(path=COMPARED)


def picture_of_errors(page: Page, run: Path, folder: Path) -> None:
    """Looks where the optimized ONNX file of a run errs, and takes the picture of the top of the page."""
    command = [sys.executable, "-m", "edgeopt", "why", str(next(run.glob("*/optimized/model.onnx"))), "--out"]
    subprocess.run([*command, str(folder / "why")], check=True, stdout=subprocess.DEVNULL)
    page.goto((folder / "why" / "why.html").as_uri())
    page.screenshot(path=LOOKED_AT, clip={"x": 0, "y": 0, "width": 1200, "height": 1500}, full_page=True)


class _Host(SimpleHTTPRequestHandler):
    """A static host whose pages are isolated."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        return


def picture_of_folder(browser: Browser, run: Path, folder: Path) -> None:
    """Writes the folder whose files run in the browser, and takes the picture of its page."""
    command = [sys.executable, "-m", "edgeopt", "serve", "--static", str(run), "--out", str(folder / "site")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Host, directory=str(folder / "site"))) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.goto(f"http://127.0.0.1:{host.server_port}/")
        page.locator("#files:not(:has-text('is being opened')) tr").first.wait_for()
        for _ in range(3):  # so that everything is warm
            _ask(page, 8)
        page.screenshot(path=IN_BROWSER, full_page=True)
        host.shutdown()


def main() -> None:
    """Takes all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--web", type=Path, metavar="RUN")
    arguments = parser.parse_args()
    runs = arguments.runs
    TARGET.parent.mkdir(exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        if arguments.web:
            picture_of_folder(browser, arguments.web, Path(folder))
            print(IN_BROWSER)
        if not runs:
            return
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        with serving(runs) as address:
            picture(page, address)
        print(TARGET)
        picture_of_benchmark(page, runs[0], Path(folder))
        print(TIMED)
        if len(runs) > 1:
            picture_of_comparison(page, runs, Path(folder))
            print(COMPARED)
        picture_of_errors(page, runs[-1], Path(folder))
        print(LOOKED_AT)
        browser.close()


if __name__ == "__main__":
    main()
