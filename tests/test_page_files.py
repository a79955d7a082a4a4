"""The page's files as they are: whole, from here alone, and with no way for a name to become markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from iir_sdk.web import page

ROOT = Path(page.__file__).parent
FILES = sorted(f for f in ROOT.iterdir() if f.suffix in (".html", ".js", ".css", ".svg"))
SCRIPTS = {f.name: f.read_text(encoding="utf-8") for f in FILES if f.suffix == ".js"}
HTML = (ROOT / "index.html").read_text(encoding="utf-8")
IDS = re.findall(r'\bid="([^"]+)"', HTML)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_nothing_comes_from_elsewhere_and_no_text_becomes_markup(file):
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]+\.", text), "works offline"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)
    assert text.count("\n") < 400


def test_the_page_has_no_inline_script_and_no_inline_style():
    assert not re.search(r'\sstyle="|\son[a-z]+="|<style|<script(?![^>]*\ssrc=)', HTML)


def test_what_scripts_look_up_is_there():
    assert len(IDS) == len(set(IDS))
    for name, text in SCRIPTS.items():
        assert set(re.findall(r'\$\("([^"]+)"\)', text)) <= set(IDS), name
        assert {f"i-{icon}" for icon in re.findall(r'\bicon\("([^"]+)"\)', text)} <= set(IDS), name
        for names, module in re.findall(r'import \{([^}]+)\} from "\./([^"]+)"', text):
            exported = set(re.findall(r"export (?:async )?(?:function|class|const|let) ([\w$]+)", SCRIPTS[module]))
            assert {n.strip() for n in names.split(",") if n.strip()} <= exported, f"{name} from {module}"
    used = re.findall(r'href="#([^"]+)"|popovertarget="([^"]+)"|\bfor="([^"]+)"', HTML)
    assert {name for names in used for name in names if name} <= set(IDS)
