"""The report in the terminal."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from sample import failed, four_rows, latency, make_report

from edgeopt.plugins.energy_use import EnergyUse
from edgeopt.report.schema import Report
from edgeopt.report.terminal import render


def printed(report: Report, width: int, *, paths: tuple[Path, ...] = ()) -> str:
    buffer = io.StringIO()
    render(report, Console(file=buffer, width=width, force_terminal=False, color_system=None), paths)
    return buffer.getvalue()


@pytest.mark.parametrize("width", [40, 80, 100, 120, 200])
def test_no_figure_is_cut_at_any_width(width: int) -> None:
    text = printed(make_report(), width)
    assert "…" not in text
    for figure in (
        "99.3 %",
        "97.3–99.8",
        "98.9 %",
        "99.6 %",
        "6.22 MB",
        "1.79 MB",
        "3.5×",
        "4.81",
        "5.05",
        "1.93",
        "2.5×",
    ):
        assert figure in text
    for figure in ("0.77×", "84.3 MB", "61.2 MB", "100 %", "98 %"):
        assert figure in text
    assert max(map(len, text.splitlines())) <= max(width, 80)


def test_wide_figures_fit_in_80_columns() -> None:
    rows = tuple(
        replace(
            row,
            size_bytes=987_654_321,
            peak_memory_bytes=999_400_000,
            latency_ms=latency(12_345.0),
            test_accuracy=1.0,
            accuracy_interval=(0.9859, 1.0),
            agreement=0.99999,
            delegated_share=1.0,
            energy=EnergyUse(
                mj_per_image=12_345.0, idle_w=3.0, busy_w=9.0, seconds=60.0, images=30, method="battery BAT0"
            ),
        )
        for row in four_rows()
    )
    text = printed(make_report(rows), 80)
    assert "…" not in text and "energy of an image by battery BAT0" in text
    for figure in ("988 MB", "999 MB", "12345", "100.0 %", "98.6–100.0", ">99.9 %"):
        assert figure in text


def test_a_long_export_name_wraps_and_does_not_push_figures_out() -> None:
    rows = tuple(
        replace(row, export="an-export-with-quite-a-long-name", runtime="executorch") for row in four_rows()[:2]
    )
    text = printed(make_report(rows), 80)
    assert "…" not in text
    assert "1.79 MB" in text
    assert "an-export" in text


def test_gates_verdicts_and_paths_are_there() -> None:
    report = make_report()
    path = Path("runs") / "a-rather-long-folder-name-that-must-stay-on-one-line-to-be-opened" / "report.html"
    text = printed(report, 80, paths=(path,))
    assert text.count("passed") == 6
    assert text.count("missed") == 2
    assert str(path) in text
    flat = " ".join(text.replace("•", "").split())
    for sentence in report.verdicts:
        assert sentence in flat


def test_a_failed_file_is_a_row_without_figures_and_says_why() -> None:
    rows = (
        *four_rows()[:3],
        failed(four_rows()[3], error="no kernel for [aten.foo]\nuse opset 21", log="logs/onnx.log"),
    )
    text = printed(make_report(rows), 80)
    assert re.search(r"onnx +failed", text)
    assert "no kernel for [aten.foo]\nuse opset 21" in text  # brackets are no markup
    assert "log: logs/onnx.log" in text


def test_sentences_wrap_in_a_narrow_window() -> None:
    report = replace(
        make_report(()), gates=(), verdicts=("a sentence of quite a few words that needs more than one line",)
    )
    assert max(map(len, printed(report, 40).split("gated")[-1].splitlines()[2:])) <= 40


def test_reports_without_optimized_files_or_without_any() -> None:
    assert "×" not in printed(make_report(four_rows()[:1]), 80).split("gate")[0]
    assert "mobilenetv3" in printed(make_report(()), 80)
