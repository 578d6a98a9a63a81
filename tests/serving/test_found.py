"""Boxes, masks, labels and words of files that are no classifiers: what the API, the page and the static page say of them."""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from browser_runtimes import needs
from chromium import launched
from found_runs import COLOURS, GROUND, make_found_run, patches
from PIL import Image
from serve_client import serving
from served_runs import PLUGIN, image, make_run, red_network

from edgeopt.preprocessing import Preprocessing
from edgeopt.report.samples import keep_samples
from edgeopt.report.schema import Report
from edgeopt.serving.findings import found_of
from edgeopt.tasks import Drawing, DrawnBox, Score, ScoreKind, Section, SectionImage
from edgeopt_web.runtime import onnx_web

TASKS = ("detection", "segmentation", "multi-label", "warmth")
TEMPERATURE = 400.0
#: 96 × 96 px, so that a file of 32 × 48 sees a third of it with grey beside it: a square of each colour, 24 px wide.
SQUARES = {"red": (0, 48, 24, 72), "green": (48, 0, 72, 24), "blue": (48, 48, 72, 72)}
INKS = {"red": (255, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 255)}
SEEN = patches(96, 96, *((*box, INKS[name]) for name, box in SQUARES.items()))


def name_of(task: str, role: str = "baseline") -> str:
    return f"{task}/onnx/{role}/model.onnx"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each task, and one of a classifier with a temperature, all of which open in a browser too."""
    folder = tmp_path_factory.mktemp("found")
    made = [make_found_run(folder / task, task, opened_by="onnx-web") for task in TASKS]
    classifier = make_run(folder / "classes", {"net": red_network()}, opened_by="onnx-web")
    card = classifier / "net" / "optimized" / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"decision": {"temperature": TEMPERATURE}}))
    return [*made, classifier]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    made = [make_found_run(folder / task, task) for task in TASKS]
    classifier = make_run(folder / "classes", {"net": red_network()})
    card = classifier / "net" / "optimized" / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"decision": {"temperature": TEMPERATURE}}))
    with serving(*made, classifier, log=folder / "log.txt") as started:
        yield started


@pytest.fixture(scope="module")
def chromium():
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with launched(executable) as browser:
        yield browser


# ---- the API ---------------------------------------------------------------------------------------------------------


def test_boxes_are_those_of_the_image_as_it_was_sent(server):
    answer = server.predict(name_of("detection"), SEEN).json
    found = {each["label"]: tuple(each[side] for side in ("x1", "y1", "x2", "y2")) for each in answer["boxes"]}
    assert found == SQUARES
    assert answer["words"] == "1 red, 1 blue, 1 green"
    assert (answer["task"], answer["width"], answer["height"], answer["shown_score"]) == ("detection", 96, 96, 0.4)
    assert [COLOURS[each["index"]] for each in answer["boxes"]] == ["red", "blue", "green"]
    scores = [each["score"] for each in answer["boxes"]]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0.9
    dim = patches(96, 96, (0, 48, 24, 72, (120, 0, 0)))  # a score between the decoding's and the one that is shown
    assert server.predict(name_of("detection"), dim).json["boxes"] == []
    (faint,) = server.predict(name_of("detection"), dim, everything="true").json["boxes"]
    assert 0.1 < faint["score"] < 0.4


def test_a_mask_covers_what_the_file_saw(server):
    mask = server.predict(name_of("segmentation"), SEEN).json["mask"]
    assert [mask[side] for side in ("x1", "y1", "x2", "y2")] == [0, 0, 96, 96]
    values = np.asarray(
        Image.open(io.BytesIO(base64.b64decode(mask["png"]))).resize((96, 96), Image.Resampling.NEAREST)
    )
    for name, (left, top, right, bottom) in SQUARES.items():
        assert (values[top:bottom, left:right] == GROUND.index(name)).mean() > 0.9
    assert values[30, 30] == 0
    told = {each["label"]: each["share"] for each in mask["classes"]}
    assert set(told) == set(GROUND)
    assert sum(told.values()) == pytest.approx(1)
    assert told["red"] == pytest.approx(1 / 16, abs=0.02), "of the image, and not of the letterbox around it"


def test_labels_are_told_by_the_thresholds_of_the_card(server):
    grey = patches(96, 96, (0, 0, 96, 96, (128, 128, 128)))  # each colour has a confidence of a half
    told = server.predict(name_of("multi-label"), grey).json
    assert [each["label"] for each in told["labels"]] == ["red", "green"], "blue is told from 0.9 on"
    everything = server.predict(name_of("multi-label"), grey, everything="true").json
    assert {each["label"]: (each["threshold"], each["told"]) for each in everything["labels"]} == {
        "red": (0.5, True),
        "green": (0.3, True),
        "blue": (0.9, False),
    }
    assert (told["boxes"], told["mask"], told["words"]) == (None, None, everything["words"])


def test_files_are_compared_as_their_task_does(server):
    for task in TASKS:
        for role, expected in (("baseline", True), ("optimized", task == "warmth")):
            answer = server.predict(name_of(task, role), SEEN, reference=name_of(task)).json
            assert answer["alike"] is expected, (task, role)
    without_blue = patches(96, 96, (0, 48, 24, 72, (255, 0, 0)))
    for task in TASKS:
        assert server.predict(name_of(task, "optimized"), without_blue, reference=name_of(task)).json["alike"] is True
    assert server.predict(name_of("detection"), SEEN).json["alike"] is None
    assert server.predict(name_of("detection"), SEEN, reference=name_of("segmentation")).json["alike"] is None
    refused = server.predict(name_of("detection"), SEEN, reference="detection/onnx/baselin/model.onnx")
    assert (refused.status, "baseline" in refused.json["hint"]) == (404, True)
    assert server.predict(name_of("detection"), SEEN, everything="some").status == 400


def test_a_task_of_a_third_party_is_told_in_its_words(server):
    answer = server.predict(name_of("warmth"), SEEN).json
    assert (answer["words"], answer["labels"], answer["boxes"], answer["mask"]) == ("6 degrees", None, None, None)


def test_the_temperature_of_a_card_is_that_of_its_confidences(server):
    answer = server.predict("classes/net/optimized/model.onnx", image(50)).json
    values = [(2 * number * 50 - number**2) / TEMPERATURE for number in range(100)]
    powers = [math.exp(value - max(values)) for value in values]
    assert answer["label"] == "c50"
    assert answer["confidence"] == pytest.approx(powers[50] / sum(powers), rel=1e-4)


def test_the_description_for_programs_holds_for_every_task(server):
    import jsonschema

    described = server.ask("/openapi.json").json
    schema = described["paths"]["/v1/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    for task in TASKS:
        jsonschema.validate(server.predict(name_of(task), SEEN).json, schema | {"components": described["components"]})
    assert {each["task"] for each in server.ask("/v1/files").json} == {*TASKS, "classification"}


def test_cards_that_cannot_be_followed_are_all_named(tmp_path):
    """A task that nobody here has, a decision that somebody changed, and a classifier of no classes."""
    from edgeopt.errors import UserError
    from edgeopt.plugins.registry import load_registry
    from edgeopt.report.finished_files import find_files
    from edgeopt.serving.served_tasks import task_uses

    strange = make_found_run(tmp_path / "strange", "detection", task="boxing")
    spoiled = make_found_run(tmp_path / "spoiled", "detection", decision={})
    nameless = make_run(tmp_path / "nameless", {"net": red_network()})
    card = nameless / "net" / "optimized" / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"classes": []}))
    registry = load_registry()
    with pytest.raises(UserError) as refused:
        task_uses(find_files([strange, spoiled, nameless], registry).files, registry)
    said = [problem.message for problem in refused.value.problems]
    assert said.pop() == "nameless/net/optimized/model.onnx is a classifier, and its card names no classes"
    assert [each.split(": ")[0] for each in said] == [
        name_of(run, role) for run in ("strange", "spoiled") for role in ("baseline", "optimized")
    ]
    assert "there is no task 'boxing'" in said[0]
    assert "`decision` in its card is none of the task detection" in said[2]


# ---- the pages -------------------------------------------------------------------------------------------------------


def opened(browser, address: str):
    """The page; whatever it logs is in `wrong`."""
    page = browser.new_context().new_page()
    page.set_default_timeout(60_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.goto(address)
    page.locator("#files tr").first.wait_for()
    return page, wrong


def told(page, body: bytes) -> dict[str, str]:
    """What each file is said to answer, by its name."""
    page.locator("#choose").set_input_files({"name": "it.png", "mimeType": "image/png", "buffer": body})
    page.locator("table.answers[aria-busy=false]").wait_for()
    rows = page.locator("#files tr")
    return {
        " ".join(rows.nth(row).locator("th").inner_text().split()).replace(", onnx-web", ""): rows.nth(row)
        .locator("td")
        .first.inner_text()
        for row in range(rows.count())
    }


def look(page) -> None:
    """What both pages show: pictures, tables, thresholds and opacity by sliders, with the keyboard alone."""
    said = told(page, SEEN)
    assert said["onnx float32 baseline, detection"] == "1 red, 1 blue, 1 green"
    assert said["onnx int8 optimized, detection"] == "1 red, 1 greendiffers"
    assert said["onnx float32 baseline, multi-label"] == "red 100 %, blue 100 %, green 97 %"
    assert said["onnx float32 baseline, segmentation"].startswith("ground 8")
    summary = page.locator("#summary").inner_text()
    assert (
        "detection: The files differ: 1 of 2 answer otherwise than onnx float32, which finds 1 red, 1 blue" in summary
    )
    picture = page.get_by_role("img", name="onnx float32, detection: 1 red, 1 blue, 1 green")
    at = "canvas => { const copy = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });"
    at += " copy.drawImage(canvas, -LEFT, -600); return [...copy.getImageData(0, 0, 1, 1).data]; }"
    assert picture.evaluate(at.replace("LEFT", "239")) != [255, 0, 0, 255], "the right side of the red box is drawn"
    table = page.get_by_role("table", name="Boxes of onnx float32, detection")
    assert table.locator("tbody tr").first.inner_text().split("\t") == ["red", "1.00", "0, 48", "24 × 24"]
    table.locator("tbody tr").first.focus()  # marks its box, as the mouse does
    page.get_by_label("Boxes from a score of").focus()
    page.keyboard.press("End")
    assert page.locator("#files td").first.inner_text() == "nothing"
    page.get_by_role("button", name="As in the card").press("Enter")
    assert page.locator("#files td").first.inner_text() == "1 red, 1 blue, 1 green"
    page.get_by_label("Thresholds of labels").focus()
    page.keyboard.press("Home")
    row = page.get_by_role("table", name="Labels of onnx int8, multi-label").locator("tr", has_text="blue")
    assert row.inner_text().split("\t")[-1] == "from 14.2 %", "0.9 with a logit that is 4 smaller"
    mask = page.get_by_role("img", name="onnx float32, segmentation")
    before = mask.evaluate(at := at.replace("LEFT", "40"))
    page.get_by_role("button", name="Draw red").first.press("Space")
    assert mask.evaluate(at) == [255, 0, 0, 255] != before, "the mask of red is away, and the image is there"
    assert page.get_by_role("button", name="Draw red").nth(1).get_attribute("aria-pressed") == "false"


def test_the_page_draws_what_was_found(chromium, server):
    page, wrong = opened(chromium, server.address)
    look(page)
    assert told(page, SEEN)["onnx float32 baseline, warmth"] == "6 degrees"
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing stands out of a narrow page"
    assert wrong == []


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        return


def test_the_static_page_finds_the_same_by_itself(chromium, runs, tmp_path):
    needs(onnx_web)
    from edgeopt.plugins.registry import load_registry
    from edgeopt.report.finished_files import find_files
    from edgeopt.serving.limits import Limits
    from edgeopt.serving.static import write_site

    registry = load_registry([PLUGIN])
    site = write_site(find_files(runs, registry), registry, tmp_path / "site", Limits())
    assert site.left_out == tuple(
        f"{name_of('warmth', role)} is left out: the task warmth has no code for browsers (TaskPlugin.page_files)"
        for role in ("baseline", "optimized")
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "site"))) as host:
        threading.Thread(target=host.serve_forever, args=(0.02,), daemon=True).start()
        page, wrong = opened(chromium, f"http://127.0.0.1:{host.server_port}/")
        look(page)
        _marks_what_the_camera_sees(page)
        _places_as_python(page)
        page.locator("#choose").set_input_files({"name": "it.png", "mimeType": "image/png", "buffer": image(50)})
        row = page.locator("#files tr", has_text="classes")
        row.locator("strong", has_text="c50").wait_for()
        assert row.locator(".figure").inner_text() == "2.8 %"  # 1 / sum of exp(-k² / 400)
        host.shutdown()
    assert wrong == []


def _marks_what_the_camera_sees(page) -> None:
    """Boxes are drawn over the camera's image, which is green, for as long as it is open."""
    page.get_by_role("button", name="Use the camera").click()
    page.locator("#live", has_text="green").wait_for()
    page.wait_for_function(
        """() => {
            const { width, height } = document.getElementById("drawn");
            const pixels = width && document.getElementById("drawn").getContext("2d").getImageData(0, 0, width, height);
            return pixels && pixels.data.some((value) => value > 0) && pixels.data.some((value) => value === 0);
        }"""
    )
    page.keyboard.press("Escape")
    page.wait_for_function("document.getElementById('drawn').width === 0")


