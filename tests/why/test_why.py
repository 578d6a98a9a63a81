"""`edgeopt why`: a network broken on purpose in one layer, and what of it is found in each runtime."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_PLUGIN
from typer.testing import CliRunner
from why.made import SIZE, Net, exported, finished_run, looked, program_of, quantized, state_of

from edgeopt.cli import app
from edgeopt.errors import NothingChangedError, UserError
from edgeopt.plugins import ExporterPlugin, ModelState, OperatorTimesRequest, Use
from edgeopt.plugins.registry import Registry
from edgeopt.recipe.lookup import resolve
from edgeopt.why.subject import find_subject
from edgeopt.why.table import Part

pytestmark = pytest.mark.usefixtures("imports_done_once")

RUNTIMES = ("onnx", "tflite", "executorch", "openvino")


@pytest.fixture(scope="module")
def sound() -> ModelState:
    torch.manual_seed(0)
    return state_of(program_of(quantized(Net())))


@pytest.fixture(scope="module")
def huge_weight() -> ModelState:
    """One weight of each channel of `second` is far larger than the others, and multiplies zeros."""
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        net.second.weight[:, 0] = 40.0
    return state_of(program_of(quantized(net)))


@pytest.fixture(scope="module")
def narrow_range() -> ModelState:
    """The result of `second` is cut off at an eighth of what it has, as after a calibration with dark images."""
    torch.manual_seed(0)
    model = quantized(Net())
    relu = [node for node in model.graph.nodes if "relu" in str(node.target)][1]
    (quantize,) = relu.users
    for node in (quantize, *quantize.users):
        node.args = (node.args[0], node.args[1] / 8, *node.args[2:])
    model.recompile()
    return state_of(program_of(model))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("broken", "part"), [("huge_weight", Part.WEIGHTS), ("narrow_range", Part.ACTIVATION)], ids=["weight", "range"]
)
def test_the_broken_layer_is_worst_and_the_right_part_to_blame(
    broken: str, part: Part, runtime: str, registry: Registry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    state = request.getfixturevalue(broken)
    found = looked(*exported(state, runtime, registry, tmp_path), state)
    worst = max(found.layers, key=lambda layer: layer.at_output.noise)
    assert (worst.name, worst.blame) == ("second", part)
    assert found.tap_changes == 0, "looking changes no answer"
    assert found.unseen == ()
    assert [layer.name for layer in found.layers if layer.is_layer] == ["first", "second", "third", "head"]
    assert found.layers[0].name == "input"
    by_name = {layer.name: layer for layer in found.layers}
    others = [layer for layer in found.layers if layer is not worst]
    assert sum(layer.at_output.noise for layer in others) < worst.at_output.noise
    if part is Part.ACTIVATION:
        assert worst.clipped > 0.1
        assert worst.range is not None
        assert worst.range[1] < worst.seen[1] / 2
    else:
        assert worst.weights.db is not None
        assert worst.weights.db < 20
    for layer in found.layers:
        assert layer.kernel is not None
        assert layer.kernel.db is None or layer.kernel.db > 40, "kernels round a sum otherwise at most"
    assert by_name["second"].total is not None
    assert by_name["second"].total.db < by_name["first"].total.db  # type: ignore[union-attr,operator]
    assert by_name["first"].readers == ("second",)


@pytest.fixture(scope="module")
def sound_file(
    sound: ModelState, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Use[ExporterPlugin], Path]:
    return exported(sound, "onnx", registry, tmp_path_factory.mktemp("sound"))


def test_a_kernel_that_computes_something_else_is_blamed(
    sound: ModelState, sound_file: tuple[Use[ExporterPlugin], Path], tmp_path: Path
) -> None:
    """The file's weights of two channels have another sign, which its program knows nothing of: as if by its kernel."""
    import onnx
    from onnx import numpy_helper

    use, path = sound_file[0], tmp_path / "model.onnx"
    model = onnx.load(sound_file[1])
    (weight,) = (each for each in model.graph.initializer if each.name.startswith("third") and len(each.dims) == 4)
    values = numpy_helper.to_array(weight).copy()
    values[3:5] *= -1
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
    found = looked(use, path, sound)
    worst = max(found.layers, key=lambda layer: layer.at_output.noise)
    assert (worst.name, worst.blame) == ("third", Part.KERNEL)
    assert found.unseen == ()
    assert all(layer.blame is not Part.KERNEL for layer in found.layers if layer is not worst), "only there"


def test_parts_add_up_to_the_error_of_a_single_layer(
    sound: ModelState, sound_file: tuple[Use[ExporterPlugin], Path]
) -> None:
    """The input's own error is all that there is at the input, and is that of its rounding."""
    found = looked(*sound_file, sound)
    entering = found.layers[0]
    assert entering.total is not None
    assert entering.total.noise == pytest.approx(entering.activation.noise, rel=1e-6)
    assert entering.weights.noise == 0
    assert found.images == 12
    assert found.agreement > 0.5


