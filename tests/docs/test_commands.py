"""The commands in README and docs work: blocks marked `run` and `dry-run` are run in order, with tiny settings, a folder for each page."""

import io
import os
import shlex
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from pages import START, blocks, pages
from PIL import Image

from ldmctl.cli.app import run
from ldmctl.config.resolve import plugin_config
from ldmctl.registry import build

CLASSES = {"cat": 0, "dog": 1}
OVERRIDES = {  # over presets and under what a command itself says
    "image.size": 16,
    "autoencoder.widths": [8, 8],
    "autoencoder.layers": 1,
    "autoencoder.norm_groups": 4,
    "autoencoder.attention": "false",
    "discriminator": "null",
    "perceptual": "null",
    "loop.steps": 4,
    "loop.batch": 8,
    "loop.warmup": 2,
    "loop.decay": "constant",
    "loop.report": 2,
    "loop.save": 100,
    "loop.preview": 100,
    "loop.workers": 0,
    "preview.count": 2,
    "preview.steps": 2,
    "steps": 2,
    "grid": 12,
    "workers": 0,
    "machine.device": "cpu",
    "machine.precision": "fp32",
    "machine.compile": "false",
}
LENGTHS = ("loop.steps", "loop.warmup")
DONE = [block for block in blocks() if block.mark in ("run", "dry-run")]


def words_of(overrides: dict) -> str:
    """Overrides as LDMCTL_OVERRIDES has them."""
    return " ".join(shlex.quote(f"{key}={value}") for key, value in overrides.items())


def command(line: str, *more: str) -> str:
    """What a command line prints; it must end with 0."""
    said = io.StringIO()
    with redirect_stdout(said):
        code = run([*shlex.split(line, comments=True)[1:], *more])
    assert code == 0, f"{line}\n{said.getvalue()[-2000:]}"
    return said.getvalue()


def few(line: str) -> list[str]:
    """What keeps a judgement of samples from making as many as it would."""
    words = shlex.split(line, comments=True)
    return ["-n", "60"] if words[1] == "eval-samples" and not {"-n", "--count"} & set(words) else []


def draw(folder: Path) -> None:
    """Pictures of two classes, of different sizes, some of them held out."""
    random = np.random.default_rng(0)
    for split, count in {"train": 10, "val": 3}.items():
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                size = (16 + index, 20, 3)
                Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(folder / split / name / f"{index}.png")


def draw_captioned(folder: Path) -> None:
    """Pictures with a caption and a label map each, some of them held out."""
    for split, count in {"train": 10, "val": 3}.items():
        dataset = build("dataset", plugin_config("dataset", {"type": "shapes", "size": 20, "sizes": "two", "maps": True}), split=split)
        (folder / split).mkdir(parents=True)
        (folder / "masks" / split).mkdir(parents=True)
        for index in range(count):
            item = dataset[index]
            item.picture.save(folder / split / f"{index}.png")
            (folder / split / f"{index}.txt").write_text(item.text)
            Image.fromarray(np.asarray(item.map)).save(folder / "masks" / split / f"{index}.png")


@pytest.fixture(scope="module")
def environment():
    """The environment in which all pages are run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LDMCTL_OVERRIDES", words_of(OVERRIDES))
        patch.setenv("LDMCTL_OFFLINE", "1")
        patch.delenv("LDMCTL_DATA", raising=False)
        yield


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, environment):
    """A folder with photos, runs/ae, cache and runs/ldm."""
    folder = tmp_path_factory.mktemp("workshop")
    draw(folder / "photos")
    draw_captioned(folder / "captioned")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for line in ("ldmctl fit-ae --data photos", "ldmctl encode-dataset", "ldmctl fit-diffusion"):
            command(line, "--quiet")
    finally:
        os.chdir(before)
    return folder


def place(page: str, workshop: Path, folder: Path) -> Path:
    """The folder in which a page is run, with what it starts with."""
    for name in ("photos", "FOLDER"):
        (folder / name).symlink_to(workshop / "photos")
    (folder / "captioned").symlink_to(workshop / "captioned")
    if START in pages()[page]:
        for name in ("runs", "cache"):
            shutil.copytree(workshop / name, folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({block.page for block in DONE}))
def test_the_commands_of_a_page_work(page, workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(place(page, workshop, tmp_path))
    tried = 0
    for block in DONE:
        if block.page != page:
            continue
        tried += 1
        if block.language == "python":
            exec(compile(block.text, block.where, "exec"), {"__name__": "__main__"})
            continue
        for line in block.lines:
            if block.mark == "run":
                command(line, *few(line))
                continue
            with monkeypatch.context() as patch:  # as long as it would be: nothing is trained
                patch.setenv("LDMCTL_OVERRIDES", words_of({key: value for key, value in OVERRIDES.items() if key not in LENGTHS}))
                command(line, "--dry-run")
    assert tried  # `command` asserts that each ends with 0
