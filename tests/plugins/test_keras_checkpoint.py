"""A checkpoint of `keras-train` that is damaged: the training begins anew, and says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

WORK = """
import io, json, sys
from pathlib import Path
import numpy as np
from edgeopt_tensorflow import train

file = Path(sys.argv[1])
whole = io.BytesIO()
np.savez(whole, history=json.dumps({"best_epoch": 1}), fingerprint="mine")
contents = {"whole": whole.getvalue(), "half": whole.getvalue()[:100], "empty": b"", "text": b"none of ours"}
found = {}
for name, content in contents.items():
    file.write_bytes(content)
    found[name] = train._read(file, "mine")
file.unlink()
found["missing"] = train._read(file, "mine")
print(json.dumps(found))
"""


def test_a_damaged_checkpoint_begins_anew_and_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORK, str(tmp_path / "keras-train.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"whole": [{"best_epoch": 1}, {}], **dict.fromkeys(("half", "empty", "text", "missing"))}
    assert done.stderr.count("keras-train.npz is damaged (") == 3, done.stderr
