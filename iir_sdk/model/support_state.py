"""What is kept of supports: one record with one naming, of tensors in the network and of arrays in a bank. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_origin, get_type_hints

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Array = TypeVar("Array", "Tensor", "NDArray[Any]")
Record = TypeVar("Record", bound="SupportRecord[Any]")


@dataclass(frozen=True, eq=False)
class ProxyClass(Generic[Array]):
    """The classifier's own class that stands for each support's object.

    Attributes:
        index: ``(B, K)`` int64, its ImageNet index.
        weight: ``(B, K, C)``, the row that is multiplied with the pooled map to give the activation.
    """

    index: Array
    weight: Array


@dataclass(frozen=True, eq=False)
class Prototypes(Generic[Array]):
    """Means of one map inside and outside the mask, unit vectors ``(B, K, C)``."""

    foreground: Array
    background: Array


@dataclass(frozen=True, eq=False)
class DualPrototypes(Generic[Array]):
    """IIR's prototypes of supports, each ``(N, C)``, or ``(B, K, C)`` of tasks.

    Attributes:
        core: discriminative, mean over mask and activated region.
        local: specific, mean over mask outside the activated region.
        whole: mean over the mask.
    """

    core: Array
    local: Array
    whole: Array


@dataclass(frozen=True, eq=False)
class Tokens(Generic[Array]):
    """``T`` tokens of all shots, each the mean of some of the supports' positions.

    Attributes:
        side: ``(B, T)`` share of foreground in each, in [0, 1].
        mass: ``(B, K, T)`` >= 0, how many positions of each shot it stands for.
        mid: ``(B, T, C_mid)`` unit features, which positions of a query are likened to.
        high: ``(B, T, C_high)`` likewise.
        keys: ``(B, L, T, d)`` of the ``L`` blocks with cross attention.
        values: ``(B, L, T, d)`` likewise.
    """

    side: Array = field(metadata={"axis": 1})
    mass: Array = field(metadata={"axis": 2})
    mid: Array = field(metadata={"axis": 1})
    high: Array = field(metadata={"axis": 1})
    keys: Array = field(metadata={"axis": 2})
    values: Array = field(metadata={"axis": 2})

    @property
    def count(self) -> int:
        """``T``."""
        return int(self.side.shape[1])

    def parts(self) -> Iterator[tuple[int, Array]]:
        """Every array in the order above, after its axis of tokens."""
        return ((part.metadata["axis"], getattr(self, part.name)) for part in fields(self))

    def along(self, change: Callable[[Array, int], Array]) -> Tokens[Array]:
        """Every array changed along its axis of tokens."""
        return Tokens(*(change(array, axis) for axis, array in self.parts()))


@dataclass(frozen=True, eq=False)
class SupportRecord(Generic[Array]):
    """Encoded supports of ``B`` tasks with ``K`` shots each. Equal only to itself, as arrays have no one truth.

    Attributes:
        proxy: the classes that stand for the objects.
        threshold: ``(B, K)`` in [0, 1], binarises the class activation.
        core_high: ``(B, K, C_high)`` core prototype for the prior, a unit vector.
        local_high: ``(B, K, C_high)`` local prototype for the prior, likewise.
        low: prototypes at ``low``; ``mid`` and ``high`` likewise.
        pooled: prototypes of the map that the classifier pools, with Grad-CAM of ``high``.
        gram_low: ``(B, K, C_low, C_low)`` Gram matrix that weighs the shots.
        fused: ``(B, K, d)`` each, what prototypes in the decoder's features add to the query's fusion.
        against: ``(B, M, C_high)``, what in each of ``M`` counterexamples looks most like the object: unit vectors, or
            0 for none.
        tokens: what cross attention and dense priors read.
    """

    proxy: ProxyClass[Array]
    threshold: Array
    core_high: Array
    local_high: Array
    low: Prototypes[Array]
    mid: Prototypes[Array]
    high: Prototypes[Array]
    pooled: Prototypes[Array]
    gram_low: Array
    fused: DualPrototypes[Array]
    against: Array
    tokens: Tokens[Array]

    @property
    def tasks(self) -> int:
        """``B``."""
        return int(self.threshold.shape[0])

    @property
    def shots(self) -> int:
        """``K``."""
        return int(self.threshold.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(int(array.nbytes) for array in self.arrays().values())

    def with_tokens(self: Record, tokens: Tokens[Array], against: Array | None = None) -> Record:
        """The same with other tokens, and with other ``against`` where that is given."""
        return replace(self, tokens=tokens, against=self.against if against is None else against)

    def arrays(self) -> dict[str, Array]:
        """All arrays by the names that files and graphs have them under, as ``tokens_keys``."""
        flat: dict[str, Array] = {}
        for part, kind in _PARTS.items():
            value = getattr(self, part)
            flat |= (
                {part: value} if kind is None else {f"{part}_{n.name}": getattr(value, n.name) for n in fields(kind)}
            )
        return flat

    @classmethod
    def from_arrays(cls: type[Record], arrays: Mapping[str, Array]) -> Record:
        """The inverse of :meth:`arrays`.

        Raises:
            TypeError: naming what is missing, or there and no part of it.
        """
        if missing := sorted(set(NAMES) - set(arrays)):
            raise TypeError(f"a support has {', '.join(missing)} as well")
        if further := sorted(set(arrays) - set(NAMES)):
            raise TypeError(f"a support has no {', '.join(further)}")
        parts: dict[str, Any] = {}
        for part, kind in _PARTS.items():
            parts[part] = arrays[part] if kind is None else kind(*(arrays[f"{part}_{n.name}"] for n in fields(kind)))
        return cls(**parts)


_HINTS = get_type_hints(SupportRecord)
_PARTS: dict[str, type[Any] | None] = {part.name: get_origin(_HINTS[part.name]) for part in fields(SupportRecord)}

NAMES = tuple(
    name
    for part, kind in _PARTS.items()
    for name in ([part] if kind is None else [f"{part}_{inner.name}" for inner in fields(kind)])
)
"""Of all arrays in files and graphs."""

TOKEN_AXES: dict[str, int] = {f"tokens_{part.name}": part.metadata["axis"] for part in fields(Tokens)}
"""The axis that lists tokens, of each array that lists some."""
