"""Averages of the weights over a training, which often validate better than the weights of its last step."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Averaging:
    """SWA or EMA over a module's parameters; buffers are the module's latest.

    SWA averages the weights at the end of each epoch from `start_epoch` on. EMA averages after every step; its memory
    grows to `ema_decay` from short, so that the first, untrained weights are soon forgotten.

    Source: P. Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018.
    """

    def __init__(self, kind: Literal["swa", "ema"], module: nn.Module, ema_decay: float, start_epoch: int) -> None:
        self._kind = kind
        self._ema_decay = ema_decay
        self._start_epoch = start_epoch
        self._model = AveragedModel(module, multi_avg_fn=self._ema if kind == "ema" else None)

    @property
    def module(self) -> nn.Module | None:
        """The averaged module, or None while nothing was averaged."""
        module: nn.Module = self._model.module
        return module if int(self._model.n_averaged) > 0 else None

    def after_step(self, module: nn.Module) -> None:
        """The optimizer made a step."""
        if self._kind == "ema":
            self._model.update_parameters(module)

    def after_epoch(self, module: nn.Module, epoch: int) -> None:
        """Epoch `epoch`, counted from 0, ended."""
        if self._kind == "swa" and epoch >= self._start_epoch:
            self._model.update_parameters(module)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and how many were averaged."""
        return self._model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        self._model.load_state_dict(state)

    def _ema(self, averaged: Any, current: Any, count: Tensor | int) -> None:
        decay = min(self._ema_decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(decay)(averaged, current, count)  # type: ignore[no-untyped-call]
