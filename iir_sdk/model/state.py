"""What is kept of a support: everything prediction needs, so that its picture is never looked at again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from iir_sdk.model.attention import KeysValues

_OF_TOKENS = ("dense_mid", "dense_high", "side", "mass", "keys", "values")


@dataclass(frozen=True)
class SupportState:
    """Encoded supports of ``B`` tasks with ``K`` shots each; ``d`` decoder channels, ``T`` tokens of all shots.

    Attributes:
        proxy_index: ``(B, K)`` int64, proxy class; -1 without a classifier.
        proxy_weight: ``(B, K, C)``, its row of the classifier.
        threshold: ``(B, K)`` in [0, 1], binarises the class activation.
        core_high: ``(B, K, C_high)`` core prototype for the prior.
        local_high: ``(B, K, C_high)`` local prototype for the prior.
        foreground_low: ``(B, K, C_low)`` whole-mask prototype at ``low``; likewise ``_mid`` and ``_high``.
        background_low: ``(B, K, C_low)`` mean outside the mask at ``low``; likewise ``_mid`` and ``_high``.
        gram_low: ``(B, K, C_low, C_low)`` Gram matrix that weighs the shots.
        core: ``(B, K, d)`` core prototype in the decoder's features; likewise ``local`` and ``whole``.
        dense_mid: ``(B, T, C_mid)`` unit features of each token.
        dense_high: ``(B, T, C_high)`` unit features of each token.
        side: ``(B, T)`` share of foreground in each token, in [0, 1].
        mass: ``(B, K, T)`` >= 0, how many positions of each shot a token stands for.
        keys: ``(B, L, T, d)`` cross-attention keys of the ``L`` blocks that have it.
        values: ``(B, L, T, d)`` the values.
    """

    proxy_index: Tensor
    proxy_weight: Tensor
    threshold: Tensor
    core_high: Tensor
    local_high: Tensor
    foreground_low: Tensor
    foreground_mid: Tensor
    foreground_high: Tensor
    background_low: Tensor
    background_mid: Tensor
    background_high: Tensor
    gram_low: Tensor
    core: Tensor
    local: Tensor
    whole: Tensor
    dense_mid: Tensor
    dense_high: Tensor
    side: Tensor
    mass: Tensor
    keys: Tensor
    values: Tensor

    @property
    def tasks(self) -> int:
        """``B``."""
        return self.threshold.shape[0]

    @property
    def shots(self) -> int:
        """``K``."""
        return self.threshold.shape[1]

    @property
    def tokens(self) -> int:
        """``T``."""
        return self.side.shape[1]

    def cross(self, block: int) -> KeysValues | None:
        """Keys and values ``(B, T, d)`` of a block; None where it has no cross attention."""
        if block >= self.keys.shape[1]:
            return None
        return KeysValues(self.keys[:, block], self.values[:, block])

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> SupportState:
        """The inverse of :meth:`tensors`; missing or further names raise ``TypeError``."""
        return cls(**tensors)

    def map(self, change: Callable[[Tensor], Tensor]) -> SupportState:
        """Apply ``change`` to every tensor."""
        return SupportState(**{name: change(tensor) for name, tensor in self.tensors().items()})

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> SupportState:
        """Move to a device; floating tensors take ``dtype`` if given."""
        return self.map(lambda t: t.to(device, dtype if t.is_floating_point() else None))

    def expand(self, tasks: int) -> SupportState:
        """One task as ``tasks`` equal ones, without copying."""
        return self.map(lambda t: t.expand(tasks, *t.shape[1:]))

    def regroup(self, tasks: int, shots: int) -> SupportState:
        """``tasks * shots`` tasks of one shot as ``tasks`` of ``shots``, in order."""
        if shots == 1:
            return self
        grouped = {n: t.reshape(tasks, shots, *t.shape[2:]) for n, t in self.tensors().items() if n not in _OF_TOKENS}
        for name in ("side", "dense_mid", "dense_high"):
            tensor = getattr(self, name)
            grouped[name] = tensor.reshape(tasks, shots * self.tokens, *tensor.shape[2:])
        for name in ("keys", "values"):
            tensor = getattr(self, name)
            apart = tensor.reshape(tasks, shots, *tensor.shape[1:]).transpose(1, 2)
            grouped[name] = apart.reshape(tasks, tensor.shape[1], shots * self.tokens, tensor.shape[3])
        own = torch.eye(shots, device=self.mass.device, dtype=self.mass.dtype)[None, :, :, None]
        mass = self.mass.reshape(tasks, 1, shots, self.tokens) * own
        return SupportState(**grouped, mass=mass.reshape(tasks, shots, shots * self.tokens))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors().values())
