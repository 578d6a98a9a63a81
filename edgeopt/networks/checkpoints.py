"""Other people's checkpoints: read without running what is in them, and fitted to a model tensor by tensor."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from edgeopt.errors import CheckpointError, Problem
from edgeopt.networks.plain_values import UnreadableValuesError, read_plain_values
from edgeopt.networks.weights_option import require_checkpoint

_WRAPPINGS = ("state_dict", "model_state_dict", "model", "net", "network", "student", "params", "weights", "state")
"""Names that scripts give to what holds the weights, the more usual first: where several fit alike, the first is taken,
and an average (`ema`) or a teacher only where nothing else fits."""
_DEEPEST = 5  # a state dict lies no deeper in what scripts save
_COUNTER = "num_batches_tracked"  # older checkpoints lack it, and edgeopt does not need it
_SHOWN = 4


class StateDict(dict[str, Tensor]):
    """Tensors by name, with `versions` of the modules that saved them where the file tells.

    `torch.nn.Module.load_state_dict` looks for these in `_metadata`, which a plain dict loses. `beside` are tensors of
    the file that stand beside the model's own, such as a head that a training script put on a backbone.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], versions: object = None, beside: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(tensors)
        self.beside = dict(beside or {})
        if isinstance(versions, Mapping):
            self._metadata = dict(versions)

    @property
    def versions(self) -> object:
        """What the file says of the modules that saved it, or None."""
        return getattr(self, "_metadata", None)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> StateDict:
        """A state dict of torch's own, versions kept."""
        return cls(tensors, getattr(tensors, "_metadata", None))


@dataclass(frozen=True)
class Loaded:
    """What a model took from a checkpoint: how many tensors, the head's tensors that stayed as they were built, and
    tensors of parts that the model does not have, which were passed over. `summed` is the first convolution of a model
    of grey images, where the file's is one of colours.
    """

    tensors: int
    fresh: tuple[str, ...]
    passed_over: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    summed: str = ""

    @property
    def untrained(self) -> tuple[str, ...]:
        """The modules whose tensors stayed as they were built."""
        return tuple(dict.fromkeys(name.rpartition(".")[0] for name in self.fresh))

    @property
    def warnings(self) -> list[str]:
        """What the report says at its top: heads that the file has under another name than the model."""
        return [
            f"the checkpoint has a head {theirs!r}, which was taken for the model's {ours!r}: "
            "see that its classes come in the same order"
            for theirs, ours in self.renamed
        ]

    def __str__(self) -> str:
        head = "the head replaced for the classes, pretrained weights kept elsewhere" if self.fresh else "head included"
        beside = f", passed over: {_some(list(self.passed_over))}" if self.passed_over else ""
        summed = f", {self.summed} summed over red, green and blue" if self.summed else ""
        return f"{self.tensors} tensors, {head}{beside}{summed}"


def load_checkpoint(model: nn.Module, path: Path, head_names: Collection[str] = ()) -> Loaded:
    """Fills `model` from a file with a state dict; a head (module names) of other sizes keeps its own weights.

    Takes plain state dicts, and those wrapped by DataParallel, `torch.compile`, Lightning or a training script.

    Raises `CheckpointError` when the file is missing, is an unsafe pickle, or its tensors do not fit (which ones).
    """
    return load_state(model, read_checkpoint(path, model.state_dict()), str(path), head_names)


def read_checkpoint(path: Path, names: Collection[str]) -> StateDict:
    """The tensors of a file under a model's own `names`: without what wraps them and without prefixes.

    Raises `CheckpointError` when the file is missing or holds no tensors, or when reading it would run code.
    """
    require_checkpoint(path)
    held = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    found = list(_state_dicts(held))
    if not found:
        raise CheckpointError(
            Problem(f"checkpoint {path} holds no state dict", "save one with torch.save(model.state_dict(), PATH)")
        )
    known = set(names)
    return max((_without_prefix(each, known) for each in found), key=lambda each: len(known & each.keys()))


