"""BatchNorm as a module inside a captured graph.

torchao's own conv-BatchNorm fusion for training rebuilds each BatchNorm with `eps=1e-5` and `momentum=0.1`, whatever
the model had. MobileNetV3 has `eps=1e-3` and `momentum=0.01`, and channels whose variance is far below 1e-3: those are
scaled up to ten times, before the first training step. That is pytorch issue 114859. Nothing here rebuilds a BatchNorm
with constants of its own: they are read from the captured operator.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgeopt.networks.batch_norms import is_hidden
from edgeopt.networks.tensors import named_tensor


class BatchNorm(nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the one base without a fixed dimension
    """BatchNorm over any number of dimensions whose statistics can be frozen for the rest of a training.

    Frozen, it normalizes with its running statistics in training mode too and no longer moves them; its weight and bias
    go on learning.
    """

    frozen = False

    def freeze(self) -> None:
        """Stop using and collecting batch statistics."""
        self.frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> BatchNorm:
        return super().train(mode and not self.frozen)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any input is fine: the operator in the graph did not say for how many dimensions it was."""


@torch.no_grad()
def folding_scale(weight: Tensor | None, running_variance: Tensor, eps: float) -> Tensor:
    """What folding a BatchNorm multiplies each channel of a weight by, float32 (channels,)."""
    scale = torch.rsqrt(running_variance + eps)
    return scale if weight is None else scale * weight


@torch.no_grad()
def rounding_scale(weight: Tensor | None, running_variance: Tensor, eps: float) -> Tensor:
    """`folding_scale`, with 1 in place of 0: what can be divided by.

    A channel that folds to zero is unaffected by how its weight is rounded: the BatchNorm multiplies it by zero.
    """
    scale = folding_scale(weight, running_variance, eps)
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def restore_batch_norms(graph_module: GraphModule) -> None:
    """Replace hidden BatchNorm operators by modules, which `train()` and `eval()` reach.

    Each takes the place of the module that held its parameters, so that every name in the state dict stays.
    """
    graph = graph_module.graph
    for node in list(graph.nodes):
        if not is_hidden(node):
            continue
        name = str(node.args[3].target).rpartition(".")[0]  # where the running mean is
        if not isinstance(graph_module.get_submodule(name), BatchNorm):
            graph_module.set_submodule(name, _batch_norm(graph_module, node))
        with graph.inserting_after(node):
            call = graph.call_module(name, (node.args[0],))
        call.meta = node.meta
        node.replace_all_uses_with(call)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    graph_module.recompile()


def batch_norms(module: nn.Module) -> list[BatchNorm]:
    """The freezable BatchNorm modules in `module`, each once."""
    return [child for child in module.modules() if isinstance(child, BatchNorm)]


def called_module(graph_module: GraphModule, node: object) -> nn.Module | None:
    """The module that `node` calls, or None when it is no module call."""
    if not isinstance(node, Node) or node.op != "call_module":
        return None
    return graph_module.get_submodule(str(node.target))


def _batch_norm(graph_module: GraphModule, node: Node) -> BatchNorm:
    weight, bias, mean, variance = (
        named_tensor(graph_module, str(source.target)) if isinstance(source, Node) else None
        for source in node.args[1:5]
    )
    momentum, eps = cast("tuple[float | None, float]", node.args[6:8])
    assert mean is not None  # the operator takes a BatchNorm without statistics by another name
    # An evaluation-mode capture writes momentum=None, the cumulative average, as zero.
    batch_norm = BatchNorm(len(mean), eps=eps, momentum=momentum or None, device=mean.device)
    batch_norm.register_parameter("weight", cast("nn.Parameter | None", weight))
    batch_norm.register_parameter("bias", cast("nn.Parameter | None", bias))
    batch_norm.running_mean, batch_norm.running_var = mean, variance
    return batch_norm
