"""Capture, prepare and convert: each keeps the function, says what it did, and refuses to do nothing."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from torch import nn
from torch.export import ExportedProgram

from edgeopt.errors import ExportError, FunctionChangedError, NothingChangedError
from edgeopt.networks.capture import capture, export_program
from edgeopt_executorch import quantizer
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_torchao.bits.int16_activations import WideningQuantizer
from edgeopt_torchao.bits.rules import BitRules, NarrowingQuantizer
from edgeopt_torchao.graph.batch_norm import BatchNorm
from edgeopt_torchao.graph.dropout import put_back_dropouts, take_out_dropouts
from edgeopt_torchao.graph.layers import count_quantized
from edgeopt_torchao.quantize.agreement import compare
from edgeopt_torchao.quantize.conversion_check import check_conversion
from edgeopt_torchao.quantize.convert import OPERATORS, convert
from edgeopt_torchao.quantize.freeze import freeze_batch_norm, freeze_observers
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq, prepare_qat
from edgeopt_torchvision.compat import import_torchvision

BATCHES = (1, 16)


class SmallNet(nn.Module):
    """Every case that folding knows: with and without a bias, depthwise, a residual, a BatchNorm of
    its own, dropout.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8, 1e-3, 0.01), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.Hardswish())
        self.pointwise = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8, affine=False))
        self.norm = nn.BatchNorm2d(8, 1e-2)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        x = x + self.pointwise(self.depthwise(x))
        return self.head(self.dropout(self.norm(x).mean((2, 3))))


def images(count: int = 8, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def with_statistics(module: nn.Module) -> nn.Module:
    """Untrained, but with BatchNorm statistics of the test's images, so that logits have a range."""
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.3, 0.3)
    with torch.no_grad():
        for seed in range(3):
            module.train()(images(16, seed=seed))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return module.eval()


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return with_statistics(SmallNet())


def mobilenet() -> nn.Module:
    torch.manual_seed(0)
    model = import_torchvision().models.mobilenet_v3_small(num_classes=10)
    for layer in model.classifier:
        if isinstance(layer, nn.Linear):  # torchvision's own initialization leaves all logits at about zero
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    return with_statistics(model)


def train(prepared: nn.Module, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.01)
    prepared.train()
    for seed in range(steps):
        logits = prepared(images(seed=seed))
        loss = nn.functional.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prepared.eval()


