"""A small CIFAR-10 for tests, in the published format."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt_torchvision.options import CIFAR10_FILES, CIFAR10_FOLDER

PER_FILE = 20


def write_cifar10(root: Path, protocol: int = 2) -> dict[str, dict[str, Any]]:
    """A small CIFAR-10 in the published format: a pickled dict of planes (n, 3072), red before green before blue."""
    random = np.random.default_rng(0)
    folder = root / CIFAR10_FOLDER
    folder.mkdir(parents=True)
    batches = {}
    for name in CIFAR10_FILES:
        batches[name] = {
            "batch_label": f"batch {name}",
            "labels": [int(label) for label in np.arange(PER_FILE) % 10],
            "data": random.integers(0, 256, (PER_FILE, 3072), dtype=np.uint8),
            "filenames": [f"{name}_{index}.png" for index in range(PER_FILE)],
        }
        (folder / name).write_bytes(pickle.dumps(batches[name], protocol=protocol))
    return batches