def test_images_that_the_report_shows_are_offered_with_their_truth(tmp_path):
    from edgeopt.plugins.registry import load_registry
    from edgeopt.report.finished_files import find_files

    run = make_found_run(tmp_path / "detection", "detection")
    file = run / "report.json"
    report = Report.from_json(file.read_text())
    section = Section("Boxes", images=tuple(SectionImage(index, f"{index} red", "nothing") for index in (7, 3, 8)))
    score = Score(0.5, (0.4, 0.6), 9, ScoreKind("map", "mAP", larger_is_better=True, unit="%"))
    rows = (report.rows[0], replace(report.rows[1], scores=(score,), sections=(section,)))
    file.write_text(replace(report, rows=rows).to_json())
    keep_samples({3: np.zeros((32, 48, 3), np.uint8), 7: np.zeros((32, 48, 3), np.uint8)}, run)
    offered = find_files([run], load_registry([])).samples
    assert [(each.index, each.truth) for each in offered] == [(7, "7 red"), (3, "3 red")]


def _places_as_python(page) -> None:
    """Boxes and masks of images of any size, in any fit: what `placing.js` says is what the server says."""
    random = np.random.default_rng(3)
    for fit in ("crop", "letterbox", "stretch"):
        for _ in range(12):
            width, height = (int(side) for side in random.integers(3, 400, 2))
            frame = (int(random.integers(20, 60)), int(random.integers(20, 60)))
            preprocessing = Preprocessing(frame, frame, frame, mean=(0, 0, 0), std=(1, 1, 1), fit=fit)
            mask = random.integers(0, 4, frame)
            corners = tuple(float(value) for value in np.float32(random.uniform(0, 60, 4)))
            drawing = Drawing("", boxes=(DrawnBox(1, 0.5, corners),), mask=mask)
            expected = found_of(drawing, GROUND, preprocessing.geometry(height, width))
            returned = page.evaluate(
                """async ([boxes, data, size, card]) => {
                    const { placed } = await import("/placing.js");
                    const [height, width] = card.preprocessing.image_size;
                    const mask = { data: Uint8Array.from(data), height, width };
                    const found = placed({ boxes, mask }, size, card, false);
                    found.mask.data = [...found.mask.data];
                    return found;
                }""",
                [
                    [{"label": 1, "score": 0.5, "corners": corners}],
                    mask.ravel().tolist(),
                    {"width": width, "height": height},
                    {"classes": GROUND, "preprocessing": preprocessing.to_json() | {"image_size": frame}},
                ],
            )
            png = np.asarray(Image.open(io.BytesIO(base64.b64decode(expected["mask"].pop("png")))))
            data = np.array(returned["mask"].pop("data")).reshape(
                returned["mask"].pop("height"), returned["mask"].pop("width")
            )
            assert np.array_equal(data, png), (fit, width, height, frame)
            assert returned["mask"]["classes"] == expected["mask"].pop("classes")
            for own, other in ((returned["mask"], expected["mask"]), (returned["boxes"][0], expected["boxes"][0])):
                assert {name: own[name] for name in other} == pytest.approx(other, abs=0.011), (fit, width, height)
