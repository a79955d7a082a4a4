"""Proxy class, both class activation maps and the threshold, each computed another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iir_sdk.model.backbone import Backbone
from iir_sdk.model.cam import (
    adaptive_threshold,
    closed_form_cam,
    grad_cam,
    normalised_at,
    proxy_class,
)


@pytest.fixture(scope="module")
def lite() -> Backbone:
    torch.manual_seed(0)
    return Backbone("tf_efficientnet_lite2")


def min_max(cam: np.ndarray) -> np.ndarray:
    cam = np.maximum(cam, 0)
    return (cam - cam.min()) / max(cam.max() - cam.min(), 1e-6)


def test_closed_form_equals_loops(rng):
    pooled, weight = rng.normal(size=(2, 6, 3, 4)), rng.normal(size=(2, 3, 6))
    found = closed_form_cam(torch.tensor(pooled), torch.tensor(weight)).numpy()
    for n in range(2):
        for k in range(3):
            cam = np.zeros((3, 4))
            for c in range(6):
                cam += weight[n, k, c] * pooled[n, c]
            np.testing.assert_allclose(found[n, k], np.maximum(cam, 0), atol=1e-5)


def test_closed_form_is_grad_cam_of_the_pooled_map(lite, rng):
    """Grad-CAM at the map that is pooled: the pooled gradient of logit c is W_c over the number of positions."""
    high = torch.tensor(rng.normal(size=(2, 352, 3, 4)), dtype=torch.float32)
    pooled = lite.pooled_map(high).detach().requires_grad_()
    index = torch.tensor([5, 900])
    chosen = lite.logits(pooled).gather(1, index[:, None]).sum()
    (gradient,) = torch.autograd.grad(chosen, pooled)
    expected = 12 * (pooled * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True).detach().relu()
    found = closed_form_cam(pooled.detach(), lite.class_weight[index][:, None])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_grad_cam_weights_equal_finite_differences(lite, rng):
    net = Backbone("tf_efficientnet_lite2").double()
    mid = torch.tensor(rng.normal(size=(1, 120, 4, 4)))
    index, step = 7, 1e-4

    def moved(by: float) -> np.ndarray:
        """The logit of each map with one whole channel moved."""
        with torch.no_grad():
            maps = mid + by * torch.eye(120, dtype=torch.float64)[:, :, None, None]
            return net.logits(net.pooled_map(net.high_from_mid(maps)))[:, index].numpy()

    # Moving a whole channel sums the gradient over its 16 positions.
    weight = (moved(step) - moved(-step)) / (2 * step) / 16
    cam = np.einsum("c,chw->hw", weight, mid[0].numpy())
    found = grad_cam(net, mid, torch.tensor([[index]]))[0, 0].numpy()
    np.testing.assert_allclose(min_max(found), min_max(cam), atol=2e-3)


def test_grad_cam_works_under_inference_mode(lite, rng):
    mid = torch.tensor(rng.normal(size=(1, 120, 4, 4)), dtype=torch.float32)
    index = torch.tensor([[3, 3, 11]])
    outside = grad_cam(lite, mid, index)
    with torch.inference_mode():
        inside = grad_cam(lite, mid * 1, index * 1)
    torch.testing.assert_close(inside, outside)
    torch.testing.assert_close(inside[:, 0], inside[:, 1])
    assert all(p.grad is None for p in lite.parameters())


def test_proxy_class_is_that_of_the_masked_features(lite, rng):
    mid = torch.tensor(rng.normal(size=(2, 120, 4, 4)), dtype=torch.float32)
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, :, :32], mask[1, :, :, 40:] = 1, 1
    found = proxy_class(lite, mid, mid, mask)
    for i in range(2):
        masked = mid[i : i + 1] * torch.nn.functional.avg_pool2d(mask[i : i + 1], 16)
        logits = lite.net.classifier(lite.pooled_map(lite.high_from_mid(masked)).mean((2, 3)))
        assert found.index[i] == logits.argmax()
        assert torch.equal(found.weight[i, 0], lite.class_weight[logits.argmax()])


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 100_000), size=st.integers(1, 6))
def test_threshold_is_the_brute_force_best(seed, size):
    rng = np.random.default_rng(seed)
    cam = rng.uniform(size=(size, size)).astype(np.float32)
    known = rng.integers(0, 2, (size, size)).astype(np.float32)
    mask = (rng.uniform(size=(size, size)) * rng.integers(0, 2, (size, size))).astype(np.float32) * known
    best, best_iou = 0.0, -1.0
    for i in range(51):
        above = (cam > np.float32(i / 50)) * known.astype(np.float64)
        inter, union = (above * mask).sum(), (above + mask - above * mask).sum()
        iou = inter / max(union, 1e-6)
        if iou > best_iou + 1e-6:
            best, best_iou = i / 50, iou
    found = float(adaptive_threshold(*(torch.tensor(each)[None, None] for each in (cam, mask, known))))
    above = (cam > np.float32(found)) * known
    found_iou = (above * mask).sum() / max((above + mask - above * mask).sum(), 1e-6)
    assert found_iou == pytest.approx(best_iou, abs=1e-5)
    assert found == pytest.approx(best, abs=1e-6) or found_iou == pytest.approx(best_iou, abs=1e-5)


def test_flat_activation_is_zero_not_nan():
    assert torch.equal(normalised_at(torch.full((1, 2, 3, 3), 2.0), (6, 6)), torch.zeros(1, 2, 6, 6))


def test_activations_are_resized_and_then_normalised(rng):
    """By hand: bilinear between centres, then min-max, so that the largest value is 1 where it is thresholded."""
    cam = rng.random((1, 2, 3, 4)).astype(np.float32)
    found = normalised_at(torch.tensor(cam), (6, 8)).numpy()
    for k in range(2):
        enlarged = np.empty((6, 8))
        for row, column in np.ndindex(6, 8):
            y, x = (min(max((at + 0.5) / 2 - 0.5, 0), side - 1) for at, side in ((row, 3), (column, 4)))
            top, left = min(int(y), 1), min(int(x), 2)
            square = cam[0, k, top : top + 2, left : left + 2]
            enlarged[row, column] = np.array([1 - (y - top), y - top]) @ square @ np.array([1 - (x - left), x - left])
        np.testing.assert_allclose(found[0, k], min_max(enlarged), atol=1e-5)
