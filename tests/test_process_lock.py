"""A child that is forked while another thread holds a lock of ours goes on."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest

from iir_sdk import FewShotSegmenter

pytestmark = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")


def test_a_child_that_is_forked_meanwhile_predicts(small_checkpoint, scene):
    segmenter = FewShotSegmenter(small_checkpoint, device="cpu", threads=1)
    segmenter.add_support(*scene, "disc")
    result = segmenter.predict(scene[0])
    expected = np.array(result.mask)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def work() -> None:
        before = np.array_equal(result.mask, expected)
        segmenter.add_support(*scene, "more")
        answers.put((before, segmenter.predict(scene[0]).labels))

    # As if other threads were at work at this moment.
    with segmenter._changing, segmenter._ready._making, result._masks._lock:
        child = context.Process(target=work)
        child.start()
    child.join(60)
    alive = child.is_alive()
    child.kill()
    assert not alive, "the child hangs"
    assert answers.get() == (True, ("disc", "more"))
