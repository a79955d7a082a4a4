"""Videos as they are read: times, turns, kinds of pixels, and what is wrong with those that cannot be."""

from __future__ import annotations

import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from iir_sdk.errors import MissingDependencyError, PictureNotFoundError, VideoError
from iir_sdk.video.reading import opened_video, stills_at
from tests.videos import colours, write_video

PICTURES = [colours()] * 20


def stills_of(path):
    with opened_video(path) as video:
        return list(video.stills())


def corners(pixels):
    """Colours in the corners, row by row: red, green, blue or black."""
    height, width = pixels.shape[:2]
    places = [pixels[y, x] for y in (height // 4, -height // 4) for x in (width // 4, -width // 4)]
    return "".join("rgbk"[[*(place > 125), True].index(True)] for place in places)


def test_frames_come_in_order_with_their_times(tmp_path):
    times = [0.0, 0.1, 0.25, 0.3, 1.3, 1.35]
    stills = stills_of(write_video(tmp_path / "a.mkv", PICTURES[:6], times=times))
    assert [still.index for still in stills] == list(range(6))
    assert np.allclose([still.time for still in stills], times, atol=0.002)
    assert all(
        still.picture.pixels.shape == (48, 64, 3) and corners(still.picture.pixels) == "rbgk" for still in stills
    )


def test_frames_picked_by_their_index_are_those(tmp_path):
    shades = [np.full((32, 32, 3), 20 * i, np.uint8) for i in range(10)]
    path = write_video(tmp_path / "a.mp4", shades)
    stills = stills_at(path, {7, 2})
    assert {index: round(float(still.picture.pixels.mean()) / 20) for index, still in stills.items()} == {2: 2, 7: 7}
    assert stills_at(path, ()) == {}
    with pytest.raises(VideoError, match=r"a.mp4' has 10 frames, counted from 0; there is no frame 10"):
        stills_at(path, {3, 10})


@pytest.mark.parametrize(("rotation", "expected"), [(90, "bkrg"), (180, "kgbr"), (270, "grkb")])
def test_a_turned_video_is_read_as_it_is_shown(tmp_path, rotation, expected):
    (still, *_) = stills_of(write_video(tmp_path / "a.mp4", PICTURES[:3], rotation=rotation))
    assert corners(still.picture.pixels) == expected
    assert still.picture.size == ((64, 48) if rotation % 180 else (48, 64))


def test_a_video_turned_by_another_angle_is_refused(tmp_path):
    with pytest.raises(VideoError, match=r"turned by 45 degrees, which is no quarter turn.*ffmpeg -i"):
        stills_of(write_video(tmp_path / "a.mp4", PICTURES[:3], rotation=45))


@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv444p12le", "bgr0", "yuv422p"])
def test_pixels_of_any_depth_are_read(tmp_path, pixels):
    (still, *_) = stills_of(write_video(tmp_path / "a.mkv", PICTURES[:2], codec="ffv1", pixels=pixels))
    assert corners(still.picture.pixels) == "rbgk" and still.picture.pixels.dtype == np.uint8


def test_grey_is_grey_and_transparency_is_white(tmp_path):
    grey = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)
    path = write_video(tmp_path / "g.mkv", [grey] * 2, codec="ffv1", pixels="gray", source="gray")
    assert (stills_of(path)[0].picture.pixels == grey[..., None]).all()
    clear = np.dstack([colours(), np.full((48, 64), 255, np.uint8)])
    clear[24:] = (0, 0, 0, 0)
    path = write_video(tmp_path / "a.mkv", [clear] * 2, codec="ffv1", pixels="bgra", source="rgba")
    pixels = stills_of(path)[0].picture.pixels
    assert (pixels[30:] == 255).all() and (pixels[:20, :30] == (250, 0, 0)).all()


def test_sound_and_covers_are_no_pictures(tmp_path):
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match=r"a.wav' has no stream of pictures; it holds audio"):
        stills_of(path)


def test_what_is_no_video_is_told(tmp_path):
    (tmp_path / "text.mp4").write_text("no video at all\n" * 40)
    Image.fromarray(colours()).save(tmp_path / "photo.png")
    for name, kind, message in (
        ("text.mp4", VideoError, "text.mp4' cannot be read .* Copy it again"),
        ("photo.png", VideoError, "is a picture; pictures are for segment"),
        ("none.mp4", PictureNotFoundError, "none.mp4' is not there"),
        (".", PictureNotFoundError, "is a folder"),
    ):
        with pytest.raises(kind, match=message):
            stills_of(tmp_path / name)


def test_a_video_without_a_frame_is_told(tmp_path):
    path = write_video(tmp_path / "a.mp4", PICTURES, options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"mdat") + 4])
    with pytest.raises(VideoError, match=r"a.mp4' holds no frame that can be decoded; record or export it again"):
        stills_of(path)


def noisy(count):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(count)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_video_that_ends_early_gives_its_frames_and_then_says_so(tmp_path, name):
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = write_video(tmp_path / name, noisy(30), options=options)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    taken = []
    with opened_video(path) as video, pytest.raises(VideoError) as told:
        for still in video.stills():
            taken.append(still)
    assert 5 <= len(taken) < 25 and f"at frame {len(taken)}" in str(told.value)
    assert [still.index for still in taken] == list(range(len(taken)))


def test_the_cure_for_a_video_that_ends_early_works(tmp_path):
    path = write_video(tmp_path / "a.mkv", noisy(30), codec="ffv1", pixels="bgr0")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(VideoError, match="-c copy"):
        stills_of(path)
    # What "ffmpeg -c copy" does: all packets that can be read, into a file that knows how long it is.
    with av.open(str(path)) as source, av.open(str(tmp_path / "whole.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None and not packet.is_corrupt:
                packet.stream = stream
                target.mux(packet)
    assert len(stills_of(tmp_path / "whole.mkv")) >= 5


def test_frames_of_another_size_are_told(tmp_path):
    path = tmp_path / "a.mjpeg"
    frames = []
    for size in ((48, 64), (48, 64), (64, 64)):
        stream = av.CodecContext.create("mjpeg", "w")
        stream.height, stream.width = size
        stream.pix_fmt, stream.time_base = "yuvj420p", Fraction(1, 10)
        frame = av.VideoFrame.from_ndarray(colours(size), format="rgb24").reformat(format="yuvj420p")
        frames += [bytes(packet) for packet in (*stream.encode(frame), *stream.encode(None))]
    path.write_bytes(b"".join(frames))
    with pytest.raises(VideoError, match=r"frame 2 is 64 x 64, and those before it are 48 x 64"):
        stills_of(path)


def test_without_pyav_the_cure_is_told(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", PICTURES[:2])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'iir-sdk\[video\]'"):
        stills_of(path)
