"""A network of which int8 spoils one layer: its weights are far apart, and the largest multiply zeros."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.plugins import Form, ModelPlugin, ModelState, Options, TrainingData, hookimpl
from edgeopt.tasks import TASKS


class NoOptions(Options):
    pass


def build(_options: NoOptions, data: TrainingData) -> ModelState:
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, 1, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, len(data.classes))),
    )
    with torch.no_grad():
        net[0].weight[0], net[0].bias[0] = 0.0, -1.0
        net[2].weight[:, 0] = 40.0
    return ModelState(net, Form.MODULE, TASKS["classification"], data.classes, data.preprocessing)


@hookimpl
def edgeopt_models() -> Iterator[ModelPlugin]:
    yield ModelPlugin("spoiled", "One layer of it bears no int8.", NoOptions, build=build)
