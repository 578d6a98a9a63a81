"""What an exporter must keep."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from edgeopt.arrays import InputKind, of_images
from edgeopt.errors import RecipeError, UserError
from edgeopt.export.make import make_artifact
from edgeopt.fingerprint import file_digest
from edgeopt.measure.answers import feeder
from edgeopt.networks.capture import program_outputs, to_program
from edgeopt.options import ExporterOptions
from edgeopt.plugins.declarations import ExporterPlugin, Numerics, Plugin, QuantizerPlugin
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.use import Use
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.testing.accelerators import AskedOfAccelerators
from edgeopt.testing.answers import NEIGHBOURS, ROUNDING, filled, require_close, require_shown
from edgeopt.testing.on_device import AnswersOnDevices
from edgeopt.testing.states import state_digest
from edgeopt.testing.values import (
    ArraySplit,
    require_own_state,
    tiny_data,
    tiny_int8_program,
    tiny_program,
    tiny_two_outputs,
)
from edgeopt.types import TORCH, ExportResult, ModelState, Role, TensorInfo, TrainingData

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeopt.arrays import Outputs, Pixels

_IMAGES = 7


class ExporterContract(AnswersOnDevices, AskedOfAccelerators):
    """Subclass it, set `name` and `options`; override `state` to export another program, such as a quantized one. An
    exporter of another framework than PyTorch is given one of its models by `state`.

    `tolerance` bounds the largest difference between file and program, as a share of the logits' range; int8 kernels
    round in other places than PyTorch's arithmetic does, so a quantized program needs a larger one, `int8_tolerance`.

    What a runtime cannot do is said by these attributes, and held then: `takes_int8`, `takes_pixels` and, for programs
    of several outputs, `takes_outputs` are False where it refuses such programs, `fixed_batch` is the one number of
    images that its files take, and `same_bytes` is False where two exports of one program differ in their bytes.
    `int8_quantizer` makes the int8 program. Where an image's answer depends on the others in the call, the exporter
    says so itself: `ExportResult(batch_dependent=True)`.
    """

    kind: ClassVar[type[Plugin]] = ExporterPlugin
    tolerance: ClassVar[float] = 1e-3
    int8_tolerance: ClassVar[float] = 0.05
    int8_quantizer: ClassVar[str] = "xnnpack-symmetric"
    takes_int8: ClassVar[bool] = True
    takes_pixels: ClassVar[bool] = True
    takes_outputs: ClassVar[bool] = True
    same_bytes: ClassVar[bool] = True

    @pytest.fixture(scope="class")
    @classmethod
    def state(cls, use: Use[ExporterPlugin]) -> ModelState:
        """The program to export."""
        require_own_state(use)
        return tiny_program()

    @pytest.fixture(scope="class")
    @classmethod
    def before(cls, state: ModelState) -> str:
        """What the program's weights were before the export."""
        return state_digest(state)

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
        shape = state.preprocessing.shape
        random = np.random.default_rng(1)
        noise = random.integers(0, 256, (_IMAGES, *shape), dtype=np.uint8)
        return ArraySplit(noise, np.zeros(_IMAGES, dtype=np.int64))

    @pytest.fixture(scope="class")
    @classmethod
    def feed(cls, exported: tuple[Path, ExportResult], state: ModelState) -> Callable[[Pixels], Any]:
        """What makes a batch for the file's predictor of images, as a run does it."""
        return feeder(exported[1].input.holds, state.preprocessing)

    @pytest.fixture(scope="class")
    @classmethod
    def expected(cls, state: ModelState, images: ArraySplit) -> Outputs:
        """What the program answers."""
        return program_outputs(state, images, Silent(), "program")

    def test_writes_one_file_where_it_is_told(
        self, use: Use[ExporterPlugin], exported: tuple[Path, ExportResult]
    ) -> None:
        path, result = exported
        assert path.stat().st_size > 0
        written = {file.name for file in path.parent.iterdir()}
        assert written == {path.name, *result.companions, *result.beside}, "files beside the artifact are left over"
        said = "ExporterPlugin.companions names other files than ExportResult.companions"
        assert [part.name for part in use.plugin.parts(path)[1:]] == [*result.companions], said

    def test_describes_input_and_output(self, exported: tuple[Path, ExportResult], state: ModelState) -> None:
        _, result = exported
        for info in (result.input, *result.outputs):
            assert isinstance(info, TensorInfo)
            assert info.name
            assert info.layout
            np.dtype(info.dtype)  # raises for a name that is no type
            is_integer = np.issubdtype(np.dtype(info.dtype), np.integer) and info.holds == "values"
            assert is_integer == (info.scale is not None), "scale and zero_point belong to integers, and only to them"
            assert is_integer == (info.zero_point is not None)
        assert sorted(size for size in result.input.shape[1:] if isinstance(size, int)) == sorted(state.input_shape)
        assert len(result.outputs) == len(state.output_names)
        assert result.outputs[0].shape[-1] == len(state.classes)
        assert result.delegated_share is None or 0.0 <= result.delegated_share <= 1.0
        json.dumps(result.facts)

    def test_footprint_is_as_declared(self, use: Use[ExporterPlugin], exported: tuple[Path, ExportResult]) -> None:
        assert (exported[1].footprint is not None) == use.plugin.tells_footprint, "gates on RAM and flash go by this"

    @pytest.mark.parametrize("batch_size", [1, 3, _IMAGES])
    def test_file_agrees_with_program(
        self,
        use: Use[ExporterPlugin],
        exported: tuple[Path, ExportResult],
        state: ModelState,
        images: ArraySplit,
        feed: Callable[[Pixels], Any],
        expected: Outputs,
        batch_size: int,
    ) -> None:
        """In its own runtime, for any number of images at once; with a `fixed_batch`, others are answered as rightly
        or refused.
        """
        with use.plugin.opened(exported[0], 1) as predictor:
            try:
                outputs = predictor.predict(feed(images.pixels(slice(0, batch_size))))
            except Exception:  # each runtime refuses in its own way
                if self.fixed_batch in (None, batch_size):
                    raise
                return
        assert isinstance(outputs, tuple), "predict() gives a tuple with an array for each output"
        assert outputs[0].shape == (batch_size, len(state.classes))
        assert outputs[0].dtype == np.float32
        require_close(outputs, of_images(expected, slice(batch_size)), expected, self.tolerance)

    def test_file_agrees_in_calls_of_its_fixed_batch(
        self,
        use: Use[ExporterPlugin],
        exported: tuple[Path, ExportResult],
        images: ArraySplit,
        feed: Callable[[Pixels], Any],
        expected: Outputs,
    ) -> None:
        """Where there is one: its input says so, and each image of a call is answered as the program does."""
        if self.fixed_batch is None:
            pytest.skip("files of this runtime take any number of images at once")
        said = exported[1].input.shape[0]
        assert said == self.fixed_batch, f"the input says that it takes {said} images, not {self.fixed_batch}"
        chosen = [image % _IMAGES for image in range(self.fixed_batch)]
        with use.plugin.opened(exported[0], 1) as predictor:
            outputs = predictor.predict(feed(images.pixels(chosen)))
        require_close(outputs, of_images(expected, chosen), expected, self.tolerance)

    def test_prediction_leaves_the_batch_alone_and_repeats(
        self,
        use: Use[ExporterPlugin],
        exported: tuple[Path, ExportResult],
        images: ArraySplit,
        feed: Callable[[Pixels], Any],
    ) -> None:
        count = self.fixed_batch or 2
        with use.plugin.opened(exported[0], 1) as predictor:
            batch = feed(images.pixels([image % _IMAGES for image in range(count)]))
            copy = batch.copy()
            first = [each.copy() for each in predictor.predict(batch)]
            predictor.predict(feed(images.pixels([(image + 3) % _IMAGES for image in range(count)])))
            assert np.array_equal(batch, copy), "predict() wrote into the batch that it was given"
            second = predictor.predict(batch)
            assert all(map(np.array_equal, second, first)), "the same batch gives other answers the second time"

    def test_answer_does_not_depend_on_neighbours(
        self,
        use: Use[ExporterPlugin],
        exported: tuple[Path, ExportResult],
        images: ArraySplit,
        feed: Callable[[Pixels], Any],
        expected: Outputs,
    ) -> None:
        """A dim image beside others like it, beside glaring ones and, where the file takes it, alone."""
        if exported[1].batch_dependent:
            pytest.skip("the exporter says of this file that an image's answer depends on the others in the call")
        dim = images.images[:NEIGHBOURS] // 16 + 100
        glaring = np.concatenate([dim[:1], images.images[1:NEIGHBOURS] // 128 * 255])
        calls = [dim, glaring] if self.fixed_batch else [dim, glaring, dim[:1]]
        with use.plugin.opened(exported[0], 1) as predictor:
            answers = [np.array(predictor.predict(feed(filled(call, self.fixed_batch)))[0][:1]) for call in calls]
        for answer in answers[1:]:
            share = float(np.abs(answer - answers[0]).max() / np.ptp(expected[0]))
            assert share <= ROUNDING, (
                f"the logits of an image move by {share:.3g} of their range with its neighbours: "
                "say ExportResult(batch_dependent=True)"
            )

    def test_same_program_gives_the_same_bytes(
        self, use: Use[ExporterPlugin], state: ModelState, exported: tuple[Path, ExportResult], tmp_path: Path
    ) -> None:
        """Of the file, and of every file that it needs."""
        if not self.same_bytes:
            pytest.skip("the contract's subclass says that the bytes of two exports differ")
        again, result = export_file(use, state, tmp_path)
        assert result.companions == exported[1].companions, "two exports of one program name other companions"
        for first, second in zip(use.plugin.parts(exported[0]), use.plugin.parts(again), strict=True):
            assert file_digest(first) == file_digest(second), (
                f"two exports of one program write other bytes into {first.name}"
            )

    def test_takes_pixels(self, use: Use[ExporterPlugin], registry: Registry, tmp_path: Path) -> None:
        """A file whose input is `{ kind = "uint8-nhwc" }` normalizes by itself."""
        self._skip_where_the_program_is_given()
        if not isinstance(use.options, ExporterOptions):
            pytest.skip("its options do not extend ExporterOptions, so that no recipe can ask for pixels")
        wanted = {**self.options, "input": {"kind": InputKind.UINT8_NHWC.value}}
        self._export_and_compare(
            resolve(ExporterPlugin, self.name, wanted, registry),
            tiny_program(),
            tmp_path,
            {"takes_pixels": self.takes_pixels},
        )

    def test_takes_an_int8_program(self, use: Use[ExporterPlugin], registry: Registry, tmp_path: Path) -> None:
        """It answers as the program does, or `check` refuses the quantizer before anything runs."""
        self._skip_where_the_program_is_given()
        if use.plugin.framework != TORCH:
            pytest.skip("a program in int8 is one of PyTorch")
        quantizer = registry.get(QuantizerPlugin, self.int8_quantizer)
        if use.plugin.check and (problems := list(use.plugin.check(use.options, Numerics((quantizer,))))):
            assert not self.takes_int8, f"check() refuses int8 ({problems[0].message}): set takes_int8 = False"
            return
        try:
            state = tiny_int8_program(quantizer=self.int8_quantizer)
        except RecipeError as error:
            pytest.skip(str(error))
        path = self._export_and_compare(use, state, tmp_path, {"takes_int8": self.takes_int8}, self.int8_tolerance)
        if path is not None and use.plugin.tap is not None:
            require_shown(use, state, path)

    @pytest.mark.parametrize("precision", ["float", "int8"])
    def test_takes_a_program_of_two_outputs(
        self, use: Use[ExporterPlugin], registry: Registry, tmp_path: Path, precision: str
    ) -> None:
        """Outputs of other shapes, of the names and in the order that the state says, each as the program gives it."""
        self._skip_where_the_program_is_given()
        if use.plugin.framework != TORCH:
            pytest.skip("a program is one of PyTorch")
        if precision == "int8":
            quantizer = registry.get(QuantizerPlugin, self.int8_quantizer)
            if use.plugin.check and list(use.plugin.check(use.options, Numerics((quantizer,)))):
                pytest.skip("it takes no int8 program")
            state = tiny_int8_program(quantizer=self.int8_quantizer, two_outputs=True)
        else:
            state = to_program(tiny_two_outputs(), tiny_data().validation)
        declared = {"takes_outputs": self.takes_outputs} | (
            {"takes_int8": self.takes_int8} if precision == "int8" else {}
        )
        tolerance = self.int8_tolerance if precision == "int8" else self.tolerance
        path = self._export_and_compare(use, state, tmp_path, declared, tolerance)
        if path is not None and precision == "int8" and use.plugin.tap is not None:
            require_shown(use, state, path)

    def test_takes_a_program_of_one_image(self, use: Use[ExporterPlugin], tmp_path: Path) -> None:
        """A program that was captured for one image alone; an exporter with another `fixed_batch` may refuse it."""
        self._skip_where_the_program_is_given()
        if use.plugin.framework != TORCH:
            pytest.skip("a program is one of PyTorch")
        try:
            self._export_and_compare(use, tiny_program(largest_batch=1), tmp_path, {})
        except UserError:
            if self.fixed_batch in (None, 1):
                raise

    def _skip_where_the_program_is_given(self) -> None:
        classes = type(self).__mro__
        if any("state" in vars(each) for each in classes[: classes.index(ExporterContract)]):
            pytest.skip("the contract's subclass brings its own program")

    def _export_and_compare(
        self,
        use: Use[ExporterPlugin],
        state: ModelState,
        folder: Path,
        declared: Mapping[str, bool],
        tolerance: float | None = None,
    ) -> Path | None:
        """Exports, opens and compares, and returns the file; where the class declares that the exporter cannot, it must
        refuse.
        """
        if not all(declared.values()):
            with pytest.raises(UserError):
                export_file(use, state, folder)
            return None
        path, result = export_file(use, state, folder)
        shape = state.preprocessing.shape
        count = self.fixed_batch or min(2, state.batch_range[1])
        noise = np.random.default_rng(2).integers(0, 256, (count, *shape), dtype=np.uint8)
        expected = program_outputs(state, ArraySplit(noise, np.zeros(count, dtype=np.int64)), Silent(), "program")
        assert tuple(info.name for info in result.outputs) == state.output_names
        assert [info.shape[1:] for info in result.outputs] == [each.shape[1:] for each in expected]
        with use.plugin.opened(path, 1) as predictor:
            outputs = predictor.predict(feeder(result.input.holds, state.preprocessing)(noise))
        require_close(outputs, expected, expected, self.tolerance if tolerance is None else tolerance)
        return path

    def test_leaves_the_program_alone(
        self, state: ModelState, before: str, exported: tuple[Path, ExportResult]
    ) -> None:
        assert exported
        assert state_digest(state) == before

    def test_half_a_file_is_refused(
        self, use: Use[ExporterPlugin], exported: tuple[Path, ExportResult], tmp_path: Path
    ) -> None:
        """A damaged file is a `UserError`, not a crash of the process that opens it."""
        parts = use.plugin.parts(exported[0])
        for number, cut in enumerate(parts):
            folder = tmp_path / str(number)
            folder.mkdir()
            for file in parts:
                content = file.read_bytes()
                (folder / file.name).write_bytes(content[: len(content) // 2] if file == cut else content)
            self._require_refusal(folder / exported[0].name, cut.name)

    def _require_refusal(self, damaged: Path, cut: str) -> None:
        files = [str(file) for file in self.plugin_files]
        program = f"""
import os
from collections.abc import Mapping
from pathlib import Path
from edgeopt.errors import UserError
from edgeopt.plugins import ExporterPlugin
from edgeopt.plugins.registry import load_registry
plugin = load_registry(map(Path, {files!r})).get(ExporterPlugin, {self.name!r})
try:
    plugin.open(Path({str(damaged)!r}), 1)
except UserError:
    os._exit(42)  # at once: taking torch apart takes long
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 42, (
            f"with half of {cut}, open() ended with {done.returncode} instead of a UserError:\n{done.stderr}"
        )


def export_file(use: Use[ExporterPlugin], state: ModelState, folder: Path) -> tuple[Path, ExportResult]:
    """Exports into `folder` as a run does it."""
    made = make_artifact(
        use,
        state,
        folder,
        role=Role.BASELINE,
        recipe={"name": "contract", "seed": 0},
        calibration=_as_taken(state).calibration,  # whose labels no exporter reads
        progress=Silent(),
        seed=0,
    )
    assert isinstance(made.exported, ExportResult)
    return made.path, made.exported


def _as_taken(state: ModelState) -> TrainingData:
    """Data with images as a state takes them."""
    preprocessing = state.preprocessing
    return tiny_data(image_size=preprocessing.image_size, channels=1 if preprocessing.channels == 1 else 3)
