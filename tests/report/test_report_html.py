"""The page: whole in itself, escaped, the same bytes each time, and readable for any run."""

import base64
import hashlib
import io
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample import (
    DIGITS,
    RECIPE_TEXT,
    failed,
    four_rows,
    make_images,
    make_passes,
    make_report,
    make_row,
    make_samples,
)

from edgeopt.report.answers import shown_file
from edgeopt.report.html import render_html
from edgeopt.report.plots import training_curves
from edgeopt.report.schema import Report, Row
from edgeopt.types import Curve, PassRecord, Role

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A page taken apart; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def values(self, *names: str) -> list[str]:
        return [value for _, name, value in self.attributes if name in names]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(report: Report, **given: object) -> Page:
    return Page(render_html(report, **given))


@pytest.fixture(scope="module")
def report() -> Report:
    return make_report()


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    return render_html(report, make_images(report.samples), RECIPE_TEXT)


def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    page = Page(html)
    assert not page.tags.keys() & {"script", "link", "iframe", "object", "embed", "base"}
    loaded = page.values("src", "href", "xlink:href", "srcset", "data", "poster", "action")
    assert loaded
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in loaded)
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert not re.search(r"https?://", html)


def test_identifiers_are_unique_and_references_lead_somewhere(html: str) -> None:
    page = Page(html)
    identifiers = page.values("id")
    assert len(identifiers) == len(set(identifiers))
    wanted = {value[1:] for value in page.values("href") if value.startswith("#")}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", html)) | set(page.values("aria-labelledby"))
    assert wanted <= set(identifiers)


def test_plots_take_their_colours_from_the_page(html: str) -> None:
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert drawings.count("var(--") > 50
    assert "#0100" not in drawings
    assert "prefers-color-scheme: dark" in html
    used = set(re.findall(r"var\((--[\w-]+)\)", html)) - {"--share"}
    assert used <= set(re.findall(r"^\s+(--[\w-]+):", html, flags=re.MULTILINE))


def test_the_same_report_gives_the_same_bytes_in_another_process(html: str) -> None:
    script = (
        "import hashlib, sample\n"
        "from edgeopt.report.html import render_html\n"
        "report = sample.make_report()\n"
        "page = render_html(report, sample.make_images(report.samples), sample.RECIPE_TEXT)\n"
        "print(hashlib.sha256(page.encode()).hexdigest())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == hashlib.sha256(html.encode()).hexdigest()


def test_all_that_was_found_is_on_the_page(report: Report, html: str) -> None:
    page = Page(html)
    text = page.text.replace("\u00a0", " ")
    for row in report.rows:
        assert f"{row.export} {row.precision}" in text
    for sentence in report.verdicts:
        assert sentence in text
    for gate in report.gates:
        assert gate.limit_text in text
    for figure in (
        "1.79 MB",
        "1.93 ms",
        "2.03 ms",
        "98.9 %",
        "96.8–99.6 %",
        "61.2 MB",
        "98.4 %",
        "0.13",
        "3.5× smaller",
    ):
        assert figure in text
    assert "1.3× slower" in text
    assert "2 of 8 gate checks missed" in text
    for stage in report.stages:
        assert stage.label in text
    for name, version in report.environment.versions.items():
        assert f"{name} {version}" in text
    assert "layers quantized 54" in text
    assert page.tags["svg"] == 1 + 3 + 2  # the trade-off, the curves of train and those of qat
    assert report.dataset.fingerprint in text


def test_images_are_shown_wrong_ones_first_and_have_words(report: Report, html: str) -> None:
    page = Page(html)
    sources = page.values("src")
    assert len(sources) == len(report.samples) == len(page.values("alt"))
    first = Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2])))
    wrong = next(sample for sample in report.samples if sample.predictions[report.rows[-1].file].label != sample.label)
    assert np.array_equal(np.asarray(first), make_images(report.samples)[wrong.index])
    assert re.findall(r'<li class="(right|wrong)">', html) == ["wrong"] * 2 + ["right"] * 10
    assert "wrong , it is 4; float file: 4" in page.text
    assert "57.0 %" in page.text


def test_large_images_are_made_smaller(report: Report) -> None:
    images = {sample.index: np.full((480, 640, 3), 90, np.uint8) for sample in report.samples}
    source = page_of(report, images=images).values("src")[0]
    assert max(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).size) == 128


