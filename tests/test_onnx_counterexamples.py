"""Counterexamples through exported graphs: the tokens and masks of torch, in both runtimes."""

from __future__ import annotations

import pickle

import numpy as np

from iir_sdk import FewShotSegmenter
from iir_sdk.engines.onnx.export_folder import COUNTEREXAMPLE_ENCODER
from tests.test_onnx import BACKENDS, each_exported, exported, on_torch, opened, scene

__all__ = ["each_exported", "exported", "opened"]


@BACKENDS
def test_backends_agree_on_counterexamples(each_exported, opened, backend):
    weights, graphs = each_exported
    assert (graphs / COUNTEREXAMPLE_ENCODER).is_file()
    segmenters = [on_torch(weights), opened(graphs, backend)]
    for segmenter in segmenters:
        segmenter.add_support(*scene(0))
        segmenter.add_support(*scene(1))
        segmenter.add_counterexample(*scene(5))
        segmenter.add_counterexample(scene(6)[0][:50])
        segmenter.add_support(*scene(2), label="without")
    for one, other in zip(*(s.supports.counterexamples for s in segmenters), strict=True):
        for (_, array), (_, like) in zip(other.tokens.parts(), one.tokens.parts(), strict=True):
            assert array.dtype == np.float16
            np.testing.assert_allclose(array.astype(float), like.astype(float), atol=2e-2)
    one, other = (s.predict(scene(7)[0]) for s in segmenters)
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=2e-3)
    np.testing.assert_allclose(one.scores, other.scores, atol=2e-3)


def test_its_graph_is_opened_with_the_first_one(exported):
    segmenter = FewShotSegmenter(exported[1], backend="onnxruntime")
    segmenter.add_support(*scene(0))
    segmenter.predict(scene(1)[0])
    assert segmenter.engine._counterexample_encoder is None
    twin = pickle.loads(pickle.dumps(segmenter))
    twin.add_counterexample(scene(2)[0])
    assert twin.engine._counterexample_encoder is not None