def _state_dicts(held: object, depth: int = 0) -> Iterator[StateDict]:
    """Each mapping of names to tensors in what a file holds, the more usual places first, without other entries."""
    if not isinstance(held, Mapping) or depth > _DEEPEST:
        return
    named = {name: value for name, value in held.items() if isinstance(name, str)}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield StateDict(tensors, getattr(held, "_metadata", None))
    usual = sorted(named, key=lambda name: _WRAPPINGS.index(name) if name in _WRAPPINGS else len(_WRAPPINGS))
    for name in sorted(usual, key=lambda name: "ema" in name.lower() or "teacher" in name.lower()):
        yield from _state_dicts(named[name], depth + 1)


def load_state(model: nn.Module, state: StateDict, source: str, head_names: Collection[str] = ()) -> Loaded:
    """Fills `model` from a state dict; tensors of the modules `head_names` that do not fit keep the model's own values.

    Raises `CheckpointError` naming the tensors that are missing, unexpected, of another shape or not finite; the model
    is then unchanged.
    """
    own = model.state_dict()
    state, summed = _summed_over_colours(state, own)
    state, renamed = _with_heads_named_as_here(state, own, head_names)
    in_head = {name for name in own if any(name.startswith(f"{head}.") for head in head_names)}
    fresh = {name for name in in_head if name not in state or state[name].shape != own[name].shape}
    left_out = {name for head in head_names for name in state if name.startswith(f"{head}.") and name not in own}
    counters = {name for name in own if name.endswith(_COUNTER) and name not in state}
    beside = _of_other_parts(state, own) if not (set(own) - set(state) - counters) else frozenset()
    taken = {name: value for name, value in state.items() if name not in fresh | left_out | beside}

    wrong = {
        "missing": sorted(set(own) - set(state) - fresh - counters),
        "unexpected": sorted(set(taken) - set(own)),
        "of another shape": [
            f"{name} {_shape(value)} for {_shape(own[name])}"
            for name, value in taken.items()
            if name in own and value.shape != own[name].shape
        ],
        "of another type": [
            f"{name} {value.dtype} for {own[name].dtype}".replace("torch.", "")
            for name, value in taken.items()
            if name in own and own[name].is_floating_point() and not value.is_floating_point()
        ],
        "not finite": [
            name for name, value in taken.items() if value.is_floating_point() and not bool(value.isfinite().all())
        ],
    }
    found = [f"{len(names)} {what}: {_some(names)}" for what, names in wrong.items() if names]
    if found:
        raise CheckpointError(
            Problem(
                f"checkpoint {source} does not fit the model: {'; '.join(found)}",
                "check that it was saved from this architecture",
            )
        )
    model.load_state_dict(StateDict({**own, **taken}, state.versions or StateDict.of(own).versions))
    return Loaded(len(taken), tuple(sorted(fresh)), tuple(sorted(beside)), renamed, summed)


def _summed_over_colours(state: StateDict, own: Mapping[str, Tensor]) -> tuple[StateDict, str]:
    """The state with its first convolution as one of grey images, where the model's is and its own is one of colours.

    A grey image says the same in all three channels, so the sum of their weights answers as they do. Returns the
    convolution's name as well, empty where nothing was summed.
    """
    first = next((name for name, value in own.items() if value.dim() == 4), "")
    theirs = state.get(first)
    if theirs is None or theirs.dim() != 4 or (own[first].shape[1], theirs.shape[1]) != (1, 3):
        return state, ""
    summed = theirs.sum(dim=1, keepdim=True)
    return StateDict({**state, first: summed}, state.versions, state.beside), first.rpartition(".")[0]


