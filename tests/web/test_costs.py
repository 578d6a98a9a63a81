"""What operators cost in the browser: from a record, a file, or measured there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from browser_runtimes import needs

from edgeopt.plugins import ExporterPlugin, Numerics, QuantizerPlugin, UserError
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt_onnx.auto.costs import X86_VNNI
from edgeopt_web.browser import Browser, require_browser
from edgeopt_web.costs import WASM_X86, chosen_costs, costs_fingerprint
from edgeopt_web.local_server import LocalServer
from edgeopt_web.measure import _Page
from edgeopt_web.runtime import onnx_web


def test_costs_are_recorded_or_those_of_a_file(tmp_path):
    slower = replace(WASM_X86, processor="a telephone")
    (tmp_path / "costs.toml").write_text(slower.to_toml())
    assert chosen_costs(None) == chosen_costs("wasm-x86") == WASM_X86
    assert chosen_costs(str(tmp_path / "costs.toml")) == slower
    use = resolve(ExporterPlugin, "onnx-web", {"precision": "auto"}, load_registry())
    assert use.plugin.fingerprint(use.options) == WASM_X86.fingerprint
    assert costs_fingerprint("measured") not in ("", WASM_X86.fingerprint)


def test_costs_of_a_processor_are_refused(tmp_path):
    file = tmp_path / "costs.toml"
    file.write_text(X86_VNNI.to_toml())
    with pytest.raises(UserError, match="those of architecture 'x86_64', and a page runs wasm32") as refused:
        costs_fingerprint(str(file))
    assert refused.value.problems[0].option == "costs"
    file.write_text("architecture = 3\n")
    with pytest.raises(UserError, match="there is no table"):
        costs_fingerprint(str(file))


@pytest.mark.parametrize(
    ("options", "quantized", "named"),
    [
        ({"precision": "auto"}, False, ["precision"]),
        ({"precision": "auto", "costs": "measured"}, True, []),
        ({"costs": "wasm-x86"}, True, ["costs"]),
        ({"precision": "float16"}, True, ["precision"]),
        ({}, True, []),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(options, quantized, named, monkeypatch):
    monkeypatch.setattr("edgeopt_web.options.find_browser", lambda: "here")
    registry = load_registry()
    use = resolve(ExporterPlugin, "onnx-web", options, registry)
    quantizers = (registry.get(QuantizerPlugin, "xnnpack"),) if quantized else ()
    assert [problem.option for problem in use.plugin.check(use.options, Numerics(quantizers))] == named


def test_an_operator_is_really_measured():
    """Two convolutions, one of four times the work: the whole table takes a minute."""
    needs(onnx_web)
    files = {f"/runtime/{name}": content for name, content in onnx_web().files.items()}
    with LocalServer(files) as server, Browser.start(require_browser()) as browser:
        page = _Page(server, browser)
        small, large = (
            page.difference_us(
                64, edge, lambda graph: graph.convolution(64, 3), lambda graph: graph.add("Relu"), int8=False
            )
            for edge in (8, 32)
        )
    assert 0 < small < large
