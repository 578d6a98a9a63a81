"""The page of `edgeopt serve` in a real browser, as a person uses it: with a mouse, with the keyboard alone, with a camera."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from chromium import launched
from serve_client import serving
from served_runs import image, make_run, red_network

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")

ROWS = "#files tr"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    contents = {"fine": "", "network": red_network(), "four": "", "damaged": "damaged"}
    run = make_run(folder / "colours", contents, precision={"four": "int4", "network": "float32"})
    with serving(run, "--max-megabytes", 0.1, log=folder / "log.txt") as started:
        yield started


@pytest.fixture(scope="module")
def chromium():
    with launched(CHROMIUM) as browser:
        yield browser


@pytest.fixture
def page(chromium, server):
    """The page, open; whatever it logs, and whatever it asks another host for, fails the test."""
    context = chromium.new_context(permissions=["camera"])
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    wrong = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if "status of" not in message.text else None)
    opened.on("request", lambda request: wrong.append(request.url) if not _is_own(request.url, server) else None)
    opened.goto(server.address)
    opened.locator(ROWS).nth(3).wait_for()
    yield opened
    context.close()
    assert wrong == []


def _is_own(url: str, server) -> bool:
    return url.startswith((server.address, f"blob:{server.address}"))


def answers(page) -> dict[str, str]:
    """The label of each file, or why there is none, when all were asked."""
    page.locator("table.answers[aria-busy=false]").wait_for()
    rows = page.locator(ROWS)
    return {
        rows.nth(row).locator("th").inner_text().split("\n")[0]: rows.nth(row).locator("td").first.inner_text()
        for row in range(rows.count())
    }


def give(page, *, name: str = "it.png", body: bytes) -> None:
    page.locator("#choose").set_input_files({"name": name, "mimeType": "image/png", "buffer": body})


def test_every_file_answers_beside_the_others(page):
    give(page, body=image(33))
    told = answers(page)
    assert [text.split("\n")[0] for text in told.values()] == [
        "c33",
        "c33",
        "c33",
        "the file does not open: model.txt is damaged; it is tried again",
    ]
    assert list(told) == ["fine int8", "network float32", "four int4", "damaged int8"]
    figures = page.locator(f"{ROWS}:first-child td").all_inner_texts()
    assert figures[1].endswith("%")
    assert all(text.endswith(" ms") for text in figures[2:6])
    assert figures[6].endswith("B")
    assert page.locator("#summary").inner_text() == "All 3 files say c33. 1 of 4 could not answer."
    page.locator("#files summary").first.click()
    assert page.locator("#files li").first.inner_text().startswith("c33 ")
    assert page.locator("#preview").get_attribute("alt") == "The image that is asked about: it.png"


def test_disagreement_is_marked_in_words(page):
    """Green 253 makes the files of colours answer with no number; green 4 is nothing to either, and blue to none."""
    page.locator("#samples button").nth(1).click()  # 42 red, and its truth says 41
    answers(page)
    assert page.locator(".badge.wrong").all_inner_texts() == ["wrong"] * 3
    assert "It is c41." in page.locator("#summary").inner_text()
    page.route("**/v1/predict?file=*four*", lambda route: route.fulfill(json=_answer("c7")))
    page.locator("#samples button").nth(0).click()
    page.locator(".badge.differs").wait_for()
    assert page.locator("tr.differs th").inner_text().startswith("four int4")
    page.locator("#summary", has_text="The files differ: 2 of 3 say c40; 1 of 3 say c7. It is c40.").wait_for()


def _answer(label: str) -> dict[str, object]:
    times = dict.fromkeys(("decode_ms", "preprocessing_ms", "file_ms", "queue_ms", "total_ms"), 1.0)
    guess = {"label": label, "confidence": 0.5}
    return {"file": "four", **guess, "top": [guess], "size_bytes": 1, **times}


def test_test_images_are_asked_about_as_the_files_took_them(page):
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "predict" in request.url else None)
    button = page.get_by_role("button", name="Test image 3, c40")
    button.click()
    answers(page)
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator(".badge.right").count() == 3
    assert all("prepared=true" in url for url in asked)
    assert page.locator("#truth").inner_text() == "A test image of c40"
    give(page, body=image(9))
    answers(page)
    assert (button.get_attribute("aria-pressed"), page.locator(".badge").count()) == ("false", 0)


def test_files_are_chosen_by_their_bits(page):
    page.get_by_label("int4").uncheck()
    page.get_by_label("float32").uncheck()
    give(page, body=image(5))
    assert list(answers(page)) == ["fine int8", "damaged int8"]
    page.get_by_label("int4").check()
    page.locator(ROWS, has_text="four").locator("strong", has_text="c5").wait_for()


def test_an_image_is_dropped_and_pasted(page):
    """Drop and paste, with events as a browser makes them."""
    for kind, event, target in (("drop", "DragEvent", "#drop"), ("paste", "ClipboardEvent", "body")):
        red = 11 if kind == "drop" else 12
        page.locator(target).evaluate(
            """(target, [kind, event, bytes]) => {
                const held = new DataTransfer();
                held.items.add(new File([new Uint8Array(bytes)], "it.png", {type: "image/png"}));
                const more = {dataTransfer: held, clipboardData: held, bubbles: true, cancelable: true};
                target.dispatchEvent(event === "DragEvent" ? new DragEvent(kind, more) : new ClipboardEvent(kind, more));
            }""",
            [kind, event, list(image(red))],
        )
        page.locator("#summary", has_text=f"All 3 files say c{red}").wait_for()


def test_the_camera_takes_an_image(page):
    page.get_by_role("button", name="Use the camera").click()
    shoot = page.get_by_role("button", name="Take the image")
    page.locator("#shoot:not([disabled])").wait_for()
    assert page.locator("#video").evaluate("video => video.videoWidth > 0")
    shoot.click()
    told = answers(page)
    assert told["network float32"].startswith("c")
    assert page.locator("#camera").evaluate("dialog => [dialog.open, document.getElementById('video').srcObject]") == [
        False,
        None,
    ]
    assert page.evaluate("document.activeElement.id") == "take"


def test_the_keyboard_is_enough(page):
    """Tab leads through everything in order; Enter and Space do what a click does; Escape leaves the camera."""
    page.on("filechooser", lambda chooser: None)  # asked for long before Enter: the browser is told without an answer
    reached = []
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.id || document.activeElement.innerText || document.activeElement.value"
            )
        )
    assert reached[0] == "Skip to the answers"
    assert reached[1:3] == ["choose", "take"]
    assert [text.strip() for text in reached[3:5]] == ["c40", "c41"]
    assert {"int8", "float32", "int4"} <= set(reached)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.locator("#choose").focus()
    label = page.locator("label.first")
    assert label.evaluate("label => getComputedStyle(label).outlineStyle") == "solid"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files({"name": "it.png", "mimeType": "image/png", "buffer": image(21)})
    assert answers(page)["fine int8"].startswith("c21")
    page.locator("#samples button").first.focus()
    page.keyboard.press("Space")
    page.locator("#summary", has_text="c40").wait_for()
    page.locator("#take").focus()
    page.keyboard.press("Enter")
    page.locator("#camera[open]").wait_for()
    page.keyboard.press("Escape")
    page.locator("#camera:not([open])").wait_for(state="attached")


def test_a_screen_reader_hears_it(page):
    """Names, roles and live regions, as the accessibility tree has them."""
    tree = page.locator("body").aria_snapshot()
    for words in (
        'heading "colours"',
        'button "Choose an image"',
        'button "Use the camera"',
        'list "Test images of the run"',
        'group "Show"',
        'checkbox "int4"',
        'columnheader "Confidence"',
        'rowheader "fine int8',
    ):
        assert words in tree, tree
    assert page.locator("#summary").get_attribute("aria-live") == "polite"
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input')].filter(each => "
        "!each.labels?.length && !each.innerText && !each.ariaLabel && each.ariaHidden !== 'true').length"
    )
    assert unnamed == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read(chromium, server, scheme):
    """Text stands out from what is behind it by at least 4.5 to 1, in the light and in the dark, and nothing sticks out."""
    for width in (1280, 360):
        context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
        page = context.new_page()
        page.goto(server.address)
        page.locator("#samples button").nth(1).click()
        answers(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRASTS) == []
        context.close()


CONTRASTS = """() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const mixed = (colours) => {  // what shows where colours lie one above the other, the lowest first
        canvas.clearRect(0, 0, 1, 1);
        for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = (rgb) => rgb.map((value) => value / 255)
        .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
    const low = [];
    for (const each of document.querySelectorAll("body *")) {
        const text = [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!text || !each.checkVisibility() || each.closest(".unseen, .skip, script, style")) continue;
        const grounds = [];
        for (let above = each; above; above = above.parentElement) grounds.unshift(getComputedStyle(above).backgroundColor);
        const [ground, ink] = [light(mixed(grounds)), light(mixed([...grounds, getComputedStyle(each).color]))];
        const ratio = (Math.max(ground, ink) + 0.05) / (Math.min(ground, ink) + 0.05);
        if (ratio < 4.5) low.push(`${each.innerText}: ${ratio.toFixed(2)}`);
    }
    return low;
}"""


def test_what_is_too_large_is_not_sent(page, tmp_path: Path):
    give(page, body=bytes(100_001), name="large.png")
    page.locator("#summary", has_text="large.png is not asked about: it has 100.0 kB, and at most 100.0 kB").wait_for()
    give(page, body=b"no image")
    told = answers(page)
    assert told["fine int8"].startswith("the image cannot be read: not an image")


def test_a_server_that_is_gone_is_told(chromium, tmp_path):
    run = make_run(tmp_path / "run", {"fine": ""})
    with serving(run, log=tmp_path / "log.txt") as server:
        page = chromium.new_page()
        page.goto(server.address)
        page.locator(ROWS).wait_for()
    give(page, body=image(1))
    assert answers(page) == {"fine int8": "the server did not answer"}
    page.close()
