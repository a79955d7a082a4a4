"""What one request may ask of the server, and how much of it is done at once."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from iir_sdk.errors import RequestTooLargeError


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one request from taking the whole machine.

    Attributes:
        body_bytes: of a request.
        pixels: of each picture, and of each mask.
        examples: supports and counterexamples in a request.
        seconds: for a request to arrive, and again for its answer.
        threads: requests that are worked on at once.
        waiting: requests that wait for one of these threads; further ones are refused.
        set_bytes: of memory that sets of supports hold together, beside the preloaded ones.
    """

    body_bytes: int = 64 << 20
    pixels: int = 40_000_000
    examples: int = 64
    seconds: float = 60.0
    threads: int = 2
    waiting: int = 32
    set_bytes: int = 1 << 30


def check_pixels(content: bytes | None, what: str, most: int) -> None:
    """Refuse a picture of too many pixels by a RequestTooLargeError, from its head alone; None passes.

    What cannot be read as a picture passes as well: whoever decodes it says what is wrong.
    """
    if content is None:
        return
    try:
        # Of a file that pretends to be larger than any, PIL makes an error of its own, or a warning.
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise RequestTooLargeError(f"{what}: {error} At most {most:,} pixels are taken: send it smaller.") from error
    except Exception:
        return
    if width * height > most:
        raise RequestTooLargeError(
            f"{what} has {width} x {height} = {width * height:,} pixels, and at most {most:,} are taken: send it "
            "smaller, or in parts."
        )
