"""COCO's run lengths, and whatever else COCO keeps masks as, by pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import DatasetError, needed_imports

_CURE = "COCO's masks need pycocotools; run: pip install 'iir-sdk[formats]'"


def encode(
    mask: NDArray[np.bool_], size: tuple[int, int] | None = None, corner: tuple[int, int] = (0, 0)
) -> dict[str, Any]:
    """Of a mask ``(H, W)``: its ``size`` ``[H, W]`` and its ``counts``, compressed, as text that JSON holds.

    Args:
        mask: of a picture, or of a part of one, ``(h, w)``.
        size: ``(H, W)`` of the picture that it is a part of.
        corner: left and top of the part.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    with needed_imports(_CURE):
        from pycocotools import mask as rle
    height, width = size or mask.shape
    changes = np.diff(np.pad(mask, ((1, 1), (0, 0))).view(np.int8), axis=0).T
    # Places where runs begin and end, counted down the columns of the picture.
    starts, ends = (np.argwhere(changes == kind) @ (height, 1) for kind in (1, -1))
    places = np.stack([starts, ends], 1).ravel() + corner[0] * height + corner[1]
    # One that ends where a column does and another that begins the next are one run.
    joint = np.flatnonzero(np.diff(places) == 0)
    places = np.delete(places, [*joint, *(joint + 1)])
    counts = np.diff([0, *places, *([] if len(places) and places[-1] == height * width else [height * width])]).tolist()
    runs = rle.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [int(height), int(width)], "counts": runs["counts"].decode("ascii")}


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
        if isinstance(segmentation, list) and all(isinstance(polygon, list) for polygon in segmentation):
            runs = rle.merge(rle.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation, dict):
            # Before pycocotools sees them: it takes memory of the size that they state, without looking at it.
            _check_runs(segmentation["counts"], segmentation["size"], size)
            as_counts = isinstance(segmentation["counts"], list)
            runs = rle.frPyObjects(segmentation, height, width) if as_counts else segmentation
        else:
            raise TypeError(type(segmentation).__name__)
        decoded: NDArray[np.bool_] = rle.decode(runs).astype(np.bool_)
    except (TypeError, KeyError, ValueError, IndexError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"a mask is neither polygons nor run lengths: {error!r}.") from error
    return decoded


def _check_runs(counts: object, stated: object, size: tuple[int, int]) -> None:
    """Refuse run lengths that are not of a picture's size by a DatasetError."""
    if not isinstance(stated, (list, tuple)) or tuple(stated) != size:
        sides = " x ".join(map(str, stated)) if isinstance(stated, (list, tuple)) else repr(stated)
        raise DatasetError(
            f"run lengths are of {sides}, but their picture is of {size[0]} x {size[1]} (height x width); encode the "
            "mask at the picture's size."
        )
    if isinstance(counts, list):
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise DatasetError("run lengths are not whole numbers from 0 on; export them again.")
        if sum(counts) != size[0] * size[1]:
            raise DatasetError(
                f"run lengths count {sum(counts)} pixels, but their picture has {size[0] * size[1]}; export them again."
            )
