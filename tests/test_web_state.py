"""What a project of the page holds: actions and their undoing, its file, and who may open it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iir_sdk.errors import ConfigError, LabelError, MaskError, OutputError, ProjectError
from iir_sdk.web.project import actions
from iir_sdk.web.project.file import Held, ProjectFolder
from iir_sdk.web.project.state import Action, State

PICTURES = ("a", "b", "c")


def done(held: Held, action: Action) -> Held:
    """As the desk does it."""
    numbers = [int(e.key) for e in action.edits if e.table == "strokes"]
    labels = [int(e.key) for e in action.edits if e.table == "labels"]
    return replace(
        held,
        state=held.state.after(action),
        done=[*held.done, action],
        last_stroke=max([held.last_stroke, *numbers]),
        last_label=max([held.last_label, *labels]),
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Held]:
    """A project after each of some random actions."""
    held = done(Held(), actions.new_label(Held(), "first", None))
    stages = [held]
    share = st.floats(0, 1)
    for stage in range(draw(st.integers(1, 12))):
        picture, names = draw(st.sampled_from(PICTURES)), [label.name for label in held.state.labels.values()]
        kind = draw(st.sampled_from(["label", "stroke", "delete", "forget", "decide", "settings"]))
        if kind == "label" or not names:
            name = f"{draw(st.text('abcäöü世 ', max_size=8)).strip()}{stage}"
            action = actions.new_label(held, name, "#00ff7F")
        elif kind == "stroke":
            points = draw(st.lists(st.tuples(share, share), min_size=1, max_size=5))
            action = actions.new_stroke(
                held, picture, draw(st.sampled_from(names)), "object", points=points, radius=0.1
            )
        elif kind == "delete":
            action = actions.removed_label(held.state, draw(st.sampled_from(names)))
        elif kind == "forget":
            action = actions.forgotten_strokes(held.state, picture, draw(st.sampled_from([None, *names])))
        elif kind == "decide":
            action = actions.decided(
                held.state, picture, draw(st.sampled_from(["accepted", "rejected", None])), "m.png"
            )
        else:
            action = actions.changed_settings(held.state, draw(share), None)
        held = done(held, action)
        stages.append(held)
    return stages


@given(histories())
@settings(max_examples=60, deadline=None)
def test_every_action_can_be_taken_back_and_done_again(stages):
    state = stages[-1].state
    for before, after in zip(reversed(stages[:-1]), reversed(stages[1:]), strict=True):
        state = state.after(after.done[-1].reversed)
        assert state == before.state
        assert list(state.strokes) == sorted(state.strokes)
    for stage in stages[1:]:
        state = state.after(stage.done[-1])
        assert state == stage.state


@given(histories())
@settings(max_examples=25, deadline=None)
def test_what_is_written_is_read_again(tmp_path_factory, stages):
    folder = ProjectFolder(tmp_path_factory.mktemp("project") / "p.iir-project")
    held = replace(
        stages[-1],
        version=7,
        uploads={"0a0a0a0a0a0a0a0a/x.jpg": "x ä.jpg"},
        checkpoint="ab",
        undone=[stages[-1].done[-1]],
    )
    folder.write(held)
    assert folder.read() == held
    folder.close()


def test_a_folder_is_open_once_and_its_masks_stay_while_something_names_them(tmp_path):
    folder = ProjectFolder(tmp_path / "p")
    with pytest.raises(ProjectError, match=r"another server has .* open.*--project"):
        ProjectFolder(tmp_path / "p")
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    name, other = folder.write_mask(mask), folder.write_mask(mask + 1)
    assert (folder.read_mask(name) == mask).all()
    held = done(Held(), actions.decided(State(), "a", "accepted", name))
    held = done(held, actions.decided(held.state, "a", None))
    folder.remove_unnamed_masks(held)
    # Accepting can still be done again; the other one nobody knows.
    assert [file.name for file in folder.masks.iterdir()] == [name] != [other]
    folder.close()
    ProjectFolder(tmp_path / "p").close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps({"format": "iir_sdk.project/2"}), "newer version.*pip install -U iir-sdk"),
        (json.dumps({"format": "iir_sdk.supports/1"}), "cannot be read.*--project"),
        ('{"format": "iir_sdk.project/1"', "cannot be read.*--project"),
        (json.dumps({"format": "iir_sdk.project/1"}), "cannot be read.*--project"),
        ("[]", "cannot be read.*--project"),
    ],
)
def test_files_of_other_kinds_and_newer_versions_are_refused_and_stay(tmp_path, content, message):
    folder = ProjectFolder(tmp_path)
    folder.file.write_text(content)
    with pytest.raises(ProjectError, match=message):
        folder.read()
    assert folder.file.read_text() == content
    folder.close()


def test_a_project_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        ProjectFolder(tmp_path / "file" / "p")


def test_a_process_that_is_killed_leaves_what_it_had_acknowledged(tmp_path):
    code = f"""
import os
from pathlib import Path
from iir_sdk.web.project.file import Held, ProjectFolder
folder = ProjectFolder(Path({str(tmp_path)!r}))
held = Held()
for held.version in range(10**9):
    folder.write(held)
    print(held.version, flush=True)
"""
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        acknowledged = 0
        while acknowledged < 100:
            acknowledged = int(process.stdout.readline())
        process.kill()
        acknowledged = max([acknowledged, *map(int, process.stdout.read().split("\n")[:-1])])
        process.wait()
        folder = ProjectFolder(Path(tmp_path))
        assert folder.read().version >= acknowledged
        assert {file.name for file in tmp_path.iterdir() if file.is_file()} == {"project.json", "lock"}
        folder.close()


def test_what_makes_no_sense_is_refused_by_name():
    held = done(Held(), actions.new_label(Held(), "cat", None))
    for name in ("", "  ", "a\nb", "x" * 101, "cat"):
        with pytest.raises(LabelError):
            actions.new_label(held, name, None)
    with pytest.raises(ConfigError, match="#rrggbb"):
        actions.new_label(held, "dog", "red; background: url(x)")
    with pytest.raises(LabelError, match="no label 'dog'; labels: 'cat'"):
        actions.new_stroke(held, "a", "dog", "object", points=[(0, 0)])
    for points in ([], [(float("nan"), 0)], [(0, 5)], [(0.5, 0.5)] * 20_001):
        with pytest.raises(MaskError, match="points"):
            actions.new_stroke(held, "a", "cat", "object", points=points)
    for box in (None, (0, 0, 0, 1), (2, 2, 3, 3), (0, float("inf"), 1, 1)):
        with pytest.raises(MaskError, match="box"):
            actions.new_stroke(held, "a", "cat", "box", box=box)
    with pytest.raises(ConfigError, match="threshold=2"):
        actions.changed_settings(held.state, 2, None)
