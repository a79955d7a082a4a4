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
from iir_sdk.model.cam import adaptive_threshold, class_activation, normalised_at, proxy_class, resize_map
from iir_sdk.model.companions import companion_priors, prior_maps, similarity_priors
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.decoder import Decoder, SupportBranch
from iir_sdk.model.encodings import QueryFeatures, SupportState, by_task, for_queries
from iir_sdk.model.look_alikes import presence_lost, without_look_alikes
from iir_sdk.model.presence import prediction_evidence, score_logits
from iir_sdk.model.prior import gram, query_prior, shot_weights, support_prior
from iir_sdk.model.prototypes import area_average, dual_prototypes, grid_size, resize_mask, sides_prototypes
from iir_sdk.model.support_state import DualPrototypes, ProxyClass, Tokens
from iir_sdk.model.tokens import TokenLayout, Vectors, every_position, mean_unit_vectors, sides_of_cells, token_bias
from iir_sdk.model.towers import build_backbone


@dataclass(frozen=True)
class Prediction:
    """What the network says of ``B`` queries.

    Attributes:
        logits: ``(B, 2, H/8, W/8)``, background and foreground.
        prior: ``(B, 1, H/16, W/16)`` float32, IIR's prior in [0, 1], weighted mean over the shots.
        shot_weights: ``(B, K)``, each row sums to 1.
        scores: ``(B, 2)``, logits of the query showing the object, and of a pixel of the mask being of it if so; None
            without a head for them, and in training, which does not fit it.
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
        size, known = grid_size(taps.mid), torch.ones_like(masks) if known is None else known
        mask, known_share, pooled_map = resize_mask(masks, size), resize_mask(known, size), self._pooled_map(taps)
        with torch.no_grad():
            # 2.1 Proxy class: the classifier's own class that stands for the object.
            proxy = proxy_class(self.backbone, taps.mid, taps.high, masks)
            # 2.2 Where that class is active in the support; decode asks the same of the query.
            cam = normalised_at(class_activation(self.backbone, taps.mid, pooled_map, proxy), size)
            # 2.3 The threshold by which the activation fits the mask best binarises both.
            threshold = adaptive_threshold(cam, mask, known_share)
            if self.config.prototypes == "single":
                # All counts as activated, so core is the whole mask and local falls back to it.
                threshold = torch.full_like(threshold, -1)
        activated = (cam > threshold[:, None, None, None]).float()

        # 2.4 Core, local and whole prototypes: of high for the prior, of the decoder's features for the fusion.
        high, features = resize_map(taps.high.float(), size), self.decoder.features(taps, of_support=True)
        dual_high, dual = (dual_prototypes(maps, mask, activated) for maps in (high, features))

        # 2.5 The support's own prior map.
        prior = support_prior(taps.high, dual_high, activated)

        # 4 Fusion and the support branch, which never looks at the query: its keys and values are made once.
        fused = self.decoder.fused_support(features, dual, activated, torch.cat([prior, mask], 1))
        layout = (sides_of_cells if self.config.light else every_position)(mask, known_share)
        branch = self.decoder.support_branch(fused, layout)
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
            fused=self.decoder.fused_prototypes(dual),
            against=torch.zeros_like(dual_high.core)[:, None],
            tokens=_tokens(layout, taps.mid, high, branch),
        )
        return SupportEncoding(state.regroup(tasks, shots), branch.auxiliary)

    def encode_counterexample(self, images: Tensor, known: Tensor) -> Tokens[Tensor]:
        """Encode pictures of what is not the object, for :meth:`SupportState.beside`; ours, beyond the paper.

        Args:
            images: ``(B, 3, H, W)`` normalised.
            known: ``(B, H, W)`` in [0, 1], 1 where they do not show it, 0 where nobody says.
        """
        return self.encode_counterexample_taps(self.backbone(images), known[:, None])

    def encode_counterexample_taps(self, taps: Taps, known: Tensor) -> Tokens[Tensor]:
        """As :meth:`encode_counterexample`, from taps of ``B`` pictures and ``known (B, 1, H, W)``."""
        size = grid_size(taps.mid)
        known_share = resize_mask(known, size)
        high, features = resize_map(taps.high.float(), size), self.decoder.features(taps, of_support=True)
        # There is no object: nothing to take prototypes of, neither a prior nor a mask.
        nothing = torch.zeros_like(known_share)
        without = DualPrototypes(*features.new_zeros(3, *features.shape[:2]))
        fused = self.decoder.fused_support(features, without, nothing, torch.cat([nothing, nothing], 1))
        layout = sides_of_cells(None, known_share) if self.config.light else every_position(nothing, known_share)
        return _tokens(layout, taps.mid, high, self.decoder.support_branch(fused, layout))

    def read_query(self, taps: Taps, own_class: Tensor | None = None) -> QueryFeatures:
        """All of a query that no support changes; see :meth:`decode` for the arguments."""
        base, pooled_map = None, self._pooled_map(taps)
        if self.base_learner is not None:
            with torch.no_grad():
                base = self.base_learner.base_probability(taps, own_class)
        return QueryFeatures(
            low=Vectors.measured(taps.low),
            mid=Vectors.measured(taps.mid),
            high=Vectors.measured(taps.high),
            pooled=None if pooled_map is None else Vectors.measured(pooled_map),
            fused=self.decoder.fuse_query_part("features", self.decoder.features(taps)),
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
            state = state.map(lambda tensor: tensor.expand(query.queries, *tensor.shape[1:]))

        # 2.2, 2.3 Where the supports' proxy classes are active in the query, by the supports' thresholds.
        proxy = ProxyClass(*(for_queries(t, query.queries) for t in (state.proxy.index, state.proxy.weight)))
        pooled_map = None if query.pooled is None else query.pooled.map
        with torch.no_grad():
            cam = by_task(class_activation(self.backbone, query.mid.map, pooled_map, proxy), state.tasks)
            activated = normalised_at(cam, grid_size(query.mid.map)) > state.threshold.float()[:, :, None, None]

        # 3 How much each shot counts: the nearer its style is to the query's, the more.
        weights = torch.ones_like(state.threshold, dtype=torch.float32)
        if state.shots > 1 or self.training:
            weights = shot_weights(gram(query.low.map), state.gram_low, self.decoder.shot_scale_log.exp())
        bias = token_bias(weights, state.tokens.mass)

        # 2.5 The prior map, and its companions beside it.
        prior = query_prior(query, state, activated, weights)
        fusion_priors, head_priors = self._with_companions(prior, query, state, weights, bias)

        # 4 Fusion: features, whole prototype, core where activated and local elsewhere, priors.
        x = self.decoder.fused_query(query.fused, state.fused, weights, activated, fusion_priors)

        # 4, 5 Blocks of self and cross attention; in training, labels turn directional dropout on.
        labels = None if query_labels is None else Labels(query_labels, support_labels(state.tokens))
        x, auxiliary = self.decoder.query_branch(x, state.tokens, bias, labels)

        # 4 The mask head, with what low adds at stride 8.
        logits = self.decoder.head(x, query.detail, head_priors)

        # 6 Base classes are no part of the object.
        if query.base is not None:
            logits = self.decoder.merge(logits, query.base.expand(logits.shape[0], -1, -1, -1))  # type: ignore[operator]

        if self.training:
            return Prediction(logits, prior, weights, None, auxiliary)

        # Ours: does the query show the object at all, and how much of the mask is of it?
        head, scores = self.decoder.scores, None
        if head is not None:
            presence, confidence = score_logits(self.evidence(query, state, weights, logits), head).unbind(1)
            scores = torch.stack([presence + presence_lost(logits, query.high, state), confidence], 1)
        return Prediction(without_look_alikes(logits, query.high, state), prior, weights, scores, auxiliary)

    def evidence(self, query: QueryFeatures, state: SupportState, weights: Tensor, logits: Tensor) -> Tensor:
        """What speaks for a prediction, ``(B, 10)``: :func:`~iir_sdk.model.presence.prediction_evidence`."""
        return prediction_evidence(query, state, weights, logits, self.backbone.class_weight)

    @torch.no_grad()
    def _pooled_map(self, taps: Taps) -> Tensor | None:
        """What the closed-form CAM is read from; None for Grad-CAM, which runs the network's end by itself."""
        return self.backbone.pooled_map(taps.high) if self.config.cam == "closed_form" else None

    def _with_companions(
        self, prior: Tensor, query: QueryFeatures, state: SupportState, weights: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All prior maps that the decoder reads: at ``mid``'s grid for the fusion, at ``low``'s for the head."""
        size, fine = grid_size(query.mid.map), grid_size(query.low.map)
        at_mid, at_low = {"iir": prior}, {"iir": resize_map(prior, fine)}
        if self.decoder.temperature_log is not None:
            joint = self.decoder.joint_temperature_log
            temperatures = self.decoder.temperature_log.exp(), None if joint is None else joint.exp()
            at_low["low"] = similarity_priors(query.low, state.low, weights)
            at_mid["low"] = area_average(at_low["low"], size)
            at_mid |= companion_priors(query, state, weights, bias, *temperatures)
        # In the order of the lists that count their channels.
        fusion = torch.cat([at_mid[name] for name in self.prior_maps.at_mid], 1)
        return fusion, torch.cat([at_low[name] for name in self.prior_maps.at_low], 1)


def _tokens(layout: TokenLayout, mid: Tensor, high: Tensor, branch: SupportBranch) -> Tokens[Tensor]:
    """A support's positions as it lays them out, with all that queries compare them by."""
    return Tokens(
        side=layout.side,
        mass=layout.mass[:, None],
        mid=mean_unit_vectors(layout, mid),
        high=mean_unit_vectors(layout, high),
        keys=branch.keys,
        values=branch.values,
    )
