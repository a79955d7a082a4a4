"""A support's own prior is made as a query's is."""

from __future__ import annotations

import torch

from iir_sdk.demo.job import read_jobs
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask


def test_a_picture_has_one_prior_as_support_and_as_query(embedded):
    model, job = embedded.model, read_jobs()[1]
    picture = load_picture(job.support)
    image, mask, known = embedded.preprocessing.support(picture.pixels, load_mask(job.support_mask, picture) == 1)
    images, masks, knowns = (torch.from_numpy(a)[None] for a in (image, mask, known))
    seen = []
    hook = model.decoder.fuse_support.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        with torch.inference_mode():
            taps = model.backbone(images)
            state = model.encode_support_taps(taps, masks[:, None], 1, 1, knowns[:, None]).state
            prior = model.decode(taps, state).prior
    finally:
        hook.remove()
    assert 0 < prior.mean() < 1
    # Its prior and its mask are what comes last.
    torch.testing.assert_close(seen[0][:, -2:-1], prior, atol=1e-5, rtol=0)
