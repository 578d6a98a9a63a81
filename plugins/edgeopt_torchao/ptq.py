"""The pass `ptq`: static quantization after training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule

from edgeopt.networks.capture import capture_state, export_program
from edgeopt.networks.copies import copy_module
from edgeopt.plugins import Json, ModelState, PassContext, PassRecord, Score
from edgeopt_lightning.fit.validation import validation_score
from edgeopt_torchao.bits.mixed import choose_bits, rate
from edgeopt_torchao.bits.on_demand import CostInFloat, costs_of, hold_accuracy
from edgeopt_torchao.bits.rules import IN_FLOAT, BitRules, Target, covered, target_of
from edgeopt_torchao.graph.batches import batches
from edgeopt_torchao.options import PtqOptions
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq
from edgeopt_torchao.quantize.result import program_state, quantized_state
from edgeopt_torchao.repair.equalization import equalize
from edgeopt_torchao.repair.reconstruction import Repairs, repair, rounded_layers


def quantize(state: ModelState, options: PtqOptions, context: PassContext) -> ModelState:
    """A state with the quantized program of a module, its ranges observed on the calibration split.

    Raises `NothingChangedError` when the quantizer leaves every layer in float, when an option changes nothing, and
    when no layer can be quantized without too much loss of accuracy.
    """
    work = _Work(state, options, context)
    bits = choose_bits(work.program, state, options.quantizer, options, options.batch_size, context)
    held: dict[str, Json] = {}
    if options.max_accuracy_drop is None:
        made = work.quantize(bits)
    else:
        accuracy = _rank(validation_score(copy_module(state.module).eval(), state.task, context))
        made, held = _on_demand(work, bits, accuracy - options.max_accuracy_drop)
    facts = {
        "quantizer": options.quantizer.plugin.name,
        **work.facts,
        **made.facts,
        **held,
        "calibration_images": work.count,
    }
    record = PassRecord("ptq", facts, details=made.target.details())
    return quantized_state(state, made.converted, work.example, record, made.target.precision, context)


@dataclass(frozen=True)
class _Quantized:
    converted: GraphModule
    target: Target
    facts: dict[str, Json]


class _Work:
    """What every quantization of one state has in common: its program, and the images that show ranges."""

    def __init__(self, state: ModelState, options: PtqOptions, context: PassContext) -> None:
        self.state, self.options, self.context = state, options, context
        self.count = context.budget.of(context.budget.images, len(context.data.calibration))
        self.example = next(batches(state, context.data.calibration, 2, 2))
        captured = capture_state(state, self.example)
        self.program: ExportedProgram = captured.program
        self.facts = captured.facts()

    def quantize(self, bits: BitRules) -> _Quantized:
        """The converted model, with everything done to it that the options ask for."""
        options = self.options
        target = target_of(options.quantizer, bits, qat=False)
        facts: dict[str, Json] = {}

        def change(model: GraphModule) -> None:
            if options.equalize:
                facts["equalized_pairs"] = equalize(model, self._images("ptq: looking at clips"))

        prepared = prepare_ptq(self.program, target.quantizer, change)
        calibrate(prepared, self._images("ptq: calibrating"))
        converted = convert(prepared)
        return _Quantized(converted, target, {**target.facts(), **facts, **self._repair(prepared, converted)})

    def to_state(self, made: _Quantized) -> ModelState:
        """The state of a converted model that is only tried."""
        program = export_program(made.converted, self.example, self.state.batch_range)
        return program_state(self.state, program, PassRecord("ptq"), made.target.precision)

    def _images(self, label: str) -> Iterator[Tensor]:
        with self.context.progress.bar(label, self.count) as bar:
            for batch in batches(self.state, self.context.data.calibration, self.options.batch_size, self.count):
                yield batch
                bar.advance(len(batch))

    def _repair(self, prepared: GraphModule, converted: GraphModule) -> dict[str, Json]:
        options, context = self.options, self.context
        adaptive = options.rounding == "adaptive"
        if not adaptive and not options.correct_bias:
            return {}
        count = min(self.count, options.repair_images)
        images = torch.cat(list(batches(self.state, context.data.calibration, options.batch_size, count)))
        steps = context.budget.of(context.budget.batches, options.rounding_steps) if adaptive else 0
        with context.progress.bar("ptq: repairing layers", len(list(rounded_layers(converted)))) as bar:
            repairs = Repairs(steps, correct_bias=options.correct_bias)
            repaired = repair(prepared, converted, images, repairs, context.seed, bar.advance)
        moved = {"weights_rounded_the_other_way": repaired.weights_moved} if adaptive else {}
        biases = {"biases_corrected": repaired.biases_corrected} if options.correct_bias else {}
        return {"layers_repaired": repaired.layers, **moved, **biases}


def _on_demand(work: _Work, bits: BitRules, least: float) -> tuple[_Quantized, dict[str, Json]]:
    """The quantized model with a validation accuracy of `least` or more, and its layers in float with their costs."""
    state, options, context = work.state, work.options, work.context

    def quantize(names: frozenset[str]) -> _Quantized:
        return work.quantize(bits.with_layers(dict.fromkeys(names, IN_FLOAT)))

    make = cache(quantize)  # the first and the chosen trial are asked for again

    @cache
    def accuracy(names: frozenset[str]) -> float:
        return _rank(validation_score(make(names).converted, state.task, context))

    order: list[str] = []
    if accuracy(frozenset()) < least:  # else nobody needs to know which layers mind
        chosen = covered(work.program.module(), options.quantizer, bits).chosen
        layers = {name: each for name, each in chosen.items() if each != IN_FLOAT}
        levels = {each.weights for each in layers.values()}
        scores = rate(work.program, state, layers, levels, options.activation_bits, options.batch_size, context)
        order = sorted(layers, key=lambda name: -scores[name, layers[name].weights])
    held, in_float = hold_accuracy(frozenset, order, accuracy, least)
    costs = costs_of(in_float, lambda names: work.to_state(quantize(names)), options.cost_runtime, context)
    return make(held), {"layers_back_in_float": [f"{name}: {_cost(costs[name])}" for name in in_float]}


def _rank(score: Score) -> float:
    """The score as a number of which more is better."""
    return score.kind.rank(score.value)


def _cost(cost: CostInFloat) -> str:
    return f"{cost.size_bytes:+,} bytes, {cost.latency_ms:+.3f} ms"
