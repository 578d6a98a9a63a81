"""What a probe must keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from edgeopt.plugins.declarations import Plugin, ProbePlugin
from edgeopt.plugins.use import Use
from edgeopt.testing.contracts import PluginContract
from edgeopt.testing.values import tiny_data, tiny_program
from edgeopt.types import Probe, TrainingData

if TYPE_CHECKING:
    from torch import Tensor

    from edgeopt.sensitivity.network import Network


class ProbeContract(PluginContract):
    """Subclass it, set `name` and `options`; override `data` or `network` when the probe needs other ones."""

    kind: ClassVar[type[Plugin]] = ProbePlugin

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls) -> TrainingData:
        """Images to calibrate with."""
        return tiny_data()

    @pytest.fixture(scope="class")
    @classmethod
    def network(cls, data: TrainingData) -> Network:
        """The network whose layers are changed."""
        from edgeopt.sensitivity.network import Network  # torch, as below

        return Network(tiny_program(data).program)

    @pytest.fixture(scope="class")
    @classmethod
    def batch(cls, data: TrainingData) -> Tensor:
        """Calibration images as inputs."""
        import torch  # heavy: plugins of other frameworks are tested in processes without it

        return torch.from_numpy(data.preprocessing.normalize(data.calibration.pixels(range(4))))

    @pytest.fixture(scope="class")
    @classmethod
    def probe(cls, use: Use[ProbePlugin], network: Network, batch: Tensor) -> Probe:
        """The probe, ready for the network."""
        return use.plugin.prepare(network, lambda: [batch], use.options)

    def test_layers_are_the_networks_in_its_order(self, probe: Probe, network: Network) -> None:
        assert probe.layers
        assert list(probe.layers) == [name for name in network.layers if name in set(probe.layers)]

    def test_a_change_fits_its_layer(self, use: Use[ProbePlugin], probe: Probe, network: Network) -> None:
        import torch  # as above

        for name in probe.layers:
            weight = network.layers[name].weight
            before = weight.clone()
            for level in use.plugin.levels.default:
                change = probe.change(name, level)
                if change.weight is not None:
                    assert change.weight.shape == weight.shape
                    assert change.weight.dtype == weight.dtype
                    assert change.weight.isfinite().all()
            assert torch.equal(weight, before), f"the weight of {name} itself was changed"

    def test_every_level_changes_something(
        self, use: Use[ProbePlugin], probe: Probe, network: Network, batch: Tensor
    ) -> None:
        import torch  # as above

        with torch.inference_mode():
            (logits,) = network.outputs(batch)
            for level in use.plugin.levels.default:
                answers = [network.outputs(batch, {name: probe.change(name, level)})[0] for name in probe.layers]
                assert not all(torch.equal(answer, logits) for answer in answers), f"level {level:g} changes no layer"

    def test_a_change_repeats_and_leaves_its_input_alone(
        self, use: Use[ProbePlugin], probe: Probe, network: Network, batch: Tensor
    ) -> None:
        import torch  # as above

        level = use.plugin.levels.default[-1]
        entered: dict[str, Tensor] = {}

        def keep(name: str, entering: Tensor) -> None:
            entered[name] = entering.clone()

        network.watch([batch], keep)
        for name in probe.layers:
            first, second = probe.change(name, level), probe.change(name, level)
            assert (first.weight is None) == (second.weight is None)
            if first.weight is not None and second.weight is not None:
                assert torch.equal(first.weight, second.weight)
            assert (first.input is None) == (second.input is None)
            if first.input is not None and second.input is not None:
                given = entered[name].clone()
                together = first.input(given)
                assert torch.equal(given, entered[name]), f"the input of {name} was written into"
                assert together.shape == given.shape
                assert torch.equal(together, second.input(given))
                alone = torch.cat([first.input(each[None]) for each in given])
                assert torch.equal(together, alone), f"the input of {name} depends on the other images of its batch"
