"""Each shot of a label segmented by the others, from what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iir_sdk.engines.base import Engine
from iir_sdk.errors import NoSupportError, PrecisionError, SupportError
from iir_sdk.results.full_size import Segmented
from iir_sdk.results.rehearsal import Rehearsal, ious_at_thresholds
from iir_sdk.supports.bank import Counterexample, Example, Support, SupportBank
from iir_sdk.supports.cache import as_task
from iir_sdk.supports.pictures import copied_pixels


def rehearsed(engine: Engine, bank: SupportBank, label: str, token_budget: int) -> Rehearsal:
    """Leave-one-out over a label's shots, and over those of its counterexamples that are whole pictures.

    Raises:
        LabelError: no support has the label.
        NoSupportError: fewer than two have.
        SupportError: some keep no picture.
        PrecisionError: numbers overflowed.
    """
    shots, counterexamples = bank.of_label(label), bank.counterexamples_of(label)
    if len(shots) < 2:
        raise NoSupportError(
            f"label {label!r} has one support, and rehearsing needs two: each is segmented by the others. "
            f"Add one: add_support(image, mask, label={label!r})."
        )
    if missing := [shot.id for shot in shots if not shot.picture]:
        raise SupportError(
            f"support(s) {', '.join(missing)} of {label!r} keep no picture to segment: remove them and add them again "
            "without keep_picture=False."
        )

    def segmented(one: Example, shots: Sequence[Support], beside: Sequence[Counterexample]) -> Segmented:
        task = as_task([s.state for s in shots], token_budget, [c.tokens for c in beside])
        pixels = copied_pixels(one.picture, engine.identity.preprocessing, one.id)
        (outcome,), _ = engine.segment([pixels], engine.prepare([task]))
        if not np.isfinite(outcome.leads).all():
            raise PrecisionError(f"the network overflowed in {engine.identity.precision}; use dtype=None.")
        return outcome

    whole = [c for c in counterexamples if c.picture]
    of_shots = [segmented(shot, [s for s in shots if s is not shot], counterexamples) for shot in shots]
    of_others = [segmented(one, shots, [c for c in counterexamples if c is not one]) for one in whole]
    return Rehearsal(
        label,
        tuple(shot.id for shot in shots),
        np.stack(
            [ious_at_thresholds(o.leads[0], s.mask, s.packed.known) for o, s in zip(of_shots, shots, strict=True)]
        ),
        _scores(of_shots),
        tuple(one.id for one in whole),
        _scores(of_others),
        engine.identity.calibrated,
        _remarks(shots, len(counterexamples) - len(whole)),
    )


def _scores(outcomes: Sequence[Segmented]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array([np.nan if o.scores is None else o.scores[0, 0] for o in outcomes], np.float32)


def _remarks(shots: Sequence[Support], not_rehearsed: int) -> tuple[str, ...]:
    boxed, partial = sum(s.box is not None for s in shots), sum(bool(s.packed.stated) for s in shots)
    remarks = []
    if boxed:
        remarks.append(f"masks of {boxed} shot(s) are the network's own, made from boxes: agreement with itself")
    if partial:
        remarks.append(f"masks of {partial} shot(s) are known in part; IoU is of that part")
    if not_rehearsed:
        remarks.append(f"{not_rehearsed} counterexample(s) are regions, or keep no picture: no scores of them")
    return tuple(remarks)
