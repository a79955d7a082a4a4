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
from iir_sdk.model.cam import (
    ProxyClass,
    adaptive_threshold,
    class_activation,
    normalised_at,
    proxy_class,
    resize_map,
)
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.cross_step import Attended, Labels, attended_tokens, support_labels
from iir_sdk.model.decoder import Decoder
from iir_sdk.model.dictionary import DICTIONARY_PRIORS
from iir_sdk.model.presence import prediction_evidence, score_logits
from iir_sdk.model.prototypes import DualPrototypes, area_average, dual_prototypes, grid_size, resize_mask
from iir_sdk.model.query import QueryFeatures
from iir_sdk.model.query_priors import (
    Temperatures,
    by_task,
    companion_priors,
    companion_prototypes,
    for_queries,
    iir_prior,
    similarity_priors,
)
from iir_sdk.model.self_support import self_support_priors
from iir_sdk.model.state import SupportState
from iir_sdk.model.tokens import (
    TokenLayout,
    every_position,
    laid_out_like,
    map_to_tokens,
    sides_of_cells,
    token_bias,
    tokens_to_map,
)


@dataclass(frozen=True)
class Prediction:
    """What the network says of ``B`` queries.

    Attributes:
        logits: ``(B, 2, H/8, W/8)``, background and foreground.
        prior: ``(B, 1, H/16, W/16)`` float32, IIR's prior in [0, 1], weighted mean over the shots.
        shot_weights: ``(B, K)``, each row sums to 1.
        scores: ``(B, 2)``, logits of the query showing the object, and of a pixel of the mask being of it if so; None
            without a head for them.
        auxiliary: 2-way logits ``(B, 2, H/16, W/16)`` of the query after fusion and after each block.
    """

    logits: Tensor
    prior: Tensor
    shot_weights: Tensor
    scores: Tensor | None = None
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
        self.backbone = build_backbone(config.backbone, classifier=config.classifier, late=config.late_features)
        if config.cam == "closed_form" and not self.backbone.supports_closed_form:
            raise ConfigError(
                f"backbone {config.backbone!r} has more than pooling and one linear layer in its head, "
                "so no closed-form CAM exists; use cam='grad'."
            )
        of_query = 2 if config.self_support else 0
        companions = (8 if config.companion_priors else 0) + (3 if config.joint_priors else 0) + of_query
        companions += DICTIONARY_PRIORS if config.dictionary else 0
        self.decoder = Decoder(config, self.backbone.channels, 1 + companions, (3 if companions else 1) + of_query)
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

    def encode_support(self, images: Tensor, masks: Tensor, known: Tensor | None = None) -> SupportState:
        """Encode supports; nothing of the pictures is needed afterwards.

        Args:
            images: ``(B, K, 3, H, W)`` normalised.
            masks: ``(B, K, H, W)`` in [0, 1], each with some foreground.
            known: the same shape, in [0, 1]: 0 where it is to be ignored; None for known throughout.
        """
        tasks, shots = masks.shape[:2]
        taps = self.backbone(images.flatten(0, 1))
        known = None if known is None else known.flatten(0, 1)[:, None]
        return self.encode_support_taps(taps, masks.flatten(0, 1)[:, None], tasks, shots, known).state

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
        pooled_map = self._pooled_map(taps.high)
        known = torch.ones_like(masks) if known is None else known
        maps = self._support_maps(taps, pooled_map, masks, known, size)
        high = resize_map(taps.high.float(), size)
        dual_high = dual_prototypes(high, maps.mask, maps.activated)
        # As the query's: compared at the grid of high, and the similarities are enlarged, not the features.
        alike = priors.cosine_map(taps.high, torch.stack([dual_high.core, dual_high.local], 1))
        core_alike, local_alike = resize_map(alike, size).chunk(2, 1)
        prior = priors.region_prior(core_alike, local_alike, maps.activated.bool())
        features = self.decoder.support_features(taps)
        dual = dual_prototypes(features, maps.mask, maps.activated)
        chosen = _core_or_local(
            maps.activated, dual.core[:, None], dual.local[:, None], torch.ones_like(maps.threshold)[:, None]
        )
        fused = self.decoder.fuse_support(
            _concat(features, _spread(dual.whole, size), chosen, torch.cat([prior, maps.mask], 1))
        )
        layout, at_high = self._token_layouts(taps, masks, known)
        keys, values, auxiliary = self._support_branch(fused, layout)
        state = SupportState(
            proxy_index=maps.proxy.index[:, None],
            proxy_weight=maps.proxy.weight[:, None],
            threshold=maps.threshold[:, None],
            core_high=F.normalize(dual_high.core, dim=1)[:, None],
            local_high=F.normalize(dual_high.local, dim=1)[:, None],
            **companion_prototypes(taps, pooled_map, masks, known),
            **self._fused_prototypes(dual),
            dense_mid=_pooled_units(layout, taps.mid),
            dense_high=_pooled_units(at_high, high if at_high is layout else taps.high),
            side=layout.side,
            mass=layout.mass[:, None],
            side_high=at_high.side,
            mass_high=at_high.mass[:, None],
            keys=keys,
            values=values,
        )
        return SupportEncoding(state.regroup(tasks, shots), auxiliary)

    def read_query(self, taps: Taps, own_class: Tensor | None = None) -> QueryFeatures:
        """All of a query that no support changes; see :meth:`decode` for the arguments."""
        base = None
        if self.base_learner is not None:
            with torch.no_grad():
                base = self.base_learner.base_probability(taps, own_class)
        pooled_map = self._pooled_map(taps.high)
        return QueryFeatures(
            taps=taps,
            lengths=Taps(*(priors.vector_lengths(tap) for tap in taps)),
            pooled_map=pooled_map,
            pooled_lengths=None if pooled_map is None else priors.vector_lengths(pooled_map),
            fused=self.decoder.fuse_query_part("features", self.decoder.query_features(taps)),
            detail=self.decoder.head.detail(taps.low),
            base=base,
        )

    def decode(
        self,
        query: Taps | QueryFeatures,
        state: SupportState,
        query_labels: Tensor | None = None,
        own_class: Tensor | None = None,
    ) -> Prediction:
        """As :meth:`forward`, from the query's taps, or from what :meth:`read_query` made of them.

        Args:
            query: of ``B`` queries, or of one that all tasks ask for.
            state: of ``B`` tasks, or of one that all queries ask for.
            query_labels: ``(B, h*w)`` labels at ``mid``'s grid in {0, 1, 255}; given in training only, they turn
                directional dropout on and fill ``auxiliary``.
            own_class: ``(B,)`` int64, in training with a base learner: which base class each task asks for.
        """
        if not isinstance(query, QueryFeatures):
            query = self.read_query(query, own_class)
        if state.tasks == 1 and query.queries > 1:
            state = state.expand(query.queries)
        size = grid_size(query.taps.mid)
        weights = self._shot_weights(query, state)
        activated = self._query_activation(query, state, size)
        prior = iir_prior(query, state, activated, weights)
        bias = token_bias(weights, state.mass)
        token_priors, head_priors = self._all_priors(prior, query, state, weights, bias)
        x = self._fused(query, state, weights, activated, token_priors)
        x, auxiliary = self._refined(
            x, state, attended_tokens(state, weights, bias, self.config.shot_fusion), query_labels
        )
        logits = self.decoder.head(x, query.detail, head_priors)
        if query.base is not None:
            logits = self.decoder.merge(logits, query.base.expand(logits.shape[0], -1, -1, -1))  # type: ignore[operator]
        return Prediction(logits, prior, weights, self._scores(query, state, weights, logits), tuple(auxiliary))

    def evidence(self, query: QueryFeatures, state: SupportState, weights: Tensor, logits: Tensor) -> Tensor:
        """What speaks for a prediction, ``(B, 6)``: :func:`~iir_sdk.model.presence.prediction_evidence`."""
        class_weight = self.backbone.class_weight if self.backbone.has_classifier else None
        return prediction_evidence(query, state, weights, logits, class_weight)

    def _scores(self, query: QueryFeatures, state: SupportState, weights: Tensor, logits: Tensor) -> Tensor | None:
        if self.decoder.scores is None:
            return None
        return score_logits(self.evidence(query, state, weights, logits), self.decoder.scores)

    def _shot_weights(self, query: QueryFeatures, state: SupportState) -> Tensor:
        if state.shots == 1 and not self.training:
            return torch.ones_like(state.threshold, dtype=torch.float32)
        return priors.shot_weights(priors.gram(query.taps.low), state.gram_low, self.decoder.shot_scale_log.exp())

    def _fused(
        self, query: QueryFeatures, state: SupportState, weights: Tensor, activated: Tensor, token_priors: Tensor
    ) -> Tensor:
        """The 1x1 fusion of features, whole prototype, core or local prototype and priors, group by group."""
        whole = (weights[:, None] @ state.whole.float())[:, 0, :, None, None]
        x = query.fused + whole + _core_or_local(activated, state.core, state.local, weights)
        priors_part = self.decoder.fuse_query_part(
            "priors", laid_out_like(query.fused, token_priors.to(query.fused.dtype))
        )
        return x.to(query.fused.dtype) + priors_part

    def _fused_prototypes(self, dual: DualPrototypes) -> dict[str, Tensor]:
        """What the decoder's prototypes ``(N, d)`` add to the query's fusion, ``(N, 1, d)``.

        The convolution is linear, so they pass it once and as vectors, not at every query and spread over a map.
        """
        parts = {"core": "chosen", "local": "chosen", "whole": "whole"}
        return {
            name: self.decoder.fuse_query_part(part, getattr(dual, name)[:, :, None, None]).flatten(1)[:, None]
            for name, part in parts.items()
        }

    def _refined(
        self, x: Tensor, state: SupportState, attended: list[Attended], query_labels: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        labels = None if query_labels is None else Labels(query_labels, support_labels(state))
        auxiliary = [self.decoder.query_start(x)] if labels else []
        for i, block in enumerate(self.decoder.blocks):
            x = block.query_step(x, state.cross(i), attended, labels)  # type: ignore[operator]
            if labels:
                auxiliary.append(block.query_aux(x))  # type: ignore[operator]
        return x, auxiliary

    @torch.no_grad()
    def _pooled_map(self, high: Tensor) -> Tensor | None:
        """What the closed-form CAM is read from; None for Grad-CAM, which runs the network's end by itself."""
        return self.backbone.pooled_map(high) if self.config.cam == "closed_form" else None

    def _token_layouts(self, taps: Taps, masks: Tensor, known: Tensor) -> tuple[TokenLayout, TokenLayout]:
        """Of ``mid`` and of ``high``: one and the same in the light decoder, else every position of each grid."""
        at_mid, at_high = ([resize_mask(m, grid_size(tap)) for m in (masks, known)] for tap in (taps.mid, taps.high))
        if self.config.decoder == "light":
            layout = sides_of_cells(*at_mid)
            return layout, layout
        return every_position(*at_mid), every_position(*at_high)

    def _support_maps(
        self, taps: Taps, pooled_map: Tensor | None, masks: Tensor, known: Tensor, size: tuple[int, int]
    ) -> _SupportMaps:
        mask = resize_mask(masks, size)
        with torch.no_grad():
            proxy = proxy_class(self.backbone, taps.mid, taps.high, masks)
            shot = ProxyClass(proxy.index[:, None], proxy.weight[:, None])
            cam = normalised_at(class_activation(self.backbone, taps.mid, pooled_map, shot), size)
            threshold = adaptive_threshold(cam, mask, resize_mask(known, size))
            if self.config.prototypes == "single":
                # Everything counts as activated, so core is the whole mask and local falls back to it.
                threshold = torch.full_like(threshold, -1)
        return _SupportMaps(proxy, threshold, (cam > threshold[:, None, None, None]).float(), mask)

    def _support_branch(self, fused: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        # Blocks without cross attention take nothing from the support, so its branch ends with the last that does.
        x, keys, values, auxiliary = fused, [], [], [self.decoder.support_start(fused)]
        for block in self.decoder.blocks[: self.config.cross_blocks]:
            x = block.support_step(x)  # type: ignore[operator]
            cross = block.cross_attention.keys_values(layout.pool(x))  # type: ignore[union-attr,operator]
            keys.append(cross.keys)
            values.append(cross.values)
            auxiliary.append(block.support_aux(x))  # type: ignore[operator]
        if not keys:
            none = fused.new_zeros(len(fused), 0, layout.side.shape[1], fused.shape[1])
            return none, none, tuple(auxiliary)
        return torch.stack(keys, 1), torch.stack(values, 1), tuple(auxiliary)

    def _all_priors(
        self, prior: Tensor, query: QueryFeatures, state: SupportState, weights: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """IIR's prior and its companions: at ``mid``'s grid for the tokens, at ``low``'s for the head."""
        size, fine = grid_size(query.taps.mid), grid_size(query.taps.low)
        if self.decoder.temperature_log is None:
            return prior, resize_map(prior, fine)
        # The light decoder's two lists of tokens are one.
        bias_high = bias if self.config.decoder == "light" else token_bias(weights, state.mass_high)
        temperatures = Temperatures(self.decoder.temperature_log, self.decoder.joint_temperature_log)
        low = similarity_priors(query, "low", state, weights)
        companions, surest = companion_priors(
            query, state, weights, (bias, bias_high), temperatures, self.decoder.dictionary
        )
        tokens, head = [prior, area_average(low, size), *companions], [resize_map(prior, fine), low]
        if self.config.self_support:
            assert surest is not None
            of_tokens, of_head = self_support_priors(query, surest)
            tokens.append(of_tokens)
            head.append(of_head)
        return torch.cat(tokens, 1), torch.cat(head, 1)

    def _query_activation(self, query: QueryFeatures, state: SupportState, size: tuple[int, int]) -> Tensor:
        proxy = ProxyClass(for_queries(query, state.proxy_index), for_queries(query, state.proxy_weight))
        with torch.no_grad():
            cam = class_activation(self.backbone, query.taps.mid, query.pooled_map, proxy)
            return normalised_at(by_task(query, cam, state.tasks), size) > state.threshold.float()[:, :, None, None]


def _pooled_units(layout: TokenLayout, maps: Tensor) -> Tensor:
    """Unit vector of each token, the mean of its positions' unit vectors: ``(N, T, C)`` float32."""
    maps = maps.float()
    return F.normalize(layout.pool(maps / priors.vector_lengths(maps)), dim=2)


def _spread(prototype: Tensor, size: tuple[int, int]) -> Tensor:
    return prototype[:, :, None, None].expand(-1, -1, *size)


def _concat(features: Tensor, whole: Tensor, chosen: Tensor, maps: Tensor) -> Tensor:
    return torch.cat([t.to(features.dtype) for t in (features, whole, chosen, maps)], 1)


def _core_or_local(activated: Tensor, core: Tensor, local: Tensor, weights: Tensor) -> Tensor:
    """Core prototype where activated, local elsewhere, mean over shots: ``(N, K, ...)`` -> ``(N, d, h, w)``."""
    if activated.shape[1] == 1:
        chosen = torch.where(map_to_tokens(activated).bool(), core.float(), local.float())
        return tokens_to_map(chosen, grid_size(activated))
    # local + activated * (core - local), weighted over the shots as one product of matrices.
    shares = (activated.float() * weights[:, :, None, None]).flatten(2).transpose(1, 2)
    tokens = shares @ (core.float() - local.float()) + weights[:, None] @ local.float()
    return tokens_to_map(tokens, grid_size(activated))
