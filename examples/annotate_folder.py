"""One mask instead of a thousand: masks for a whole folder from one marked picture.

python examples/annotate_folder.py first.jpg first_mask.png pictures/ masks/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from iir_sdk import FewShotSegmenter, IirError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def main() -> None:
    """Mark every picture of a folder; those where the object seems absent, or that cannot be read, are listed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", help="the marked picture")
    parser.add_argument("mask", help="its mask: one number beside 0 is the object")
    parser.add_argument("pictures", type=Path, help="folder of pictures to mark")
    parser.add_argument("masks", type=Path, help="folder for their masks: <picture's file name>.png")
    parser.add_argument("--absent-below", type=float, default=0.0, help="score below which a mask is left empty")
    arguments = parser.parse_args()

    segmenter = FewShotSegmenter()
    segmenter.add_support(arguments.image, arguments.mask)
    arguments.masks.mkdir(parents=True, exist_ok=True)
    failed = 0
    for file in sorted(p for p in arguments.pictures.iterdir() if p.suffix.lower() in SUFFIXES):
        try:
            result = segmenter.predict(file, absent_below=arguments.absent_below)
            # The whole name, so that a.jpg and a.png do not share a mask.
            result.save(arguments.masks / f"{file.name}.png")
        except IirError as error:
            failed += 1
            print(f"{file.name}: left out. {error}")
            continue
        note = "" if result.mask.any() else "   nothing found"
        print(f"{file.name}: {result.mask.mean():.1%} of the picture, score {result.score:.2f}{note}")
    if failed:
        raise SystemExit(f"{failed} pictures were left out.")


if __name__ == "__main__":
    main()
