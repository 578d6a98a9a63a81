"""What was found of a file, in words."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.report import figures
from edgeopt.why.table import LayerNoise, Noise, Part, Why

_SOUND_DB = 40.0
"""Above it, outputs differ by a hundredth of their size, which is what eight bits give at best."""


def sentences(why: Why) -> tuple[str, ...]:
    """The verdict, the worst layer, and what the reader must know of the way in which it was found."""
    return tuple(_sentences(why))


def _sentences(why: Why) -> Iterator[str]:
    agreement = f"the same answer for {figures.percent(why.agreement)} of {why.images} validation images"
    yield (
        f"The file's {told_outputs(why)} are {db(why.answers)} above their difference to the float program's, "
        f"with {agreement}."
    )
    if len(why.outputs) > 1:
        yield f"By output: {', '.join(f'{each.name} {db(each.noise)}' for each in why.outputs)}; each counts alike."
    worst = why.worst_first[0] if why.layers else None
    if worst is not None and worst.at_output.noise > 0:
        share = figures.percent(why.share_at_output(worst))
        part = f"{figures.percent(worst.share(worst.blame))} of its own error comes from its {_part(worst)}"
        yield f"Worst is {worst.name}: {share} of what all layers' own errors do to the {told_outputs(why)}; {part}."
    if why.answers.db is None or why.answers.db > _SOUND_DB:
        yield "That is as close as eight bits come: nothing needs mending."
    if why.tap_changes:
        yield (
            f"Looking changed the answers: the outputs of what was looked at differ from the file's by up to "
            f"{why.tap_changes:.3g}. The kernels may not be the file's own."
        )
    if why.unseen:
        yield (
            f"{len(why.unseen)} of {len(why.layers)} values are not in the file as they are in the program, "
            f"the first {why.unseen[0]}: the runtime computes them inside of others, or so differently that they are "
            "not recognized."
        )


def told_outputs(why: Why) -> str:
    """What the file answers with, in the plural: the name of its output, such as "logits", or "outputs" of several."""
    (name,) = [each.name for each in why.outputs] if len(why.outputs) == 1 else ["outputs"]
    return name if name.endswith("s") else f"{name} values"


def _part(layer: LayerNoise) -> str:
    return {Part.WEIGHTS: "weights", Part.ACTIVATION: "activation range", Part.KERNEL: "kernel"}[layer.blame]


def db(noise: Noise | None) -> str:
    """Signal to noise, as in "31.2 dB"; a dash where it is not known, "exact" where there is no error."""
    if noise is None:
        return figures.MISSING
    return "exact" if noise.db is None else f"{noise.db:.1f} dB"


def bits(layer: LayerNoise) -> str:
    """Bits of weights and result, as in "w8 a8"; what is not rounded is left out."""
    weights = "" if layer.weight_bits is None else "float" if layer.weight_bits > 8 else f"w{layer.weight_bits}"
    return " ".join(filter(None, (weights, f"a{layer.activation_bits}" if layer.activation_bits else "")))
