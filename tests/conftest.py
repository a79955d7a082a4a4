"""Shared fixtures: a small random network, a small folder of pictures, the real embedded segmenter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iir_sdk import FewShotSegmenter
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.iir import IIR
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.torchvision_import import ensure_torchvision
from iir_sdk.weights.checkpoint_file import save_checkpoint
from tests import HUB
from tests.hub_server import HubServer
from tests.published import cache, entry, folder, impatient

__all__ = ["cache", "entry", "folder", "impatient"]

# Small networks gain nothing from further threads, which wait for one another where the cores are busy.
torch.set_num_threads(1)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole suite; what is picked by hand starts sooner without."""
    picked = config.args_source is pytest.Config.ArgsSource.ARGS or bool(config.option.keyword)
    cores = os.cpu_count() or 1
    return 0 if picked or cores < 2 else 2


SMALL = ModelConfig(width=16, blocks=2, cross_blocks=1, heads=2, head_width=8)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def small_model() -> IIR:
    torch.manual_seed(0)
    return IIR(SMALL).eval()


@pytest.fixture(scope="session")
def small_checkpoint(small_model: IIR, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save_checkpoint(small_model, Preprocessing(size=96, support_size=64), path)
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of under a megabyte, on one of timm's networks for tests."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_tiny(path, seed=0)
    return path


def save_tiny(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    ensure_torchvision()
    config = ModelConfig(backbone="test_efficientnet", width=8, blocks=1, cross_blocks=1, heads=1, head_width=8)
    save_checkpoint(IIR(config), Preprocessing(size=64, support_size=64), path)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    HUB.reset()
    yield HUB
    HUB.reset()


@pytest.fixture
def small_segmenter(small_checkpoint: Path) -> FewShotSegmenter:
    return FewShotSegmenter(small_checkpoint, device="cpu")


@pytest.fixture
def tiny_segmenter(tiny_checkpoint: Path) -> FewShotSegmenter:
    return FewShotSegmenter(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="session")
def embedded() -> FewShotSegmenter:
    """The real weights; tests must leave it without supports."""
    return FewShotSegmenter(device="cpu")


def draw_scene(rng: np.random.Generator, size: tuple[int, int] = (70, 90)) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture with a bright disc, and the disc's mask."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    centre = rng.uniform(0.35, 0.65, 2) * size
    mask = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (min(size) * rng.uniform(0.2, 0.3)) ** 2
    picture = rng.integers(0, 120, (height, width, 3))
    picture[mask] += np.array([120, 60, 0])
    return picture.astype(np.uint8), mask


@pytest.fixture
def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return draw_scene(rng)


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets in the folder layout: ``coco`` with classes dog and cat, ``coins`` with class coin."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(1)
    for name, classes in (("coco", ("dog", "cat")), ("coins", ("coin",))):
        for i in range(6):
            for label in classes:
                stem = f"{label}{i}"
                picture, mask = draw_scene(rng, (64, 80))
                for part in ("images", f"masks/{label}"):
                    (root / name / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(root / name / "images" / f"{stem}.jpg")
                Image.fromarray(mask).save(root / name / "masks" / label / f"{stem}.png")
    return root
