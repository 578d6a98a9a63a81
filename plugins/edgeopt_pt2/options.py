"""The options of the reader `pt2`."""

from __future__ import annotations

from pydantic import Field

from edgeopt.plugins import IMAGENET_MEAN, IMAGENET_STD, ChannelDeviations, ChannelMeans, Options, SizeOption


class Pt2Options(Options):
    """A `.pt2` file of `torch.export.save`."""

    image_size: SizeOption | None = Field(
        None,
        description="size of images, px, where the file leaves it open: the edge of a square, or [height, width]",
        examples=[224],
    )
    mean: ChannelMeans = Field(
        IMAGENET_MEAN, description="per-channel mean that the model was trained with, of pixels scaled to 0..1"
    )
    std: ChannelDeviations = Field(IMAGENET_STD, description="per-channel standard deviation of the same")
    classes: tuple[str, ...] | None = Field(None, description='names of the outputs; "0", "1", … when left out')