def test_every_table_has_a_caption_and_every_plot_words(html: str) -> None:
    page = Page(html)
    labelled = sum(1 for tag, name, _ in page.attributes if (tag, name) == ("table", "aria-labelledby"))
    assert page.tags["table"] == labelled + page.tags["caption"]
    told = [value for _, name, value in page.attributes if name == "aria-label"]
    assert any("executorch int8: 98.9 % at 1.93 ms" in value for value in told)
    assert any("loss by epoch" in value for value in told)


def test_names_cannot_break_out_of_the_page() -> None:
    evil = "<script>alert('x')</script>\"&"
    classes = (evil, "$5$ \\frac{", "犬")
    rows = (
        replace(
            make_row(Role.BASELINE, classes=classes, outside=(evil,)), export=evil, warnings=(evil,), facts={evil: evil}
        ),
        replace(make_row(classes=classes), export=evil),
        failed(make_row(export="onnx", classes=classes), error=evil, log=evil),
    )
    passes = (PassRecord(evil, {evil: [evil, {evil: 1}]}, (Curve(evil, (1, 2), (1, 2), evil, evil),), (evil,)),)
    base = make_report(rows, classes=classes, passes=passes)
    evil_report = replace(
        base,
        recipe=replace(base.recipe, name=evil, description=evil, file=evil),
        dataset=replace(base.dataset, name=evil, fingerprint=evil, per_class={"test": (1, 2, 3)}),
        environment=replace(base.environment, processor=evil, versions={evil: evil}),
        finished=evil,
    )
    text = render_html(evil_report, make_images(evil_report.samples, 8), f"name = '{evil}'")
    page = Page(text)
    assert "script" not in page.tags
    assert "<script" not in text.lower()
    assert evil in page.text
    assert "$5$ \\frac{" in page.text
    assert "犬" in page.text


def test_the_recipe_is_shown_as_it_was_written(html: str) -> None:
    (shown,) = re.findall(r'<pre class="recipe"[^>]*>(.*?)</pre>', html, flags=re.DOTALL)
    assert "# a comment with &lt;b&gt;markup&lt;/b&gt; &amp; an ampersand" in shown
    assert shown.count("\n") == RECIPE_TEXT.count("\n")


def test_failed_rows_are_rendered() -> None:
    rows = (*four_rows()[:3], failed(four_rows()[3], error="no kernel\nsecond line", log="logs/onnx.log"))
    text = page_of(make_report(rows)).text
    assert "failed: see below" in text
    assert "no kernel second line" in text
    assert "logs/onnx.log" in text


def test_when_every_file_failed_there_is_still_a_page() -> None:
    text = page_of(make_report(tuple(failed(row) for row in four_rows()))).text
    assert text.count("failed: see below") == 4
    assert "Confusion matrix" not in text


def test_reports_without_optimized_files() -> None:
    page = page_of(make_report(four_rows()[:1], passes=make_passes()[:1]))
    assert "No pass of this recipe optimizes" in page.text
    assert "smaller" not in page.text
    assert "Accuracy against latency" not in page.text  # a single file trades nothing


def test_an_empty_report_is_a_page() -> None:
    base = make_report((), passes=())
    page = page_of(replace(base, stages=(), samples=(), programs=(), gates=(), verdicts=()))
    assert page.tags["svg"] == 0
    assert "mobilenetv3-qat-android" in page.text


def test_two_classes() -> None:
    two = ("cat", "dog")
    rows = (make_row(Role.BASELINE, classes=two, p50=4.0, count=50), make_row(classes=two, count=50))
    page = page_of(make_report(rows, classes=two))
    assert "taken for" in page.text
    assert page.values("class").count("hit") == 2


def test_a_matrix_of_120_classes_is_condensed_and_the_rest_folded_away() -> None:
    many = tuple(f"n02085{index:03d} a dog's breed" for index in range(120))
    rows = (
        make_row(Role.BASELINE, classes=many, wrong=200, count=10, p50=30.0),
        make_row(classes=many, wrong=260, count=10, p50=12.0),
    )
    html = render_html(make_report(rows, classes=many))
    (matrix,) = re.findall(r'<table class="matrix".*?</table>', html, flags=re.DOTALL)
    assert matrix.count("<tr>") == 1 + 14
    assert "other classes" in matrix
    assert "100 more classes" in html
    assert len(html) < 400_000


def test_a_smoke_run_is_marked_once_and_at_the_top() -> None:
    text = page_of(make_report(smoke=True)).text
    assert text.count("smoke run") == 1
    assert text.index("smoke run") < text.index("In short")
    assert "gate check" not in text


