"""COCO's run lengths, and whatever else COCO keeps masks as, by pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import DatasetError, needed_imports

_CURE = "COCO's masks need pycocotools; run: pip install 'iir-sdk[formats]'"


def encode(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Of a mask ``(H, W)``: its ``size`` ``[H, W]`` and its ``counts``, compressed, as text that JSON holds.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    with needed_imports(_CURE):
        from pycocotools import mask as rle
    runs = rle.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")}


def decode(segmentation: object, size: tuple[int, int]) -> NDArray[np.bool_]:
    """``(H, W)`` bool of one annotation: polygons, or run lengths as counts or as a string.

    Raises:
        DatasetError: it is neither, or run lengths of another size.
        MissingDependencyError: pycocotools is not installed.
    """
    with needed_imports(_CURE):
        from pycocotools import mask as rle
    height, width = size
    try:
        if isinstance(segmentation, list):
            runs = rle.merge(rle.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation, dict) and isinstance(segmentation["counts"], list):
            if sum(segmentation["counts"]) != height * width:
                raise ValueError(f"counts of {sum(segmentation['counts'])} pixels for {height} x {width}")
            runs = rle.frPyObjects(segmentation, height, width)
        elif isinstance(segmentation, dict):
            runs = segmentation
        else:
            raise TypeError(type(segmentation).__name__)
        decoded: NDArray[np.bool_] = rle.decode(runs).astype(np.bool_)
    except (TypeError, KeyError, ValueError, IndexError) as error:
        raise DatasetError(f"a mask is neither polygons nor run lengths: {error!r}.") from error
    if decoded.shape != size:
        raise DatasetError(
            f"run lengths are of {decoded.shape[0]} x {decoded.shape[1]}, but their picture is of {height} x {width} "
            "(height x width); encode the mask at the picture's size."
        )
    return decoded
