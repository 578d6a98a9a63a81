"""Augmentation: each change does what it says, image by image, and repeats with its generator."""

import pytest
import torch
from torch import Tensor

from edgeopt.data.augment import augment, augment_moved
from edgeopt.options import Augmentation

EVERYTHING = Augmentation(
    horizontal_flip=True,
    crop_padding=2,
    crop_scale=0.6,
    rotation_degrees=15,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    erase=0.5,
)


def images(count: int = 64, size: int = 16) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def run(pixels: Tensor, seed: int = 0, **options: float) -> Tensor:
    return augment(pixels, Augmentation(**options), torch.Generator().manual_seed(seed))


def test_nothing_asked_nothing_changed() -> None:
    pixels = images()
    assert augment(pixels, Augmentation(), torch.Generator()) is pixels


@pytest.mark.parametrize(("height", "width", "channels"), [(12, 40, 3), (40, 12, 1)])
def test_images_of_any_shape_keep_it(height: int, width: int, channels: int) -> None:
    pixels = torch.randint(0, 256, (16, channels, height, width), dtype=torch.uint8)
    for options in ({"crop_padding": 3}, {"crop_scale": 0.5}, {"contrast": 0.4}, {"erase": 1.0}, {"saturation": 0.5}):
        changed = run(pixels, **options)
        assert changed.shape == pixels.shape
    assert torch.equal(run(pixels, crop_padding=1, seed=3), run(pixels, crop_padding=1, seed=3))


def test_a_turned_wide_image_keeps_its_angles() -> None:
    """A disc stays a disc: places move in px, whatever the ratio of the sides."""
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(96), indexing="ij")
    disc = ((rows - 15.5) ** 2 + (columns - 47.5) ** 2 < 100).to(torch.uint8) * 255
    turned = run(disc.expand(4, 1, 32, 96), rotation_degrees=90.0).float()
    assert (turned - disc).abs().mean(dim=(1, 2, 3)).max() < 255 * 0.01


def test_an_empty_batch_stays_empty() -> None:
    assert augment(images(0), EVERYTHING, torch.Generator()).shape == (0, 3, 16, 16)


@pytest.mark.parametrize(
    "options",
    [
        {"horizontal_flip": True},
        {"crop_padding": 3},
        {"crop_scale": 0.5},
        {"rotation_degrees": 30.0},
        {"brightness": 0.4},
        {"contrast": 0.4},
        {"saturation": 0.4},
        {"erase": 1.0},
        EVERYTHING.model_dump(),
    ],
)
def test_each_change_repeats_with_its_seed_and_leaves_its_input_alone(options: dict[str, float]) -> None:
    pixels = images()
    before = pixels.clone()
    first = run(pixels, **options)
    assert first.dtype == torch.uint8 and first.shape == pixels.shape
    assert torch.equal(first, run(pixels, **options))
    assert not torch.equal(first, run(pixels, seed=1, **options))
    assert not torch.equal(first, pixels)
    assert torch.equal(pixels, before)


