"""By what precision "auto" chooses for the browser: what operators cost in ONNX Runtime Web. Light until it measures.

What is measured is kept for the next time, in `edgeopt/web-costs` of the user's cache folder, by processor and version.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgeopt.files import write_aside
from edgeopt.plugins import Problem, UserError, digest
from edgeopt_onnx.auto.costs import OPTION, Costs, OperatorCost, read_costs
from edgeopt_onnx.auto.processor import this_processor
from edgeopt_web.packages import ARCHITECTURE, ONNXRUNTIME_WEB

RECORDED, MEASURED = "wasm-x86", "measured"

WASM_X86 = Costs(
    ARCHITECTURE,
    "an EPYC with AVX2, in Chromium 150",
    "onnxruntime-web 1.30",
    {
        "pointwise": (OperatorCost(call=1327, unit=0.0758), OperatorCost(call=4273, unit=0.0453)),
        "dense": (OperatorCost(call=12454, unit=0.0782), OperatorCost(call=10656, unit=0.0362)),
        "depthwise": (OperatorCost(call=13404, unit=0.2709), OperatorCost(call=923, unit=1.1939)),
        "narrow": (OperatorCost(call=0, unit=0.1163), OperatorCost(call=202550, unit=0.0653)),
        "fully-connected": (OperatorCost(call=490, unit=0.0692), OperatorCost(call=712, unit=0.4487)),
        "binary": (OperatorCost(call=238, unit=0.0), OperatorCost(call=1647, unit=1.5661)),
        "clip": (OperatorCost(call=355, unit=0.0005), OperatorCost(call=939, unit=0.0)),
        "pool": (OperatorCost(call=0, unit=0.0), OperatorCost(call=0, unit=0.0)),
        "conversion": (OperatorCost(call=649, unit=0.3096), OperatorCost(call=649, unit=0.3096)),
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
    return WASM_X86 if source == RECORDED else _measured()


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


def _measured() -> Costs:
    """Measures, and keeps it; of two at once, one waits for the other."""
    from filelock import FileLock  # only where something is measured

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    file = cache / "edgeopt" / "web-costs" / f"{_key()[:16]}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if not file.is_file():
            from edgeopt_web.measure import measured  # numpy and onnx are heavy

            write_aside(file, measured().to_toml())
    return read_costs(file)
