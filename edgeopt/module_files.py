"""Files of whole modules, those with parametrized layers among them, whose generated classes torch does not pickle."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from edgeopt.computed_weights import give_parametrized_class, rewrites_state_dict

if TYPE_CHECKING:  # torch is heavy: who has a module has imported it already
    from torch import nn


def save_module(module: nn.Module, file: Path) -> None:
    """Pickles `module` with all that it holds."""
    import torch

    torch.save(module, file, pickle_module=SimpleNamespace(__name__=__name__, Pickler=_Pickler))


def load_module(file: Path) -> nn.Module:
    """Reads what `save_module` wrote: a file of edgeopt's own, as reading it executes code."""
    import torch

    module: nn.Module = torch.load(file, weights_only=False)
    return module


class _Pickler(pickle.Pickler):
    """Writes a parametrized layer as its class before it was parametrized, and its tensors and parametrizations."""

    def reducer_override(self, value: Any) -> Any:
        from torch import nn
        from torch.nn.utils import parametrize

        if isinstance(value, nn.Module) and parametrize.is_parametrized(value):
            return _parametrized, (parametrize.type_before_parametrizations(value), _attributes(value))
        return NotImplemented


def _attributes(layer: nn.Module) -> dict[str, Any]:
    """All but what `weight_norm` adds to read checkpoints of its older kind: a local function, which cannot be pickled."""
    name = "_load_state_dict_pre_hooks"
    kept = {key: hook for key, hook in vars(layer)[name].items() if not rewrites_state_dict(hook)}
    return {**vars(layer), name: OrderedDict(kept)}


def _parametrized(layer_class: type[nn.Module], attributes: dict[str, Any]) -> nn.Module:
    layer = layer_class.__new__(layer_class)
    layer.__dict__.update(attributes)
    give_parametrized_class(layer)
    return layer
