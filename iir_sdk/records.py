"""Checked records: frozen dataclasses that hold their fields to the types and rules they are annotated with."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import lru_cache
from math import inf
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from iir_sdk.errors import ConfigError, IirError

R = TypeVar("R", bound="CheckedRecord")


@dataclass(frozen=True)
class Rule:
    """What a field's value must be beside its type, as in ``size: Annotated[int, within(64, 2048)] = 384``."""

    holds: Callable[[Any], bool]  # whether a value keeps the rule
    expected: str  # the rule in words, after "must be a number" or "an integer"; of text, after "must be"


def within(low: float, high: float) -> Rule:
    """A number in ``[low, high]``."""
    return Rule(lambda v: low <= v <= high, f"in [{low}, {high}]")


def at_least(low: float) -> Rule:
    """A number from ``low`` on."""
    return Rule(lambda v: v >= low, f"of at least {low}")


def above(low: float) -> Rule:
    """A number larger than ``low``."""
    return Rule(lambda v: v > low, f"above {low}")


def text(longest: int = 1000, *, shortest: int = 1) -> Rule:
    """Printable text of one line."""
    return Rule(
        lambda v: shortest <= len(v) <= longest and v.isprintable(),
        f"one line of {shortest} to {longest} printable characters",
    )


def matching(pattern: str | re.Pattern[str], expected: str) -> Rule:
    """Text that a pattern matches from end to end."""
    return Rule(lambda v: re.fullmatch(pattern, v) is not None, expected)


class CheckedRecord:
    """Base of frozen dataclasses that are read from plain values, as JSON and TOML give them.

    A field's annotation is its check: ``bool``, ``int``, ``str``, a finite ``float``, ``Literal``, ``X | None``, a
    tuple or another dataclass, each with :class:`Rule`s by ``Annotated``. Rules that hold between fields go into a
    ``__post_init__`` that calls this one first.

    Args:
        prefix: what messages put before a key.
        error: what is raised.
    """

    prefix: ClassVar[str] = ""
    error: ClassVar[type[IirError]] = ConfigError

    def __init_subclass__(cls, *, prefix: str = "", error: type[IirError] = ConfigError) -> None:
        super().__init_subclass__()
        cls.prefix, cls.error = prefix, error

    def __post_init__(self) -> None:
        """Hold every field to its annotation; an error of the record's kind names key, value and what was expected."""
        kind: Any = type(self)
        for name, hint in _hints(kind).items():
            value, rule = getattr(self, name), _rule_of(hint)
            if not rule.holds(value):
                raise self.error(f"{self.prefix}{name}={reprlib.repr(value)} must be {rule.expected}.")

    @classmethod
    def from_dict(cls: type[R], values: object, where: str = "") -> R:
        """Build from plain values; lists become tuples, tables the records that they are of.

        ``where`` is put before messages, of the record's kind of error, which name a key that is unknown, missing or
        does not fit.
        """
        try:
            if not isinstance(values, Mapping):
                raise cls.error(f"{cls.prefix}{reprlib.repr(values)} must be an object with named settings.")
            kind: Any = cls
            _check_keys(kind, values)
            hints = _hints(kind)
            return cls(**{name: _read(hints[name], value, name) for name, value in values.items()})
        except IirError as error:
            if not where and isinstance(error, cls.error):
                raise
            raise cls.error(f"{where}: {error}" if where else str(error)) from error

    def to_dict(self) -> dict[str, Any]:
        """The plain values, as :meth:`from_dict` takes them."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]


def did_you_mean(name: str, known: Iterable[str], what: str = "names") -> str:
    """The end of a message on an unknown name: the known one that is like it, else those of its table, else all.

    Of names such as ``table.name``, those that end alike are alike.
    """
    ends = {each: each.rpartition(".")[2] for each in known}
    similar = get_close_matches(name.rpartition(".")[2], ends.values(), n=1)
    if similar:
        return f"; did you mean {next(each for each, end in ends.items() if end in similar)!r}?"
    table = get_close_matches(name.partition(".")[0], {each.partition(".")[0] for each in ends if "." in each}, n=1)
    if table:
        return f"; known {what} of {table[0]!r}: {', '.join(each for each in ends if each.partition('.')[0] in table)}."
    # Without the names within tables, which are many.
    tops = dict.fromkeys(each.replace(ends[each], "*") if "." in each else each for each in ends)
    return f"; known {what}: {', '.join(tops) or 'none'}."


def dotted_keys(kind: Any) -> list[str]:
    """Names of a record's fields, those of records within it as ``table.name``."""
    keys = []
    for name, hint in _hints(kind).items():
        keys += [f"{name}.{inner}" for inner in dotted_keys(hint)] if is_dataclass(hint) else [name]
    return keys


