"""IIR: a support is encoded once, then any number of queries is segmented from the kept state.

Comments begin with the method's sections and steps: 1 backbone; 2 inter-image refinement (2.1 proxy class, 2.2 class
activation, 2.3 threshold, 2.4 prototypes, 2.5 prior map); 3 shots; 4 decoder; 5 directional dropout; 6 base learner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iir_sdk.errors import ConfigError
from iir_sdk.model.attention import Labels, support_labels
from iir_sdk.model.backbone import Taps
from iir_sdk.model.base_learner import BackgroundMerge, BaseLearner
from iir_sdk.model.cam import (
    adaptive_threshold,
    class_activation,
    normalised_at,
    proxy_class,
    resize_map,
)
from iir_sdk.model.companions import (
    Temperatures,
    companion_priors,
    joined,
    prior_maps,
    self_support_priors,
    similarity_priors,
)
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.decoder import Decoder
from iir_sdk.model.encodings import QueryFeatures, SupportState, by_task, for_queries
from iir_sdk.model.presence import prediction_evidence, score_logits
from iir_sdk.model.prior import gram, query_prior, shot_weights, support_prior
from iir_sdk.model.prototypes import area_average, dual_prototypes, grid_size, resize_mask, sides_prototypes
from iir_sdk.model.support_state import CrossTokens, DualPrototypes, ProxyClass, Tokens
from iir_sdk.model.tokens import (
    TokenLayout,
    Vectors,
    every_position,
    laid_out_like,
    map_to_tokens,
    sides_of_cells,
    token_bias,
    tokens_to_map,
    vector_lengths,
)
from iir_sdk.model.towers import build_backbone


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
        self.backbone = build_backbone(config.backbone)
        if config.cam == "closed_form" and not self.backbone.supports_closed_form:
            raise ConfigError(
                f"backbone {config.backbone!r} has more than pooling and one linear layer in its head, "
                "so no closed-form CAM exists; use cam='grad'."
            )
        self.prior_maps = prior_maps(config)
        channels = [sum(maps.values()) for maps in self.prior_maps]
        self.decoder = Decoder(config, self.backbone.channels, *channels)
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
        mask = resize_mask(masks, size)
        known = torch.ones_like(masks) if known is None else known
        pooled_map = self._pooled_map(taps.high)
        with torch.no_grad():
            # 2.1 Proxy class: the classifier's own class that stands for the object.
            proxy = proxy_class(self.backbone, taps.mid, taps.high, masks)
            # 2.2 Where that class is active in the support; decode asks the same of the query.
            cam = normalised_at(class_activation(self.backbone, taps.mid, pooled_map, proxy), size)
            # 2.3 The threshold by which the activation fits the mask best binarises both.
            threshold = self._threshold(cam, mask, resize_mask(known, size))
        activated = (cam > threshold[:, None, None, None]).float()

        # 2.4 Core, local and whole prototypes: of high for the prior, of the decoder's features for the fusion.
        high = resize_map(taps.high.float(), size)
        dual_high = dual_prototypes(high, mask, activated)
        features = self.decoder.support_features(taps)
        dual = dual_prototypes(features, mask, activated)

        # 2.5 The support's own prior map.
        prior = support_prior(taps.high, dual_high, activated)

        # 4 Fusion and the support branch, which never looks at the query: its keys and values are made once.
        fused = self._fused_support(features, dual, activated, torch.cat([prior, mask], 1))
        layout, layout_high = self._token_layouts(taps, masks, known)
        keys, values, auxiliary = self._support_branch(fused, layout)
        state = SupportState(
            proxy=proxy,
            threshold=threshold[:, None],
            core_high=F.normalize(dual_high.core, dim=1)[:, None],
            local_high=F.normalize(dual_high.local, dim=1)[:, None],
            low=sides_prototypes(taps.low, masks, known),
            mid=sides_prototypes(taps.mid, masks, known),
            high=sides_prototypes(taps.high, masks, known),
            pooled=sides_prototypes(taps.high if pooled_map is None else pooled_map, masks, known),
            gram_low=gram(taps.low)[:, None],
            fused=self._fused_prototypes(dual),
            tokens_mid=CrossTokens(*_listed(layout, taps.mid), keys, values),
            tokens_high=Tokens(*_listed(layout_high, high if layout_high is layout else taps.high)),
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
            low=Vectors.measured(taps.low),
            mid=Vectors.measured(taps.mid),
            high=Vectors.measured(taps.high),
            pooled=None if pooled_map is None else Vectors.measured(pooled_map),
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

        # 3 How much each shot counts: the nearer its style is to the query's, the more.
        weights = self._shot_weights(query, state)

        # 2.2, 2.3 Where the supports' proxy classes are active in the query, by the supports' thresholds.
        activated = self._query_activation(query, state)

        # 2.5 The prior map, and its companions beside it.
        prior = query_prior(query, state, activated, weights)
        bias = token_bias(weights, state.tokens_mid.mass)
        fused_priors, head_priors = self._with_companions(prior, query, state, weights, bias)

        # 4 Fusion: features, whole prototype, core where activated and local elsewhere, priors.
        x = self._fused_query(query, state, weights, activated, fused_priors)

        # 4, 5 Blocks of self and cross attention; in training, labels turn directional dropout on.
        labels = None if query_labels is None else Labels(query_labels, support_labels(state.tokens_mid))
        x, auxiliary = self._query_branch(x, state, bias, labels)

        # 4 The mask head, with what low adds at stride 8.
        logits = self.decoder.head(x, query.detail, head_priors)

        # 6 Base classes are no part of the object.
        if query.base is not None:
            logits = self.decoder.merge(logits, query.base.expand(logits.shape[0], -1, -1, -1))  # type: ignore[operator]
        return Prediction(logits, prior, weights, self._scores(query, state, weights, logits), auxiliary)

    def evidence(self, query: QueryFeatures, state: SupportState, weights: Tensor, logits: Tensor) -> Tensor:
        """What speaks for a prediction, ``(B, 6)``: :func:`~iir_sdk.model.presence.prediction_evidence`."""
        return prediction_evidence(query, state, weights, logits, self.backbone.class_weight)

    def _scores(self, query: QueryFeatures, state: SupportState, weights: Tensor, logits: Tensor) -> Tensor | None:
        if self.decoder.scores is None:
            return None
        return score_logits(self.evidence(query, state, weights, logits), self.decoder.scores)

    def _shot_weights(self, query: QueryFeatures, state: SupportState) -> Tensor:
        if state.shots == 1 and not self.training:
            return torch.ones_like(state.threshold, dtype=torch.float32)
        return shot_weights(gram(query.low.map), state.gram_low, self.decoder.shot_scale_log.exp())

    def _threshold(self, cam: Tensor, mask: Tensor, known: Tensor) -> Tensor:
        threshold = adaptive_threshold(cam, mask, known)
        # With a single prototype all counts as activated, so core is the whole mask and local falls back to it.
        return torch.full_like(threshold, -1) if self.config.prototypes == "single" else threshold

    def _query_activation(self, query: QueryFeatures, state: SupportState) -> Tensor:
        """``(N, K, h, w)`` bool at ``mid``'s grid."""
        proxy = ProxyClass(*(for_queries(t, query.queries) for t in (state.proxy.index, state.proxy.weight)))
        pooled = None if query.pooled is None else query.pooled.map
        with torch.no_grad():
            cam = by_task(class_activation(self.backbone, query.mid.map, pooled, proxy), state.tasks)
            return normalised_at(cam, grid_size(query.mid.map)) > state.threshold.float()[:, :, None, None]

    def _fused_support(self, features: Tensor, dual: DualPrototypes[Tensor], activated: Tensor, maps: Tensor) -> Tensor:
        """The 1x1 fusion of features, whole prototype, core or local prototype, and ``maps``: prior and mask."""
        whole = dual.whole[:, :, None, None].expand(-1, -1, *grid_size(features))
        one_shot = activated.new_ones(len(activated), 1)
        chosen = _core_or_local(activated, dual.core[:, None], dual.local[:, None], one_shot)
        fused: Tensor = self.decoder.fuse_support(
            torch.cat([part.to(features.dtype) for part in (features, whole, chosen, maps)], 1)
        )
        return fused

    def _fused_query(
        self, query: QueryFeatures, state: SupportState, weights: Tensor, activated: Tensor, maps: Tensor
    ) -> Tensor:
        """The same of a query, where ``maps`` are its priors, as the sum of what each group of inputs adds."""
        whole = (weights[:, None] @ state.fused.whole.float())[:, 0, :, None, None]
        x = query.fused + whole + _core_or_local(activated, state.fused.core, state.fused.local, weights)
        added = self.decoder.fuse_query_part("priors", laid_out_like(query.fused, maps.to(query.fused.dtype)))
        return x.to(query.fused.dtype) + added

    def _fused_prototypes(self, dual: DualPrototypes[Tensor]) -> DualPrototypes[Tensor]:
        """What the decoder's prototypes ``(N, d)`` add to the query's fusion, ``(N, 1, d)``.

        The convolution is linear, so they pass it once and as vectors, not at every query and spread over a map.
        """
        parts = (("chosen", dual.core), ("chosen", dual.local), ("whole", dual.whole))
        added = (self.decoder.fuse_query_part(part, vectors[:, :, None, None]) for part, vectors in parts)
        return DualPrototypes(*(maps.flatten(1)[:, None] for maps in added))

    def _query_branch(
        self, x: Tensor, state: SupportState, bias: Tensor, labels: Labels | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The query after all blocks, and with labels the auxiliary heads' logits."""
        auxiliary = [self.decoder.query_start(x)] if labels else []
        for i, block in enumerate(self.decoder.blocks):
            x = block.query_step(x, state.cross(i), bias, labels)  # type: ignore[operator]
            if labels:
                auxiliary.append(block.query_aux(x))  # type: ignore[operator]
        return x, tuple(auxiliary)

    @torch.no_grad()
    def _pooled_map(self, high: Tensor) -> Tensor | None:
        """What the closed-form CAM is read from; None for Grad-CAM, which runs the network's end by itself."""
        return self.backbone.pooled_map(high) if self.config.cam == "closed_form" else None

    def _token_layouts(self, taps: Taps, masks: Tensor, known: Tensor) -> tuple[TokenLayout, TokenLayout]:
        """Of ``mid`` and of ``high``: one and the same in the light decoder, else every position of each grid."""
        at_mid, at_high = ([resize_mask(m, grid_size(tap)) for m in (masks, known)] for tap in (taps.mid, taps.high))
        if self.config.light:
            layout = sides_of_cells(*at_mid)
            return layout, layout
        return every_position(*at_mid), every_position(*at_high)

    def _support_branch(self, fused: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Keys and values ``(N, L, T, d)`` of each cross attention, and the auxiliary heads' logits."""
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

    def _with_companions(
        self, prior: Tensor, query: QueryFeatures, state: SupportState, weights: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All prior maps that the decoder reads: at ``mid``'s grid for the fusion, at ``low``'s for the head."""
        size, fine = grid_size(query.mid.map), grid_size(query.low.map)
        at_mid, at_low = {"iir": prior}, {"iir": resize_map(prior, fine)}
        if self.decoder.temperature_log is not None:
            # The light decoder's two lists of tokens are one.
            bias_high = bias if self.config.light else token_bias(weights, state.tokens_high.mass)
            temperatures = Temperatures(self.decoder.temperature_log, self.decoder.joint_temperature_log)
            at_low["low"] = similarity_priors(query.low, state.low, weights)
            at_mid["low"] = area_average(at_low["low"], size)
            at_mid |= companion_priors(query, state, weights, (bias, bias_high), temperatures, self.decoder.dictionary)
        if self.config.self_support:
            surest = at_mid.get("among_words", at_mid["joint"])
            at_mid["self_support"], at_low["self_support"] = self_support_priors(query, surest)
        return joined(at_mid, self.prior_maps.at_mid), joined(at_low, self.prior_maps.at_low)


def _listed(layout: TokenLayout, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Side, mass and features of tokens; these are means of the positions' unit vectors, made units."""
    maps = maps.float()
    return layout.side, layout.mass[:, None], F.normalize(layout.pool(maps / vector_lengths(maps)), dim=2)


def _core_or_local(activated: Tensor, core: Tensor, local: Tensor, weights: Tensor) -> Tensor:
    """Core prototype where activated, local elsewhere, mean over shots: ``(N, K, ...)`` -> ``(N, d, h, w)``."""
    if activated.shape[1] == 1:
        chosen = torch.where(map_to_tokens(activated).bool(), core.float(), local.float())
        return tokens_to_map(chosen, grid_size(activated))
    # local + activated * (core - local), weighted over the shots as one product of matrices.
    shares = (activated.float() * weights[:, :, None, None]).flatten(2).transpose(1, 2)
    tokens = shares @ (core.float() - local.float()) + weights[:, None] @ local.float()
    return tokens_to_map(tokens, grid_size(activated))
