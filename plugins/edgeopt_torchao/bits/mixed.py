"""Mixed precision: each layer takes as many bits as it needs, within a budget."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import pairwise

from torch.export import ExportedProgram

from edgeopt.networks.bits import FLOAT_BITS, WIDE_BITS
from edgeopt.plugins import Bits, ModelState, PassContext, QuantizerPlugin, Use, UserError, usable_cores
from edgeopt.sensitivity.network import Network
from edgeopt.sensitivity.scan import ScannedImages, ScanSettings, scan
from edgeopt.sensitivity.table import Measure
from edgeopt_torchao.bits.allocated import read_bits
from edgeopt_torchao.bits.probes import BitsProbe
from edgeopt_torchao.bits.rules import BitRules, asked_bits, covered
from edgeopt_torchao.graph.batches import batches
from edgeopt_torchao.options import BitOptions

_IMAGES = 256


def choose_bits(
    program: ExportedProgram,
    state: ModelState,
    quantizer: Use[QuantizerPlugin],
    options: BitOptions,
    batch_size: int,
    context: PassContext,
) -> BitRules:
    """What each layer takes: as the options or their allocation say, or chosen within their budget.

    `program` is the captured float program.

    Raises `UserError` when the budget is too small, or when the allocation names a layer that the program does not
    have.
    """
    exact = [place for place, name in enumerate(state.output_names) if name in state.task.exact_outputs]
    bits = asked_bits(options)
    if options.activation_bits != WIDE_BITS:  # with which an output is near enough to what it was
        bits = replace(bits, exact=tuple(exact))
    if not options.has_budget and options.allocation is None:
        return bits
    everything = covered(program.module(), quantizer, bits)
    if options.allocation is not None:
        allocation = read_bits(options.allocation)
        allocation.require_layers(everything.chosen)
        levels = {name: int(level) for name, level in allocation.levels.items()}
        return bits.with_layers({name: Bits(level, level) for name, level in levels.items()})
    named = {name for name, given in everything.chosen.items() if given not in (bits.rest, Bits())}
    sizes, choices = everything.sizes, tuple(set(options.bit_choices))
    left = {name: size for name, size in sizes.items() if name not in named}
    spent = sum(sizes[name] * everything.chosen[name].weights for name in named)
    allowed = (
        options.weight_bytes * 8
        if options.weight_bytes is not None
        else (options.average_bits or 0) * sum(sizes.values())
    )
    scores = rate(program, state, left, choices, options.activation_bits, batch_size, context)
    weights = allocate(left, scores, choices, (allowed - spent) / sum(left.values()))
    return bits.with_layers({name: Bits(chosen, options.activation_bits) for name, chosen in weights.items()})


def rate(
    program: ExportedProgram,
    state: ModelState,
    layers: Collection[str],
    levels: Collection[int],
    inputs: int,
    batch_size: int,
    context: PassContext,
) -> dict[tuple[str, int], float]:
    """How far the logits move when one layer alone is rounded, by layer and bits.

    Each of `layers` takes each of `levels` bits, and what enters it takes `inputs` bits.

    `program` is the captured float program. Ranges of inputs come from the calibration split, scores from validation.
    """
    count = context.budget.of(context.budget.images, _IMAGES)
    settings = ScanSettings(
        Measure.LOGITS,
        threshold=None,
        images=count,
        batch_size=batch_size,
        workers=context.trainer.threads or usable_cores(),
        seed=context.seed,
    )
    network = Network(program)
    images = ScannedImages.drawn(context.data.validation, state.preprocessing, settings, state.task)
    probe = BitsProbe(network, batches(state, context.data.calibration, batch_size, count), inputs)
    order = sorted(levels, reverse=True)
    found = scan(network, probe, "bits", order, FLOAT_BITS, images, settings, context.progress)
    return {(name, level): found.score(name, level) for name in layers for level in order}


def allocate(
    sizes: Mapping[str, int], scores: Mapping[tuple[str, int], float], levels: Collection[int], average: float
) -> dict[str, int]:
    """Bits for each layer, so that the average over all weights is at most `average`.

    `sizes` are the numbers of weights of each layer, `scores` the loss of each layer at each of `levels`. All layers
    begin with the most bits. Then, again and again, the layer goes down a level whose loss rises least for each bit
    that it saves.

    Raises `UserError` when the smallest level is above `average`.
    """
    order = sorted(levels, reverse=True)
    if order[-1] > average:
        raise UserError(
            f"the budget leaves {average:.3g} bits for a weight, and the fewest of bit_choices are {order[-1]}",
            hint="raise the budget, offer fewer bits in bit_choices, or name fewer layers in layer_bits",
        )
    chosen = dict.fromkeys(sizes, order[0])
    total, allowed = order[0] * sum(sizes.values()), average * sum(sizes.values())
    following = dict(pairwise(order))

    def price(name: str) -> tuple[float, str]:
        now = chosen[name]
        rise = max(0.0, scores[name, following[now]] - scores[name, now])
        return rise / ((now - following[now]) * sizes[name]), name

    offers = [price(name) for name in sizes if order[0] in following]
    heapq.heapify(offers)
    while total > allowed:
        _, name = heapq.heappop(offers)
        total -= (chosen[name] - following[chosen[name]]) * sizes[name]
        chosen[name] = following[chosen[name]]
        if chosen[name] in following:
            heapq.heappush(offers, price(name))
    return chosen
