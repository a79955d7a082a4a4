"""What is told of a project and its pictures, as JSON has it."""

from __future__ import annotations

import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import asdict
from threading import Lock
from typing import Any

from iir_sdk.errors import IirError
from iir_sdk.formats.registry import WRITERS
from iir_sdk.web.project.known import Known
from iir_sdk.web.project.order import in_order

_RATE_OVER = 5.0
"""Seconds that pictures a second are counted over."""


class Overview:
    """Summaries of a project, for any thread."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._lately: deque[tuple[float, int]] = deque()
        self._rating = Lock()

    def project(self) -> dict[str, Any]:
        """The whole project: labels, counts, settings, progress."""
        known, held = self._known, self._known.held
        bank, identity = known.bank, known.identity
        supports = Counter(support.label for support in bank.supports)
        counterexamples = Counter(example.label for example in bank.counterexamples)
        counts = Counter(self._status(picture) for picture in list(known.shelf.files))
        return {
            "name": known.shelf.name,
            "labels": [
                {
                    "name": label.name,
                    "color": label.color,
                    "supports": supports[str(label.id)],
                    "counterexamples": counterexamples[str(label.id)],
                }
                for label in held.state.labels.values()
            ],
            "counts": {
                "total": len(known.shelf.files),
                **{status: counts[status] for status in ("predicted", "accepted", "rejected", "broken", "waiting")},
            },
            "version": held.version,
            "settings": asdict(held.state.cut),
            "can_undo": bool(held.done),
            "can_redo": bool(held.undone),
            "checkpoint": identity.name,
            "calibrated": identity.calibrated,
            "formats": list(WRITERS),
            "notice": self._notice(),
            "progress": self.progress(),
        }

    def _notice(self) -> str:
        """What is to be known before one goes on; empty for nothing."""
        known = self._known
        notices = [
            f"What was shown of {known.held.state.labels[label].name!r} in {known.shelf.files[picture].name!r} is not "
            f"used: {error}"
            for (picture, label), error in list(known.unusable.items())
            if picture in known.shelf.files and label in known.held.state.labels
        ]
        if known.other_weights:
            name = known.identity.name
            notices.insert(0, f"This project was last open with other weights: all masks are predicted anew by {name}.")
        return "\n".join(notices)

    def progress(self) -> dict[str, Any]:
        """How many pictures are predicted by the present supports, of those that are to be."""
        known, version = self._known, self._known.held.version
        pending = [p for p in list(known.shelf.files) if p not in known.errors and p not in known.held.state.verdicts]
        done = sum(1 for p in pending if (made := known.predicted.get(p)) is not None and made.version == version)
        return {"done": done, "total": len(pending), "per_second": round(self._rate(done), 1)}

    def _rate(self, done: int) -> float:
        # Pages ask from threads of their own.
        with self._rating:
            now = time.monotonic()
            if self._lately and done < self._lately[-1][1]:
                self._lately.clear()
            self._lately.append((now, done))
            while now - self._lately[0][0] > _RATE_OVER:
                self._lately.popleft()
            since, before = self._lately[0]
        return (done - before) / (now - since) if now > since else 0.0

    def records(self, order: str, status: str | None, offset: int, limit: int) -> dict[str, Any]:
        """Some of the pictures of a status, None for all, and how many there are; see :mod:`.order` for ``order``."""
        keys = [self._key(picture) for picture in list(self._known.shelf.files)]
        chosen = in_order((key for key in keys if status in (None, key["status"])), order)
        return {
            "total": len(chosen),
            "pictures": [self.record(key["id"]) for key in chosen[offset : offset + limit]],
        }

    def _key(self, picture: str) -> dict[str, Any]:
        predicted = self._known.predicted.get(picture)
        return {
            "id": picture,
            "name": self._known.shelf.file(picture).name,
            "status": self._status(picture),
            "error": self._known.errors.get(picture),
            "certainty": None if predicted is None else round(predicted.certainty, 4),
            "touched": picture in self._known.touched,
        }

    def record(self, picture: str) -> dict[str, Any]:
        """All of one picture; a ProjectError where there is none."""
        known = self._known
        width = height = None
        with suppress(IirError):
            height, width = known.shelf.size(picture)
        predicted, labels = known.predicted.get(picture), known.held.state.labels
        rows = () if predicted is None else zip(predicted.labels, predicted.rows, strict=True)
        return {
            **self._key(picture),
            "width": width,
            "height": height,
            "scores": {
                labels[label].name: {
                    "score": round(row.score, 4),
                    "confidence": round(row.confidence, 4),
                    "area": row.area,
                    "area_share": round(row.area_share, 5),
                }
                for label, row in rows
                if label in labels
            },
            "version": self._version(picture),
        }

    def _version(self, picture: str) -> int | None:
        """Of its mask; None while there is none."""
        known = self._known
        if (predicted := known.predicted.get(picture)) is not None:
            return predicted.version
        # Accepted before the project was opened.
        verdict = known.held.state.verdicts.get(picture)
        return known.held.version if verdict is not None and verdict.mask else None

    def score_of(self, picture: str, label: int) -> float:
        """How probable it is that a picture shows a label; 1 where somebody has accepted its mask."""
        predicted = self._known.predicted.get(picture)
        if picture in self._known.held.state.verdicts or predicted is None or label not in predicted.labels:
            return 1.0
        return predicted.rows[predicted.labels.index(label)].score

    def detailed_record(self, picture: str) -> dict[str, Any]:
        """A record with its strokes."""
        state = self._known.held.state
        names = {label.id: label.name for label in state.labels.values()}
        strokes = []
        for stroke in state.strokes_of(picture):
            if stroke.kind == "guess":
                continue
            said: dict[str, Any] = {"id": stroke.id, "label": names[stroke.label], "kind": stroke.kind}
            if stroke.points:
                said |= {"points": stroke.points, "radius": stroke.radius}
            if stroke.box is not None:
                said |= {"box": stroke.box}
            strokes.append(said)
        return {**self.record(picture), "strokes": strokes}

    def _status(self, picture: str) -> str:
        known = self._known
        if picture in known.held.state.verdicts:
            return known.held.state.verdicts[picture].kind
        if picture in known.errors:
            return "broken"
        return "predicted" if picture in known.predicted else "waiting"
