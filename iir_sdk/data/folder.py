"""The folder layout: ``images/<stem>.jpg`` and ``masks/<class>/<stem>.png``, one folder a set."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_sdk.data.dataset import CUTOUT_SET, Selection
from iir_sdk.errors import DatasetError, DatasetNotFoundError, MaskError
from iir_sdk.files import is_folder, why_no_folder
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import mask_labels
from iir_sdk.pictures.orientation import Exif, check_exif, frame_of, in_shown_frame

COCO_CLASSES = tuple(
    """
    person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign
    parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie
    suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard
    tennis_racket bottle wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot
    hot_dog pizza donut cake chair couch potted_plant bed dining_table toilet tv laptop mouse remote keyboard
    cell_phone microwave oven toaster sink refrigerator book clock vase scissors teddy_bear hair_drier
    toothbrush
    """.split()  # noqa: SIM905
)
"""COCO's 80 categories sorted by category id, with underscores."""

_LAYOUT = "a set is images/<stem>.jpg and masks/<class>/<stem>.png"
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class PictureSet:
    """One set of pictures with masks by class, a :class:`FewShotDataset` whose keys are files' stems."""

    name: str  # the folder's name
    root: Path  # the folder
    images: dict[str, Path]  # picture file of each stem
    classes: dict[str, tuple[str, ...]]  # stems that have a mask, by class, both sorted
    exif: Exif = "auto"  # what the masks were drawn on, where a picture has an EXIF orientation that leaves both open

    def picture(self, key: str) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 RGB."""
        return load_picture(self.images[key], what=f"{self.name}/{key}").pixels

    def mask(self, name: str, key: str) -> NDArray[np.uint8]:
        """``(H, W)`` uint8 of a class in a picture: 0, 1, 255 for ignore.

        Decoded by the rule of :func:`iir_sdk.pictures.masks.mask_labels`, as a support's mask is.

        Raises:
            DatasetError: not the picture's size, or without foreground.
            MaskError, PictureNotFoundError: no mask, or no file.
        """
        path = self.root / "masks" / name / f"{key}.png"
        labels, turned = mask_labels(path, what=str(path))
        frame = frame_of(self.images[key])
        try:
            mask = in_shown_frame(
                labels, frame, exif="shown" if turned else self.exif, what=str(path), of="its picture"
            )
        except MaskError as error:
            raise DatasetError(str(error)) from error
        if not (mask == 1).any():
            raise DatasetError(f"{path} is empty; a class that a picture does not show has no file.")
        return mask

    def of_pictures(self, stems: Container[str]) -> PictureSet:
        """Those of its pictures alone, with their masks."""
        classes = {name: tuple(stem for stem in shown if stem in stems) for name, shown in self.classes.items()}
        images = {stem: file for stem, file in self.images.items() if stem in stems}
        return replace(self, images=images, classes={name: shown for name, shown in classes.items() if shown})

    def only(self, names: Iterable[str]) -> PictureSet:
        """The same pictures with the masks of these classes only; one that the set does not have is a DatasetError."""
        names = list(names)
        missing = [name for name in names if name not in self.classes]
        if missing:
            raise DatasetError(f"set {self.name!r} has no class {missing[0]!r}; it has {', '.join(self.classes)}.")
        return replace(self, classes={n: self.classes[n] for n in names})


def _required_folder(root: str | os.PathLike[str]) -> Path:
    if not is_folder(root):
        raise DatasetNotFoundError(f"{why_no_folder(root)}; {_LAYOUT}.")
    return Path(root)


def read_picture_set(root: str | os.PathLike[str], *, exif: Exif = "auto") -> PictureSet:
    """Read the layout of one set; pictures and masks are opened later.

    ``exif`` says what its masks were drawn on, the pictures as ``shown`` or as ``stored``; ``auto`` goes by each mask's
    size, and where that fits both is ``shown``, with a warning. A missing folder, a mask without its picture, or no
    mask at all is a DatasetError.
    """
    check_exif(exif)
    root = _required_folder(root)
    for folder in ("images", "masks"):
        if not (root / folder).is_dir():
            raise DatasetNotFoundError(f"{root} has no {folder}/ folder; {_LAYOUT}.")
    images = {f.stem: f for f in sorted((root / "images").iterdir()) if f.suffix.lower() in _EXTENSIONS}
    classes: dict[str, tuple[str, ...]] = {}
    for folder_path in sorted(p for p in (root / "masks").iterdir() if p.is_dir()):
        stems = tuple(sorted(f.stem for f in folder_path.glob("*.png")))
        orphans = [s for s in stems if s not in images]
        if orphans:
            raise DatasetError(f"{folder_path}/{orphans[0]}.png has no picture {orphans[0]}.* in {root}/images.")
        if stems:
            classes[folder_path.name] = stems
    if not classes:
        raise DatasetError(f"{root}/masks holds no masks/<class>/<stem>.png.")
    return PictureSet(root.name, root, images, classes, exif)


def read_picture_sets(root: str | os.PathLike[str], *, exif: Exif = "auto") -> list[PictureSet]:
    """One set, or each in the folders below ``root`` by name; a DatasetNotFoundError where none has ``images/``."""
    root = _required_folder(root)
    if (root / "images").is_dir():
        return [read_picture_set(root, exif=exif)]
    folders = sorted(p.parent for p in root.glob("*/images") if p.is_dir())
    if not folders:
        raise DatasetNotFoundError(f"no images/ in {root} nor in a folder of it; {_LAYOUT}.")
    if any(folder.name == CUTOUT_SET for folder in folders):
        raise DatasetError(f"{root / CUTOUT_SET} cannot be a set: cut-outs go by that name; rename the folder.")
    return [read_picture_set(folder, exif=exif) for folder in folders]


FOLDS = 1


def read(root: Path, selection: Selection) -> PictureSet:
    """A folder of one's own as a benchmark, all of it; raises as :func:`read_picture_set` does."""
    selection.check_fold(FOLDS)
    return read_picture_set(root)


