"""How many files a reader who follows one prediction comes through."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

import iir_sdk
from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.pictures.load import load_picture

PACKAGE = Path(iir_sdk.__file__).parent


def files_of(run: Callable[[], object]) -> set[str]:
    """Files of the package whose functions are called while it runs, as ``model/iir.py``."""
    files = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(before)
    return {Path(f).relative_to(PACKAGE).as_posix() for f in files if Path(f).is_relative_to(PACKAGE)}


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_prediction_walks_through_few_files(embedded: FewShotSegmenter, in_memory: bool):
    job = read_jobs()[0]
    embedded.add_support(job.support, job.support_mask)
    query = load_picture(job.query).pixels if in_memory else job.query
    try:
        embedded.predict(query)
        files = files_of(lambda: embedded.predict(query).mask)
    finally:
        embedded.clear_supports()
    model = {f for f in files if f.startswith("model/")}
    # The way of a picture to the network and back, and what it may be cut into; of one in a file, what reads it too.
    assert len(files - model) <= (11 if in_memory else 13), sorted(files - model)
    # The network itself: one file a section of the method, one that makes a backbone of two networks, and one of
    # what counterexamples take.
    assert len(model) <= 15, sorted(model)
