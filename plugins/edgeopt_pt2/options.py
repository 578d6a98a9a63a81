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
    classes: tuple[str, ...] | None = Field(
        None, description='names of a classifier\'s classes, in the order of its logits; "0", "1", … when left out'
    )
    output: str | None = Field(
        None,
        description="the only output that is kept, by its key in what the program returns, or output_0, output_1, … "
        "where it has none; all when left out",
        examples=["out"],
    )
