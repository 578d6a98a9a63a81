"""`edgeopt why`: a network broken on purpose in one layer, and what of it is found in each runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim, ExportedProgram, export
from torch.fx import GraphModule

from edgeopt.errors import NothingChangedError
from edgeopt.export.make import make_artifact
from edgeopt.plugins import ExporterPlugin, Form, ModelState, Role, TapRequest, Use
from edgeopt.plugins.registry import Registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks import TASKS
from edgeopt.testing.values import ArraySplit
from edgeopt.why.table import Part
from edgeopt.why.worker import Looked, look_at

SIZE, CLASSES = 16, 5
RUNTIMES = ("onnx", "tflite", "executorch")


class Net(nn.Module):
    """Three blocks, the middle one in a residual, and a head. Whatever enters `second`, its first channel is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (
            nn.Conv2d(3, 12, 3, 2, 1),
            nn.Conv2d(12, 12, 3, 1, 1),
            nn.Conv2d(12, 16, 3, 2, 1),
        )
        self.head = nn.Linear(16, CLASSES)
        with torch.no_grad():
            self.first.weight[0] = 0
            self.first.bias[0] = -1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = x + torch.relu(self.second(x))
        x = torch.relu(self.third(x))
        return self.head(x.mean((2, 3)))


def program_of(net: nn.Module) -> ExportedProgram:
    return export(net.eval(), (torch.randn(2, 3, SIZE, SIZE),), dynamic_shapes=({0: Dim("batch")},))


def quantized(net: nn.Module) -> GraphModule:
    from edgeopt_executorch.quantizer import build_xnnpack
    from edgeopt_torchao.quantize.convert import convert
    from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq

    prepared = prepare_ptq(program_of(net), build_xnnpack(per_channel=True, qat=False), lambda _model: None)
    calibrate(prepared, iter([torch.from_numpy(preprocessing().normalize(drawn(64).images))]))
    return convert(prepared)


def preprocessing() -> Preprocessing:
    return Preprocessing(SIZE, resize=SIZE, crop=SIZE)


def drawn(count: int, seed: int = 3) -> ArraySplit:
    noise = np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return ArraySplit(noise, np.zeros(count, dtype=np.int64))


def state_of(program: ExportedProgram, precision: str = "int8") -> ModelState:
    names = tuple(map(str, range(CLASSES)))
    return ModelState(program, Form.PROGRAM, TASKS["classification"], names, preprocessing(), precision)


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


def exported(state: ModelState, runtime: str, registry: Registry, folder: Path) -> tuple[Use[ExporterPlugin], Path]:
    use = resolve(ExporterPlugin, runtime, {}, registry)
    made = make_artifact(
        use, state, folder, role=Role.OPTIMIZED, recipe={}, calibration=drawn(8), progress=Silent(), seed=0
    )
    return use, made.path


def looked(use: Use[ExporterPlugin], path: Path, state: ModelState, images: int = 12) -> Looked:
    folder = path.parent / "tapped"
    folder.mkdir(exist_ok=True)
    request = TapRequest(path, state, use.options, (), 1, folder)
    return look_at(use.plugin, request, drawn(images, seed=5), images, Silent())


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


def test_a_kernel_that_computes_something_else_is_blamed(sound: ModelState, registry: Registry, tmp_path: Path) -> None:
    """The file's weights of two channels have another sign, which its program knows nothing of: as if by its kernel."""
    import onnx
    from onnx import numpy_helper

    use, path = exported(sound, "onnx", registry, tmp_path)
    model = onnx.load(path)
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


def test_parts_add_up_to_the_error_of_a_single_layer(sound: ModelState, registry: Registry, tmp_path: Path) -> None:
    """The input's own error is all that there is at the input, and is that of its rounding."""
    found = looked(*exported(sound, "onnx", registry, tmp_path), sound)
    entering = found.layers[0]
    assert entering.total is not None
    assert entering.total.noise == pytest.approx(entering.activation.noise, rel=1e-6)
    assert entering.weights.noise == 0
    assert found.images == 12
    assert found.agreement > 0.5


def test_a_float_program_is_refused(registry: Registry, tmp_path: Path) -> None:
    state = state_of(program_of(Net()), "float32")
    use, path = exported(state, "onnx", registry, tmp_path)
    with pytest.raises(NothingChangedError, match=r"no layer of the program behind .* is rounded"):
        looked(use, path, state)
