"""A mask's file that is gone: the cure that is printed works, of accepted masks and of strokes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from iir_sdk import FewShotSegmenter
from iir_sdk.web.project import actions
from iir_sdk.web.project.opening import opened_desk
from tests.conftest import draw_scene
from tests.test_web_desk import until


def test_of_strokes_the_cure_is_to_start_over(tmp_path, tiny_checkpoint):
    """It was told to reset and accept the picture, which brings no stroke back."""
    (tmp_path / "photos").mkdir()
    scene, mask = draw_scene(np.random.default_rng(3))[:2]
    Image.fromarray(scene).save(tmp_path / "photos" / "a.png")
    engine = FewShotSegmenter(tiny_checkpoint, device="cpu", threads=1).engine
    desk = opened_desk(engine, tmp_path / "photos")
    try:
        desk.change(lambda held: actions.new_label(held, "disc", None)).result()
        (picture,) = desk.shelf.files
        name = desk.project.write_mask((np.asarray(mask) > 0).astype(np.uint8))
        desk.stroke(picture, "disc", "mask", mask=name).result()
        (desk.project.masks / name).unlink()
        paint = {"points": [(0.5, 0.5)], "radius": 0.1}
        desk.stroke(picture, "disc", "object", **paint).result()
        until(lambda: "start the picture over, and paint it again" in desk.overview.project()["notice"])
        desk.forget_strokes(picture, "disc").result()
        desk.stroke(picture, "disc", "object", **paint).result()
        assert desk.masks.places(picture, mask.shape) is not None and not desk.overview.project()["notice"]
    finally:
        desk.close()
