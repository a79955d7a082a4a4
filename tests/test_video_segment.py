"""``iir-sdk video`` and ``segment_video``: frames segmented and written, and what is kept where that ends early."""

from __future__ import annotations

import csv
import json
import resource
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from iir_sdk import FewShotSegmenter, FrameMask, segment_frames, segment_video
from iir_sdk.errors import (
    ConfigError,
    IirError,
    LabelError,
    MaskError,
    MissingDependencyError,
    NoSupportError,
    OutputError,
    PictureNotFoundError,
    VideoError,
)
from iir_sdk.video import writing
from iir_sdk.video.frames import teach_frame
from iir_sdk.video.memory import Memory
from tests.command import run
from tests.videos import EYE, camera, write_video

COUNT = 8


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", camera(COUNT)[0])


@pytest.fixture(scope="module")
def mask(clip: Path) -> Path:
    path = clip.with_name("mask.png")
    Image.fromarray(camera(1)[1][0]).save(path)
    return path


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> FewShotSegmenter:
    """Quick, and wrong: for all but the masks themselves."""
    return FewShotSegmenter(tiny_checkpoint, device="cpu", threads=1)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def times_of(out: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in out.glob("[!.]*/**/*.*")}


def frames_of(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def test_frames_are_yielded_with_the_masks_of_their_object(embedded):
    import tempfile

    frames, truths = camera(6)
    with tempfile.TemporaryDirectory() as folder:
        path = write_video(Path(folder) / "clip.mp4", frames)
        yielded = list(segment_frames(path, {0: truths[0]}, segmenter=embedded))
    assert [frame.index for frame in yielded] == list(range(6))
    assert np.allclose([frame.time for frame in yielded], np.arange(6) / 10, atol=0.002)
    for frame, truth in zip(yielded, truths, strict=True):
        mask = frame.result.mask
        assert (mask & truth).sum() > 0.75 * (mask | truth).sum()
    assert not len(embedded.supports)


def test_without_memory_frames_are_as_predict_gives_them(clip, tiny):
    taught = FewShotSegmenter(tiny.engine)
    frames = list(segment_frames(clip, {0: camera(1)[1][0]}, segmenter=tiny, steady=0))
    teach_frame(taught, frames[0].result.image, FrameMask(0, camera(1)[1][0]))
    assert len(taught.supports) == 2
    for frame in frames:
        alone = taught.predict(frame.result.image)
        assert np.allclose(frame.result.leads, alone.leads, atol=1e-4) and frame.result.scores == alone.scores
    steadied = list(segment_frames(clip, segmenter=taught))
    assert any(not np.allclose(a.result.leads, b.result.leads, atol=0.1) for a, b in zip(frames, steadied, strict=True))


def test_a_video_is_written_as_masks_overlays_coco_and_a_table(clip, mask, tmp_path, tiny):
    out = tmp_path / "out"
    settings = {"segmenter": tiny, "formats": ["video", "masks", "coco"]}
    report = segment_video(clip, out, {0: mask}, **settings)
    assert (report.frames, report.present, len(report.rows)) == (COUNT, False, COUNT)
    assert [row["frame"] for row in rows_of(out)] == [f"{i:06d}" for i in range(COUNT)]
    assert np.allclose([float(row["time"]) for row in rows_of(out)], np.arange(COUNT) / 10, atol=0.002)
    masks = [np.asarray(Image.open(out / "masks" / "object" / f"{i:06d}.png")) for i in range(COUNT)]
    assert [int((m > 0).sum()) for m in masks] == [row.area for row in report.rows]
    coco = json.loads((out / "coco" / "annotations.json").read_text())
    assert len(coco["images"]) == COUNT
    overlay = frames_of(out / "overlay.mp4")
    assert np.allclose([frame.time for frame in overlay], np.arange(COUNT) / 10, atol=0.002)
    written = times_of(out)
    assert segment_video(clip, out, {0: mask}, **settings).present
    assert times_of(out) == written
    (out / "masks" / "object" / "000003.png").unlink()
    assert not segment_video(clip, out, {0: mask}, **settings).present
    assert (out / "masks" / "object" / "000003.png").is_file()


@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
def test_overlays_of_any_size_keep_their_times(tmp_path, tiny, monkeypatch, encoder):
    monkeypatch.setattr(writing, "ENCODERS", ("none of this name", encoder))
    times = [0.0, 0.1, 0.5, 0.55]
    frames = [frame[30:95, 20:97] for frame in camera(4)[0]]
    path = write_video(tmp_path / "odd.mkv", frames, codec="ffv1", pixels="bgr0", times=times)
    segment_video(path, tmp_path / "out", {2: camera(3)[1][2][30:95, 20:97]}, segmenter=tiny, formats=["video"])
    overlay = frames_of(tmp_path / "out" / "overlay.mp4")
    assert np.allclose([frame.time for frame in overlay], times, atol=0.002)
    assert {(frame.width, frame.height) for frame in overlay} == {(78, 66)}


def test_a_mask_of_a_turned_video_is_of_the_frame_as_shown(tmp_path, tiny):
    frames, masks = camera(3)
    path = write_video(tmp_path / "a.mp4", [np.rot90(frame[:96], -1) for frame in frames], rotation=90)
    (first, *_) = segment_frames(path, {0: masks[0][:96]}, segmenter=tiny)
    assert np.abs(first.result.image.astype(int) - frames[0][:96]).mean() < 12
    with pytest.raises(MaskError, match=r"a.mp4, frame 0 with its mask: .*128 x 96"):
        segment_frames(path, {0: np.rot90(masks[0][:96])}, segmenter=tiny)


def test_masks_of_several_frames_and_labels(clip, tmp_path, tiny):
    masks = camera(COUNT)[1]
    marked = {0: {"eye": masks[0], "rest": ~masks[0]}, 5: {"eye": masks[5]}}
    report = segment_video(clip, tmp_path / "out", marked, segmenter=tiny, formats=["masks"])
    assert {row.label for row in report.rows} == {"eye", "rest"} and report.frames == COUNT
    (tmp_path / "1=a.png").touch()
    assert FrameMask.from_text("12=b.png") == FrameMask(12, "b.png")
    assert FrameMask.from_text("b.png") == FrameMask(0, "b.png")
    assert FrameMask.from_text(f"3={tmp_path / '1=a.png'}:cat=4") == FrameMask(
        3, str(tmp_path / "1=a.png"), "cat", (4,)
    )
    assert FrameMask.from_text(str(tmp_path / "1=a.png")).frame == 0


def test_what_cannot_be_used_is_told_before_anything_is_written(clip, mask, tmp_path, tiny):
    masks = camera(COUNT)[1]
    for wrong, kind, message in (
        ({"masks": {0: masks[0][:64]}}, MaskError, "clip.mp4, frame 0 with its mask"),
        ({"masks": {0: tmp_path / "none.png"}}, PictureNotFoundError, "none.png"),
        ({"masks": {COUNT: mask}}, VideoError, f"has {COUNT} frames, counted from 0"),
        ({"masks": {-1: mask}}, ConfigError, "frame -1"),
        ({"masks": mask.name}, ConfigError, "must name frames"),
        ({"masks": [FrameMask(0, masks[0])] * 2}, LabelError, "two masks of label 'object'"),
        ({"masks": {}}, NoSupportError, "--mask"),
        ({"labels": ["cat"]}, LabelError, "cat"),
        ({"memory": -1}, ConfigError, "memory=-1"),
        ({"steady": 1.5}, ConfigError, "steady=1.5"),
        ({"threshold": 2}, ConfigError, "threshold=2"),
        ({"formats": ["vide"]}, ConfigError, "did you mean 'video'"),
        ({"formats": ["geojson"]}, ConfigError, "no format"),
        ({"video": tmp_path / "none.mp4"}, PictureNotFoundError, "is not there"),
    ):
        arguments = {"video": clip, "masks": {0: mask}, "segmenter": tiny, **wrong}
        with pytest.raises(kind, match=message):
            segment_video(out=tmp_path / "out", **arguments)
        assert not (tmp_path / "out").exists(), wrong


def test_a_folder_of_another_run_is_refused_and_overwritten_when_told(clip, mask, tmp_path, tiny):
    out = tmp_path / "out"
    segment_video(clip, out, {0: mask}, segmenter=tiny)
    other = write_video(tmp_path / "other.mp4", camera(3)[0])
    with pytest.raises(OutputError, match=r"holds results of a run with video=\['clip.mp4'.*overwrite"):
        segment_video(other, out, {0: mask}, segmenter=tiny)
    with pytest.raises(OutputError, match="memory=0, not 3"):
        segment_video(clip, out, {0: mask}, segmenter=tiny, memory=3)
    with pytest.raises(OutputError, match="no journal"):
        segment_video(clip, out / "masks", {0: mask}, segmenter=tiny)
    assert segment_video(other, out, {0: mask}, segmenter=tiny, overwrite=True).frames == 3
    assert (
        len(rows_of(out)) == len(list((out / "masks" / "object").iterdir())) == len(frames_of(out / "overlay.mp4")) == 3
    )


def test_a_video_that_ends_early_leaves_what_there_is(mask, tmp_path, tiny):
    path = write_video(tmp_path / "a.mkv", camera(20)[0], codec="ffv1", pixels="bgr0")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    out = tmp_path / "out"
    with pytest.raises(VideoError, match=r"a.mkv' .*at frame \d+.* frames are done: .*out") as told:
        segment_video(path, out, {0: mask}, segmenter=tiny)
    count = len(rows_of(out))
    assert 5 <= count < 15 and f"at frame {count}" in str(told.value) and f"{count} frames are done" in str(told.value)
    assert len(frames_of(out / "overlay.mp4")) == len(list((out / "masks" / "object").iterdir())) == count


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_run_keeps_what_is_whole_and_is_begun_anew(clip, mask, tmp_path, tiny, monkeypatch, stop):
    out, segment = tmp_path / "out", Memory.segment

    def stopping(memory, still, drawn=None):
        if still.index == 5:
            raise stop
        return segment(memory, still, drawn)

    with monkeypatch.context() as patched:
        patched.setattr(Memory, "segment", stopping)
        with pytest.raises(stop):
            segment_video(clip, out, {0: mask}, segmenter=tiny)
    assert (
        len(rows_of(out)) == len(frames_of(out / "overlay.mp4")) == len(list((out / "masks" / "object").iterdir())) == 5
    )
    assert not list(out.rglob(".iir-*"))
    report = segment_video(clip, out, {0: mask}, segmenter=tiny)
    assert (report.present, report.frames, len(frames_of(out / "overlay.mp4"))) == (False, COUNT, COUNT)


def test_a_full_disk_ends_the_run_and_leaves_whole_files(mask, tmp_path, tiny):
    noise = np.random.default_rng(0)
    frames = [(frame // 2 + noise.integers(0, 128, frame.shape)).astype(np.uint8) for frame in camera(12)[0]]
    path, out = write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixels="bgr0"), tmp_path / "out"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A stand-in for a full disk: no file may become longer, which the video of overlays meets first.
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write '.*overlay.mp4'.*frames are done"):
            segment_video(path, out, {0: mask}, segmenter=tiny)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (out / "overlay.mp4").exists() and not list(out.rglob(".iir-*"))
    for file in (out / "masks" / "object").iterdir():
        assert Image.open(file).size == (128, 128)
    assert (
        segment_video(path, out, {0: mask}, segmenter=tiny).frames == 12 and len(frames_of(out / "overlay.mp4")) == 12
    )


def test_the_command_segments_a_video(clip, mask, tmp_path, tiny_checkpoint, monkeypatch):
    words = ["video", clip, "--mask", f"0={mask}:eye", "--out", tmp_path / "out", "--weights", tiny_checkpoint]
    words += ["--support", EYE.support, f"{EYE.support_mask}:eye", "--threads", 1, "--device", "cpu"]
    code, output = run(*words)
    assert code == 0 and f"{COUNT} frames segmented" in output
    assert (tmp_path / "out" / "overlay.mp4").is_file() and rows_of(tmp_path / "out")[0]["label"] == "eye"
    assert f"{COUNT} frames were done before" in run(*words)[1]
    code, output = run("video", clip, "--out", tmp_path / "new", "--weights", tiny_checkpoint)
    assert code == 1 and "--mask" in output and not (tmp_path / "new").exists()
    monkeypatch.setitem(sys.modules, "av", None)
    code, output = run(*words)
    assert code == 1 and "pip install 'iir-sdk[video]'" in output
    with pytest.raises(MissingDependencyError):
        segment_frames(clip, {0: mask})


def test_every_error_of_a_video_is_of_this_package(clip, tiny):
    assert issubclass(VideoError, (IirError, ValueError))
    with pytest.raises(IirError):
        segment_frames(clip, {0: np.zeros((128, 128), np.uint8)}, segmenter=tiny)
