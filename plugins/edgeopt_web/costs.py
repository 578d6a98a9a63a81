"""By what precision "auto" chooses for the browser: what operators cost in ONNX Runtime Web. Light until it measures.

What is measured is kept for the next time, in `edgeopt/web-costs` of the user's cache folder, by processor and version.
"""

from __future__ import annotations

from pathlib import Path

from edgeopt.files import user_cache
from edgeopt.plugins import Problem, UserError, digest
from edgeopt_onnx.auto.costs import OPTION, Costs, OperatorCost, kept_costs, read_costs
from edgeopt_onnx.auto.processor import this_processor
from edgeopt_web.packages import ARCHITECTURE, ONNXRUNTIME_WEB

RECORDED, MEASURED = "wasm-x86", "measured"

WASM_X86 = Costs(
    ARCHITECTURE,
    "an EPYC with AVX2, in Chromium 150",
    "onnxruntime-web 1.30",
    {
        "pointwise": (OperatorCost(call=1343, unit=0.0751), OperatorCost(call=3318, unit=0.0478)),
        "dense": (OperatorCost(call=10290, unit=0.0799), OperatorCost(call=11468, unit=0.0361)),
        "depthwise": (OperatorCost(call=13593, unit=0.2648), OperatorCost(call=192, unit=1.2411)),
        "narrow": (OperatorCost(call=68406, unit=0.0965), OperatorCost(call=211788, unit=0.0633)),
        "fully-connected": (OperatorCost(call=5986, unit=0.0615), OperatorCost(call=722, unit=0.4482)),
        "binary": (OperatorCost(call=345, unit=0.0079), OperatorCost(call=1977, unit=1.1659)),
        "clip": (OperatorCost(call=524, unit=0.0), OperatorCost(call=922, unit=0.0)),
        "pool": (OperatorCost(call=0, unit=0.0), OperatorCost(call=0, unit=0.0)),
        "conversion": (OperatorCost(call=913, unit=0.6109), OperatorCost(call=913, unit=0.6109)),
    },
)
"""Recorded with one thread: `costs = "wasm-x86"`."""


def costs_source(option: str | None) -> str:
    """What the option `costs` says: `RECORDED` where it is left out, `MEASURED`, or "file"."""
    return RECORDED if option is None else option if option in (RECORDED, MEASURED) else "file"


def costs_fingerprint(option: str | None) -> str:
    """A text that changes with the costs. Raises `UserError` for a file with mistakes."""
    source = costs_source(option)
    if source == "file":
        return _of_file(Path(option or "")).fingerprint
    return WASM_X86.fingerprint if source == RECORDED else _key()


def chosen_costs(option: str | None) -> Costs:
    """The costs, measured now where they must be. Raises `UserError` for a file with mistakes."""
    source = costs_source(option)
    if source == "file":
        return _of_file(Path(option or ""))
    return WASM_X86 if source == RECORDED else _kept()


def _of_file(path: Path) -> Costs:
    costs = read_costs(path)
    if costs.architecture != ARCHITECTURE:
        raise UserError(
            Problem(
                f"the costs in {path} are those of architecture {costs.architecture!r}, and a page runs {ARCHITECTURE}",
                "`python -m edgeopt_web.measure FILE` writes those of a browser",
                option=OPTION,
            )
        )
    return costs


def _key() -> str:
    return digest([this_processor().key, str(ONNXRUNTIME_WEB)])


def _kept() -> Costs:
    return kept_costs(user_cache() / "web-costs" / f"{_key()[:16]}.toml", _measured)


def _measured() -> Costs:
    from edgeopt_web.measure import measured  # numpy and onnx are heavy

    return measured()
