"""Changes of training images, drawn anew for each batch: plain torch, a whole batch at a time.

Uint8 in, uint8 out: what training sees went through the same rounding as what a camera gives.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from edgeopt.data.augment_constants import CROP_ASPECTS, ERASED_ASPECTS, ERASED_SHARES, LUMA
from edgeopt.options import Augmentation
from edgeopt.tasks.moves import Moves


def augment(pixels: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """The pixels that `augment_moved` gives."""
    return augment_moved(pixels, augmentation, generator)[0]


def augment_moved(
    pixels: Tensor, augmentation: Augmentation, generator: torch.Generator, crops: Tensor | None = None
) -> tuple[Tensor, Moves]:
    """Images, uint8 (n, channels, height, width), each changed in its own way, and where that moved their places; the
    input is left alone.

    All randomness comes from `generator`, which lives on the device of `pixels`. Without any change asked for, `pixels`
    itself comes back. `crops`, float (n, 4), are the corners x1, y1, x2, y2 in px of what is cut out of each image
    before all else, and then fills it.

    Source of the erased rectangles: Z. Zhong et al., "Random Erasing Data Augmentation", AAAI 2020; of the scaled crop:
    C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015; of the changes of scale: G. Ghiasi et al., "Simple
    Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", CVPR 2021.
    """
    count, _, height, width = pixels.shape
    places = torch.eye(3, device=pixels.device).repeat(count, 1, 1)
    if (augmentation == Augmentation() and crops is None) or not count:
        return pixels, Moves(places[:, :2], height, width)
    draw = _Draw(count, generator)
    changed = pixels
    if augmentation.horizontal_flip:
        mirrored = draw.chance(0.5)
        changed = pixels.clone()
        changed[mirrored] = pixels[mirrored].flip(-1)
        places[mirrored, 0, 0], places[mirrored, 0, 2] = -1.0, float(width)
        if crops is not None:
            crops = torch.where(mirrored[:, None], _mirrored(crops, width), crops)
    if crops is not None or augmentation.scale_jitter != (1.0, 1.0):
        changed, move = _seen_through(changed, augmentation, crops, draw)
        places = move @ places
    else:
        if augmentation.crop_padding:
            changed, shift = _shifted(changed, augmentation.crop_padding, draw)
            places[:, :2, 2] += shift
        if augmentation.rotation_degrees or augmentation.crop_scale < 1.0:
            changed, move = _moved(changed, augmentation, draw)
            places = move @ places
    if augmentation.brightness or augmentation.contrast or augmentation.saturation:
        changed = _recoloured(changed, augmentation, draw)
    if augmentation.erase:
        changed = _erased(changed, augmentation.erase, draw)
    return changed, Moves(places[:, :2], height, width)


class _Draw:
    """Random numbers, one for each image."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count = count
        self.generator = generator

    def uniform(self, low: float | Tensor, high: float | Tensor) -> Tensor:
        """Float (n,), from `low` to `high`."""
        return low + (high - low) * torch.rand(self.count, generator=self.generator, device=self.generator.device)

    def log_uniform(self, low: float, high: float) -> Tensor:
        """Float (n,), as often between 1/2 and 1 as between 1 and 2."""
        return self.uniform(math.log(low), math.log(high)).exp()

    def whole(self, most: int) -> Tensor:
        """Whole numbers (n,), from -most to most."""
        shape = (self.count,)
        return torch.randint(-most, most + 1, shape, generator=self.generator, device=self.generator.device)

    def chance(self, probability: float) -> Tensor:
        """Bool (n,)."""
        return self.uniform(0.0, 1.0) < probability


