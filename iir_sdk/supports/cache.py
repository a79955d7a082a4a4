"""The supports that a segmenter holds, made ready for predicting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from iir_sdk.engine import TaskGroup
from iir_sdk.supports.bank import SupportBank
from iir_sdk.supports.encoded import KeptState


@dataclass(frozen=True)
class HeldSupports:
    """The supports of a moment, taken as one by a prediction while another thread adds.

    Attributes:
        bank: all of them.
        tasks: each label's, within the token budget.
        groups: of all labels, in the engine's form.
    """

    bank: SupportBank = field(default_factory=SupportBank)
    tasks: Mapping[str, KeptState] = field(default_factory=dict)
    groups: list[TaskGroup] = field(default_factory=list)
