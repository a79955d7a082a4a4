"""Torch's settings of the whole process leave a segmenter alone, and it leaves them; forked children work."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import PICTURES
from iir_sdk.errors import ConfigError, IirWarning
from tests.forked import forked, needs_fork

QUERY = PICTURES / "coins_query.jpg"


def coins(**settings: object) -> FewShotSegmenter:
    segmenter = FewShotSegmenter(device="cpu", **settings)
    segmenter.add_support(PICTURES / "coins_support.jpg", PICTURES / "coins_support_mask.png")
    return segmenter


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    return coins().predict(QUERY).mask


@pytest.fixture
def elsewhere() -> Iterator[None]:
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def test_a_default_device_changes_nothing(mask, elsewhere, small_checkpoint, scene):
    np.testing.assert_array_equal(coins().predict(QUERY).mask, mask)
    # Its backbone has buffers that no file stores.
    small = FewShotSegmenter(small_checkpoint, device="cpu")
    small.add_support(*scene)
    assert np.isfinite(small.predict(scene[0]).probability).all()
    assert torch.zeros(1).device.type == "meta"


def test_threads_are_its_own(small_checkpoint, scene, monkeypatch):
    before, seen = torch.get_num_threads(), []
    segmenter = FewShotSegmenter(small_checkpoint, device="cpu", threads=2)
    backbone = segmenter.engine.network.backbone
    taps = backbone.forward
    monkeypatch.setattr(backbone, "forward", lambda images: seen.append(torch.get_num_threads()) or taps(images))
    segmenter.add_support(*scene)
    segmenter.predict(scene[0])
    assert seen == [2, 2]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_threads_that_are_no_number_are_refused(threads, backend):
    with pytest.raises(ConfigError, match="threads="):
        FewShotSegmenter(threads=threads, backend=backend)


@pytest.mark.parametrize(
    "asked", [{"threads": 2}, {"dtype": "bfloat16"}, {"backend": "openvino"}, {"device": "cpu"}, {"dtype": "auto"}]
)
def test_an_opened_engine_keeps_what_it_was_opened_with(small_segmenter, asked):
    with pytest.raises(ConfigError, match="{}={!r}.*anew".format(*next(iter(asked.items())))):
        FewShotSegmenter(small_segmenter.engine, **asked)


def test_a_slow_precision_is_told_where_it_was_asked_for(small_checkpoint, monkeypatch):
    monkeypatch.setattr("iir_sdk.engines.devices.computes_in_bfloat16", lambda device: False)
    with pytest.warns(IirWarning, match="no bfloat16 instructions") as told:
        FewShotSegmenter(small_checkpoint, device="cpu", dtype="bfloat16")
    assert told[0].filename == __file__


@needs_fork
@pytest.mark.parametrize("asked", [None, 2])
def test_a_forked_child_computes(mask, asked):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        # Encoding the support leaves a pool of threads, which a child will miss.
        segmenter = coins(threads=asked)

        def work() -> tuple[float, list[str]]:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                same = (segmenter.predict(QUERY).mask == mask).mean()
            return float(same), [str(w.message) for w in told if w.category is IirWarning]

        same, told = forked(work)
    finally:
        torch.set_num_threads(before)
    assert same > 0.999
    assert {"spawn" in text for text in told} == (set() if asked is None else {True})


@needs_fork
def test_a_child_that_is_forked_while_a_thread_holds_a_lock_predicts(small_checkpoint, scene):
    segmenter = FewShotSegmenter(small_checkpoint, device="cpu", threads=1)
    segmenter.add_support(*scene, "disc")
    result = segmenter.predict(scene[0])
    expected = np.array(result.mask)

    def work() -> tuple[bool, tuple[str, ...]]:
        same = np.array_equal(result.mask, expected)
        segmenter.add_support(*scene, "more")
        return same, segmenter.predict(scene[0]).labels

    # As if other threads were at work at this moment.
    assert forked(work, segmenter._changing, segmenter._ready._making, result._masks._lock) == (True, ("disc", "more"))
