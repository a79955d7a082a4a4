"""Checked records: a frozen dataclass states a rule for each field, and reading one names the field that breaks it."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, TypeVar

from iir_sdk.errors import IirError, WeightsError

T = TypeVar("T")


@dataclass(frozen=True)
class Rule:
    """What a field's value must be.

    Attributes:
        holds: whether a value keeps the rule.
        expected: the rule in words, after "must be".
    """

    holds: Callable[[Any], bool]
    expected: str

    def optional(self) -> Rule:
        """The same, or None."""
        return Rule(lambda v: v is None or self.holds(v), f"{self.expected}, or null")


def whole(low: int, high: int) -> Rule:
    """An integer in ``[low, high]``."""
    return Rule(lambda v: type(v) is int and low <= v <= high, f"an integer in [{low}, {high}]")


def number(low: float, high: float) -> Rule:
    """A finite number in ``[low, high]``."""
    return Rule(
        # NaN is in no range, and neither is infinity.
        lambda v: type(v) in (int, float) and low <= v <= high,
        f"a number in [{low:g}, {high:g}]",
    )


def text(longest: int = 1000, *, shortest: int = 1) -> Rule:
    """Printable text of one line."""
    return Rule(
        lambda v: isinstance(v, str) and shortest <= len(v) <= longest and v.isprintable(),
        f"one line of {shortest} to {longest} printable characters",
    )


def matching(pattern: re.Pattern[str], expected: str) -> Rule:
    """Text that a pattern matches from end to end."""
    return Rule(lambda v: isinstance(v, str) and pattern.fullmatch(v) is not None, expected)


def instance(kind: type) -> Rule:
    """A value of a type."""
    return Rule(lambda v: isinstance(v, kind), f"of type {kind.__name__}")


def tuple_of(rule: Rule) -> Rule:
    """A tuple whose items keep a rule."""
    return Rule(lambda v: isinstance(v, tuple) and all(map(rule.holds, v)), f"a list, each item {rule.expected}")


def check_fields(record: object, rules: Mapping[str, Rule]) -> None:
    """Hold a record's fields to their rules.

    Raises:
        WeightsError: naming the field, its value and the rule.
    """
    for name, rule in rules.items():
        value = getattr(record, name)
        if not rule.holds(value):
            raise WeightsError(f"{name}={reprlib.repr(value)} must be {rule.expected}.")


def read_record(
    kind: type[T], values: object, where: str, nested: Mapping[str, Callable[[Any, str], object]] | None = None
) -> T:
    """Build a record from plain values, as JSON gives them.

    Args:
        kind: the dataclass.
        values: its fields by name; lists become tuples.
        where: what the values are, for messages.
        nested: how to read the fields that are records themselves, called with value and place.

    Raises:
        WeightsError: naming the place and the field that is missing, unknown or breaks its rule.
    """
    if not isinstance(values, Mapping):
        raise WeightsError(f"{where}: {reprlib.repr(values)} must be an object with named fields.")
    known: list[Field[Any]] = list(fields(kind))  # type: ignore[arg-type]
    unknown = sorted(set(values) - {f.name for f in known})
    if unknown:
        raise WeightsError(f"{where}: unknown field {reprlib.repr(unknown[0])}. Was it made by a newer iir_sdk?")
    missing = [f.name for f in known if f.default is MISSING and f.name not in values]
    if missing:
        raise WeightsError(f"{where}: field {missing[0]!r} is missing.")
    readers = nested or {}
    try:
        plain = {n: readers[n](v, n) if n in readers else _tuple(v) for n, v in values.items()}
        return kind(**plain)
    except IirError as error:
        raise WeightsError(f"{where}: {error}") from error


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
