"""Does an engine give the masks that float32 gives? Compared on packaged pictures when first opened on a machine.

Instructions, drivers and runtimes differ in what they make of the same network in the same precision, and a mask that
is wrong looks like any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from iir_sdk.demo.job import read_jobs
from iir_sdk.engines.base import Engine
from iir_sdk.engines.kept_agreements import code, keep_agreement, kept_agreement, processor
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask
from iir_sdk.results.full_size import sigmoid

Leads = Mapping[str, NDArray[np.float32]]
"""Foreground's log-odds at the network's grid, ``(h, w)``, of each compared picture by its job's name."""

COMPARED = ("grass", "eye")
"""Jobs of the demo: much of the picture, surely found; and a small object."""

LEAST_AGREEMENT = 0.8
"""What rounding leaves is above 0.9 for the embedded weights, what a lost mask leaves below 0.5."""

_FLOOR = 0.01


def compared_leads(engine: Engine) -> dict[str, NDArray[np.float32]]:
    """What an engine makes of the compared pictures: of the first by its own label, of the second by both labels.

    Several labels at once take another way through a runtime than one.
    """
    leads, states = {}, []
    for job in read_jobs():
        if job.name in COMPARED:
            support = load_picture(job.support)
            states.append(engine.encode(support.pixels, load_mask(job.support_mask, support) == 1))
            outcomes, _ = engine.segment([load_picture(job.query).pixels], engine.prepare(states))
            leads[job.name] = outcomes[0].leads[-1]
    return leads


def agreement(found: Leads, expected: Leads) -> float:
    """Least overlap of the foreground's probabilities in [0, 1]: the sum of the smaller over that of the larger.

    Unlike masks', it says little of cells that are undecided either way, as all are of an untrained network; cells
    that nobody finds anything in count as a hundredth each, so that nothing agrees with nothing. NaN gives 0.
    """
    overlaps = []
    for name, lead in expected.items():
        one, other = (sigmoid(np.array(each, np.float32)) for each in (found[name], lead))
        smaller, larger = np.minimum(one, other).mean(), np.maximum(one, other).mean()
        overlaps.append(float((smaller + _FLOOR) / (larger + _FLOOR)))
    return float(np.nan_to_num(np.min(overlaps)))


def agreement_once(identity: Mapping[str, str], measure: Callable[[], float]) -> float:
    """``measure()``, or what it gave before of the same ``identity``."""
    of_machine = {**identity, "processor": processor(), "iir_sdk": code()}
    known = kept_agreement(of_machine)
    if known is None:
        known = measure()
        keep_agreement(of_machine, known)
    return known


def digest(*contents: bytes) -> str:
    """Of files' contents, in this order."""
    whole = hashlib.sha256()
    for content in contents:
        whole.update(content)
    return whole.hexdigest()


def disagreement(backend: str, version: str, precision: str, value: float) -> str:
    """What is wrong, for an error or a warning that goes on with what to use instead."""
    return (
        f"backend={backend!r} ({version}) in {precision} does not give the masks of float32 on this machine, "
        f"{processor()}: agreement {value:.2f} on packaged pictures, at least {LEAST_AGREEMENT} expected"
    )
