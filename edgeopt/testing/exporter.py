"""What an exporter must keep."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from edgeopt.export.make import make_artifact
from edgeopt.measure.answers import feeder
from edgeopt.networks.capture import program_logits
from edgeopt.plugins.declarations import ExporterPlugin, Plugin
from edgeopt.plugins.use import Use
from edgeopt.progress import Silent
from edgeopt.testing.contracts import PluginContract
from edgeopt.testing.states import weights_digest
from edgeopt.testing.values import ArraySplit, tiny_data, tiny_program
from edgeopt.types import ExportResult, ModelState, Role, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeopt.arrays import Logits, Pixels

_IMAGES = 7


class ExporterContract(PluginContract):
    """Subclass it, set `name` and `options`; override `state` to export another program, such as a quantized one.

    `tolerance` bounds the largest difference between file and program, as a share of the logits' range; int8 kernels
    round in other places than PyTorch's arithmetic does, so a quantized program needs a larger one.
    """

    kind: ClassVar[type[Plugin]] = ExporterPlugin
    tolerance: ClassVar[float] = 1e-3

    @pytest.fixture(scope="class")
    @classmethod
    def state(cls) -> ModelState:
        """The program to export."""
        return tiny_program()

    @pytest.fixture(scope="class")
    @classmethod
    def before(cls, state: ModelState) -> str:
        """What the program's weights were before the export."""
        return weights_digest(state)

    @pytest.fixture(scope="class")
    @classmethod
    def exported(
        cls,
        use: Use[ExporterPlugin],
        state: ModelState,
        before: str,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> tuple[Path, ExportResult]:
        """The file, and what the exporter says of it."""
        assert before
        return export_file(use, state, tmp_path_factory.mktemp("export"))

    @pytest.fixture(scope="class")
    @classmethod
    def images(cls, state: ModelState) -> ArraySplit:
        """Noise that no exporter has seen."""
        size = state.preprocessing.image_size
        random = np.random.default_rng(1)
        noise = random.integers(0, 256, (_IMAGES, size, size, 3), dtype=np.uint8)
        return ArraySplit(noise, np.zeros(_IMAGES, dtype=np.int64))

    @pytest.fixture(scope="class")
    @classmethod
    def feed(cls, exported: tuple[Path, ExportResult], state: ModelState) -> Callable[[Pixels], Any]:
        """What makes a batch for the file's predictor of images, as a run does it."""
        return feeder(exported[1].input.holds, state.preprocessing)

    @pytest.fixture(scope="class")
    @classmethod
    def expected(cls, state: ModelState, images: ArraySplit) -> Logits:
        """What the program answers."""
        return program_logits(state, images, Silent(), "program")

    def test_writes_one_file_where_it_is_told(self, exported: tuple[Path, ExportResult]) -> None:
        path, result = exported
        assert path.stat().st_size > 0
        written = {file.name for file in path.parent.iterdir()}
        assert written == {path.name, *result.companions}, "files beside the artifact are left over"

    def test_describes_input_and_output(self, exported: tuple[Path, ExportResult], state: ModelState) -> None:
        _, result = exported
        for info in (result.input, result.output):
            assert isinstance(info, TensorInfo)
            assert info.name
            assert info.layout
            np.dtype(info.dtype)  # raises for a name that is no type
            is_integer = np.issubdtype(np.dtype(info.dtype), np.integer) and info.holds == "values"
            assert is_integer == (info.scale is not None), "scale and zero_point belong to integers, and only to them"
            assert is_integer == (info.zero_point is not None)
        assert sorted(size for size in result.input.shape[1:] if isinstance(size, int)) == sorted(state.input_shape)
        assert result.output.shape[-1] == len(state.classes)
        assert result.delegated_share is None or 0.0 <= result.delegated_share <= 1.0
        json.dumps(result.facts)

    @pytest.mark.parametrize("batch_size", [1, 3, _IMAGES])
    def test_file_agrees_with_program(
        self,
        use: Use[ExporterPlugin],
        exported: tuple[Path, ExportResult],
        state: ModelState,
        images: ArraySplit,
        feed: Callable[[Pixels], Any],
        expected: Logits,
        batch_size: int,
    ) -> None:
        """In its own runtime, for any number of images at once."""
        predictor = use.plugin.open(exported[0], 1)
        logits = predictor.predict(feed(images.pixels(slice(0, batch_size))))
        assert logits.shape == (batch_size, len(state.classes))
        assert logits.dtype == np.float32
        limit = self.tolerance * float(np.ptp(expected))
        assert float(np.abs(logits - expected[:batch_size]).max()) <= limit

    def test_prediction_leaves_the_batch_alone_and_repeats(
        self,
        use: Use[ExporterPlugin],
        exported: tuple[Path, ExportResult],
        images: ArraySplit,
        feed: Callable[[Pixels], Any],
    ) -> None:
        predictor = use.plugin.open(exported[0], 1)
        batch = feed(images.pixels(slice(0, 2)))
        copy = batch.copy()
        first = predictor.predict(batch).copy()
        predictor.predict(feed(images.pixels(slice(2, 4))))
        assert np.array_equal(batch, copy)
        assert np.array_equal(predictor.predict(batch), first)

    def test_same_program_gives_the_same_bytes(
        self, use: Use[ExporterPlugin], state: ModelState, exported: tuple[Path, ExportResult], tmp_path: Path
    ) -> None:
        again, _ = export_file(use, state, tmp_path)
        assert _sha256(again) == _sha256(exported[0])

    def test_leaves_the_program_alone(
        self, state: ModelState, before: str, exported: tuple[Path, ExportResult]
    ) -> None:
        assert exported
        assert weights_digest(state) == before

    def test_half_a_file_is_refused(
        self, use: Use[ExporterPlugin], exported: tuple[Path, ExportResult], tmp_path: Path
    ) -> None:
        """A damaged file is a `UserError`, not a crash of the process that opens it."""
        damaged = tmp_path / f"model{use.plugin.suffix}"
        content = exported[0].read_bytes()
        damaged.write_bytes(content[: len(content) // 2])
        files = [str(file) for file in self.plugin_files]
        program = f"""
import sys
from pathlib import Path
from edgeopt.errors import UserError
from edgeopt.plugins import ExporterPlugin
from edgeopt.plugins.registry import load_registry
plugin = load_registry(map(Path, {files!r})).get(ExporterPlugin, {self.name!r})
try:
    plugin.open(Path({str(damaged)!r}), 1)
except UserError:
    sys.exit(42)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 42, f"open() ended with {done.returncode} instead of a UserError:\n{done.stderr}"


def export_file(use: Use[ExporterPlugin], state: ModelState, folder: Path) -> tuple[Path, ExportResult]:
    """Exports into `folder` as a run does it."""
    made = make_artifact(
        use,
        state,
        folder,
        role=Role.BASELINE,
        recipe={"name": "contract", "seed": 0},
        calibration=tiny_data(image_size=state.preprocessing.image_size).calibration,  # whose labels no exporter reads
        progress=Silent(),
        seed=0,
    )
    assert isinstance(made.exported, ExportResult)
    return made.path, made.exported


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
