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
    proxy_class,
    resize_map,
)
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.cross_step import Attended, Labels, attended_tokens, support_labels
from iir_sdk.model.decoder import Decoder
from iir_sdk.model.precision import full_precision
from iir_sdk.model.prototypes import area_average, dual_prototypes, grid_size, masked_average, resize_mask
from iir_sdk.model.query import QueryFeatures
from iir_sdk.model.state import SupportState
from iir_sdk.model.tokens import (
    TokenLayout,
    every_position,
    laid_out_like,
    sides_of_cells,
    token_bias,
    tokens_to_map,
)

_SIDES = ("foreground", "background")


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
        companions = (8 if config.companion_priors else 0) + (3 if config.joint_priors else 0)
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
        pooled_map = self._pooled_map(taps.high)
        maps = self._support_maps(taps, pooled_map, masks, size)
        high = resize_map(taps.high.float(), size)
        dual_high = dual_prototypes(high, maps.mask, maps.activated)
        prior = priors.region_prior(
            priors.cosine_map(high, dual_high.core[:, None]),
            priors.cosine_map(high, dual_high.local[:, None]),
            maps.activated.bool(),
        )
        features = self.decoder.support_features(taps)
        dual = dual_prototypes(features, maps.mask, maps.activated)
        chosen = _core_or_local(
            maps.activated, dual.core[:, None], dual.local[:, None], torch.ones_like(maps.threshold)[:, None]
        )
        fused = self.decoder.fuse_support(
            _concat(features, _spread(dual.whole, size), chosen, torch.cat([prior, maps.mask], 1))
        )
        known = torch.ones_like(masks) if known is None else known
        layout, at_high = self._token_layouts(taps, masks, known)
        keys, values, auxiliary = self._support_branch(fused, layout)
        state = SupportState(
            proxy_index=maps.proxy.index[:, None],
            proxy_weight=maps.proxy.weight[:, None],
            threshold=maps.threshold[:, None],
            core_high=dual_high.core[:, None],
            local_high=dual_high.local[:, None],
            **_companion_prototypes(taps, pooled_map, masks, known),
            core=dual.core[:, None],
            local=dual.local[:, None],
            whole=dual.whole[:, None],
            dense_mid=F.normalize(layout.pool(_unit(taps.mid)), dim=2),
            dense_high=F.normalize(at_high.pool(_unit(high if at_high is layout else taps.high)), dim=2),
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
            unit=Taps(*(_unit(t) for t in taps)),
            unit_pooled=_unit(pooled_map) if self.config.joint_priors and pooled_map is not None else None,
            gram=priors.gram(taps.low),
            pooled_map=pooled_map,
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
        if state.tasks == 1:
            state = state.expand(len(query.gram))
        size = grid_size(query.taps.mid)
        weights = priors.shot_weights(query.gram, state.gram_low, self.decoder.shot_scale_log.exp())
        activated = self._query_activation(query, state, size)
        prior = priors.mean_over_shots(self._shot_priors(query, state, activated, size), weights)
        bias = token_bias(weights, state.mass)
        token_priors, head_priors = self._all_priors(prior, query, state, weights, bias)
        x = self._fused(query, state, weights, activated, token_priors)
        x, auxiliary = self._refined(
            x, state, attended_tokens(state, weights, bias, self.config.shot_fusion), query_labels
        )
        logits = self.decoder.head(x, query.detail, head_priors)
        if query.base is not None:
            logits = self.decoder.merge(logits, query.base.expand(logits.shape[0], -1, -1, -1))  # type: ignore[operator]
        return Prediction(logits, prior, weights, tuple(auxiliary))

    def _fused(
        self, query: QueryFeatures, state: SupportState, weights: Tensor, activated: Tensor, token_priors: Tensor
    ) -> Tensor:
        """The 1x1 fusion of features, whole prototype, core or local prototype and priors, group by group.

        The convolution is linear, so prototypes pass it as vectors and not spread over a map.
        """
        part = self.decoder.fuse_query_part
        whole = (weights[:, None] @ state.whole.float())[:, 0, :, None, None]
        core, local = (
            part("chosen", p.float().flatten(0, 1)[..., None, None]).reshape(p.shape) for p in (state.core, state.local)
        )
        x = query.fused + part("whole", whole) + _core_or_local(activated, core, local, weights)
        return x.to(query.fused.dtype) + part("priors", laid_out_like(query.fused, token_priors.to(query.fused.dtype)))

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
        self, taps: Taps, pooled_map: Tensor | None, masks: Tensor, size: tuple[int, int]
    ) -> _SupportMaps:
        mask = resize_mask(masks, size)
        with torch.no_grad():
            proxy = proxy_class(self.backbone, taps.mid, taps.high, masks)
            shot = ProxyClass(proxy.index[:, None], proxy.weight[:, None])
            cam = resize_map(class_activation(self.backbone, taps.mid, pooled_map, shot), size)
            threshold = adaptive_threshold(cam, mask)
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

    def _query_activation(self, query: QueryFeatures, state: SupportState, size: tuple[int, int]) -> Tensor:
        proxy = ProxyClass(_for_queries(query, state.proxy_index), _for_queries(query, state.proxy_weight))
        with torch.no_grad():
            cam = class_activation(self.backbone, query.taps.mid, query.pooled_map, proxy)
            return resize_map(_by_task(query, cam, state), size) > state.threshold.float()[:, :, None, None]

    def _shot_priors(
        self, query: QueryFeatures, state: SupportState, activated: Tensor, size: tuple[int, int]
    ) -> Tensor:
        both = _for_queries(query, torch.cat([state.core_high, state.local_high], 1))
        found = _by_task(query, priors.similarity_map(query.unit.high, both), state, 2)
        core, local = resize_map(found, size).chunk(2, 1)
        return priors.region_prior(core, local, activated)

    def _all_priors(
        self, prior: Tensor, query: QueryFeatures, state: SupportState, weights: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """IIR's prior and its companions: at ``mid``'s grid for the tokens, at ``low``'s for the head."""
        size, fine = grid_size(query.taps.mid), grid_size(query.taps.low)
        if not self.config.companion_priors:
            return prior, resize_map(prior, fine)
        low, mid, high = (_similarities(query, u, n, state, weights) for n, u in query.unit._asdict().items())
        assert self.decoder.temperature_log is not None
        temperature = self.decoder.temperature_log.exp()
        at_mid = priors.token_affinity(query.unit.mid, state.dense_mid, temperature[0])
        at_high = priors.token_affinity(query.unit.high, state.dense_high, temperature[1])
        dense_mid = priors.dense_prior(at_mid, state.side, bias)
        dense_high = priors.dense_prior(at_high, state.side_high, token_bias(weights, state.mass_high))
        tokens = [prior, area_average(low, size), mid, resize_map(high, size), dense_mid, resize_map(dense_high, size)]
        if self.decoder.joint_temperature_log is not None:
            share = temperature / self.decoder.joint_temperature_log.exp()
            joint = at_mid * share[0] + resize_map(at_high * share[1], size)
            assert query.unit_pooled is not None
            pooled = resize_map(_similarities(query, query.unit_pooled, "pooled", state, weights), size)
            tokens += [priors.dense_prior(joint, state.side, bias), pooled]
        return torch.cat(tokens, 1), torch.cat([resize_map(prior, fine), low], 1)


@full_precision
def _unit(maps: Tensor) -> Tensor:
    # A sum of squares: torch's own norm along the channels is ten times slower.
    maps = maps.float()
    return maps * maps.square().sum(1, keepdim=True).clamp_min(1e-24).rsqrt()


def _for_queries(query: QueryFeatures, vectors: Tensor) -> Tensor:
    """Vectors ``(N, K, ...)`` of all tasks as those of the one query they ask for, ``(1, N * K, ...)``."""
    return vectors.flatten(0, 1)[None] if len(query.gram) == 1 else vectors


def _by_task(query: QueryFeatures, maps: Tensor, state: SupportState, each: int = 1) -> Tensor:
    """The inverse, of maps: ``(1, N * K * each, h, w)`` as ``(N, K * each, h, w)``."""
    return maps.reshape(state.tasks, state.shots * each, *maps.shape[2:]) if len(query.gram) == 1 else maps


def _spread(prototype: Tensor, size: tuple[int, int]) -> Tensor:
    return prototype[:, :, None, None].expand(-1, -1, *size)


def _concat(features: Tensor, whole: Tensor, chosen: Tensor, maps: Tensor) -> Tensor:
    return torch.cat([t.to(features.dtype) for t in (features, whole, chosen, maps)], 1)


def _core_or_local(activated: Tensor, core: Tensor, local: Tensor, weights: Tensor) -> Tensor:
    """Core prototype where activated, local elsewhere, mean over shots: ``(N, K, ...)`` -> ``(N, d, h, w)``."""
    # local + activated * (core - local), weighted over the shots as one product of matrices.
    shares = (activated.float() * weights[:, :, None, None]).flatten(2).transpose(1, 2)
    tokens = shares @ (core.float() - local.float()) + weights[:, None] @ local.float()
    return tokens_to_map(tokens, grid_size(activated))


def _similarities(query: QueryFeatures, unit: Tensor, name: str, state: SupportState, weights: Tensor) -> Tensor:
    """Min-max similarity to the foreground prototype, and its lead over the background one: ``(N, 2, h, w)``."""
    both = torch.cat([getattr(state, f"{side}_{name}") for side in _SIDES], 1)
    found = priors.similarity_map(unit, _for_queries(query, both))
    foreground, background = _by_task(query, found, state, 2).chunk(2, 1)
    pair = (priors.similarity_prior(foreground), foreground - background)
    return torch.cat([priors.mean_over_shots(maps, weights) for maps in pair], 1)


def _companion_prototypes(taps: Taps, pooled_map: Tensor | None, masks: Tensor, known: Tensor) -> dict[str, Tensor]:
    """Prototypes that the companion priors compare with, and the style that weighs the shots, ``(N, 1, ...)``."""
    state = {"gram_low": priors.gram(taps.low)}
    pooled = taps.high if pooled_map is None else pooled_map
    for name, tap in {**taps._asdict(), "pooled": pooled}.items():
        mask = resize_mask(masks, grid_size(tap))
        whole = resize_mask(known, grid_size(tap))
        state[f"foreground_{name}"] = masked_average(tap, mask)
        state[f"background_{name}"] = masked_average(tap, (whole - mask).clamp_min(0))
    return {name: tensor[:, None] for name, tensor in state.items()}
