"""A project at work: what users do is written down and taught at once, and all pictures are predicted anew."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from iir_sdk.engines.base import Engine, TaskGroup
from iir_sdk.errors import ProjectError
from iir_sdk.results.segmentation import Cut
from iir_sdk.supports.bank import Example, SupportBank
from iir_sdk.supports.cache import ReadySupports
from iir_sdk.web.project import actions
from iir_sdk.web.project.file import MOST_UNDONE, Held, ProjectFolder
from iir_sdk.web.project.known import Known
from iir_sdk.web.project.masks import FinalMasks
from iir_sdk.web.project.pictures import Shelf
from iir_sdk.web.project.predicted import Predicted
from iir_sdk.web.project.reading import FEATURES, Reader
from iir_sdk.web.project.records import Overview
from iir_sdk.web.project.state import Action, VerdictKind
from iir_sdk.web.project.teaching import Teacher
from iir_sdk.web.project.worker import Worker

T = TypeVar("T")
Listener = Callable[[str, dict[str, Any]], None]

_TOKEN_BUDGET = 384
_AHEAD = 6
"""Pictures that are read before they are asked for."""
_PROGRESS_EVERY = 0.25
"""Seconds between two words of progress."""


class Desk:
    """A project with the network that works on it.

    Everything users do runs in one thread, in order, before background work; the methods that do it give futures, and
    return when it is written to the project's file. Everything that is read may be read by any thread.

    Args:
        engine: the network.
        project: the project's folder, which the desk closes.
        shelf: its pictures.
        held: what its file holds.
        features: bytes of memory for what was read of pictures.
    """

    def __init__(
        self, engine: Engine, project: ProjectFolder, shelf: Shelf, held: Held, *, features: int = FEATURES
    ) -> None:
        self.engine, self.project, self.shelf = engine, project, shelf
        self._known = Known(engine.identity, project, shelf, held)
        self._known.touched = held.state.touched
        self._known.other_weights = held.checkpoint not in ("", engine.identity.sha256)
        self._reader = Reader(engine, shelf.pixels, features, lambda: self._worker.wake())
        self._teacher = Teacher(engine, shelf, project, self._reader.looks)
        self.overview, self.masks = Overview(self._known), FinalMasks(self._known, self._teacher.held_by)
        self._ready = ReadySupports[list[TaskGroup]](engine.prepare, _TOKEN_BUDGET, SupportBank())
        self._taught_version = -1
        self._shown, self._visible = "", list[str]()
        self._rest: deque[str] | None = None
        self._listeners, self._progress_told = list[Listener](), 0.0
        project.remove_unnamed_masks(held)
        if held.checkpoint != engine.identity.sha256:
            # Another version, too, so that no page takes what it has for masks by these weights.
            self._keep(replace(held, checkpoint=engine.identity.sha256, version=held.version + bool(held.checkpoint)))
        self._worker = Worker(self._step)
        self._worker.start()

    @property
    def held(self) -> Held:
        """What the project's file holds."""
        return self._known.held

    def is_broken(self, picture: str) -> bool:
        """Whether a picture cannot be used."""
        return picture in self._known.errors

    def mask_size(self, picture: str) -> tuple[int, int]:
        """``(height, width)`` of a picture's mask, which is predicted first if need be; not in the desk's thread."""
        verdict = self.held.state.verdicts.get(picture)
        if verdict is not None and verdict.mask:
            height, width = self.project.read_mask(verdict.mask).shape
            return height, width
        self.submit(lambda: self._predict_now(picture)).result()
        return self.shelf.size(picture)

    def close(self) -> None:
        """Stop computing, and let other processes open the project."""
        self._worker.stop()
        self._reader.close()
        self.project.close()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with each event's kind and content, from any thread; the return value ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def look_at(self, shown: str | None = None, visible: Sequence[str] | None = None) -> None:
        """What is on screen is predicted first."""
        if shown is not None:
            self._shown = self.shelf.file(shown).id
        if visible is not None:
            self._visible = [picture for picture in visible if picture in self.shelf.files]
        if mended := self._known.mended({self._shown, *self._visible}):
            self.submit(lambda: self._try_again(mended))
        self._worker.wake()

    def _try_again(self, pictures: Sequence[str]) -> None:
        for picture in pictures:
            self._known.errors.pop(picture, None)
            self.publish("picture", self.overview.record(picture))
        self._rest = None

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Run ``call`` in the thread that computes, before all background work."""
        return self._worker.submit(call)

    def stroke(self, picture: str, label: str, kind: Any, **said: Any) -> Future[dict[str, Any]]:
        """One more stroke, and the picture's new mask; see :func:`iir_sdk.web.project.actions.new_stroke`."""

        def painted() -> dict[str, Any]:
            start = time.perf_counter()
            self._shown = self.shelf.file(picture).id
            guess = self._guess(picture, label) if kind in actions.PAINTING else ""
            action = actions.new_stroke(self.held, picture, label, kind, guess=guess, **said)
            state = self.held.state.after(action)
            strokes = state.strokes_of(picture, actions.label_named(state, label).id)
            # What it teaches takes the network longer, and follows.
            predicted = self._known.predicted.get(picture) if kind in actions.PAINTING else None
            seen = self._teacher.seen_at_once(predicted, strokes)
            if seen is None:
                self._teacher.example(strokes)  # first, so that what cannot be taught is never written
                self._do(action)
                self._predict_now(picture)
            else:
                self._do(action, teach=False)
                self._known.predicted[picture] = replace(seen, version=self.held.version - 1)
                self.publish("picture", self.overview.record(picture))
            return {
                "version": self.held.version,
                "mask_ms": round((time.perf_counter() - start) * 1000, 1),
                "picture": self.overview.record(picture),
            }

        return self.submit(painted)

    def _guess(self, picture: str, label: str) -> str:
        """What the other pictures say for sure of one that is touched for the first time: the name of its file.

        Strokes alone say so little of a picture that masks would be the worse for them.
        """
        number = actions.label_named(self.held.state, label).id
        if self.held.state.strokes_of(picture, number) or str(number) not in self._labels():
            return ""
        if picture not in self._known.predicted:
            self._predict(picture)
        sure = None
        if (predicted := self._known.predicted.get(picture)) is not None:
            sure = predicted.sure(number, self.shelf.guess_size(picture))
        return "" if sure is None else self.project.write_mask(sure)

    def forget_strokes(self, picture: str, label: str | None) -> Future[dict[str, Any]]:
        """Start a picture over."""
        return self._on_picture(picture, lambda: actions.forgotten_strokes(self.held.state, picture, label))

    def decide(self, picture: str, kind: VerdictKind | None, version: int | None = None) -> Future[dict[str, Any]]:
        """Accept a picture with the mask that it has, reject it, or take back either (None).

        With ``version`` a ProjectError where the mask is not of that version any more.
        """

        def decided() -> Action:
            mask = ""
            if kind == "accepted":
                predicted = self._known.predicted.get(picture)
                if version is not None and predicted is not None and predicted.version != version:
                    raise ProjectError("the mask has changed since it was shown: look at it again.")
                places = self.masks.places(picture, self.shelf.size(picture))
                if places is None:
                    raise ProjectError("the picture has no mask to accept yet: show what to look for first.")
                mask = self.project.write_mask(places)
            return actions.decided(self.held.state, picture, kind, mask)

        return self._on_picture(picture, decided)

    def _on_picture(self, picture: str, action: Callable[[], Action]) -> Future[dict[str, Any]]:
        def done() -> dict[str, Any]:
            self.shelf.file(picture)
            self._do(action())
            self._predict_now(picture)
            return {"version": self.held.version, "picture": self.overview.record(picture)}

        return self.submit(done)

    def change(self, action: Callable[[Held], Action]) -> Future[dict[str, Any]]:
        """Do what concerns no single picture; the project's new summary."""

        def changed() -> dict[str, Any]:
            self._do(action(self.held))
            return self.overview.project()

        return self.submit(changed)

    def undo(self) -> Future[dict[str, Any]]:
        """Take back the last action; a ProjectError where there is none."""
        return self.submit(lambda: self._turn_back(self.held.done, "undo"))

    def redo(self) -> Future[dict[str, Any]]:
        """Do again what was taken back last; a ProjectError where there is nothing."""
        return self.submit(lambda: self._turn_back(self.held.undone, "redo"))

    def _turn_back(self, actions_left: list[Action], what: str) -> dict[str, Any]:
        if not actions_left:
            raise ProjectError(f"there is nothing to {what}.")
        action, held = actions_left[-1], self.held
        if what == "undo":
            done, undone, change = held.done[:-1], [*held.undone, action], action.reversed
        else:
            done, undone, change = [*held.done, action], held.undone[:-1], action
        self._keep(replace(held, state=held.state.after(change), done=done, undone=undone), change)
        if action.picture:
            self._predict_now(action.picture)
        return {"version": self.held.version, "action": action.name, "picture_id": action.picture or None}

    def add_upload(self, content: bytes, file_name: str, name: str) -> Future[dict[str, Any]]:
        """A picture that was dropped in, already checked, to be kept in a file of a safe name; its record."""
        file = self.project.write_upload(content, file_name)

        def added() -> dict[str, Any]:
            self._keep(replace(self.held, uploads={**self.held.uploads, file: name}))
            picture = self.shelf.add_upload(file, name)
            self._rest = None
            self._worker.wake()
            self.publish("project", self.overview.project())
            return self.overview.record(picture.id)

        return self.submit(added)

    def _do(self, action: Action, *, teach: bool = True) -> None:
        held = self.held
        if not (edits := [edit for edit in action.edits if edit.before != edit.after]):
            return
        labels = [int(e.key) for e in edits if e.table == "labels"]
        strokes = [int(e.key) for e in edits if e.table == "strokes"]
        new = replace(
            held,
            state=held.state.after(action),
            done=[*held.done, action][-MOST_UNDONE:],
            undone=[],
            last_label=max([held.last_label, *labels]),
            last_stroke=max([held.last_stroke, *strokes]),
        )
        self._keep(new, action, teach=teach)

    def _keep(self, held: Held, action: Action | None = None, *, teach: bool = True) -> None:
        """Write the project, and only then go on by it; without ``teach`` the next step of the work teaches it."""
        if action is not None and action.changes_predictions:
            # A number between is of the mask that is shown until what was said is taught.
            held = replace(held, version=held.version + (1 if teach else 2))
        self.project.write(held)
        self._known.held = held
        if action is None:
            return
        self._rest = None
        self._known.touched = held.state.touched
        if teach:
            self._labels()
        if action.picture:
            self.publish("picture", self.overview.record(action.picture))
        self.publish("project", self.overview.project())
        self._worker.wake()

    def publish(self, kind: str, content: dict[str, Any]) -> None:
        """Tell all that listen."""
        for listener in list(self._listeners):
            listener(kind, content)

    def _step(self) -> bool:
        """Teach, or predict or (before anything was shown) read one more picture; False where all is done.

        Not two of them, so that a stroke waits for one only.
        """
        if self._taught_version != self.held.version:
            self._labels()
            return True
        labels, pending = self._labels(), self._pending()
        if not pending:
            self._tell_progress(now=True)
            return False
        self._reader.read_ahead(pending)
        # What is on screen waits for nothing that is read for others.
        on_screen = [p for p in pending if self._is_on_screen(p)]
        picture = next(filter(self._reader.is_ready, on_screen or pending), on_screen[0] if on_screen else None)
        if picture is None:
            return False
        if labels:
            self._predict(picture, only_if_room=not on_screen)
            self.publish("picture", self.overview.record(picture))
            self._tell_progress()
        else:
            self._trying(picture, lambda: self._reader.read(picture, only_if_room=not on_screen))
        return True

    def _is_on_screen(self, picture: str) -> bool:
        return picture == self._shown or picture in self._visible

    def _pending(self) -> list[str]:
        """The next pictures that something is to be computed of, those on screen first; empty where all is done."""
        first = [p for p in dict.fromkeys((self._shown, *self._visible)) if p and self._needs(p)]
        if self._rest is None:
            # Those that are read already first: they take a quarter of the time.
            self._rest = deque(sorted(self.shelf.files, key=lambda p: not self._reader.holds(p)))
        while self._rest and not self._needs(self._rest[0]):
            self._rest.popleft()
        behind = (p for p in islice(self._rest, _AHEAD) if p not in first and self._needs(p))
        return [*first, *behind][:_AHEAD]

    def _needs(self, picture: str) -> bool:
        """Whether something is to be computed of a picture."""
        if picture in self._known.errors or picture in self.held.state.verdicts:
            return False
        if not self._labels():
            return not self._reader.holds(picture) and not self._reader.full
        predicted = self._known.predicted.get(picture)
        return predicted is None or predicted.version != self.held.version

    def _labels(self) -> tuple[str, ...]:
        """Ids of labels that something shows, by the supports of the present state."""
        if self._taught_version != self.held.version:
            self._known.bank = SupportBank().adding(*self._examples())
            self._ready = self._ready.holding(self._known.bank)
            self._taught_version = self.held.version
            if not self._known.bank.labels:
                self._forget_predictions()
            self.publish("project", self.overview.project())
        return self._known.bank.labels

    def _forget_predictions(self) -> None:
        """Nothing shows anything any more."""
        pictures = list(self._known.predicted)
        self._known.predicted.clear()
        for picture in pictures:
            self.publish("picture", self.overview.record(picture))

    def _examples(self) -> list[Example]:
        examples = []
        self._known.unusable = {}
        for key, strokes in self.held.state.by_picture_and_label().items():
            try:
                example = self._teacher.example(strokes)
            except Exception as error:  # as of a picture that was deleted since
                self._known.unusable[key] = str(error)
                continue
            if example is not None:
                examples.append(example)
        return examples

    def _predict_now(self, picture: str) -> None:
        """Predict a picture if need be, and tell all pages."""
        if self._needs(picture):
            self._predict(picture)
            self.publish("picture", self.overview.record(picture))

    def _predict(self, picture: str, *, only_if_room: bool = False) -> None:
        if not (labels := self._labels()):
            return
        version, settings = self.held.version, self.held.state.cut
        cut = Cut(settings.threshold, settings.absent_below)

        def predict() -> None:
            tasks = self._ready.prepared(labels)
            segmented = self._reader.segmented(picture, tasks, only_if_room=only_if_room)
            if picture in self._known.touched:
                strokes = [self.held.state.strokes_of(picture, int(label)) for label in labels]
                segmented = replace(segmented, leads=self._teacher.spread_all(segmented.leads, strokes))
            size, ids = self.shelf.size(picture), tuple(map(int, labels))
            self._known.predicted[picture] = Predicted.of(version, ids, segmented, cut, size)

        self._trying(picture, predict)

    def _trying(self, picture: str, call: Callable[[], object]) -> None:
        """A picture that cannot be used costs no other anything: it is a record with the error."""
        try:
            call()
        except Exception as error:
            self._known.fail(picture, error)
            self.publish("picture", self.overview.record(picture))

    def _tell_progress(self, *, now: bool = False) -> None:
        if now or time.monotonic() - self._progress_told > _PROGRESS_EVERY:
            self._progress_told = time.monotonic()
            self.publish("progress", self.overview.progress())
