"""Plugins of TensorFlow and ONNX keep the contracts, in a process of their own: torch may stand in the tests' one."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import other_frameworks_contracts

CONTRACTS = Path(other_frameworks_contracts.__file__)


def test_plugins_of_other_frameworks_keep_their_contracts(tmp_path: Path) -> None:
    outcome = tmp_path / "out.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", f"--junitxml={outcome}"]
    done = subprocess.run([*command, str(CONTRACTS)], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    (suite,) = ET.parse(outcome).iter("testsuite")
    assert int(suite.get("tests", "0")) - int(suite.get("skipped", "0")) > 120
