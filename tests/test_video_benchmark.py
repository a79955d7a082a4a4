"""The sequences that memory is measured on: frames and masks belong together, and come in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iir_sdk import FewShotSegmenter
from tests.test_speed_report import script
from tests.videos import colours

SEQUENCES = script("video_sequences")


def test_a_moving_camera_sees_mask_and_object_alike():
    picture, mask = np.full((200, 300, 3), 40, np.uint8), np.zeros((200, 300), bool)
    mask[60:120, 100:180] = True
    picture[mask] = (230, 40, 40)
    frames, masks = SEQUENCES.moved(picture, mask, np.random.default_rng(3))
    assert len(frames) == len(masks) == SEQUENCES.LONGEST
    for frame, seen in zip(frames, masks, strict=True):
        red = frame[..., 0].astype(int) - frame[..., 1] > 40
        assert (red & seen).sum() > 0.85 * (red | seen).sum() and seen.any()
    assert (masks[0] ^ masks[-1]).sum() > 0.2 * masks[0].sum()


def test_recordings_are_in_order_and_in_pieces(tmp_path: Path):
    root = tmp_path / "campus_indoor"
    for i in range(11):
        for part, picture in (("images", colours()), ("masks/door", colours()[..., 0])):
            (root / part).mkdir(parents=True, exist_ok=True)
            shade = picture // 4 + 10 * i if part == "images" else picture
            Image.fromarray(shade.astype(np.uint8)).save(root / part / f"frame_{5 * i:04}_{i % 3}.png")
    for name in SEQUENCES.RECORDINGS["report"]:
        (tmp_path / name / "masks").mkdir(parents=True, exist_ok=True)
    sequences = list(SEQUENCES.recordings(tmp_path, "report"))
    assert [(s.name, len(s.frames)) for s in sequences] == [("campus_indoor/door 0", 6), ("campus_indoor/door 1", 5)]
    means = [float(frame.mean()) for sequence in sequences for frame in sequence.frames]
    assert means == sorted(means)


def test_the_score_is_of_all_frames_but_the_first(tiny_checkpoint: Path):
    video = script("video")
    frames = [np.roll(colours(), 2 * i, 1) for i in range(3)]
    masks = [np.roll(colours()[..., 0] > 9, 2 * i, 1) for i in range(3)]
    segmenter = video.Looking(tiny_checkpoint, device="cpu", threads=1)
    means = video.scores(segmenter, SEQUENCES.Sequence("a", "camera", frames, masks), {"none": video.Recall(0, 0)})
    plain = FewShotSegmenter(segmenter.engine)
    plain.add_support(frames[0], masks[0])
    predicted = [plain.predict(frame).mask for frame in frames[1:]]
    ious = [(p & m).sum() / (p | m).sum() for p, m in zip(predicted, masks[1:], strict=True)]
    assert means["frame by frame"] == pytest.approx(100 * np.mean(ious), abs=0.01)
