"""A network that its owner changed is refused, and what changes it back does."""

from __future__ import annotations

import pytest
import torch

from iir_sdk import FewShotSegmenter
from iir_sdk.errors import ConfigError


@pytest.mark.parametrize(
    ("change", "cure", "message"),
    [
        (lambda model: model.train(), lambda model: model.eval(), r"segmenter\.model\.eval\(\)"),
        (lambda model: model.decoder.train(), lambda model: model.eval(), r"segmenter\.model\.eval\(\)"),
        (lambda model: model.half(), lambda model: model.float(), r"torch\.float16 now.*segmenter\.model\.float\(\)"),
    ],
)
def test_a_changed_network_is_refused_until_it_is_changed_back(small_checkpoint, scene, change, cure, message):
    """In training mode the mask was another one at each call, and in half precision torch's own error came."""
    segmenter = FewShotSegmenter(small_checkpoint, device="cpu")
    segmenter.add_support(*scene)
    before = torch.from_numpy(segmenter.predict(scene[0]).leads)
    change(segmenter.model)
    with pytest.raises(ConfigError, match=message):
        segmenter.predict(scene[0])
    with pytest.raises(ConfigError, match=message):
        segmenter.add_support(*scene)
    cure(segmenter.model)
    torch.testing.assert_close(torch.from_numpy(segmenter.predict(scene[0]).leads), before, atol=0.05, rtol=0.05)
