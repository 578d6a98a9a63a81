"""What a reader of model files must keep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from edgeopt.networks.capture import program_outputs
from edgeopt.plugins.declarations import Plugin, ReaderPlugin
from edgeopt.plugins.use import Use
from edgeopt.progress import Silent
from edgeopt.testing.contracts import PluginContract
from edgeopt.testing.values import ArraySplit
from edgeopt.types import ModelState

_IMAGES = 3


class ReaderContract(PluginContract):
    """Subclass it, set `name`, and override `write`, which makes a small model file to read."""

    kind: ClassVar[type[Plugin]] = ReaderPlugin

    @classmethod
    def write(cls, folder: Path) -> Path:
        """Writes a model of one image and its logits into `folder` and returns the file."""
        raise NotImplementedError("override `write` with a way to make a small model file")

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The model file."""
        return cls.write(tmp_path_factory.mktemp("source"))

    @pytest.fixture(scope="class")
    @classmethod
    def state(cls, use: Use[ReaderPlugin], source: Path) -> ModelState:
        """What the reader gives for it."""
        return use.plugin.read(source, use.options)

    def test_reads_a_model_that_answers(self, use: Use[ReaderPlugin], state: ModelState) -> None:
        assert isinstance(state, ModelState)
        assert state.framework == use.plugin.framework
        shape = (_IMAGES, *state.preprocessing.shape)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        split = ArraySplit(images, np.zeros(_IMAGES, dtype=np.int64))
        logits, *others = program_outputs(state, split, Silent(), "source")
        assert len(others) == len(state.output_names) - 1, "its outputs are not those that it names"
        assert logits.shape == (_IMAGES, len(state.classes))
        assert logits.dtype == np.float32
        assert np.isfinite(logits).all()
        assert len(np.unique(logits, axis=0)) > 1, "every image has the same answer"

    def test_ending_is_declared(self, use: Use[ReaderPlugin], source: Path) -> None:
        assert ("/" if source.is_dir() else source.suffix) in use.plugin.suffixes

    def test_a_damaged_file_is_refused(self, source: Path, tmp_path: Path) -> None:
        """A damaged file is a `UserError`, not a crash of the process that reads it."""
        damaged = tmp_path / source.name
        if source.is_dir():
            damaged.mkdir()
        else:
            content = source.read_bytes()
            damaged.write_bytes(content[: len(content) // 2])
        files = [str(file) for file in self.plugin_files]
        program = f"""
import os
from pathlib import Path
from edgeopt.errors import UserError
from edgeopt.recipe.lookup import resolve
from edgeopt.plugins import ReaderPlugin
from edgeopt.plugins.registry import load_registry
use = resolve(ReaderPlugin, {self.name!r}, {dict(self.options)!r}, load_registry(map(Path, {files!r})))
try:
    use.plugin.read(Path({str(damaged)!r}), use.options)
except UserError:
    os._exit(42)  # at once: taking torch apart takes long
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 42, f"read() ended with {done.returncode} instead of a UserError:\n{done.stderr}"
