"""The folder of `edgeopt serve --static`, and its page in a real browser: files that answer in the browser itself."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
import threading
import zlib
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from browser_runtimes import needs
from chromium import launched
from PIL import Image

from edgeopt.cards.card import SelfTest, Vector
from edgeopt.cards.images import drawn, images_for
from edgeopt.cards.reading import card_of
from edgeopt.preprocessing import Preprocessing
from edgeopt_web.browser import find_browser
from edgeopt_web.runtime import onnx_web

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "serving"))
from served_runs import PREPROCESSING, image, make_run, red_network  # noqa: E402

OWN_PAGE = ROOT / "examples" / "web" / "own_page.html"
NET, LIAR = "net/optimized/model.onnx", "liar/optimized/model.onnx"


def write(run: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """What `edgeopt serve --static` says."""
    command = [sys.executable, "-m", "edgeopt", "serve", "--static", str(run), "--out", str(out), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=out.parent)


def put_self_test(path: Path, off: float) -> None:
    """Gives the red network's card a self-test, whose answers are `off` by so much."""
    card = card_of(path)
    vectors = []
    for each in images_for(PREPROCESSING.resize):
        pixels = PREPROCESSING.pixels(drawn(each))
        red = pixels[..., 0].mean()
        answers = tuple((number, float(2 * number * red - number**2) + off) for number in (0, 40, 99))
        vectors.append(Vector(each, zlib.crc32(pixels.tobytes()), (), answers))
    path.with_name("card.json").write_text(replace(card, self_test=SelfTest(1.0, tuple(vectors))).to_json())


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with a file that answers, and one whose card says that it answers otherwise."""
    needs(onnx_web)
    folder = tmp_path_factory.mktemp("static")
    run = make_run(folder / "colours", {"net": red_network(), "liar": red_network(), "words": ""}, opened_by="onnx-web")
    report = json.loads((run / "report.json").read_text())
    report["rows"][1]["sha256"] = "0" * 64  # two files of the same bytes are one otherwise
    (run / "report.json").write_text(json.dumps(report))
    put_self_test(run / NET, off=0.0)
    put_self_test(run / LIAR, off=5.0)
    done = write(run, folder / "site", "--plugin", str(ROOT / "tests" / "serving" / "colours_plugin.py"))
    assert done.returncode == 0, done.stderr
    assert "2 files with a page in" in done.stdout
    assert "colours/words/optimized/model.txt is left out: no browser opens it" in done.stderr
    shutil.copy(OWN_PAGE, folder / "site")
    return folder / "site"


class Isolated(SimpleHTTPRequestHandler):
    """A static host that sends the headers of the folder's `_headers`."""

    def end_headers(self):
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_):
        return


@pytest.fixture(scope="module")
def address(site):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Isolated, directory=str(site))) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def page(address):
    """The page, its files open; whatever it logs, and whatever it asks another host for, fails the last test of it."""
    with launched(find_browser()) as browser:
        page = browser.new_context(permissions=["camera"]).new_page()
        page.set_default_timeout(60_000)
        wrong = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        own = (address, f"blob:{address}", "data:,")
        page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(own) else None)
        page.goto(address)
        page.locator("#files tr", has_text="self-test").wait_for()
        yield page
        browser.close()
        assert wrong == []


def answer(page) -> str:
    """The label of the file that answers, when all were asked."""
    page.locator("table.answers[aria-busy=false]").wait_for()
    return page.locator("#files tr").first.locator("strong").inner_text()


def test_the_files_answer_in_the_browser_and_test_themselves(page):
    """One passes the self-test of its card, and the other, whose card has other answers, is not asked."""
    page.locator("#choose").set_input_files({"name": "it.png", "mimeType": "image/png", "buffer": image(33)})
    assert answer(page) == "c33"
    assert page.locator("#files tr").nth(1).locator("td").first.inner_text() == (
        "the self-test of its card fails: it answers otherwise here"
    )
    assert page.evaluate("crossOriginIsolated")
    assert page.locator("#unserved").count() == 0
    assert "threads" in page.locator("#threads").inner_text()
    assert "has passed the self-test of its card" in page.locator("#tested").inner_text()
    figures = page.locator("#files tr").first.locator("td").all_inner_texts()
    assert all(text.endswith(" ms") for text in figures[2:6])


def test_no_image_and_large_ones_are_refused(page):
    page.locator("#choose").set_input_files({"name": "it.png", "mimeType": "image/png", "buffer": b"no image"})
    page.locator("#files tr", has_text="this browser reads no image in it").wait_for()


