"""The sentences on the page of troubles are ones that ldmctl says."""

import ast
import re

import pytest
from pages import ROOT, pages

PAGE = pages()["docs/guides/troubleshooting.md"]
SHELL = {"Killed"}  # what a shell says
VALUE = "\0"  # in place of what an f-string fills in


def quoted(page: str) -> list[str]:
    """Every sentence in quotes in the first cell of a row."""
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("|")]
    return [sentence for cell in cells for sentence in re.findall(r'"([^"]+)"', cell) if sentence not in SHELL]


def spoken(source: str) -> list[str]:
    """Every text of a module, with VALUE where something is filled in."""
    out = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            out.append("".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            out.append(node.value)
    return out


@pytest.fixture(scope="module")
def texts():
    """All that the code may say."""
    files = [file for folder in ("ldmctl", "plugins") for file in (ROOT / folder).rglob("*.py")]
    assert len(files) >= 100
    return [text for file in files for text in spoken(file.read_text(encoding="utf-8"))]


def is_said(sentence: str, texts: list[str]) -> bool:
    """Whether one text has all parts of a sentence, in their order."""
    parts = [re.escape(part.strip()) for part in sentence.split("...") if part.strip()]
    wanted = re.compile(".*?".join(parts), re.S)
    return any(wanted.search(text) for text in texts)


def test_every_sentence_on_the_page_is_one_that_ldmctl_says(texts):
    sentences = quoted(PAGE)
    assert len(sentences) >= 25
    assert [sentence for sentence in sentences if not is_said(sentence, texts)] == []


def test_a_sentence_that_nobody_says_would_be_found(texts):
    assert not is_said("The folder ... is tired of it.", texts)
