"""What the backend knows of Label Studio's projects: supports of their annotations, renewed when these change."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.engines.box import mask_in_box
from iir_sdk.errors import BusyError, IirError, LabelStudioError, RequestError
from iir_sdk.pictures.box import Box, load_box
from iir_sdk.pictures.load import Picture, load_picture
from iir_sdk.process import collecting_warnings
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.web.api.limits import Limits, check_pixels
from iir_sdk.web.label_studio.config import LabelConfig, read_config
from iir_sdk.web.label_studio.connection import LabelStudio
from iir_sdk.web.label_studio.regions import drawn_in, labels_in, prediction_of

_LOG = logging.getLogger(__name__)

PER_LABEL = 8
"""Most annotated pictures that a label is learnt from: the latest."""
_MOST_TRIED = 2 * PER_LABEL
"""Annotated pictures that are fetched for a label, those that cannot be used among them."""
_ABSENT_BELOW = 0.5
"""Tasks may well not show a label: below this score it gets no region."""
_SETUP_SECONDS = 2.0
"""For annotations to be read at ``/setup``, which Label Studio waits for for 3 seconds."""
_PREDICT_SECONDS = 80.0
"""For tasks at ``/predict``, which it waits for for 100: those left over it asks for again."""
_PROJECTS = 32
"""Kept at once, with the supports of each; of others the annotations are read again."""


@dataclass(frozen=True)
class Project:
    """A project of Label Studio.

    Attributes:
        config: what draws on its pictures.
        segmenter: with its supports.
        read: fingerprint of the annotations that these are of; empty before any was read.
    """

    config: LabelConfig
    segmenter: FewShotSegmenter = field(repr=False)
    read: str = ""

    @property
    def version(self) -> str:
        """Of the predictions: another one for other supports, so that Label Studio asks for them anew."""
        return _version(self.segmenter, self.read)


@dataclass(frozen=True)
class _Reading:
    """Annotations that are being read.

    Attributes:
        read: their fingerprint, known before anything is learnt from them.
        project: with their supports.
    """

    read: Future[str] = field(default_factory=Future)
    project: Future[Project] = field(default_factory=Future)


class Backend:
    """Answers Label Studio.

    Args:
        segmenter: with the supports that all projects start from, if any.
        studio: Label Studio itself.
        limits: of pictures.
    """

    def __init__(self, segmenter: FewShotSegmenter, studio: LabelStudio, limits: Limits | None = None) -> None:
        self._given, self._studio, self._limits = segmenter, studio, limits or Limits()
        self._projects: dict[str, Project] = {}
        self._reading: dict[str, _Reading] = {}
        self._changing = Lock()
        # One after another: a project's annotations are read once, however often it is asked for meanwhile.
        self._reader = ThreadPoolExecutor(1, "iir-label-studio")

    def setup(self, uid: str, config: str, key: str = "") -> str:
        """Begin with a project, or look what is new in it; the version of its predictions.

        It is that of the annotations there are, though they may be still being learnt from: Label Studio asks for no
        prediction anew whose version is the same. Where their list takes longer than it waits, it is that of before.

        Raises:
            RequestError: the interface draws no masks.
            LabelStudioError: the annotations cannot be read, and there are no other supports.
        """
        self._studio.bring(key)
        reading = self._read(uid, read_config(config))
        try:
            return _version(self._given, reading.read.result(_SETUP_SECONDS))
        except NotYet:
            return self._projects[uid].version

    def predict(self, uid: str, config: str, tasks: Sequence[Mapping[str, Any]]) -> list[Any]:
        """A prediction for each task; an empty list for one without: no supports, no picture, or no time was left.

        Raises:
            IirError: there is a single task, and its picture cannot be used.
        """
        until = time.monotonic() + _PREDICT_SECONDS
        project = self._present(uid, read_config(config))
        labels = project.config.labels(project.segmenter.supports.labels)
        if not labels:
            _LOG.warning(
                "project %s: nothing shows what its labels are; annotate a task, or start with --supports", uid
            )
            return [[] for _ in tasks]
        results: list[Any] = []
        for task in tasks:
            try:
                # At least one, so that asking again leads to an end.
                late = results and time.monotonic() > until
                results.append([] if late else self._predicted(project, labels, task))
            except IirError as error:
                if len(tasks) == 1:
                    raise
                _LOG.warning("task %s: %s", task.get("id"), error)
                results.append([])
        return results

    def version(self, uid: str) -> str | None:
        """Of a project's predictions; None for one that is not known."""
        return self._projects[uid].version if uid in self._projects else None

    @property
    def versions(self) -> list[str]:
        """Of all projects' predictions."""
        return sorted({project.version for project in list(self._projects.values())})

    def _predicted(self, project: Project, labels: Sequence[str], task: Mapping[str, Any]) -> dict[str, Any]:
        calibrated = project.segmenter.engine.identity.calibrated
        picture = self._picture(task, project.config.key).pixels
        with collecting_warnings():
            result = project.segmenter.predict(
                picture, labels=labels, absent_below=_ABSENT_BELOW if calibrated else 0.0
            )
        return prediction_of(result, project.config, project.version)

    def _picture(self, task: Mapping[str, Any], key: str) -> Picture:
        data = task.get("data")
        content = self._studio.picture(data.get(key) if isinstance(data, Mapping) else None)
        check_pixels(content, f"the picture of task {task.get('id')}", self._limits.pixels)
        return load_picture(content)

    def _present(self, uid: str, config: LabelConfig) -> Project:
        reading = self._reading.get(uid)
        if uid not in self._projects:
            reading = self._read(uid, config)
        if reading is not None:
            try:
                return reading.project.result(_PREDICT_SECONDS / 2)
            except NotYet:
                _LOG.warning("project %s: its annotations are still being read; those before are used", uid)
        return self._projects[uid]

    def _read(self, uid: str, config: LabelConfig) -> _Reading:
        """Read a project's annotations, unless that is being done already."""
        number = uid.partition(".")[0]
        if not number.isdigit():
            raise RequestError(f"project={uid!r:.100} must begin with the project's number.")
        with self._changing:
            reading = self._reading.get(uid)
            if reading is None or reading.project.done():
                before = self._projects.get(uid)
                if before is None:
                    self._make_room()
                segmenter, read = (self._given, "") if before is None else (before.segmenter, before.read)
                self._projects[uid] = Project(config, segmenter, read)
                reading = self._reading[uid] = _Reading()
                self._reader.submit(self._renew, reading, uid, number, config)
            return reading

    def _make_room(self) -> None:
        """Forget the project that came first of those that nobody waits for, and what was read of it."""
        if len(self._projects) < _PROJECTS:
            return
        idle = next((uid for uid in self._projects if self._reading[uid].project.done()), None)
        if idle is None:
            raise BusyError(f"the annotations of {_PROJECTS} projects are being read; ask again in a minute.")
        del self._projects[idle], self._reading[idle]

    def _renew(self, reading: _Reading, uid: str, number: str, config: LabelConfig) -> None:
        try:
            annotated = self._annotated(uid, number)
            read = self._projects[uid].read if annotated is None else _fingerprint(annotated, config)
            reading.read.set_result(read)
            project = self._projects[uid]
            if annotated is not None and read != project.read:
                project = Project(config, self._taught(annotated, config), read)
                with self._changing:
                    self._projects[uid] = project
            reading.project.set_result(project)
        except Exception as error:
            if not reading.read.done():
                reading.read.set_exception(error)
            reading.project.set_exception(error)

    def _annotated(self, uid: str, number: str) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]] | None:
        """A project's annotated tasks, the latest first; None where they cannot be had, and there are supports."""
        try:
            tasks = self._studio.export(number)
        except LabelStudioError as error:
            if not len(self._projects[uid].segmenter.supports):
                raise
            _LOG.warning("project %s: %s The supports there are stay in use.", uid, error)
            return None
        return sorted(_annotated(tasks), key=lambda each: str(each[1].get("updated_at")), reverse=True)

    def _taught(self, annotated: Iterable[tuple[Any, Any]], config: LabelConfig) -> FewShotSegmenter:
        segmenter = copy.copy(self._given)
        taught: Counter[str] = Counter()
        tried: Counter[str] = Counter()
        wanted = {label for control in config.controls for label in control.labels}
        for task, annotation in annotated:
            # Of a label that is rare, not every picture is to be fetched in search of it.
            labels = {
                label
                for label in wanted & labels_in(annotation["result"], config)
                if taught[label] < PER_LABEL and tried[label] < _MOST_TRIED
            }
            if not labels:
                continue
            tried.update(labels)
            try:
                taught.update(self._teach(segmenter, labels, task, annotation["result"], config))
            except IirError as error:
                # Others teach all the same.
                _LOG.warning("the annotation of task %s is not used: %s", task.get("id"), error)
        return segmenter

    def _teach(
        self,
        segmenter: FewShotSegmenter,
        labels: set[str],
        task: Mapping[str, Any],
        results: Sequence[Mapping[str, Any]],
        config: LabelConfig,
    ) -> Iterable[str]:
        """Add an annotation's supports of some labels; those that it shows."""
        picture = self._picture(task, config.key)
        drawn = drawn_in(results, config, picture.size)
        with collecting_warnings() as warnings:
            masks = {label: drawn.masks[label] for label in labels & drawn.masks.keys()}
            for label in labels & drawn.boxes.keys():
                masks[label] = self._inside(picture, drawn.boxes[label])
            for label, mask in masks.items():
                segmenter.add_support(picture.pixels, mask, label, exif="shown", keep_picture=False)
        for warning in warnings:
            _LOG.info("task %s: %s", task.get("id"), warning)
        return masks.keys()

    def _inside(self, picture: Picture, boxes: Sequence[Box]) -> NDArray[np.bool_]:
        """The things in some boxes of one label, ``(H, W)``."""
        inside = np.zeros(picture.size, np.bool_)
        for box in boxes:
            inside |= mask_in_box(self._given.engine, picture.pixels, load_box(box, picture, exif="shown"))
        return inside


def _version(segmenter: FewShotSegmenter, read: str) -> str:
    return f"{segmenter.engine.identity.name}-{read or 'supports'}"


def _annotated(tasks: Iterable[Mapping[str, Any]]) -> Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Tasks with the last of their submitted annotations that shows something."""
    for task in tasks:
        submitted = [a for a in task.get("annotations", ()) if a.get("result") and not a.get("was_cancelled")]
        if submitted:
            yield task, max(submitted, key=lambda annotation: str(annotation.get("updated_at")))


def _fingerprint(annotated: Iterable[tuple[Any, Any]], config: LabelConfig) -> str:
    states = [(task.get("id"), a.get("id"), str(a.get("updated_at"))) for task, a in annotated]
    return hashlib.sha256(json.dumps([states, repr(config)]).encode()).hexdigest()[:8]
