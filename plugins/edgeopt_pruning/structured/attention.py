"""Attention with queries, keys and values in one layer, `qkv`, as timm and most vision transformers have it.

Its outputs are three times as many heads of some channels each. A channel goes from all heads of all three at once, or
the network's reshape into heads fails.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

_PACKED = 3  # queries, keys, values
_TOKENS = 5
_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class PackedAttention:
    """A module whose layer `qkv` holds queries, keys and values, each of `heads` times `dims` channels."""

    module: nn.Module
    heads: int
    dims: int

    @property
    def qkv(self) -> nn.Linear:
        """The packed layer."""
        return cast("nn.Linear", self.module.qkv)

    @property
    def proj(self) -> nn.Linear:
        """The layer that reads what the heads have mixed."""
        return cast("nn.Linear", self.module.proj)

    @property
    def parts(self) -> int:
        """How many equal parts its outputs are in, which must all lose as many."""
        return _PACKED * self.heads

    @torch.no_grad()
    def settle(self) -> None:
        """Tells the module how many channels its heads are left with; nothing where all are.

        Attention divides by the root of that number, so that the queries take the change in: the function stays.
        """
        left = self.qkv.out_features // self.parts
        if left == self.dims:
            return
        queries = self.heads * left
        for each in (self.qkv.weight, self.qkv.bias):
            if each is not None:
                each[:queries] *= (left / self.dims) ** 0.5
        values = {"head_dim": left, "attn_dim": queries, "scale": left**-0.5}
        for name, value in values.items():
            if hasattr(self.module, name):
                setattr(self.module, name, value)


def packed_attentions(module: nn.Module) -> dict[nn.Linear, PackedAttention]:
    """The attention modules that can lose channels of their heads, by their layer `qkv`.

    Each is tried on random tokens: without one channel it must answer as it does with zeros in that channel.
    """
    found = {}
    for each in module.modules():
        attention = _packed(each)
        if attention is not None and _can_lose(attention):
            found[attention.qkv] = attention
    return found


def left_alone(module: nn.Module) -> list[str]:
    """Names of the layers `qkv` whose outputs have to stay, because their module is written in another way."""
    able = packed_attentions(module)
    return [
        f"{name}.qkv"
        for name, each in module.named_modules()
        if isinstance(getattr(each, "qkv", None), nn.Linear) and hasattr(each, "num_heads") and each.qkv not in able
    ]


def _packed(module: nn.Module) -> PackedAttention | None:
    qkv, proj = getattr(module, "qkv", None), getattr(module, "proj", None)
    heads, dims = getattr(module, "num_heads", None), getattr(module, "head_dim", None)
    if not isinstance(qkv, nn.Linear) or not isinstance(proj, nn.Linear):
        return None
    if not isinstance(heads, int) or not isinstance(dims, int) or heads * dims < 1:
        return None
    if (qkv.out_features, proj.in_features) != (_PACKED * heads * dims, heads * dims):
        return None
    return PackedAttention(module, heads, dims)


def _can_lose(attention: PackedAttention) -> bool:
    if attention.dims == 1:
        return False
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, _TOKENS, attention.qkv.in_features, generator=generator)
    try:
        with torch.no_grad():
            expected, got = (_tried(attention, tokens, cut=cut) for cut in (False, True))
    except Exception:  # whatever a module's own code raises when it is written for one number of channels
        return False
    return got.shape == expected.shape and bool((got - expected).abs().max() <= _TOLERANCE * expected.abs().max())


def _tried(attention: PackedAttention, tokens: Tensor, *, cut: bool) -> Tensor:
    """What a copy of the module answers without the first channel of each head, or with zeros there."""
    tried = PackedAttention(copy.deepcopy(attention.module).cpu().eval(), attention.heads, attention.dims)
    qkv, proj = tried.qkv, tried.proj
    keep = torch.arange(qkv.out_features) % attention.dims != 0
    for each in (qkv.weight, qkv.bias):
        if each is not None:
            each.data = each.data[keep] if cut else each.data * keep.view(-1, *[1] * (each.dim() - 1))
    if cut:
        proj.weight.data = proj.weight.data[:, keep[: proj.in_features]]
        qkv.out_features = int(keep.sum())
        proj.in_features = proj.weight.shape[1]
        tried.settle()
    answer: Tensor = tried.module(tokens)
    return answer
