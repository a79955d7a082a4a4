"""Two labels in one picture, on pictures that travel with the package; writes an overlay and the label map.

python examples/several_labels.py
"""

from __future__ import annotations

from pathlib import Path

import iir_sdk
from iir_sdk import FewShotSegmenter

PICTURES = Path(iir_sdk.__file__).parent / "demo" / "pictures"


def main() -> None:
    """Find a face and a flag by one example each."""
    segmenter = FewShotSegmenter()
    for label in ("face", "flag"):
        segmenter.add_support(PICTURES / f"{label}_support.jpg", PICTURES / f"{label}_support_mask.png", label=label)
    result = segmenter.predict(PICTURES / "face_query.jpg")
    print(result)
    result.save("overlay.jpg", what="overlay")
    result.save("labels.png")
    segmenter.save_supports("face_and_flag.safetensors")


if __name__ == "__main__":
    main()
