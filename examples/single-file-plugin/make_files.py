"""Draws images with a table, and trains the network of `parts.py` on them with plain PyTorch: stand-ins for your own.

python make_files.py
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from parts import PartsNet
from PIL import Image, ImageDraw

CLASSES = ("bolt", "nut", "washer")
SIZE = 48
IMAGES = {"train": 360, "validation": 60, "test": 120}


def drawn(label: str, random: np.random.Generator) -> Image.Image:
    """A part on a noisy ground, at some place, of some size and colour."""
    image = Image.fromarray(random.integers(0, 110, (SIZE, SIZE, 3), dtype=np.uint8))
    draw, colour = ImageDraw.Draw(image), tuple(int(value) for value in random.integers(120, 256, 3))
    radius = int(random.integers(9, 16))
    x, y = random.integers(radius, SIZE - radius, 2)
    if label == "bolt":
        draw.rectangle((x - radius // 3, y - radius, x + radius // 3, y + radius), fill=colour)
        draw.rectangle((x - radius, y - radius, x + radius, y - radius // 2), fill=colour)
    elif label == "nut":
        draw.regular_polygon((int(x), int(y), radius), 6, fill=colour)
        draw.ellipse((x - radius // 2, y - radius // 2, x + radius // 2, y + radius // 2), fill=(30, 30, 30))
    else:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=max(2, radius // 3))
    return image


def write_images(folder: Path) -> None:
    """`images/` and `labels.csv`."""
    random = np.random.default_rng(7)
    (folder / "images").mkdir(exist_ok=True)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("file", "label", "split"))
        for split, count in IMAGES.items():
            for number in range(count):
                label = CLASSES[number % len(CLASSES)]
                name = f"images/{split}-{number:03}.png"
                drawn(label, random).save(folder / name)
                table.writerow((name, label, split))


def train(folder: Path, epochs: int = 12) -> None:
    """`parts.pt`, from the training images alone: the test images stay unseen."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    images = np.stack([np.asarray(Image.open(folder / row["file"]).convert("RGB")) for row in rows])
    values = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1  # mean 0.5, deviation 0.5
    labels = torch.tensor([CLASSES.index(row["label"]) for row in rows])
    torch.manual_seed(7)
    network = PartsNet(width=16, classes=len(CLASSES))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for batch in torch.randperm(len(values)).split(32):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(values[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
    torch.save({"epoch": epochs, "state_dict": network.state_dict()}, folder / "parts.pt")


if __name__ == "__main__":
    here = Path(__file__).parent
    write_images(here)
    train(here)
