"""A scan that stops early recommends what one that does not recommends, and nothing depends on who
computes what when.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from small_networks import BlockNet, images, network_of

from edgeopt.preprocessing import Preprocessing
from edgeopt.progress import Silent
from edgeopt.sensitivity import scan as engine
from edgeopt.sensitivity.scan import ScannedImages, ScanSettings, scan
from edgeopt.sensitivity.table import Cell, Measure, Scan, Verdict
from edgeopt.testing import ArraySplit
from edgeopt.types import Change

LEVELS = (0.1, 0.4, 1.5)
FULL = ScanSettings(stop_early=False, batch_size=16, threshold=0.1)


class NoiseProbe:
    """Noise on weights, which counts how often it is asked."""

    def __init__(self, network):
        self.network = network
        self.layers = tuple(network.layers)
        self.asked = []

    def change(self, layer, level):
        self.asked.append((layer, level))
        weight = self.network.layers[layer].weight
        random = torch.Generator().manual_seed(len(layer))
        return Change(weight + level * weight.std() * torch.randn(weight.shape, generator=random))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    module = BlockNet(["residual", "depthwise"]).eval()
    with torch.no_grad():  # an untrained network answers with one class unless its logits are centred
        module.head.bias -= module(images(256)).mean(dim=0)
    return network_of(module)


@pytest.fixture(scope="module")
def preprocessing():
    return Preprocessing(8, 8, 8)


@pytest.fixture(scope="module")
def split(network, preprocessing):
    """Noise whose labels are mostly the network's own answers."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    with torch.inference_mode():
        labels = network.outputs(torch.from_numpy(preprocessing.normalize(images)))[0].argmax(1).numpy()
    labels[::20] = (labels[::20] + 1) % 5
    return ArraySplit(images, labels)


@pytest.fixture(scope="module")
def measure(network, split, preprocessing):
    def measure(settings, checkpoint=None, probe=None):
        drawn = ScannedImages.drawn(split, preprocessing, settings)
        probe = probe or NoiseProbe(network)
        return scan(network, probe, "noise", LEVELS, 0.0, drawn, settings, Silent(), checkpoint)

    return measure


@pytest.fixture(scope="module")
def full(measure):
    return measure(FULL)


def test_a_full_scan_is_every_layer_and_level_run_from_the_start(full, network, split, preprocessing):
    assert [cell.images for cell in full.cells] == [300] * len(full.cells)
    assert list(full.layers) == list(network.layers)
    assert full.accuracy == pytest.approx(285 / 300)
    with torch.inference_mode():
        batch = torch.from_numpy(preprocessing.normalize(split.images))
        reference = network.outputs(batch)[0]
        for cell in full.cells:
            logits = network.outputs(batch, {cell.layer: NoiseProbe(network).change(cell.layer, cell.level)})[0]
            accuracy = (logits.argmax(1).numpy() == split.labels).mean()
            assert cell.score == pytest.approx(full.accuracy - accuracy, abs=1e-9)
            assert cell.least == cell.most == pytest.approx(cell.score)
            assert cell.verdict is (Verdict.FAILS if cell.score > 0.1 else Verdict.PASSES)
        assert reference.shape == (300, 5)
    assert {Verdict.FAILS, Verdict.PASSES} <= {cell.verdict for cell in full.cells}


@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("error", [0.0, 0.01])
def test_stopping_early_recommends_the_same(measure, threshold, error):
    early = measure(ScanSettings(batch_size=16, threshold=threshold, error=error))
    assert early.recommended == measure(replace(FULL, threshold=threshold)).recommended
    assert sum(cell.images for cell in early.cells) < 300 * len(early.cells)


def test_milder_levels_wait_until_harsher_ones_fail(measure):
    early = measure(ScanSettings(batch_size=16, threshold=0.3))
    waiting = [
        cell
        for cells in early.layers.values()
        for cell, harsher in pairwise(cells)
        if harsher.verdict in (Verdict.PASSES, Verdict.SKIPPED)
    ]
    assert waiting
    assert {(cell.verdict, cell.images) for cell in waiting} == {(Verdict.SKIPPED, 16)}