def _check_keys(kind: Any, values: Mapping[str, Any]) -> None:
    unknown = _unknown_keys(kind, values)
    if unknown:
        cure = did_you_mean(unknown[0], dotted_keys(kind), "keys")
        newer = "" if cure.endswith("?") else " Was it made by a newer iir_sdk?"
        raise kind.error(f"{kind.prefix}unknown key {reprlib.repr(unknown[0])}{cure}{newer}")
    for field in fields(kind):
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise kind.error(f"{kind.prefix}key {field.name!r} is missing.")


def _unknown_keys(kind: Any, values: Mapping[str, Any]) -> list[str]:
    hints, unknown = _hints(kind), []
    for name, value in values.items():
        if name not in hints:
            unknown.append(str(name))
        elif is_dataclass(hints[name]) and isinstance(value, Mapping):
            unknown += [f"{name}.{inner}" for inner in _unknown_keys(hints[name], value)]
    return unknown


@lru_cache(maxsize=64)
def _hints(kind: Any) -> dict[str, Any]:
    """Annotations of a dataclass's fields, by name."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def _read(hint: Any, value: Any, place: str) -> Any:
    """A field's value from a plain one; ``place`` names records that their own messages do not."""
    if get_origin(hint) is Annotated:
        return _read(get_args(hint)[0], value, place)
    if isinstance(value, Mapping) and isinstance(hint, type) and issubclass(hint, CheckedRecord):
        return hint.from_dict(value, "" if hint.prefix else place)
    if isinstance(value, (list, tuple)):
        item = next(iter(get_args(hint)), None)
        return tuple(_read(item, each, f"{place}[{i}]") for i, each in enumerate(value))
    return value


@lru_cache(maxsize=512)
def _rule_of(hint: Any) -> Rule:
    """What an annotation asks of a value."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        plain, rules = _rule_of(args[0]), args[1:]
        words = [rule.expected for rule in rules]
        return Rule(
            lambda v: plain.holds(v) and all(rule.holds(v) for rule in rules),
            " ".join(words if args[0] is str else [plain.expected, *words]),
        )
    if origin is Literal:
        return Rule(lambda v: isinstance(v, str) and v in args, f"one of {', '.join(args)}")
    if origin in (Union, UnionType):
        some = _rule_of(args[0])
        return Rule(lambda v: v is None or some.holds(v), f"{some.expected}, or null")
    if origin is tuple:
        item, count = _rule_of(args[0]), None if args[-1] is Ellipsis else len(args)
        return Rule(
            lambda v: isinstance(v, tuple) and len(v) == (count or len(v)) and all(map(item.holds, v)),
            f"a list{f' of {count}' if count else ''}, each {item.expected}",
        )
    if hint is float:
        # NaN and infinity are below no infinity, and whole numbers of any size are.
        return Rule(lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < inf, "a number")
    if hint is int:
        return Rule(lambda v: isinstance(v, int) and not isinstance(v, bool), "an integer")
    names = {bool: "true or false", str: "text"}
    return Rule(lambda v: isinstance(v, hint), names.get(hint, f"a table of settings, {hint.__name__}"))
