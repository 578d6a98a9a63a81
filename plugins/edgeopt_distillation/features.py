"""What layers give inside of student and teacher, brought together: features and attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss, normalize
from torch.utils.hooks import RemovableHandle

from edgeopt.plugins import Problem, TrainingError, did_you_mean
from edgeopt_distillation.options import DistillOptions, LayerPair


class Recorder:
    """What named layers of a module gave when it last ran; a layer that ran several times shows its last output."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        self.outputs: dict[str, Any] = {}
        self._handles = [self._watch(module.get_submodule(name), name) for name in dict.fromkeys(names)]

    def _watch(self, layer: nn.Module, name: str) -> RemovableHandle:
        outputs = self.outputs

        def keep(
            _layer: nn.Module, _inputs: Any, output: Any
        ) -> None:  # a plain function: copies of the module share it
            outputs[name] = output

        return layer.register_forward_hook(keep)

    def remove(self) -> None:
        """Leaves the module as it was."""
        for handle in self._handles:
            handle.remove()


class AdaptedStudent(nn.Module):
    """A student, and the adapters that are trained along with it and are not kept; gives the student's logits."""

    def __init__(self, student: nn.Module, adapters: Sequence[nn.Module]) -> None:
        super().__init__()
        self.student = student
        self.adapters = nn.ModuleList(adapters)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of float32 images (n, channels, height, width)."""
        logits: Tensor = self.student(images)
        return logits


class Matching:
    """The loss of pairs of layers; `module` is what to fit in place of the student.

    Where a pair of `features` differs in channels, an adapter brings the student's to the teacher's number: a 1x1
    convolution for maps (n, channels, height, width), a linear layer for (n, channels) and (n, tokens, channels). Maps
    of different sizes are compared at the smaller one.

    Raises `TrainingError` for layers that are not there and for outputs that cannot be compared.

    Sources: A. Romero et al., "FitNets: hints for thin deep nets", ICLR 2015; S. Zagoruyko and N. Komodakis, "Paying
    more attention to attention", ICLR 2017.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module, options: DistillOptions, example: Tensor, seed: int
    ) -> None:
        self._options = options
        pairs = (*options.features, *options.attention)
        problems = [
            *_unknown(student, "student", [pair[0] for pair in pairs]),
            *_unknown(teacher, "teacher", [pair[1] for pair in pairs]),
        ]
        if problems:
            raise TrainingError(*problems)
        self._student = Recorder(student, [pair[0] for pair in pairs])
        self._teacher = Recorder(teacher, [pair[1] for pair in pairs])
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                student(example)
                teacher(example)
                torch.manual_seed(seed)
                adapters = [_adapter(*self._outputs(pair, "features"), pair) for pair in options.features]
                for pair in options.attention:
                    _require_maps(*self._outputs(pair, "attention"), pair)
        except BaseException:
            self.remove()
            raise
        self._forget()
        self.module = AdaptedStudent(student, adapters)

    def loss(self) -> Tensor:
        """The weighted loss of all pairs for the batch that both models saw last, a scalar, float32."""
        options = self._options
        features = [
            feature_loss(adapter, *self._outputs(pair, "features"))
            for pair, adapter in zip(options.features, self.module.adapters, strict=True)
        ]
        attention = [attention_loss(*self._outputs(pair, "attention")) for pair in options.attention]
        self._forget()
        weighted = [each * options.feature_weight for each in features]
        weighted += [each * options.attention_weight for each in attention]
        return torch.stack(weighted).sum()

    def remove(self) -> None:
        """Leaves student and teacher as they were before; the student is trained by then."""
        self._student.remove()
        self._teacher.remove()

    def _outputs(self, pair: LayerPair, option: str) -> tuple[Tensor, Tensor]:
        found = []
        for side, recorder, name in (("student", self._student, pair[0]), ("teacher", self._teacher, pair[1])):
            output = recorder.outputs.get(name)
            if not isinstance(output, Tensor):
                what = "is not run" if output is None else f"gives a {type(output).__name__}, not a tensor"
                message = f"{option}: layer {name!r} of the {side} {what}"
                raise TrainingError(Problem(message, "name another layer", option=option))
            found.append(output)
        return found[0], found[1]

    def _forget(self) -> None:
        """Lets go of the batch."""
        self._student.outputs.clear()
        self._teacher.outputs.clear()


def feature_loss(adapter: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the adapted student's and the teacher's output, a scalar, float32.

    Shapes are those that `Matching` takes.
    """
    ours, theirs = _of_one_size(adapter(student).float(), teacher.float())
    return mse_loss(ours, theirs)


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of two attention maps, mean over the batch: a scalar from 0 to 2, float32.

    Takes maps (n, channels, height, width), of any numbers of channels.
    """
    ours, theirs = _of_one_size(_energy(student), _energy(teacher))
    return (normalize(ours.flatten(1)) - normalize(theirs.flatten(1))).square().sum(1).mean()


def _energy(features: Tensor) -> Tensor:
    """Where a layer looks: the mean square over its channels, (n, 1, height, width)."""
    return features.float().square().mean(1, keepdim=True)


def _of_one_size(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the smaller height and width, by the mean over areas; outputs that are not maps stay as they are."""
    if ours.shape[2:] == theirs.shape[2:] or ours.ndim != 4:
        return ours, theirs
    size = [min(pair) for pair in zip(ours.shape[2:], theirs.shape[2:], strict=True)]
    return interpolate(ours, size, mode="area"), interpolate(theirs, size, mode="area")


def _adapter(student: Tensor, teacher: Tensor, pair: LayerPair) -> nn.Module:
    """What brings the student's channels to the teacher's number."""
    tokens_differ = student.ndim == 3 and student.shape[1] != teacher.shape[1]
    if student.ndim != teacher.ndim or student.ndim not in (2, 3, 4) or tokens_differ:
        raise _incomparable("features", pair, student, teacher)
    channels = 1 if student.ndim == 4 else -1
    inputs, outputs = student.shape[channels], teacher.shape[channels]
    if inputs == outputs:
        return nn.Identity()
    return nn.Conv2d(inputs, outputs, 1) if student.ndim == 4 else nn.Linear(inputs, outputs)


def _require_maps(student: Tensor, teacher: Tensor, pair: LayerPair) -> None:
    if student.ndim != 4 or teacher.ndim != 4:
        raise _incomparable("attention", pair, student, teacher)


def _incomparable(option: str, pair: LayerPair, student: Tensor, teacher: Tensor) -> TrainingError:
    shapes = " and ".join(str(tuple(each.shape[1:])) for each in (student, teacher))
    hint = "attention needs maps (channels, height, width)"
    if option == "features":
        hint = "name two layers that give maps (channels, height, width), as many tokens, or vectors"
    message = f"{option}: layers {pair[0]!r} and {pair[1]!r} give {shapes} for an image, which cannot be compared"
    return TrainingError(Problem(message, hint, option=option))


def _unknown(module: nn.Module, side: str, names: Sequence[str]) -> list[Problem]:
    """A problem for each name that no layer of the module has."""
    known = [name for name, _ in module.named_modules() if name]
    return [
        Problem(
            f"the {side} has no layer {name!r}",
            did_you_mean(name, known) or "its parts: " + ", ".join(each for each in known if "." not in each),
        )
        for name in dict.fromkeys(names)
        if name not in known
    ]