def _shifted(pixels: Tensor, padding: int, draw: _Draw) -> tuple[Tensor, Tensor]:
    """Shifted by whole pixels, black where nothing was: a random crop of the padded image. The second is by how many,
    float (n, 2), to the right and down.
    """
    count, channels, height, width = pixels.shape
    padded = functional.pad(pixels, (padding, padding, padding, padding))
    up, left = draw.whole(padding), draw.whole(padding)
    rows, columns = (
        torch.arange(side, device=pixels.device) + padding + shift[:, None]
        for side, shift in ((height, up), (width, left))
    )
    image, channel = (torch.arange(length, device=pixels.device) for length in (count, channels))
    shifted = padded[
        image[:, None, None, None], channel[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]
    return shifted, -torch.stack([left, up], dim=1).float()


def _moved(pixels: Tensor, augmentation: Augmentation, draw: _Draw) -> tuple[Tensor, Tensor]:
    """Rotated and cropped in one resampling; what comes in from outside is black. The second are the maps of places in
    px from before to after, float (n, 3, 3).
    """
    theta = _turned(augmentation, pixels.shape[-2] / pixels.shape[-1], draw)
    moved = _resampled(pixels, theta)
    return moved, torch.linalg.inv(_in_pixels(theta, pixels.shape[-2], pixels.shape[-1]))


def _seen_through(
    pixels: Tensor, augmentation: Augmentation, crops: Tensor | None, draw: _Draw
) -> tuple[Tensor, Tensor]:
    """Cut out, shifted, rotated, cropped and scaled, as `_moved`: in one resampling, so that what one of these takes
    out of sight and the next brings back is there.
    """
    height, width = pixels.shape[-2:]
    back = torch.eye(3, device=pixels.device).repeat(draw.count, 1, 1)  # from places of the result to those of `pixels`
    if crops is not None:
        back = _places_of(crops, height, width)
    if augmentation.crop_padding:
        shift = torch.eye(3, device=pixels.device).repeat(draw.count, 1, 1)
        shift[:, 1, 2], shift[:, 0, 2] = draw.whole(augmentation.crop_padding), draw.whole(augmentation.crop_padding)
        back = back @ shift
    back = back @ _in_pixels(_turned(augmentation, height / width, draw), height, width)
    if augmentation.scale_jitter != (1.0, 1.0):
        factor = draw.log_uniform(*augmentation.scale_jitter)
        wide, tall = width / factor, height / factor
        left, top = draw.uniform(0.0, 1.0) * (width - wide), draw.uniform(0.0, 1.0) * (height - tall)
        back = back @ _places_of(torch.stack([left, top, left + wide, top + tall], dim=1), height, width)
    return _resampled(pixels, _from_the_middle(back, height, width)), torch.linalg.inv(back)


def _turned(augmentation: Augmentation, ratio: float, draw: _Draw) -> Tensor:
    """Rotations and scaled crops of images whose height by width is `ratio`, float (n, 2, 3).

    Positions run from -1 to 1, and say for each place of the result where in the image it is read.
    """
    device = draw.generator.device
    width = height = torch.ones(draw.count, device=device)
    x = y = torch.zeros(draw.count, device=device)
    if augmentation.crop_scale < 1.0:
        area, aspect = draw.uniform(augmentation.crop_scale, 1.0), draw.log_uniform(*CROP_ASPECTS)
        width, height = (area * aspect).sqrt().clamp(max=1.0), (area / aspect).sqrt().clamp(max=1.0)
        x, y = draw.uniform(width - 1.0, 1.0 - width), draw.uniform(height - 1.0, 1.0 - height)
    most = math.radians(augmentation.rotation_degrees)
    angle = draw.uniform(-most, most) if most else torch.zeros(draw.count, device=device)
    cosine, sine = angle.cos(), angle.sin()
    rows = [width * cosine, -width * sine * ratio, x, height * sine / ratio, height * cosine, y]
    return torch.stack(rows, dim=1).view(-1, 2, 3)


def _resampled(pixels: Tensor, theta: Tensor) -> Tensor:
    """Images read at other places, uint8: bilinear, black where nothing is."""
    grid = functional.affine_grid(theta, list(pixels.shape), align_corners=False)
    moved = functional.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return _rounded(moved)


def _mirrored(corners: Tensor, width: int) -> Tensor:
    """Corners (n, 4) where images of this width are mirrored, left to right."""
    left, top, right, bottom = corners.unbind(dim=1)
    return torch.stack([width - right, top, width - left, bottom], dim=1)


def _places_of(corners: Tensor, height: int, width: int) -> Tensor:
    """Where places of images, in px, are read that show the part between `corners`, (n, 4): maps (n, 3, 3)."""
    left, top, right, bottom = corners.unbind(dim=1)
    places = torch.zeros(len(corners), 3, 3, device=corners.device)
    places[:, 0, 0], places[:, 0, 2] = (right - left) / width, left
    places[:, 1, 1], places[:, 1, 2] = (bottom - top) / height, top
    places[:, 2, 2] = 1.0
    return places


def _in_pixels(theta: Tensor, height: int, width: int) -> Tensor:
    """Maps of places from -1 to 1, (n, 2, 3), as maps of places in px, (n, 3, 3)."""
    halves = torch.tensor([width / 2, height / 2, 1.0], device=theta.device)
    centred = torch.zeros(len(theta), 3, 3, device=theta.device)
    centred[:, :2], centred[:, 2, 2] = theta, 1.0
    outwards = torch.diag(halves)
    outwards[:2, 2] = halves[:2]
    inwards: Tensor = torch.linalg.inv(outwards)
    return outwards @ centred @ inwards


def _from_the_middle(places: Tensor, height: int, width: int) -> Tensor:
    """Maps of places in px, (n, 3, 3), as maps of places from -1 to 1, (n, 2, 3)."""
    outwards = torch.diag(torch.tensor([width / 2, height / 2, 1.0], device=places.device))
    outwards[0, 2], outwards[1, 2] = width / 2, height / 2
    inwards: Tensor = torch.linalg.inv(outwards)
    return (inwards @ places @ outwards)[:, :2]


def _recoloured(pixels: Tensor, augmentation: Augmentation, draw: _Draw) -> Tensor:
    """Brightness, then contrast, then saturation, each by a factor around 1."""
    coloured = pixels.float()
    if augmentation.brightness:
        coloured = coloured * _factor(augmentation.brightness, draw)
    if augmentation.contrast:
        middle = _grey(coloured).mean(dim=(1, 2, 3), keepdim=True)
        coloured = middle + (coloured - middle) * _factor(augmentation.contrast, draw)
    if augmentation.saturation:
        grey = _grey(coloured)
        coloured = grey + (coloured - grey) * _factor(augmentation.saturation, draw)
    return _rounded(coloured)


def _erased(pixels: Tensor, probability: float, draw: _Draw) -> Tensor:
    """A rectangle of the image's mean colour, over some of the images."""
    tall, wide = pixels.shape[-2:]
    edge = math.sqrt(tall * wide)
    chosen = draw.chance(probability)
    share, aspect = draw.uniform(*ERASED_SHARES), draw.log_uniform(*ERASED_ASPECTS)
    width, height = ((share * aspect).sqrt() * edge).clamp(1, wide), ((share / aspect).sqrt() * edge).clamp(1, tall)
    left, top = draw.uniform(0.0, 1.0) * (wide - width), draw.uniform(0.0, 1.0) * (tall - height)
    x, y = (torch.arange(side, device=pixels.device) + 0.5 for side in (wide, tall))
    columns = (x >= left[:, None]) & (x < (left + width)[:, None])
    rows = (y >= top[:, None]) & (y < (top + height)[:, None])
    inside = (chosen[:, None, None] & rows[:, :, None] & columns[:, None, :]).unsqueeze(1)
    colour = _rounded(pixels.float().mean(dim=(2, 3), keepdim=True))
    return torch.where(inside, colour, pixels)


def _factor(share: float, draw: _Draw) -> Tensor:
    return draw.uniform(1.0 - share, 1.0 + share).view(-1, 1, 1, 1)


def _grey(pixels: Tensor) -> Tensor:
    if pixels.shape[1] == 1:
        return pixels
    weights = torch.tensor(LUMA, device=pixels.device).view(1, 3, 1, 1)
    return (pixels * weights).sum(dim=1, keepdim=True)


def _rounded(pixels: Tensor) -> Tensor:
    return pixels.round().clamp(0, 255).to(torch.uint8)
