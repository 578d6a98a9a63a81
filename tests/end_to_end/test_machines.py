"""A training on two machines: here two processes that reach each other over loopback and share a store."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from conftest import TINY_PLUGIN

RECIPE = """\
schema = 1
name = "two"
baseline = false

[dataset]
use = "stripes"
image_size = 16

[model]
use = "linear"

[[passes]]
use = "train"
epochs = 2
batch_size = 16

[[exports]]
use = "npz"

[trainer]
accelerator = "cpu"
num_nodes = 2
threads = 1

[measure]
threads = 1
runs = 5
warmup = 1
"""


def test_two_machines_train_one_model(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = dict(os.environ) | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "edgeopt", "run", "recipe.toml", "--plugin", str(TINY_PLUGIN)]
    machines = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment | {"NODE_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ended = [machine.communicate(timeout=500) for machine in machines]
    for machine, (_out, err) in zip(machines, ended, strict=True):
        assert machine.returncode == 0, err
    report = json.loads((tmp_path / "runs/two/report.json").read_text())
    (train,) = [record for record in report["passes"] if record["name"] == "train"]
    assert train["facts"]["devices"] == 2
    assert report["rows"][0]["error"] is None
