"""Which of a support state's arrays list tokens, and how; apart from the state, for engines without torch."""

from __future__ import annotations

from typing import NamedTuple


class TokenList(NamedTuple):
    """Arrays that list the same tokens, by name.

    Attributes:
        side: share of foreground of each, ``(B, T)``.
        mass: how many positions of each shot it stands for, ``(B, K, T)``.
        features: unit vectors that tokens are likened by, ``(B, T, C)``.
        carried: what else is known of each, ``(B, L, T, d)``.
    """

    side: str
    mass: str
    features: str
    carried: tuple[str, ...] = ()

    @property
    def axes(self) -> dict[str, int]:
        """The axis that lists the tokens, by array."""
        return {self.side: 1, self.mass: 2, self.features: 1, **dict.fromkeys(self.carried, 2)}


MID = TokenList("side", "mass", "dense_mid", ("keys", "values"))
HIGH = TokenList("side_high", "mass_high", "dense_high")
TOKEN_LISTS = (MID, HIGH)
TOKEN_AXIS = {name: axis for tokens in TOKEN_LISTS for name, axis in tokens.axes.items()}
