"""Copies of whole modules, in memory and on disk, also where layers compute their weights, which torch refuses to copy
or to pickle.
"""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from edgeopt.networks.computed_weights import rewrites_state_dict

if TYPE_CHECKING:  # torch is heavy: whoever has a module has imported it already
    from torch import nn

M = TypeVar("M", bound="nn.Module")


def copy_module(module: M) -> M:
    """A deep copy that shares nothing, also of layers that still hold the weight that they computed
    in their last call.
    """
    import torch
    from torch.nn.utils import parametrize

    held = [value for each in module.modules() for value in vars(each).values() if isinstance(value, torch.Tensor)]
    copied = copy.deepcopy(module, {id(value): value.detach().clone() for value in held if not value.is_leaf})
    for layer in filter(parametrize.is_parametrized, copied.modules()):
        # copies share their generated class, and so does what is taken out of it
        layer.__class__ = parametrize.type_before_parametrizations(layer)
        _give_class(layer)
    return copied


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
    """All attributes but the hook with which `weight_norm` reads its older checkpoints: a local function, which cannot
    be pickled.
    """
    name = "_load_state_dict_pre_hooks"
    kept = {key: hook for key, hook in vars(layer)[name].items() if not rewrites_state_dict(hook)}
    return {**vars(layer), name: OrderedDict(kept)}


def _parametrized(layer_class: type[nn.Module], attributes: dict[str, Any]) -> nn.Module:
    layer = layer_class.__new__(layer_class)
    layer.__dict__.update(attributes)
    _give_class(layer)
    return layer


def _give_class(layer: nn.Module) -> None:
    """Generates the class through which a layer with parametrizations computes its tensors; its tensors stay as they
    are.
    """
    from torch.nn.utils import parametrize

    # the last step of `register_parametrization`, whose other steps would compute the tensors anew
    parametrize._inject_new_class(layer)  # noqa: SLF001
    for name in vars(layer)["_modules"]["parametrizations"]:
        parametrize._inject_property(layer, name)  # noqa: SLF001
