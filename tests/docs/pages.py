"""README and the pages under docs/, taken apart: fenced blocks with what may be done with them, and code marks in the text.

A comment before a block says what a test does with it:

<!-- run -->              every line is run, with tiny settings
<!-- dry-run -->          every line is run with --dry-run
<!-- not run: why -->     only its words are checked

A page that begins with <!-- starts with: runs --> finds runs/ae, cache and runs/ldm; others find pictures alone, in photos and
FOLDER, and with captions and maps, in captioned.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
WRITTEN = ROOT / "docs" / "reference"  # by docs/reference.py
SHELL = ("bash", "sh", "shell", "console", "zsh")
PLAIN = ("text", "toml", "yaml", "json", "python")
OTHERS = ("git", "cd", "pip")  # programs to which `ldmctl` is a name
START = "<!-- starts with: runs -->"
FENCE = re.compile(r"(?:<!-- (?P<mark>[^\n]*?) -->\n\n?)?^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
MARK = re.compile(r"run|dry-run|not run: \S.*")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, what it is written in, the comment before it, and its text."""

    page: str
    line: int
    language: str
    mark: str
    text: str

    @property
    def where(self) -> str:
        """README.md:22."""
        return f"{self.page}:{self.line}"

    @property
    def lines(self) -> list[str]:
        """Its commands, one a line, without comments."""
        joined = self.text.replace("\\\n", " ")
        return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]

    @property
    def commands(self) -> list[list[str]]:
        """The words after `ldmctl` of each of its commands that is one, also behind `&&` or torchrun."""
        out = []
        for line in self.lines:
            for part in re.split(r"(?:&&|\|\||\|)(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", line):
                words = shlex.split(part, comments=True)
                if "ldmctl" in words and words[0] not in OTHERS:
                    out.append(words[words.index("ldmctl") + 1 :])
        return out


def pages() -> dict[str, str]:
    """Text of every page that a person wrote, by its path."""
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    kept = [file for file in files if file.parent not in (WRITTEN, WRITTEN / "plugins") and "_build" not in file.parts]
    return {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in kept}


def blocks() -> list[Block]:
    """Every fenced block of every page."""
    return [
        Block(page, text[: found.start("language")].count("\n") + 1, found["language"].strip(), found["mark"] or "", found["text"])
        for page, text in pages().items()
        for found in FENCE.finditer(text)
    ]


def shell_blocks() -> list[Block]:
    """Those with commands."""
    return [block for block in blocks() if block.language in SHELL]


def code_marks() -> list[tuple[str, str]]:
    """(page, text) of every `code mark` outside of blocks."""
    return [(page, mark) for page, text in pages().items() for mark in re.findall(r"`([^`\n]+)`", FENCE.sub("", text))]
