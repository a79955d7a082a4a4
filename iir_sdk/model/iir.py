"""IIR: a support is encoded once, then any number of queries is segmented from the kept state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iir_sdk.errors import ConfigError
from iir_sdk.model import prior as priors
from iir_sdk.model.backbone import Taps
from iir_sdk.model.base_learner import BackgroundMerge, BaseLearner
from iir_sdk.model.build_backbone import build_backbone
from iir_sdk.model.cam import ProxyClass, adaptive_threshold, class_activation, proxy_class, resize_map
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.decoder import Decoder, _to_tokens
from iir_sdk.model.prototypes import dual_prototypes, grid_size, masked_average, resize_mask
from iir_sdk.model.state import SupportState


@dataclass(frozen=True)
class Prediction:
    """What the network says of ``B`` queries.

    Attributes:
        logits: ``(B, 2, H/8, W/8)``, background and foreground.
        prior: ``(B, 1, H/16, W/16)`` float32, IIR's prior in [0, 1], weighted mean over the shots.
        shot_weights: ``(B, K)``, each row sums to 1.
        auxiliary: 2-way logits ``(B, 2, H/16, W/16)`` of the query after fusion and after each block.
    """

    logits: Tensor
    prior: Tensor
    shot_weights: Tensor
    auxiliary: tuple[Tensor, ...] = ()


class SupportEncoding(NamedTuple):
    """The kept state, and what only training looks at.

    Attributes:
        state: of ``B`` tasks with ``K`` shots.
        auxiliary: 2-way logits ``(B*K, 2, h, w)`` of the supports after fusion and after each block with
            cross attention.
    """

    state: SupportState
    auxiliary: tuple[Tensor, ...]


class _SupportMaps(NamedTuple):
    proxy: ProxyClass
    threshold: Tensor
    activated: Tensor
    mask: Tensor


class IIR(nn.Module):
    """Few-shot segmentation by Inter- and Intra-image Refinement (Fu et al., arXiv 2507.05838).

    Tensors in, tensors out. Images are normalised as the checkpoint's preprocessing says; sides should be
    multiples of 32 pixels.

    Args:
        config: the architecture.

    Raises:
        ConfigError: ``cam='closed_form'`` with a classifier whose head is not pooling and one linear layer.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone, classifier=config.classifier)
        if config.cam == "closed_form" and not self.backbone.supports_closed_form:
            raise ConfigError(
                f"backbone {config.backbone!r} has more than pooling and one linear layer in its head, "
                "so no closed-form CAM exists; use cam='grad'."
            )
        companions = 8 if config.companion_priors else 0
        self.decoder = Decoder(config, self.backbone.channels, 1 + companions, 3 if companions else 1)
        self.base_learner: BaseLearner | None = None
        if config.base_classes:
            self.base_learner = BaseLearner(self.backbone.channels, config.base_classes)
            # In the decoder, since it is trained with it; the base learner itself is not.
            self.decoder.merge = BackgroundMerge()

    def train(self, mode: bool = True) -> IIR:
        """Training mode for the decoder; backbone and base learner are frozen and stay in evaluation mode."""
        super().train(mode)
        if self.base_learner is not None:
            self.base_learner.eval()
        return self

    def encode_support(self, images: Tensor, masks: Tensor) -> SupportState:
        """Encode supports; nothing of the pictures is needed afterwards.

        Args:
            images: ``(B, K, 3, H, W)`` normalised.
            masks: ``(B, K, H, W)`` in [0, 1], each with some foreground.
        """
        tasks, shots = masks.shape[:2]
        taps = self.backbone(images.flatten(0, 1))
        return self.encode_support_taps(taps, masks.flatten(0, 1)[:, None], tasks, shots).state

    def forward(self, query: Tensor, state: SupportState) -> Prediction:
        """Segment ``query (B, 3, H, W)`` by a state of ``B`` tasks (or of one, for all queries)."""
        return self.decode(self.backbone(query), state)

    def encode_support_taps(
        self, taps: Taps, masks: Tensor, tasks: int, shots: int, known: Tensor | None = None
    ) -> SupportEncoding:
        """As :meth:`encode_support`, from taps of ``N = tasks * shots`` supports and ``masks (N, 1, H, W)``.

        ``known (N, 1, H, W)`` in [0, 1] is 0 where a support's label is to be ignored: no part of the background.
        """
        size = grid_size(taps.mid)
        maps = self._support_maps(taps, masks, size)
        high = resize_map(taps.high.float(), size)
        dual_high = dual_prototypes(high, maps.mask, maps.activated)
        prior = priors.region_prior(
            priors.cosine_map(high, dual_high.core[:, None]),
            priors.cosine_map(high, dual_high.local[:, None]),
            maps.activated.bool(),
        )
        features = self.decoder.project_support(taps)
        dual = dual_prototypes(features, maps.mask, maps.activated)
        chosen = _core_or_local(maps.activated, dual.core[:, None], dual.local[:, None], prior.new_ones(len(prior), 1))
        fused = self.decoder.fuse_support(
            _concat(features, _spread(dual.whole, size), chosen, torch.cat([prior, maps.mask], 1))
        )
        keys, values, auxiliary = self._support_branch(fused)
        state = SupportState(
            proxy_index=maps.proxy.index[:, None],
            proxy_weight=maps.proxy.weight[:, None],
            threshold=maps.threshold[:, None],
            core_high=dual_high.core[:, None],
            local_high=dual_high.local[:, None],
            **_similarity_state(taps, masks, known),
            core=dual.core[:, None],
            local=dual.local[:, None],
            whole=dual.whole[:, None],
            keys=keys[:, None],
            values=values[:, None],
        )
        return SupportEncoding(state.reshape_shots(tasks, shots), auxiliary)

    def decode(
        self,
        taps: Taps,
        state: SupportState,
        labels: tuple[Tensor, Tensor] | None = None,
        own_class: Tensor | None = None,
    ) -> Prediction:
        """As :meth:`forward`, from the query's taps.

        Args:
            taps: of ``B`` queries.
            state: of ``B`` tasks, or of one.
            labels: query ``(B, h*w)`` and support ``(B, K, h*w)`` labels at ``mid``'s grid in {0, 1, 255}; given in
                training only, they turn directional dropout on and fill ``auxiliary``.
            own_class: ``(B,)`` int64, in training with a base learner: which base class each task asks for.
        """
        if state.tasks == 1 and len(taps.mid) > 1:
            state = state.map(lambda t: t.expand(len(taps.mid), *t.shape[1:]))
        size = grid_size(taps.mid)
        weights = priors.shot_weights(priors.gram(taps.low), state.gram_low, self.decoder.shot_scale_log.exp())
        activated = self._query_activation(taps, state, size)
        prior = priors.mean_over_shots(self._shot_priors(taps, state, activated, size), weights)
        token_priors, head_priors = self._all_priors(prior, taps, state, weights, size)
        features = self.decoder.project_query(taps)
        whole = torch.einsum("nkd,nk->nd", state.whole.float(), weights)
        chosen = _core_or_local(activated, state.core, state.local, weights)
        x = self.decoder.fuse_query(_concat(features, _spread(whole, size), chosen, token_priors))
        auxiliary = [self.decoder.query_start(x)] if labels else []
        for i, block in enumerate(self.decoder.blocks):
            x = block.query_step(x, state.cross(i), weights, self.config.shot_fusion, labels)  # type: ignore[operator]
            if labels:
                auxiliary.append(block.query_aux(x))  # type: ignore[operator]
        logits = self.decoder.head(x, taps.low, head_priors)
        if self.base_learner is not None:
            with torch.no_grad():
                base = self.base_learner.base_probability(taps, own_class)
            logits = self.decoder.merge(logits, base)  # type: ignore[operator]
        return Prediction(logits, prior, weights, tuple(auxiliary))

    def _support_maps(self, taps: Taps, masks: Tensor, size: tuple[int, int]) -> _SupportMaps:
        mask = resize_mask(masks, size)
        with torch.no_grad():
            proxy = proxy_class(self.backbone, taps.mid, taps.high, masks)
            shot = ProxyClass(proxy.index[:, None], proxy.weight[:, None])
            cam = resize_map(class_activation(self.backbone, self.config.cam, taps.mid, taps.high, shot), size)
            threshold = adaptive_threshold(cam, mask)
            if self.config.prototypes == "single":
                # Everything counts as activated, so core is the whole mask and local falls back to it.
                threshold = torch.full_like(threshold, -1)
        return _SupportMaps(proxy, threshold, (cam > threshold[:, None, None, None]).float(), mask)

    def _support_branch(self, fused: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        size, tokens = grid_size(fused), _to_tokens(fused)
        # Blocks without cross attention take nothing from the support, so its branch ends with the last that does.
        keys, values, auxiliary = [], [], [self.decoder.support_start(fused)]
        for block in self.decoder.blocks[: self.config.cross_blocks]:
            tokens, cross, logits = block.support_step(tokens)  # type: ignore[operator]
            keys.append(cross.keys)
            values.append(cross.values)
            auxiliary.append(logits.reshape(*logits.shape[:2], *size))
        if not keys:
            none = tokens[:, None, :0][:, :0]
            return none, none, tuple(auxiliary)
        return torch.stack(keys, 1), torch.stack(values, 1), tuple(auxiliary)

    def _query_activation(self, taps: Taps, state: SupportState, size: tuple[int, int]) -> Tensor:
        with torch.no_grad():
            proxy = ProxyClass(state.proxy_index, state.proxy_weight)
            cam = class_activation(self.backbone, self.config.cam, taps.mid, taps.high, proxy)
            return resize_map(cam, size) > state.threshold.float()[:, :, None, None]

    def _shot_priors(self, taps: Taps, state: SupportState, activated: Tensor, size: tuple[int, int]) -> Tensor:
        high = resize_map(taps.high.float(), size)
        core = priors.cosine_map(high, state.core_high)
        return priors.region_prior(core, priors.cosine_map(high, state.local_high), activated)

    def _all_priors(
        self, prior: Tensor, taps: Taps, state: SupportState, weights: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """IIR's prior and its companions: at ``mid``'s grid for the tokens, at ``low``'s for the head."""
        fine = grid_size(taps.low)
        if not self.config.companion_priors:
            return prior, resize_map(prior, fine)
        low, mid, high = (_similarities(tap, name, state, weights) for name, tap in taps._asdict().items())
        assert self.decoder.temperature_log is not None
        temperature = self.decoder.temperature_log.exp()
        dense = [
            priors.dense_prior(taps.mid, state.dense_mid, state.mask_mid, temperature[0]),
            priors.dense_prior(taps.high, state.dense_high, state.mask_high, temperature[1]),
        ]
        dense = [priors.mean_over_shots(d, weights) for d in dense]
        at_tokens = [prior, F.adaptive_avg_pool2d(low, size), mid, resize_map(high, size), dense[0]]
        tokens = torch.cat([*at_tokens, resize_map(dense[1], size)], 1)
        return tokens, torch.cat([resize_map(prior, fine), low], 1)


def _spread(prototype: Tensor, size: tuple[int, int]) -> Tensor:
    return prototype[:, :, None, None].expand(-1, -1, *size)


def _concat(features: Tensor, whole: Tensor, chosen: Tensor, maps: Tensor) -> Tensor:
    return torch.cat([t.to(features.dtype) for t in (features, whole, chosen, maps)], 1)


def _core_or_local(activated: Tensor, core: Tensor, local: Tensor, weights: Tensor) -> Tensor:
    """Core prototype where activated, local elsewhere, mean over shots: ``(N, K, ...)`` -> ``(N, d, h, w)``."""
    weighted = activated.float() * weights[:, :, None, None]
    rest = weights[:, :, None, None] - weighted
    return torch.einsum("nkhw,nkd->ndhw", weighted, core.float()) + torch.einsum("nkhw,nkd->ndhw", rest, local.float())


def _similarities(tap: Tensor, name: str, state: SupportState, weights: Tensor) -> Tensor:
    """Min-max similarity to the foreground prototype, and its lead over the background one: ``(N, 2, h, w)``."""
    foreground = priors.cosine_map(tap, getattr(state, f"foreground_{name}"))
    background = priors.cosine_map(tap, getattr(state, f"background_{name}"))
    pair = (priors.similarity_prior(foreground), foreground - background)
    return torch.cat([priors.mean_over_shots(maps, weights) for maps in pair], 1)


def _similarity_state(taps: Taps, masks: Tensor, known: Tensor | None) -> dict[str, Tensor]:
    """Prototypes and unit features that the companion priors and the shot weights compare with, ``(N, 1, ...)``."""
    state = {"gram_low": priors.gram(taps.low)}
    for name, tap in taps._asdict().items():
        mask = resize_mask(masks, grid_size(tap))
        state[f"foreground_{name}"] = masked_average(tap, mask)
        whole = torch.ones_like(mask) if known is None else resize_mask(known, grid_size(tap))
        state[f"background_{name}"] = masked_average(tap, (whole - mask).clamp_min(0))
        if name != "low":
            state[f"dense_{name}"] = _to_tokens(F.normalize(tap.float(), dim=1))
            state[f"mask_{name}"] = mask.flatten(1)
    return {name: tensor[:, None] for name, tensor in state.items()}
