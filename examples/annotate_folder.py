"""One mask instead of a thousand: masks for a whole folder from one marked picture.

python examples/annotate_folder.py first.jpg first_mask.png pictures/ masks/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from iir_sdk import FewShotSegmenter

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def main() -> None:
    """Mark every picture of a folder; pictures where the object seems absent are listed, not skipped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", help="the marked picture")
    parser.add_argument("mask", help="its mask: nonzero is the object")
    parser.add_argument("pictures", type=Path, help="folder of pictures to mark")
    parser.add_argument("masks", type=Path, help="folder for their masks, one PNG each")
    arguments = parser.parse_args()

    segmenter = FewShotSegmenter()
    segmenter.add_support(arguments.image, arguments.mask)
    arguments.masks.mkdir(parents=True, exist_ok=True)
    files = sorted(p for p in arguments.pictures.iterdir() if p.suffix.lower() in SUFFIXES)
    for file, result in zip(files, segmenter.predict_many(files), strict=True):
        result.save(arguments.masks / f"{file.stem}.png")
        note = "" if result.mask.any() else "   nothing found"
        print(f"{file.name}: {result.mask.mean():.1%} of the picture, score {result.score:.2f}{note}")


if __name__ == "__main__":
    main()
