"""Photos of one kind of thing, cut from the demo's pictures, with what is true of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import iir_sdk

PICTURES = Path(iir_sdk.__file__).parent / "demo" / "pictures"


def scenes(job: str) -> list[tuple[Image.Image, np.ndarray]]:
    """Both pictures of a demo job with their masks, bool (H, W)."""
    return [
        (
            Image.open(PICTURES / f"{job}_{part}.jpg").convert("RGB"),
            np.asarray(Image.open(PICTURES / f"{job}_{part}_mask.png").convert("L")) > 0,
        )
        for part in ("support", "query")
    ]


def write_photos(
    folder: Path,
    job: str,
    count: int,
    *,
    seed: int = 0,
    side: int = 360,
    least: float = 0.05,
    span: tuple[float, float] = (0.45, 0.72),
) -> dict[str, np.ndarray]:
    """Write crops of a job's larger pictures, some flipped, some brighter; true masks, bool (H, W), by name.

    Each is `side` pixels long, 4 to 3, as high as a share in `span` of its source;
    the thing fills the share `least` or more.
    """
    rng = np.random.default_rng(seed)
    sources = [scene for scene in scenes(job) if min(scene[0].size) >= 200]
    folder.mkdir(parents=True, exist_ok=True)
    true: dict[str, np.ndarray] = {}
    while len(true) < count:
        picture, mask = sources[rng.integers(len(sources))]
        height = int(rng.uniform(*span) * min(picture.width * 0.75, picture.height))
        width = int(height / 0.75)
        left, top = rng.integers(picture.width - width + 1), rng.integers(picture.height - height + 1)
        box = (int(left), int(top), int(left) + width, int(top) + height)
        flipped = bool(rng.integers(2))
        shown = _turned(picture.crop(box), flipped).resize((side, side * 3 // 4), Image.Resampling.BICUBIC)
        here = _turned(Image.fromarray(mask).crop(box), flipped).resize(shown.size, Image.Resampling.NEAREST)
        true_mask = np.asarray(here) > 0
        if least <= true_mask.mean() <= 0.7:
            name = f"{job}_{len(true) + 1:03d}.jpg"
            brighter = shown.point(
                [min(255, int(v * light)) for light in (rng.uniform(0.8, 1.2),) for v in range(256)] * 3
            )
            brighter.save(folder / name, quality=90)
            true[name] = true_mask
    return true


def _turned(picture: Image.Image, flipped: bool) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else picture