def _with_heads_named_as_here(
    state: StateDict, own: Mapping[str, Tensor], head_names: Collection[str]
) -> tuple[StateDict, tuple[tuple[str, str], ...]]:
    """The state with a trained head that it has under another name under the model's, and both names.

    A head counts as renamed where the model's own is missing, and exactly one module that the model does not have
    holds tensors of the same names and shapes.
    """
    tensors, renamed = dict(state), []
    others = {**state.beside, **{name: each for name, each in state.items() if name not in own}}
    for head in head_names:
        wanted = {
            name.removeprefix(f"{head}."): each.shape for name, each in own.items() if name.startswith(f"{head}.")
        }
        if not wanted or any(f"{head}.{name}" in state for name in wanted):
            continue
        held: dict[str, dict[str, Tensor]] = {}
        for name, each in others.items():
            holder, _, leaf = name.rpartition(".")
            held.setdefault(holder, {})[leaf] = each
        fitting = [holder for holder, each in held.items() if {k: v.shape for k, v in each.items()} == wanted]
        if len(fitting) == 1:
            (theirs,) = fitting
            for leaf, each in held[theirs].items():
                tensors.pop(f"{theirs}.{leaf}", None)
                tensors[f"{head}.{leaf}"] = each
            renamed.append((theirs, head))
    return StateDict(tensors, state.versions), tuple(renamed)


def _of_other_parts(state: StateDict, own: Collection[str]) -> frozenset[str]:
    """Tensors of parts that the model does not have, such as the weights of a loss."""
    parts = {name.partition(".")[0] for name in own}
    return frozenset(name for name in state if name.partition(".")[0] not in parts)


def _read_pickle(path: Path) -> object:
    try:
        return read_plain_values(path)
    except UnreadableValuesError as error:
        unsafe = isinstance(error.__cause__, pickle.UnpicklingError) and re.search(
            r"(?:GLOBAL|class|operand) ([\w.]+)", str(error)
        )
        if unsafe:
            raise CheckpointError(
                Problem(
                    f"checkpoint {path} is an unsafe pickle: reading it would run {unsafe[1]}",
                    "where you trust it, load it once yourself and save its tensors alone: "
                    "torch.save(model.state_dict(), PATH)",
                )
            ) from error
        if "TorchScript" in str(error):
            hint = "load it with torch.jit.load and save its tensors: torch.save(model.state_dict(), PATH)"
            raise CheckpointError(Problem(f"checkpoint {path} is a TorchScript archive", hint)) from error
        raise _not_a_checkpoint(path) from error


def _read_safetensors(path: Path) -> object:
    try:
        from safetensors import SafetensorError  # an optional package
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(
            Problem(f"reading {path} needs safetensors, which is not installed", "pip install safetensors")
        ) from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _not_a_checkpoint(path) from error


def _not_a_checkpoint(path: Path) -> CheckpointError:
    return CheckpointError(
        Problem(f"{path} is not a checkpoint, or is cut short", "it must hold a state dict, saved with torch.save")
    )


def _without_prefix(state: StateDict, names: Collection[str]) -> StateDict:
    """The state under the prefix below which most of `names` are found; what stands beside that prefix is left out.

    A prefix is whatever stands before a name of the model, such as "module." or "backbone.". Among those that fit
    alike, an average (`ema`) or a teacher comes last, and the shortest first.
    """
    fitting = Counter(name[:start] for name in state for start in (0, *_behind_dots(name)) if name[start:] in names)

    def rank(prefix: str) -> tuple[int, bool, int]:
        return fitting[prefix], not ("ema" in prefix.lower() or "teacher" in prefix.lower()), -len(prefix)

    prefix = max(fitting, key=rank, default="")
    tensors = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    versions = state.versions
    if prefix and isinstance(versions, Mapping):
        versions = {
            f"{module}.".removeprefix(prefix).removesuffix("."): version
            for module, version in versions.items()
            if f"{module}.".startswith(prefix)
        }
    return StateDict(tensors, versions, {name: each for name, each in state.items() if not name.startswith(prefix)})


def _behind_dots(name: str) -> Iterator[int]:
    return (place + 1 for place, letter in enumerate(name) if letter == ".")


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