def census(root: Path) -> dict[str, int]:
    """What a folder counts."""
    pictures = read_picture_set(root)
    return {"pictures": len(pictures.images), "classes": len(pictures.classes)}


def files(root: Path) -> Iterable[Path]:
    """Every picture of a folder."""
    return read_picture_set(root).images.values()


def coco_fold(fold: int) -> tuple[str, ...]:
    """COCO-20i's novel classes of fold 0..3: every fourth category, from ``fold`` on; any other is a DatasetError."""
    if fold not in range(4):
        raise DatasetError(f"fold {fold} does not exist; COCO-20i has folds 0, 1, 2 and 3.")
    return COCO_CLASSES[fold::4]


@dataclass(frozen=True)
class JoinedSets:
    """Several sets as one, a :class:`FewShotDataset`: classes and keys are ``<set>/<class>`` and ``<set>/<key>``."""

    sets: dict[str, PictureSet]
    name: str = "folder"

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Pictures by class, of all sets."""
        return {
            f"{s.name}/{c}": tuple(f"{s.name}/{k}" for k in keys)
            for s in self.sets.values()
            for c, keys in s.classes.items()
        }

    def picture(self, key: str) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 RGB."""
        set_name, _, stem = key.partition("/")
        return self.sets[set_name].picture(stem)

    def mask(self, name: str, key: str) -> NDArray[np.uint8]:
        """``(H, W)`` uint8 in {0, 1, 255}."""
        set_name, _, stem = key.partition("/")
        return self.sets[set_name].mask(name.partition("/")[2], stem)


def join_sets(sets: Sequence[PictureSet]) -> PictureSet | JoinedSets:
    """One set as it is, several as one."""
    return sets[0] if len(sets) == 1 else JoinedSets({s.name: s for s in sets})