def batch_range(program: ExportedProgram) -> tuple[int, int]:
    """The smallest and the largest batch that `program` takes."""
    name = program.graph_signature.user_inputs[0]
    (node,) = (node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    batch = node.meta["val"].shape[0]
    if isinstance(batch, int):
        return batch, batch
    limits = program.range_constraints[batch.node.expr]
    return int(limits.lower), int(limits.upper)


@pytest.fixture(scope="module", params=[small_net, mobilenet], ids=["small-net", "mobilenet-v3-small"])
def trained(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """A float model and its quantization-aware model after three steps, in evaluation mode."""
    model = request.param()
    prepared = prepare_qat(capture(model, images(), BATCHES), build_xnnpack(per_channel=True, qat=True))
    train(prepared)
    return model, prepared


# ---- capture -------------------------------------------------------------------------------------------------------


def test_capture_keeps_the_function_at_any_batch_and_leaves_the_module_alone() -> None:
    model = small_net().to(memory_format=torch.channels_last).train()
    state = copy.deepcopy(model.state_dict())
    program = capture(model, images(1), BATCHES)
    assert model.training
    assert batch_range(program) == BATCHES
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not model.stem[0].weight.is_contiguous(), "the module's own layout changed"
    assert all(tensor.is_contiguous() for tensor in program.state_dict.values())
    model.eval()
    for batch in (1, 3, 16):
        assert compare(model, program.module(), [images(batch)]).relative_difference < 1e-5


def test_capture_refuses_a_program_that_computes_something_else() -> None:
    class Noisy(SmallNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) + torch.randn(images.shape[0], 1)

    with pytest.raises(FunctionChangedError, match="capturing Noisy changed"):
        capture(with_statistics(Noisy()), images(), BATCHES)


def test_capture_says_why_a_model_cannot_be_exported() -> None:
    class Branching(SmallNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) if images.sum() > 0 else images

    with pytest.raises(ExportError, match="Branching cannot be captured"):
        capture(Branching(), images(), BATCHES)
    with pytest.raises(ExportError, match=r"4\.\.2 is empty"):
        capture(small_net(), images(), (4, 2))


def test_a_fixed_batch_is_captured_too() -> None:
    assert batch_range(capture(small_net(), images(2), (1, 1))) == (1, 1)


# ---- post-training quantization ------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_channel", [True, False])
def test_post_training_quantization_stays_close(per_channel: bool) -> None:
    model = small_net()
    prepared = prepare_ptq(capture(model, images(), BATCHES), build_xnnpack(per_channel=per_channel, qat=False))
    assert calibrate(prepared, [images(8), images(4, seed=1)]) == 12
    program = export_program(convert(prepared), images(), BATCHES)
    agreement = compare(model, program.module(), [images(16)])
    assert 0 < agreement.relative_difference < 0.1
    counts = count_quantized(program)
    assert (counts.layers, counts.quantized, counts.float_layers) == (4, 4, ())


def test_ranges_that_saw_nothing_are_an_error() -> None:
    program = capture(small_net(), images(), BATCHES)
    prepared = prepare_ptq(program, build_xnnpack(per_channel=True, qat=False))
    with pytest.raises(ValueError, match="no image"):
        calibrate(prepared, [])
    with pytest.raises(NothingChangedError, match="never observed"):
        convert(prepared)
    with pytest.raises(NothingChangedError, match="never observed"):
        convert(prepare_qat(program, build_xnnpack(per_channel=True, qat=True)))


def test_a_quantizer_that_quantizes_nothing_is_an_error() -> None:
    program = capture(small_net(), images(), BATCHES)
    for prepare in (prepare_ptq, prepare_qat):
        with pytest.raises(NothingChangedError, match="found nothing"):
            prepare(program, XNNPACKQuantizer())
    with pytest.raises(NothingChangedError, match="none of the 4"):
        count_quantized(program)


class Upsampling(nn.Module):
    """Layers and transposed layers, each with and without a BatchNorm behind it."""

    def __init__(self, *, norm: bool, up_norm: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 8, 3), nn.BatchNorm2d(8) if up_norm else nn.Identity(), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.up(self.stem(images)).mean((2, 3)))


@pytest.mark.parametrize(("norm", "up_norm", "qat"), [(False, False, False), (True, False, True), (False, True, True)])
def test_patterns_that_cannot_match_change_nothing(
    norm: bool, up_norm: bool, qat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def annotations() -> list[object]:
        model = copy.deepcopy(graph)
        build_xnnpack(per_channel=True, qat=qat).annotate(model)
        return [(node.name, str(node.meta.get("quantization_annotation"))) for node in model.graph.nodes]

    graph = capture(Upsampling(norm=norm, up_norm=up_norm).eval(), images(), BATCHES).module()
    few = annotations()
    monkeypatch.setattr(quantizer, "_patterns_that_can_match", lambda _model: XNNPACKQuantizer.SUPPORTED_PATTERNS)
    assert few == annotations()
    assert sum("input_qspec_map={}" not in each for _, each in few if each != "None") >= 2


def test_layers_left_in_float_are_named() -> None:
    quantizer = build_xnnpack(per_channel=True, qat=False)
    quantizer.set_filter_function(lambda node: "stem" not in str(node.meta.get("nn_module_stack", "")))
    prepared = prepare_ptq(capture(small_net(), images(), BATCHES), quantizer)
    calibrate(prepared, [images()])
    counts = count_quantized(export_program(convert(prepared), images(), BATCHES))
    assert (counts.layers, counts.quantized, counts.float_layers) == (4, 3, ("stem.0",))


# ---- quantization-aware training -----------------------------------------------------------------------------------


def test_names_and_batch_norm_constants_survive_preparation(trained: tuple[nn.Module, nn.Module]) -> None:
    model, prepared = trained
    assert set(model.state_dict()) <= set(prepared.state_dict())
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in prepared.named_parameters()}
    for name, norm in model.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            ours = prepared.get_submodule(name)
            assert isinstance(ours, BatchNorm)
            assert (ours.eps, ours.momentum) == (norm.eps, norm.momentum)
            assert ours.num_batches_tracked == norm.num_batches_tracked + 3


def test_every_parameter_learns_and_the_input_program_is_left_alone() -> None:
    model = small_net()
    program = capture(model, images(), BATCHES)
    prepared = prepare_qat(program, build_xnnpack(per_channel=True, qat=True))
    train(prepared)
    assert all(parameter.grad is not None for parameter in prepared.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, program.state_dict[name]), name
    for name, value in model.named_parameters():
        if name != "depthwise.0.bias":  # the BatchNorm behind it takes it away, so that its gradient is rounding alone
            assert not torch.equal(value, prepared.state_dict()[name]), name


def test_evaluation_moves_nothing_and_training_does(trained: tuple[nn.Module, nn.Module]) -> None:
    prepared = copy.deepcopy(trained[1])
    before = copy.deepcopy(prepared.state_dict())
    with torch.no_grad():
        prepared.eval()
        first = prepared(5 * images(seed=7))
        assert torch.equal(first, prepared(5 * images(seed=7))), "dropout is active in evaluation"
        assert all(torch.equal(value, before[name]) for name, value in prepared.state_dict().items())
        prepared.train()
        assert not torch.equal(prepared(images()), prepared(images())), "dropout is not active in training"
        moved = {name for name, value in prepared.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.endswith("running_var") for name in moved)
    assert any(name.endswith("activation_post_process.max_val") for name in moved)


def test_conversion_computes_what_was_trained(trained: tuple[nn.Module, nn.Module]) -> None:
    model, prepared = trained
    before = copy.deepcopy(prepared.state_dict())
    converted = convert(prepared)
    assert all(torch.equal(value, before[name]) for name, value in prepared.state_dict().items())
    check_conversion(prepared, converted, [images(16, seed=9)]).require_equal()
    # A value between two integers falls to either side, which later layers amplify: some images answer otherwise, and
    # with a wrong layer all would.
    with torch.no_grad():
        apart = (prepared(images(64, seed=9)) - converted(images(64, seed=9))).abs().amax(dim=1)
    assert (apart < 1e-4).double().mean() > 0.75

    program = export_program(converted, images(), BATCHES)
    counts = count_quantized(program)
    weighted = [child for child in model.modules() if isinstance(child, (nn.Conv2d, nn.Linear))]
    assert counts.quantized == counts.layers == len(weighted)
    assert compare(converted, program.module(), [images(3)]).relative_difference < 1e-5


def test_a_channel_whose_batch_norm_weight_is_zero_trains_and_folds() -> None:
    model = small_net()
    nn.init.zeros_(model.stem[1].weight)
    with torch.no_grad():
        model.depthwise[1].weight[0] = -model.depthwise[1].weight[0]
    prepared = prepare_qat(capture(model, images(), BATCHES), build_xnnpack(per_channel=True, qat=True))
    prepared.train()(images()).sum().backward()
    gradient = prepared.get_submodule("stem.1").weight.grad
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0
    assert compare(prepared.eval(), convert(prepared), [images()]).relative_difference < 0.02


def test_one_weight_read_by_two_layers_still_converts() -> None:
    class Tied(SmallNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = self.stem(images)
            x = self.norm(self.pointwise[0](self.pointwise(x)))
            return self.head(self.dropout(x.mean((2, 3))))

    torch.manual_seed(0)
    prepared = prepare_qat(
        capture(with_statistics(Tied()), images(), BATCHES), build_xnnpack(per_channel=True, qat=True)
    )
    train(prepared)
    assert compare(prepared, convert(prepared), [images()]).relative_difference < 0.02


def test_calibration_drops_nothing_and_moves_no_statistics() -> None:
    program = capture(small_net(), images(), BATCHES)
    prepared = prepare_ptq(program, build_xnnpack(per_channel=True, qat=False))
    before = {name: value.clone() for name, value in prepared.state_dict().items() if "running" in name}
    assert before, "there is no BatchNorm of its own left to test with"
    expected = program.module()(images())
    calibrate(prepared, [images()])
    assert torch.allclose(prepared(images()), expected, atol=1e-5)
    after = prepared.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


class Drops(nn.Module):
    """A Dropout before a reshape, as in Inception, before a sum, as in Swin, read twice, in a row, in a list and at the
    end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(16, 5)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = nn.functional.adaptive_avg_pool2d(nn.functional.dropout2d(self.convolution(images), 0.2, self.training), 1)
        x = torch.flatten(self.dropout(x), 1)
        x = x + self.dropout(self.layers[0](x))
        x = self.layers[1](twice := self.dropout(x)) + twice
        x = torch.cat([x, self.dropout(self.dropout(self.layers[2](x)))], 1)
        return self.dropout(self.head(x))


def test_dropouts_that_were_put_back_draw_what_they_drew_before() -> None:
    torch.manual_seed(0)
    model = Drops()
    graph = capture(model.eval(), images(), BATCHES).module()
    taken = take_out_dropouts(graph)
    assert len(taken) == 7
    assert not any("dropout" in str(node.target) for node in graph.graph.nodes)
    assert torch.equal(graph(images()), model(images()))
    put_back_dropouts(graph, taken)
    for module in (model, graph):
        nn.Module.train(module)
    torch.manual_seed(1)
    expected = model(images())
    torch.manual_seed(1)
    assert torch.equal(graph(images()), expected)
    assert (expected == 0).any() and not (expected == 0).all()


@pytest.mark.parametrize("qat", [True, False])
def test_what_a_dropout_leaves_is_rounded_once(qat: bool) -> None:
    torch.manual_seed(0)
    program = capture(Drops().eval(), images(), BATCHES)
    prepared = (prepare_qat if qat else prepare_ptq)(program, build_xnnpack(per_channel=True, qat=qat))
    if qat:
        assert not torch.equal(prepared(images()), prepared(images())), "dropout is not active in training"
        train(prepared, steps=30)
    else:
        calibrate(prepared, [images()])
    converted = convert(prepared)
    assert compare(prepared, converted, [images()]).relative_difference < 0.02
    rounded = 0
    for node in converted.graph.nodes:
        if node.target is not torch.ops.quantized_decomposed.quantize_per_tensor.default:
            continue
        rounded += 1
        given = node.args[0]
        assert "dequantize" not in str(given.target), node
        if "flatten" in str(given.target):
            assert given.args[0].args[1:] == node.args[1:], "a reshape changed the range"
    assert rounded > 8


@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_per_tensor_and_per_channel_convert_to_what_was_trained(per_channel: bool) -> None:
    prepared = prepare_qat(capture(small_net(), images(), BATCHES), build_xnnpack(per_channel=per_channel, qat=True))
    train(prepared)
    assert compare(prepared, convert(prepared), [images(16)]).relative_difference < 0.02


# ---- freezing ------------------------------------------------------------------------------------------------------


def test_freezing_counts_what_it_froze_and_holds_it(trained: tuple[nn.Module, nn.Module]) -> None:
    model, prepared = trained[0], copy.deepcopy(trained[1])
    norms = sum(isinstance(child, nn.BatchNorm2d) for child in model.modules())
    switches = {value.data_ptr() for name, value in prepared.state_dict().items() if "observer_enabled" in name}
    quantizers = len(switches)  # some are shared under several names
    assert freeze_observers(prepared) == quantizers > 10
    assert freeze_batch_norm(prepared) == norms > 0
    before = copy.deepcopy(prepared.state_dict())
    train(prepared, steps=1)
    for name, value in prepared.state_dict().items():
        if "running_" in name or "num_batches" in name or "activation_post_process" in name:
            assert torch.equal(value, before[name]), name
    weights = [name for name, _ in prepared.named_parameters()]
    assert all(not torch.equal(prepared.state_dict()[name], before[name]) for name in weights)
    assert (freeze_observers(prepared), freeze_batch_norm(prepared)) == (quantizers, norms)


def test_freezing_what_cannot_be_frozen_is_an_error() -> None:
    model = small_net()
    with pytest.raises(NothingChangedError, match="no fake quantizer"):
        freeze_observers(model)
    with pytest.raises(NothingChangedError, match="4 of 4"):
        freeze_batch_norm(model)
    with pytest.raises(NothingChangedError, match="4 of 4"):
        freeze_batch_norm(torch.export.export(model.train(), (images(),)).module())
    assert freeze_batch_norm(nn.Linear(2, 2)) == 0


# ---- saving --------------------------------------------------------------------------------------------------------


def test_a_program_comes_back_in_a_fresh_process(tmp_path: Path) -> None:
    prepared = prepare_ptq(capture(small_net(), images(), BATCHES), build_xnnpack(per_channel=True, qat=False))
    calibrate(prepared, [images()])
    program = export_program(convert(prepared), images(), BATCHES)
    torch.export.save(program, tmp_path / "program.pt2")
    torch.save((images(3), program.module()(images(3))), tmp_path / "expected.pt")
    code = (
        f"import importlib, torch; [importlib.import_module(name) for name in {OPERATORS!r}]\n"
        "pixels, expected = torch.load('expected.pt', weights_only=True)\n"
        "assert torch.equal(torch.export.load('program.pt2').module()(pixels), expected)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr


def test_export_program_gives_the_module_as_it_stands() -> None:
    program = export_program(small_net(), images(), BATCHES)
    assert any(node.target is torch.ops.aten.batch_norm.default for node in program.graph.nodes)


def test_what_is_around_a_quantizer_hands_on_what_it_does_not_change() -> None:
    """A target's own quantizer may take part in each step that torchao has."""
    asked = []

    class Asked(XNNPACKQuantizer):
        def transform_for_annotation(self, model):
            asked.append("transform")
            return model

        def validate(self, model):
            asked.append("validate")

        def prepare_obs_or_fq_callback(self, model, edge_or_node_to_obs_or_fq):
            asked.append("prepare")

    config = get_symmetric_quantization_config(is_per_channel=True)
    around = WideningQuantizer(NarrowingQuantizer(Asked().set_global(config), BitRules()))
    prepare_ptq(capture(small_net(), images(), BATCHES), around)
    assert asked == ["transform", "validate", "prepare"]