def test_a_float_program_is_refused(registry: Registry, tmp_path: Path) -> None:
    state = state_of(program_of(Net()), "float32")
    use = resolve(ExporterPlugin, "onnx", {}, registry)
    with pytest.raises(NothingChangedError, match=r"no layer of the program behind .* is rounded"):
        looked(use, tmp_path / "model.onnx", state)


def test_operators_of_both_files_are_known_as_the_same_layers(
    sound_file: tuple[Use[ExporterPlugin], Path], registry: Registry, tmp_path: Path
) -> None:
    """What ONNX Runtime fuses, splits and renames is still the layer whose weight it multiplies by."""
    torch.manual_seed(0)
    use, in_float = exported(state_of(program_of(Net()), "float32"), "onnx", registry, tmp_path)
    assert use.plugin.operator_times is not None
    batch = np.zeros((1, 3, SIZE, SIZE), np.float32)
    for path in (in_float, sound_file[1]):
        request = OperatorTimesRequest(path, batch, 1, 2, 5, tmp_path)
        found = use.plugin.operator_times(request)
        assert [each.layer for each in found if each.layer] == ["first", "second", "third", "head"]
        assert all(each.ms >= 0 for each in found)
        others = {each.kind for each in found if not each.layer}
        assert ("QuantizeLinear" in others) == (path == sound_file[1])


# ---- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(huge_weight: ModelState, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("runs"), huge_weight, registry)


def test_the_command_names_the_layer_and_a_line(run: Path) -> None:
    file = run / "onnx" / "optimized" / "model.onnx"
    result = CliRunner().invoke(app, ["why", str(file), "--images", "8", "--plugin", str(TINY_PLUGIN)])
    assert result.exit_code == 0, result.output
    assert "Worst is second" in result.stdout
    assert 'layer_bits = { "second" = "float" }' in result.stdout
    written = json.loads((file.parent / "why" / "why.json").read_text())
    assert (written["images"], written["precision"], written["tap_changes"]) == (8, "int8", 0.0)
    second = next(layer for layer in written["layers"] if layer["name"] == "second")
    assert second["blame"] == "weights"
    assert second["share_at_output"] > 0.5
    assert second["weights"]["sqnr_db"] < 20
    page = (file.parent / "why" / "why.html").read_text()
    assert page.count("<svg") == 2
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert page.index("first") < page.rindex('scope="row">second') < page.rindex('scope="row">third')


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("", "is a folder, and one file is looked at", "onnx/optimized/model.onnx"),
        ("onnx/optimized/model.tflite", "there is no such file", "RUN/EXPORT/optimized"),
        ("onnx/optimized/card.json", "is no file of the run", "onnx/optimized/model.onnx"),
        ("onnx/baseline/model.onnx", "is float32: nothing in it is rounded", "onnx/optimized/model.onnx"),
        ("half/optimized/model.onnx", "its exporter made float16 of a float program", "no pass has rounded it"),
        ("npz/optimized/model.npz", "exporter 'npz' shows no inner values", "onnx/optimized/model.onnx"),
    ],
)
def test_what_cannot_be_looked_at_says_what_to_do(
    run: Path, registry: Registry, name: str, message: str, hint: str
) -> None:
    with pytest.raises(UserError) as caught:
        find_subject(run / name, registry)
    (problem,) = caught.value.problems
    assert message in problem.message
    assert hint in (problem.hint or "")


def test_a_file_whose_run_kept_nothing_is_refused(run: Path, registry: Registry, tmp_path: Path) -> None:
    """The store is gone, and then the run's report too."""
    moved = tmp_path / "made"
    shutil.copytree(run, moved)
    with pytest.raises(UserError, match="has gone from") as caught:
        find_subject(moved / "onnx" / "optimized" / "model.onnx", registry)
    assert "run the recipe again" in str(caught.value.problems[0].hint)
    (moved / "report.json").unlink()
    with pytest.raises(UserError, match=r"there is no report.json"):
        find_subject(moved / "onnx" / "optimized" / "model.onnx", registry)


def test_a_file_that_ends_at_answers_is_refused(run: Path, registry: Registry, tmp_path: Path) -> None:
    moved = tmp_path / "made"
    shutil.copytree(run, moved)
    report = json.loads((moved / "report.json").read_text())
    report["recipe"]["resolved"]["exports"][0]["ends"] = "classes"
    (moved / "report.json").write_text(json.dumps(report))
    with pytest.raises(UserError, match='ends at "classes", and where a network errs is told by its outputs') as caught:
        find_subject(moved / "onnx" / "optimized" / "model.onnx", registry)
    assert "without `ends`" in str(caught.value.problems[0].hint)
