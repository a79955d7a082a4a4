"""What is kept of a support: everything prediction needs, so that its picture is never looked at again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from iir_sdk.errors import SupportError
from iir_sdk.model.attention import KeysValues


@dataclass(frozen=True)
class SupportState:
    """Encoded supports of ``B`` tasks with ``K`` shots each; ``d`` decoder channels, ``S`` support positions.

    Attributes:
        proxy_index: ``(B, K)`` int64, proxy class; -1 without a classifier.
        proxy_weight: ``(B, K, C)``, its row of the classifier.
        threshold: ``(B, K)`` in [0, 1], binarises the class activation.
        core_high: ``(B, K, C_high)`` core prototype for the prior.
        local_high: ``(B, K, C_high)`` local prototype for the prior.
        foreground_low: ``(B, K, C_low)`` whole-mask prototype at ``low``; likewise ``_mid`` and ``_high``.
        background_low: ``(B, K, C_low)`` mean outside the mask at ``low``; likewise ``_mid`` and ``_high``.
        dense_mid: ``(B, K, S, C_mid)`` unit features of every position.
        dense_high: ``(B, K, S_high, C_high)`` unit features of every position.
        mask_mid: ``(B, K, S)`` foreground share of each position at ``mid``'s grid.
        mask_high: ``(B, K, S_high)`` the same at ``high``'s grid.
        gram_low: ``(B, K, C_low, C_low)`` Gram matrix that weighs the shots.
        core: ``(B, K, d)`` core prototype in the decoder's features; likewise ``local`` and ``whole``.
        keys: ``(B, K, L, S, d)`` cross-attention keys of the ``L`` blocks that have it.
        values: ``(B, K, L, S, d)`` the values.
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
    dense_mid: Tensor
    dense_high: Tensor
    mask_mid: Tensor
    mask_high: Tensor
    gram_low: Tensor
    core: Tensor
    local: Tensor
    whole: Tensor
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

    def cross(self, block: int) -> KeysValues | None:
        """Keys and values ``(B, K, S, d)`` of a block; None where it has no cross attention."""
        if block >= self.keys.shape[2]:
            return None
        return KeysValues(self.keys[:, :, block], self.values[:, :, block])

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> SupportState:
        """The inverse of :meth:`tensors`; missing or further names raise ``TypeError``."""
        return cls(**tensors)

    def check_like(self, expected: SupportState, what: str) -> None:
        """Refuse a state whose tensors have other shapes or dtypes than those of ``expected``, or are not finite.

        Raises:
            SupportError: naming ``what`` and the tensor.
        """
        for name, tensor in expected.tensors().items():
            own = self.tensors()[name]
            if (own.shape, own.dtype) != (tensor.shape, tensor.dtype):
                raise SupportError(
                    f"{what}: {name} is {tuple(own.shape)} {own.dtype}, expected {tuple(tensor.shape)} {tensor.dtype}."
                )
            if not torch.isfinite(own).all():
                raise SupportError(f"{what}: {name} holds NaN or infinite values.")

    def map(self, change: Callable[[Tensor], Tensor]) -> SupportState:
        """Apply ``change`` to every tensor."""
        return SupportState(**{name: change(tensor) for name, tensor in self.tensors().items()})

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> SupportState:
        """Move to a device; floating tensors take ``dtype`` if given."""
        return self.map(lambda t: t.to(device, dtype if t.is_floating_point() else None))

    def reshape_shots(self, tasks: int, shots: int) -> SupportState:
        """Regroup ``B * K`` supports as ``tasks`` x ``shots``, in order."""
        return self.map(lambda t: t.reshape(tasks, shots, *t.shape[2:]))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors().values())


def join_shots(states: Sequence[SupportState]) -> SupportState:
    """One task from several states' shots: concatenates along ``K``."""
    return _join(states, 1)


def join_tasks(states: Sequence[SupportState]) -> SupportState:
    """Several tasks with equally many shots: concatenates along ``B``."""
    return _join(states, 0)


def _join(states: Sequence[SupportState], dim: int) -> SupportState:
    if len(states) == 1:
        return states[0]
    parts = [state.tensors() for state in states]
    return SupportState(**{name: torch.cat([p[name] for p in parts], dim) for name in parts[0]})
