"""The examples, run as a user runs them."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iir_sdk.demo.job import read_jobs
from tests.lowest_iou import LOWEST_IOU

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_annotating_a_folder_keeps_going_past_a_broken_picture(tmp_path, monkeypatch, capsys):
    job = next(j for j in read_jobs() if j.name == "eye")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shutil.copy(job.query, pictures / "a.jpg")
    Image.open(job.query).save(pictures / "a.png")
    (pictures / "broken.jpg").write_bytes(b"no picture")
    arguments = [str(job.support), str(job.support_mask), str(pictures), str(tmp_path / "masks")]
    monkeypatch.setattr(sys, "argv", ["annotate_folder.py", *arguments])
    with pytest.raises(SystemExit, match="1 pictures were left out"):
        runpy.run_path(str(EXAMPLES / "annotate_folder.py"), run_name="__main__")
    assert "broken.jpg: query" in capsys.readouterr().out.splitlines()[0]
    masks = tmp_path / "masks" / "masks" / "object"
    assert sorted(p.name for p in masks.iterdir()) == ["a.png", "a_png.png"]
    assert (tmp_path / "masks" / "review.html").is_file()
    found, truth = np.asarray(Image.open(masks / "a.png")) > 0, job.truth()
    assert (found & truth).sum() / (found | truth).sum() >= LOWEST_IOU["eye"]


def test_two_labels_in_one_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "several_labels.py"), run_name="__main__")
    assert "'face'" in capsys.readouterr().out
    labels, face = np.asarray(Image.open("labels.png")), next(j for j in read_jobs() if j.name == "face").truth()
    assert set(np.unique(labels)) <= {0, 1, 2}
    assert ((labels == 1) & face).sum() / ((labels == 1) | face).sum() > 0.4
    assert Image.open("overlay.jpg").size == labels.shape[::-1]
    assert Path("face_and_flag.safetensors").is_file()
