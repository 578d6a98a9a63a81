"""One way of writing a network that conversions used to break; `benchmarks/idioms.py` has all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "idioms.py"


@pytest.mark.timeout(900)
def test_a_tutorials_network_is_converted() -> None:
    command = [sys.executable, "-W", "ignore", str(BENCHMARK), "--only", "x.view(-1, 400)", "--runtimes", "tflite"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "│ x.view(-1, 400) │" in done.stdout
    assert "compute what their program does: 1 (" in done.stdout