def test_the_keyboard_and_the_camera_are_enough(page):
    """A test image by Space, which is asked about as the file took it, and the camera by Enter, twice."""
    page.locator("#samples button").first.focus()
    page.keyboard.press("Space")
    page.locator("#summary", has_text="c40").wait_for()
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "take"
    page.keyboard.press("Enter")
    page.locator("#shoot:not([disabled])").wait_for()
    page.locator("#live", has_text=re.compile(r"^c\d+, [\d.]+ %, [\d.]+ ms$")).wait_for()  # before an image is taken
    assert page.locator("#watched option").all_inner_texts() == ["net int8"]
    page.keyboard.press("Enter")
    page.locator("#camera:not([open])").wait_for(state="attached")
    page.locator("#summary", has_text="The file says").wait_for()
    assert answer(page).startswith("c")


def test_the_page_prepares_images_as_python_does(page):
    """A handful of the odd images of `benchmarks/page_pixels.py`, to the last bit."""
    odd = _page_pixels()
    for each in odd.odd_images(24, seed=5):
        if each.kind != odd.OPAQUE:
            continue
        returned = page.evaluate(
            """async ([content, description]) => {
                const { decoded, pixels } = await import("/preprocessing.js");
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                const cut = pixels(await decoded(new Blob([bytes]), description), description);
                return btoa(Array.from(cut, (value) => String.fromCharCode(value)).join(""));
            }""",
            [base64.b64encode(each.content).decode(), each.preprocessing.to_json()],
        )
        expected = each.preprocessing.pixels(Image.open(io.BytesIO(each.content)))
        assert base64.b64decode(returned) == expected.tobytes(), each.name


def _page_pixels():
    path = ROOT / "benchmarks" / "page_pixels.py"
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("page_pixels", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["page_pixels"] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


def test_resizing_is_pillows_where_only_a_part_is_made(page):
    """Of very long images only the middle is ever resized."""
    for width, height, interpolation in ((9_000, 3, "bilinear"), (2, 30_000, "bicubic"), (9_000, 3, "nearest")):
        preprocessing = Preprocessing(32, 60, 32, interpolation=interpolation)
        returned = page.evaluate(
            """async ([width, height, description]) => {
                const { pixels } = await import("/preprocessing.js");
                const data = Uint8Array.from({ length: width * height * 4 }, (_, place) => (place * place) % 65521);
                return Array.from(pixels({ data, width, height }, description));
            }""",
            [width, height, preprocessing.to_json()],
        )
        values = np.arange(width * height * 4, dtype=np.int64) ** 2 % 65521 % 256
        drawn_there = values.astype(np.uint8).reshape(height, width, 4)[..., :3]
        expected = preprocessing.pixels(np.ascontiguousarray(drawn_there))
        assert np.array_equal(np.array(returned).reshape(expected.shape), expected), (width, height, interpolation)


def test_a_page_of_ones_own_answers_beside_it(page, address):
    """The page of `examples/web`, copied into the folder."""
    own = page.context.new_page()
    wrong = []
    own.on("pageerror", lambda error: wrong.append(str(error)))
    own.on("console", lambda message: wrong.append(message.text))
    own.goto(f"{address}{OWN_PAGE.name}")
    own.locator("input:enabled").set_input_files({"name": "it.png", "mimeType": "image/png", "buffer": image(21)})
    own.get_by_role("status").filter(has_text=re.compile(r"^c21, \d+ %$")).wait_for()
    assert own.locator("img").evaluate("image => image.naturalWidth") > 0
    own.close()
    assert wrong == []


def test_a_page_from_a_disk_says_why_it_is_empty(page, site):
    from_disk = page.context.browser.new_page()
    from_disk.goto((site / "index.html").as_uri())
    assert "serve its folder" in from_disk.locator("#unserved").inner_text()
    from_disk.close()


def test_the_folder_is_whole_and_written_anew(site, tmp_path):
    """What is in it; what it replaces is such a folder, and nothing else."""
    there = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {"index.html", "_headers", "NOTICE.txt", "files/0/model.onnx", "files/0/card.json", "samples/1.png"} <= there
    assert "onnxruntime-web" in (site / "NOTICE.txt").read_text()
    run = make_run(tmp_path / "run", {"net": red_network()}, opened_by="onnx-web")
    copy = tmp_path / "site"
    shutil.copytree(site, copy)
    assert write(run, copy).returncode == 0
    assert len(json.loads((copy / "site.json").read_text())["files"]) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"run", "site"}
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    refused = write(run, mine)
    assert (refused.returncode, (mine / "letter.txt").read_text()) == (2, "dear")
    assert "mine is there, and is no folder of such a page" in refused.stderr


def test_what_cannot_be_written_is_said(tmp_path):
    run = make_run(tmp_path / "run", {"net": red_network()})
    refused = write(run, tmp_path / "site")
    assert (refused.returncode, (tmp_path / "site").exists()) == (2, False)
    assert "no file of this run opens in a browser" in refused.stderr
    assert "export with one that does: litert-web, onnx-web" in refused.stderr
    command = [sys.executable, "-m", "edgeopt", "serve", str(run), "--out", "site"]
    alone = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert (alone.returncode, "--out is the folder that --static writes" in alone.stderr) == (2, True)
