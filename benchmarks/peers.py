"""Other models that segment by one example, with random weights: only their time is compared."""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from interleaved import Row
from PIL import Image
from rows import Scene


def peer_rows(scene: Scene) -> dict[str, Row]:
    """SegGPT (ViT-L) and CLIPSeg (ViT-B/16, visual prompt), where transformers is installed (extra ``bench``)."""
    if importlib.util.find_spec("transformers") is None:
        return {}
    return {"SegGPT (ViT-L)": _seggpt(scene), "CLIPSeg (ViT-B/16)": _clipseg(scene)}


def _seggpt(scene: Scene) -> Row:
    from transformers import SegGptConfig, SegGptForImageSegmentation

    model = SegGptForImageSegmentation(SegGptConfig()).eval()
    # It sees the example above the picture, each a square of half the configured height.
    side = model.config.image_size[1]
    example, query = (_input(p, side) for p in (scene.pixels, scene.query))
    mask = _input(np.repeat(np.uint8(scene.mask)[..., None] * np.uint8(255), 3, 2), side)

    def run() -> object:
        with torch.inference_mode():
            painted = model(pixel_values=query, prompt_pixel_values=example, prompt_masks=mask).pred_masks
            return _own_size(painted[:, :1, side:], scene.query)

    return run


def _clipseg(scene: Scene) -> Row:
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    config = CLIPSegConfig(vision_config={"patch_size": 16, "image_size": 352})
    model = CLIPSegForImageSegmentation(config).eval()
    # The example is shown with its background dimmed; its embedding could be kept, as a support of ours is.
    example = _input(np.uint8(scene.pixels * np.where(scene.mask, 1, 0.1)[..., None]), 352)
    query = _input(scene.query, 352)
    with torch.inference_mode():
        embedding = model.get_conditional_embeddings(batch_size=1, conditional_pixel_values=example)

    def run() -> object:
        with torch.inference_mode():
            logits = model(pixel_values=query, conditional_embeddings=embedding).logits
            return _own_size(logits.reshape(1, 1, *logits.shape[-2:]), scene.query)

    return run


def _input(pixels: np.ndarray, side: int) -> torch.Tensor:
    resized = np.asarray(Image.fromarray(pixels).resize((side, side)), np.float32)
    return torch.from_numpy((resized / 255 - 0.45) / 0.225).permute(2, 0, 1)[None]


def _own_size(maps: torch.Tensor, query: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.interpolate(maps, query.shape[:2], mode="bilinear") > 0
