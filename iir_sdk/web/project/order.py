"""The order in which pictures are shown: which of them needs a look first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from iir_sdk.errors import ConfigError

Order = Literal["least_sure", "name", "status"]
_STATUSES = ("predicted", "waiting", "broken", "rejected", "accepted")
ORDERS: tuple[Order, ...] = ("least_sure", "name", "status")


def in_order(records: Iterable[dict[str, Any]], order: str) -> list[dict[str, Any]]:
    """Records of pictures, each with ``name``, ``status``, ``certainty`` and ``touched``, sorted.

    ``least_sure`` begins with those that nobody decided about, the least certain first, then those that were
    corrected already; what was accepted comes last. A ConfigError names an order that is none.
    """
    if order == "name":
        return sorted(records, key=lambda record: record["name"])
    if order == "status":
        return sorted(records, key=lambda record: (_STATUSES.index(record["status"]), record["name"]))
    if order != "least_sure":
        raise ConfigError(f"order={order!r:.100} must be one of {', '.join(ORDERS)}.")
    return sorted(records, key=_need)


def _need(record: dict[str, Any]) -> tuple[int, bool, float, str]:
    certainty = record["certainty"]
    return (
        _STATUSES.index(record["status"]),
        record["touched"],
        1.0 if certainty is None else certainty,
        record["name"],
    )