def test_a_long_fact_is_a_list_of_its_own_and_details_stay_out(report: Report) -> None:
    layers = {f"layer{number}<b>": f"{number + 1} to {number}" for number in range(7)}
    record = PassRecord("prune", {"layers_changed": layers, "few": {"a": 1}}, details={"removed": ["not to be seen"]})
    html = render_html(replace(report, passes=(record,)))
    (items,) = re.findall(r'<div class="wide"><dt>layers changed</dt><dd><ul>(.*?)</ul>', html, re.DOTALL)
    assert items.count("<li>") == 7
    assert "layer3&lt;b&gt;" in items and "4 to 3" in items
    assert "<dt>few</dt><dd>a 1</dd>" in html
    assert "not to be seen" not in html


def test_curves_of_any_kind_are_drawn() -> None:
    nan = float("nan")
    curves = (
        Curve("one point", (1.0,), (0.5,), y_label="a"),
        Curve("no point", (), (), y_label="b"),
        Curve("gaps", (1.0, 2.0, 3.0), (nan, 1.0, nan), y_label="c"),
        *(Curve(f"series {index}", (1.0, 2.0), (0.0, index), y_label="d") for index in range(6)),
        Curve("long", tuple(map(float, range(20_000))), tuple(np.sin(np.arange(20_000) / 50)), "step", "e"),
    )
    page = page_of(make_report(passes=(PassRecord("train", curves=curves),)))
    assert page.tags["svg"] == 1 + 5  # six series of one quantity take two
    drawn = " ".join(page.words)
    assert all(f"series {index}" in drawn for index in range(6))


def test_latencies_far_apart_and_odd_figures_do_not_break_the_plot() -> None:
    rows = four_rows()
    extreme = (
        replace(rows[0], latency_ms=replace(rows[0].latency_ms, p50=900.0, p90=950.0)),
        replace(rows[1], latency_ms=replace(rows[1].latency_ms, p50=0.02, p90=0.03)),
        replace(rows[2], latency_ms=replace(rows[2].latency_ms, p50=0.0, p90=0.0, std=0.0), size_bytes=0),
        replace(rows[3], max_logit_difference=float("inf"), accuracy_interval=None, latency_ms=None),
    )
    for shown in (extreme, extreme[:2], extreme[2:]):
        assert page_of(make_report(shown)).tags["table"] > 3


def test_the_detailed_file_is_an_optimized_one_that_works() -> None:
    rows = four_rows()
    rows = (*rows[:3], failed(rows[3]))
    base = make_report(rows)
    text = page_of(replace(base, samples=make_samples(rows, DIGITS))).text
    assert "Test split, as executorch int8 answers" in text
    assert "Test images as executorch int8 sees them" in text


def test_groups_of_a_data_set_are_counted() -> None:
    report = make_report()
    assert "Groups, such as speakers" not in render_html(report)
    spoken = replace(report, dataset=replace(report.dataset, groups={"train": 48, "test": 8}))
    assert "images of: 48 in train, 8 in test." in render_html(spoken)


def test_a_last_file_that_did_not_run_here_takes_no_classes_and_images_from_the_page() -> None:
    engine = Row(
        runtime="tensorrt",
        export="tensorrt",
        file="tensorrt/optimized/model.onnx",
        precision="int8",
        role=Role.OPTIMIZED,
        size_bytes=2_000_000,
        not_run="there is no GPU",
    )
    rows = (*four_rows(), engine)
    report = replace(make_report(rows), samples=make_samples(four_rows()))
    assert shown_file(rows) == rows[3]
    page = page_of(report)
    assert "Test split, as onnx int8 answers" in page.text and "Test images as onnx int8 sees them" in page.text
    assert shown_file((failed(rows[0]), engine)) is None


def test_the_curves_of_a_single_epoch_have_one_epoch_and_whole_numbers_on_their_axes() -> None:
    """The figure of a small learning rate was cut at the left edge, and epochs went from 0.96 to 1.04."""
    record = PassRecord("qat", {}, (Curve("learning rate", (1.0,), (0.000525,), y_label="learning rate"),))
    (plot,) = training_curves(record, 1)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", plot.svg)
    assert texts == ["1", "epoch", "0.000525"]
    (right_edge,) = re.findall(r'text-anchor: end[^>]*? x="([\d.]+)"', plot.svg)
    assert float(right_edge) > 6 * len("0.000525"), "6 px a digit, and nothing to the left of the plot"
