"""Short sequences of frames with masks, for ``benchmarks/video.py``: recordings, and a camera moved over a picture.

A recording is pictures of one set that were taken one after another in one place. There are few of them with masks, so
a camera is moved over single pictures as well: it pans, comes closer or goes back, turns, and light, colour and
sharpness drift, all smoothly, by a seed. The first frame is what the camera sees first, and its mask the user's.

Sequences to choose settings by and those to report on are of different sets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

LONGEST = 8
"""Frames of a sequence."""
SHORTEST = 4
"""Frames of a recording that is used."""
LEAST = 0.01
"""Share of the first frame that the object has."""
SIDE = 384
"""Longest side of what a moving camera sees, in pixels."""
STEP = 0.4
"""Seconds from frame to frame."""

RECORDINGS = {
    "choose": {
        "campus_road": r"(test|valid)_color_(\d+)_png",
        "cwfid_crop_weed": r"()(\d+)",
        "wood_debris": r"()DSC(\d+)_r",
    },
    "report": {
        "campus_indoor": r"()frame_(\d+)_.*",
        "microfluidic_droplet": r"video(\d+)image(\d+)",
        "endoscopy_tool": r"([a-z]+)(\d+)",
        "badminton_court": r"()(95|1[012]\d)",
        "fly_larva": r"()(\d+)",
    },
}
"""Of file stems: which recording, and when; other files are left out."""
OTHERS = ("coco", "camvid", "objects5", "clothing", "human290", "cutouts")
"""Sets of many scenes and classes. Of those that iir-lite2 was trained on, some are left in the half to choose by."""


@dataclass(frozen=True)
class Sequence:
    """Frames ``(H, W, 3)`` uint8 in order, and their masks ``(H, W)`` bool."""

    name: str
    kind: str  # "recording" or "camera"
    frames: list[NDArray[np.uint8]]
    masks: list[NDArray[np.bool_]]


def recordings(data: Path, half: str) -> Iterator[Sequence]:
    """Frames of each class in order of time, in pieces of up to ``LONGEST``."""
    for name, pattern in RECORDINGS[half].items():
        for folder in sorted((data / name / "masks").iterdir()):
            places: dict[str, list[tuple[int, str]]] = {}
            for file in folder.glob("*.png"):
                if parts := re.fullmatch(pattern, file.stem):
                    places.setdefault(parts[1], []).append((int(parts[2]), file.stem))
            for place, stamped in sorted(places.items()):
                stems = [stem for _, stem in sorted(stamped)]
                count = -(-len(stems) // LONGEST)
                for i, piece in enumerate(np.array_split(stems, count)):
                    shown = [read(data / name, folder.name, str(stem)) for stem in piece]
                    if len(shown) >= SHORTEST and shown[0][1].mean() >= LEAST:
                        frames, masks = map(list, zip(*shown, strict=True))
                        yield Sequence(f"{name}/{folder.name} {place}{i}".strip(), "recording", frames, masks)


def read(folder: Path, label: str, stem: str) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    (picture,) = (folder / "images").glob(f"{stem}.*")
    with Image.open(picture) as image, Image.open(folder / "masks" / label / f"{stem}.png") as mask:
        return np.asarray(image.convert("RGB")), np.asarray(mask.convert("L")) > 127


def cameras(data: Path, half: str, count: int) -> Iterator[Sequence]:
    """A camera over one picture of each of so many sets; those to choose by alternate with those to report on."""
    used = {name for of_half in RECORDINGS.values() for name in of_half}
    names = sorted(f.parent.name for f in data.glob("*/masks"))
    names = [n for n in names if n not in used and not n.startswith(OTHERS)]
    names = names[0 if half == "choose" else 1 :: 2]
    for index in np.linspace(0, len(names) - 1, count).round().astype(int):
        name = names[index]
        rng = np.random.default_rng(int(index))
        label, stem = suited(data / name, rng)
        pixels, mask = read(data / name, label, stem)
        frames, masks = moved(pixels, mask, rng)
        yield Sequence(f"{name}/{label}", "camera", frames, masks)


def suited(folder: Path, rng: np.random.Generator) -> tuple[str, str]:
    """Class and stem of a picture, by chance, whose object has 3 to 30 percent of it; else of any."""
    files = sorted(folder.glob("masks/*/*.png"))
    rng.shuffle(files)  # type: ignore[arg-type]
    shares = ((f, np.asarray(Image.open(f).convert("L")).mean() / 255) for f in files)
    file = next((f for f, share in shares if 0.03 <= share <= 0.3), files[0])
    return file.parent.name, file.stem


def moved(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.bool_]]]:
    """What a camera sees on its way over a picture, from a view around its object to another."""
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    middle = np.array([columns.mean(), rows.mean()])
    whole = np.array([width, height]) / 2
    # From half way between the picture's middle and the object's, to near the object.
    start, end = (middle + whole) / 2, middle + rng.uniform(-0.15, 0.15, 2) * (width, height)
    zooms = np.array([rng.uniform(0.75, 1), rng.uniform(0.35, 0.6)])
    zooms = zooms if rng.random() < 0.7 else zooms[::-1]
    angle, gamma = rng.uniform(-35, 35), rng.choice([rng.uniform(0.45, 0.7), rng.uniform(1.4, 2.2)])
    tint, blur = rng.uniform(0.75, 1.2, 3), rng.uniform(0, 1.5)
    frames, masks = [], []
    for i in range(LONGEST):
        way = i / (LONGEST - 1)
        eased = way * way * (3 - 2 * way)
        view = (start + (end - start) * eased, zooms[0] * (zooms[1] / zooms[0]) ** eased, angle * eased)
        image = seen(Image.fromarray(pixels), *view, Image.Resampling.BICUBIC)
        image = image.filter(ImageFilter.GaussianBlur(blur * eased))
        values = (np.asarray(image) / 255) ** (gamma**eased) * tint**eased
        noise = rng.normal(0, 0.02, values.shape)
        frames.append((np.clip(values + noise, 0, 1) * 255).round().astype(np.uint8))
        masks.append(np.asarray(seen(Image.fromarray(mask), *view, Image.Resampling.NEAREST)))
    return frames, masks


def seen(
    image: Image.Image, centre: NDArray[np.float64], zoom: float, angle: float, filter_: Image.Resampling
) -> Image.Image:
    """A turned part of a picture around a place, ``zoom`` times its size, moved to lie within it where it can."""
    width, height = image.size
    scale = SIDE / max(image.size)
    size = (round(width * scale) // 2 * 2, round(height * scale) // 2 * 2)
    cos, sin = np.cos(np.radians(angle)) * zoom / scale, np.sin(np.radians(angle)) * zoom / scale
    half = np.array([abs(cos) * size[0] + abs(sin) * size[1], abs(sin) * size[0] + abs(cos) * size[1]]) / 2
    low, high = half, np.array(image.size) - half
    x, y = np.where(low < high, np.clip(centre, low, np.maximum(low, high)), np.array(image.size) / 2)
    across, down = size[0] / 2, size[1] / 2
    way = (cos, -sin, x - cos * across + sin * down, sin, cos, y - sin * across - cos * down)
    return image.transform(size, Image.Transform.AFFINE, way, filter_)
