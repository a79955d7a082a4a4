"""Inter-image refinement, first half: proxy class, class activation map, adaptive threshold (method, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from iir_sdk.model.backbone import Backbone
from iir_sdk.model.support_state import ProxyClass
from iir_sdk.model.tokens import full_precision

THRESHOLDS = tuple(i / 50 for i in range(51))
"""Candidates of the adaptive threshold: 0, 0.02, ..., 1."""


def proxy_class(backbone: Backbone, mid: Tensor, high: Tensor, mask: Tensor) -> ProxyClass[Tensor]:
    """Classify ``N`` supports, tasks of one shot, by ``mid`` in ``mask (N, 1, H, W)`` (method, section 2, step 1)."""
    index = backbone.logits(backbone.object_map(mid, high, mask)).argmax(1, keepdim=True)
    return ProxyClass(index, backbone.class_weight[index].float())


def class_activation(backbone: Backbone, mid: Tensor, pooled_map: Tensor | None, proxy: ProxyClass[Tensor]) -> Tensor:
    """Class activation map of each image for each of ``K`` proxy classes, >= 0 (method, section 2, step 2).

    In closed form at the pooled map, ``(N, K, h', w')``; without one, Grad-CAM at ``mid``, ``(N, K, h, w)``.
    :func:`normalised_at` brings each map to [0, 1].
    """
    if pooled_map is not None:
        return closed_form_cam(pooled_map, proxy.weight)
    return grad_cam(backbone, mid, proxy.index)


@full_precision
def closed_form_cam(pooled_map: Tensor, weight: Tensor) -> Tensor:
    """``W_c . h(x, y)``, ReLU: exact Grad-CAM of a global-average-pool + linear head, up to scale.

    Of the pooled map ``(N, C, h, w)`` and the classifier's rows ``(N, K, C)`` of each image's classes: ``(N, K, h,
    w)``.
    """
    activation = weight.float() @ pooled_map.float().flatten(2)
    return activation.reshape(*activation.shape[:2], *pooled_map.shape[2:]).relu()


def grad_cam(backbone: Backbone, mid: Tensor, index: Tensor) -> Tensor:
    """Grad-CAM at ``mid``, channels weighed by the pooled gradient of the class logit (Selvaraju et al., 2017).

    ``(N, K, h, w)`` >= 0, a backward pass for each of the classes ``index (N, K)``. Works inside
    ``torch.inference_mode`` as well; parameters get no gradient.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # Clones, since tensors made under inference mode cannot enter a graph.
        source = mid.detach().clone().requires_grad_()
        classes = index.clone()
        logits = backbone.logits(backbone.pooled_map(backbone.high_from_mid(source)))
        maps = []
        for k in range(classes.shape[1]):
            chosen = logits.gather(1, classes[:, k : k + 1]).sum()
            (gradient,) = torch.autograd.grad(chosen, source, retain_graph=True)
            channel_weight = gradient.float().mean((2, 3), keepdim=True)
            maps.append((source.detach().float() * channel_weight)[:, : backbone.map_channels].sum(1))
        return torch.stack(maps, 1).relu()


def normalised_at(cam: Tensor, size: tuple[int, int]) -> Tensor:
    """Class activation maps ``(N, K, h, w)`` >= 0 at ``size``, then each min-max to [0, 1]; a flat map becomes zero.

    In this order, as the reference does: resizing cuts peaks off, and the largest value is to be 1 where it is used.
    """
    cam = resize_map(cam, size)
    low, high = cam.amin((2, 3), keepdim=True), cam.amax((2, 3), keepdim=True)
    return (cam - low) / (high - low).clamp_min(1e-6)


def resize_map(cam: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of ``(N, C, h, w)`` to ``(N, C, *size)``."""
    return F.interpolate(cam, size, mode="bilinear", align_corners=False)


def adaptive_threshold(cam: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """``argmax_t IoU(cam > t, mask)`` over :data:`THRESHOLDS`, the lowest of equals (method, section 2, step 3).

    Float32 ``(N,)`` of maps ``(N, 1, h, w)`` in [0, 1]. The mask may be soft: intersection and union are sums of
    shares, so small objects count. What is unknown counts in neither.
    """
    steps = torch.tensor(THRESHOLDS, device=cam.device)
    above = (cam.float().flatten(1)[:, None] > steps[:, None]).float()
    shares = mask.float().flatten(1)[:, None]
    inter = (above * shares).sum(2)
    union = (above * known.float().flatten(1)[:, None]).sum(2) + shares.sum(2) - inter
    return steps[(inter / union.clamp_min(1e-6)).argmax(1)]
