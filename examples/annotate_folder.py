"""One mask instead of a thousand: masks for a whole folder from one marked picture, as `iir-sdk segment` makes them.

python examples/annotate_folder.py first.jpg first_mask.png pictures/ masks/
"""

from __future__ import annotations

import sys

from iir_sdk import segment_folder


def main() -> None:
    """Mark every picture of a folder; started again, it goes on where it was."""
    picture, mask, pictures, masks = sys.argv[1:]
    review = f"{masks}/review.html"
    report = segment_folder(pictures, masks, supports=[(picture, mask)], review=review, progress=True)
    for row in report.rows[:5]:
        print(f"look at {row.file}: {row.error or f'{row.area_share:.1%} of the picture, score {row.score:.2f}'}")
    if report.errors:
        raise SystemExit(f"{len(report.errors)} pictures were left out.")


if __name__ == "__main__":
    main()