def test_about_half_of_the_images_are_mirrored() -> None:
    pixels = images(400)
    flipped = run(pixels, horizontal_flip=True)
    mirrored = [bool(torch.equal(one, other.flip(-1))) for one, other in zip(flipped, pixels, strict=True)]
    same = [bool(torch.equal(one, other)) for one, other in zip(flipped, pixels, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 150 < sum(mirrored) < 250


def test_a_padded_crop_shifts_by_whole_pixels_and_fills_with_black() -> None:
    pixels = images(300)
    padded = torch.nn.functional.pad(pixels, (2, 2, 2, 2))
    windows = {(x, y): padded[:, :, y : y + 16, x : x + 16] for x in range(5) for y in range(5)}
    found = set()
    for index, shifted in enumerate(run(pixels, crop_padding=2)):
        places = [place for place, window in windows.items() if torch.equal(window[index], shifted)]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) == 25


def test_a_scaled_crop_stays_inside_the_image() -> None:
    white = torch.full((200, 3, 16, 16), 200, dtype=torch.uint8)
    inner = run(white, crop_scale=0.3)[:, :, 1:-1, 1:-1]  # the outermost row may blend with what is outside
    assert bool((inner == 200).all())
    ramp = torch.arange(64, dtype=torch.uint8).mul(4).expand(200, 3, 64, 64)
    kept = (run(ramp, crop_scale=0.3)[:, 0, 32, [8, -9]].diff(dim=1) / ramp[0, 0, 32, [8, -9]].diff()).flatten()
    assert 0.4 < kept.min() < 0.65 and 0.9 < kept.max() <= 1.02


def test_rotation_turns_around_the_middle_by_at_most_its_angle() -> None:
    size = 65
    dot = torch.zeros(200, 3, size, size, dtype=torch.uint8)
    dot[:, :, 30:35, 60:65] = 255
    turned = run(dot, rotation_degrees=45)[:, 0].float()
    place = torch.arange(size) - 32.0
    y = (turned * place[:, None]).sum(dim=(1, 2)) / turned.sum(dim=(1, 2))
    x = (turned * place[None, :]).sum(dim=(1, 2)) / turned.sum(dim=(1, 2))
    angle = torch.rad2deg(torch.atan2(y, x))
    assert angle.abs().max() <= 46 and angle.max() > 35 and angle.min() < -35
    assert ((x**2 + y**2).sqrt() - 30).abs().max() < 2.5


def test_colours_change_by_their_share_and_grey_stays_grey() -> None:
    flat = torch.full((300, 3, 4, 4), 100, dtype=torch.uint8)
    brighter = run(flat, brightness=0.2)[:, 0, 0, 0]
    assert brighter.min() < 85 and brighter.max() > 115 and brighter.min() >= 80 and brighter.max() <= 120
    assert torch.equal(run(flat, contrast=0.9), flat)
    assert torch.equal(run(flat, saturation=0.9), flat)
    pixels = images(50)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    muted = run(pixels.div(2, rounding_mode="floor") + 64, saturation=0.3).float()
    grey = ((pixels.div(2, rounding_mode="floor") + 64) * luma).sum(dim=1)
    assert ((muted * luma).sum(dim=1) - grey).abs().max() < 1.5  # saturation keeps the brightness of each pixel


def test_erasing_covers_one_rectangle_of_one_colour_in_its_share_of_the_images() -> None:
    pixels = images(400, 32)
    erased = run(pixels, erase=0.25)
    changed = (erased != pixels).any(dim=1)
    touched = changed.flatten(1).any(dim=1)
    assert 60 < int(touched.sum()) < 140
    for index in touched.nonzero().flatten().tolist():
        rows, columns = changed[index].any(dim=1).nonzero().flatten(), changed[index].any(dim=0).nonzero().flatten()
        patch = erased[index, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert bool((patch == patch[:, :1, :1]).all())
        assert patch[0].numel() <= 0.45 * 32 * 32


def test_images_of_a_batch_change_independently() -> None:
    same = images(1).expand(32, -1, -1, -1)
    assert (
        len({augmented.numpy().tobytes() for augmented in augment(same, EVERYTHING, torch.Generator().manual_seed(0))})
        == 32
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"horizontal_flip": True},
        {"crop_padding": 5},
        {"rotation_degrees": 60.0},
        {"crop_scale": 0.5},
        {"horizontal_flip": True, "crop_padding": 3, "rotation_degrees": 30.0, "crop_scale": 0.7},
        {"scale_jitter": (0.4, 1.0)},
        {"horizontal_flip": True, "crop_padding": 3, "rotation_degrees": 30.0, "scale_jitter": (0.5, 1.0)},
    ],
)
def test_places_are_known_after_the_move(changes):
    """A bright spot lies where the map says, and masks go with it."""
    places = torch.tensor([[22.0, 26.0], [30.0, 34.0], [36.0, 22.0], [26.0, 40.0]] * 4)
    rows, columns = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    far = (columns - places[:, 0, None, None]).square() + (rows - places[:, 1, None, None]).square()
    spots = (255 * (-far / 12).exp()).round().to(torch.uint8)
    pixels = spots[:, None].expand(-1, 3, -1, -1).contiguous()
    moved, moves = augment_moved(pixels, Augmentation(**changes), torch.Generator().manual_seed(3))
    assert torch.equal(moved, augment(pixels, Augmentation(**changes), torch.Generator().manual_seed(3)))
    weight = moved[:, 0].double()
    found = torch.stack([(weight * each).sum((1, 2)) / weight.sum((1, 2)) for each in (columns, rows)], dim=1)
    assert torch.allclose(found, moves.points(places[:, None])[:, 0].double(), atol=0.3)
    masks = moves.masks((spots > 128).long() + 1, outside=7)
    inside = (masks == 2) == (moved[:, 0] > 128)
    assert inside.double().mean() > 0.995
    assert set(masks.unique().tolist()) <= {1, 2, 7}
