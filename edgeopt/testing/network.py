"""A network that has what passes look for and little else."""

from __future__ import annotations

from torch import Tensor, nn


class TinyNet(nn.Module):
    """Two convolutions and a depthwise one, each with BatchNorm and ReLU; one residual sum; a linear head."""

    def __init__(self, classes: int, width: int = 16, channels: int = 3) -> None:
        super().__init__()
        self.stem = _block(channels, width, stride=2)
        self.depthwise = _block(width, width, groups=width)
        self.body = _block(width, width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of float32 images (n, channels, height, width)."""
        features = self.stem(images)
        features = features + self.body(self.depthwise(features))
        return self.head(self.pool(features).flatten(1))  # type: ignore[no-any-return]


class TinyTwoOutputs(nn.Module):
    """The same with two heads: logits of the image, and of each of its places; and with what only helps training."""

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        self.body = TinyNet(classes, width)
        self.places = nn.Conv2d(width, classes + 1, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """`places`, float32 (n, classes + 1, height / 2, width / 2), and `image`, float32 (n, classes), of float32
        images (n, channels, height, width); `features` beside them.
        """
        features = self.body.stem(images)
        features = features + self.body.body(self.body.depthwise(features))
        image = self.body.head(self.body.pool(features).flatten(1))
        return {"places": self.places(features), "features": features, "image": image}


def _block(inputs: int, outputs: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())