def test_stopping_early_on_logits_recommends_the_same(measure):
    settings = replace(FULL, measure=Measure.LOGITS, threshold=0.05)
    whole, early = measure(settings), measure(replace(settings, stop_early=True))
    assert early.recommended == whole.recommended
    assert sum(cell.images for cell in early.cells) < sum(cell.images for cell in whole.cells)
    assert all(cell.most is None or cell.images == 300 for cell in early.cells)


def test_bounds_of_an_early_stop_hold_the_whole_score(measure, full):
    early = measure(ScanSettings(batch_size=16, threshold=0.1))
    for cell, whole in zip(early.cells, full.cells, strict=True):
        assert cell.least <= whole.score <= cell.most


@pytest.mark.parametrize("stop_early", [True, False])
def test_the_number_of_workers_changes_nothing(measure, stop_early):
    settings = replace(FULL, measure=Measure.LOGITS, stop_early=stop_early)
    assert measure(replace(settings, workers=3)) == measure(settings)


def test_a_killed_scan_goes_on_and_ends_the_same(measure, network, tmp_path, monkeypatch):
    settings = ScanSettings(batch_size=16, threshold=0.1, measure=Measure.LOGITS)
    expected = measure(settings)
    checkpoint = tmp_path / "scan.json"
    written = []

    def write(path, text):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(text)
        path.write_text(text)

    monkeypatch.setattr(engine, "write_aside", write)
    with pytest.raises(KeyboardInterrupt):
        measure(settings, checkpoint)
    monkeypatch.undo()
    probe = NoiseProbe(network)
    assert measure(settings, checkpoint, probe) == expected
    assert 0 < len(probe.asked) < len(expected.cells), "what was decided is not run again"
    finished = NoiseProbe(network)
    assert measure(settings, checkpoint, finished) == expected
    assert not finished.asked


def test_some_images_of_many(measure):
    some = measure(ScanSettings(images=40, threshold=None, batch_size=16))
    assert {cell.images for cell in some.cells} == {40} == {some.images}
    assert {cell.verdict for cell in some.cells} == {Verdict.NONE}
    with pytest.raises(ValueError, match="without a threshold"):
        _ = some.recommended
    assert some.score("head", 0.4) == next(c.score for c in some.cells if (c.layer, c.level) == ("head", 0.4))


def test_a_fault_of_a_probe_ends_the_scan(measure, network):
    class Broken(NoiseProbe):
        def change(self, layer, level):
            return Change(torch.zeros(1, 1))

    with pytest.raises(RuntimeError):
        measure(ScanSettings(batch_size=16, workers=2), probe=Broken(network))


def test_threads_are_given_back(measure):
    before = torch.get_num_threads()
    measure(ScanSettings(images=16))
    assert torch.get_num_threads() == before


# ---- the table -----------------------------------------------------------------------------------------------------


def cells(*verdicts):
    return tuple(
        Cell("a", level, 0.0, 0.0, None, 1, verdict) for level, verdict in zip((8, 6, 4), verdicts, strict=True)
    )


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("passes", "passes", "passes"), 4),
        (("passes", "passes", "fails"), 6),
        (("skipped", "skipped", "passes"), 4),
        (("skipped", "passes", "fails"), 6),
        (("fails", "passes", "fails"), 6),
        (("passes", "fails", "fails"), 8),
        (("fails", "fails", "fails"), 32),
    ],
)
def test_recommended_is_the_harshest_level_that_passes(verdicts, expected):
    table = Scan("bits", Measure.ACCURACY, 0.01, 0.01, 32, 10, 0.9, cells(*map(Verdict, verdicts)))
    assert table.recommended == {"a": expected}


def test_the_table_survives_json_and_reads_as_csv(full):
    assert Scan.from_json(full.to_json()) == full
    lines = full.to_csv().splitlines()
    assert lines[0] == "layer,noise,score,least,most,images,verdict,recommended"
    assert len(lines) == 1 + len(full.cells)
    assert sum(line.endswith(",yes") for line in lines) == sum(level > 0 for level in full.recommended.values())
