"""What `converting_plugin` saves and loads; a module of its own, as a plugin given by its file has
no name to import.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def random_model(classes: int, size: int) -> Any:
    import numpy as np

    return _model(np.random.default_rng(0).standard_normal((classes, 3 * size * size)).astype(np.float32))


def load(folder: Path) -> Any:
    import numpy as np

    return _model(np.load(folder / "weight.npy"))


def _model(weight: Any) -> Any:
    from converting_plugin import AbacusModel

    return AbacusModel(weight)
