"""Segmenters sent to other processes: small, whatever the weights, and right in a process that imported nothing."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import PICTURES
from iir_sdk.errors import IntegrityError
from iir_sdk.weights.saving import packed

QUERY = PICTURES / "coins_query.jpg"


@pytest.fixture(scope="module")
def coins() -> FewShotSegmenter:
    segmenter = FewShotSegmenter(device="cpu")
    segmenter.add_support(PICTURES / "coins_support.jpg", PICTURES / "coins_support_mask.png", "coin")
    return segmenter


def test_a_pickle_works_in_a_process_that_imported_nothing(coins, tmp_path):
    (tmp_path / "segmenter.pkl").write_bytes(pickle.dumps(coins))
    code = """
        import pickle, sys, numpy
        segmenter = pickle.load(open("segmenter.pkl", "rb"))
        numpy.save("probability.npy", segmenter.predict(sys.argv[1])["coin"].probability)
    """
    script = "\n".join(line.strip() for line in code.splitlines())
    command = [sys.executable, "-c", script, str(QUERY)]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    found = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert found.returncode == 0, found.stderr
    np.testing.assert_allclose(np.load(tmp_path / "probability.npy"), coins.predict(QUERY).probability, atol=1e-5)


def test_embedded_weights_are_named_and_hold_no_file_descriptor(coins):
    held = Path("/proc/self/fd")
    before = len(list(held.iterdir())) if held.exists() else 0
    # As multiprocessing does, where torch hands its tensors over in shared memory.
    sent = bytes(ForkingPickler.dumps(coins))
    assert (len(list(held.iterdir())) if held.exists() else 0) == before
    assert len(sent) < coins.supports[0].nbytes + 100_000
    assert b"torch" not in pickle.dumps(FewShotSegmenter(coins.engine)).replace(b"iir_sdk.engines.pytorch", b"")


def test_weights_of_the_users_own_travel_as_compact_bytes(small_checkpoint, scene):
    segmenter = FewShotSegmenter(small_checkpoint, device="cpu")
    segmenter.add_support(*scene)
    size = small_checkpoint.stat().st_size
    assert len(pickle.dumps(segmenter)) < size + segmenter.supports[0].nbytes + 100_000
    with torch.no_grad():
        for parameter in segmenter.model.decoder.parameters():
            parameter += 1e-3
    twin = pickle.loads(pickle.dumps(segmenter))
    np.testing.assert_array_equal(twin.predict(scene[0]).probability, segmenter.predict(scene[0]).probability)
    unchanged = FewShotSegmenter(small_checkpoint, device="cpu")
    assert not torch.equal(next(unchanged.model.decoder.parameters()), next(twin.model.decoder.parameters()))


def test_settings_and_supports_travel_along(coins, small_checkpoint):
    assert repr(pickle.loads(pickle.dumps(coins))) == repr(coins)
    asked = FewShotSegmenter(small_checkpoint, device="auto", threads=1, token_budget=50)
    twin = pickle.loads(pickle.dumps(asked))
    assert (twin.token_budget, twin.engine.threads, twin.device) == (50, 1, asked.device)


def test_the_same_name_for_other_weights_is_told(coins):
    with pytest.raises(IntegrityError, match="one version"):
        replace(packed(coins.checkpoint), sha256="0" * 64).unpacked()


def test_what_a_segmenter_holds_is_printed(coins):
    assert repr(coins) == (
        "FewShotSegmenter('iir-duo', backend='torch', device='cpu', dtype='float32', shots={'coin': 1})"
    )
