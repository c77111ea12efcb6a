"""`fit-ae --data` on a folder with every oddity at once: it trains, and one screen of plain sentences says what became of what."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldmctl.cli.app import run
from ldmctl_plugins.datasets._formats import register

AE = ["autoencoder=vae", "autoencoder.widths=[8,8]", "autoencoder.layers=1", "autoencoder.norm_groups=4", "autoencoder.attention=false"]
LOOP = ["image.size=16", "loop.steps=2", "loop.batch=4", "loop.workers=0", "perceptual=null", "discriminator=null"]
FIT_AE = ["fit-ae", *AE, *LOOP, "--device", "cpu", "--precision", "fp32", "--out", "run", "--data"]
EXPECTED = (Path(__file__).parent / "any_folder.txt").read_text(encoding="utf-8")


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(os.fsencode("/".join(path.parts[-3:])))).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    with path.open("wb") as file:
        Image.fromarray(noise).save(file, "PNG")


@pytest.fixture
def oddities(tmp_path, monkeypatch):
    """A folder with all that is promised to be said."""
    root = tmp_path / "set" / "mydata"
    for folder, count in (("Training/cat", 9), ("Training/dog", 10), ("evalset/cat", 2), ("evalset/dog", 2), ("test/cat", 3), ("more", 5)):
        for number in range(count):
            name = f"{'t' if folder == 'test/cat' else ''}{number}.{'PNG' if number == 9 else 'png'}"
            draw(root / folder / name)
    draw(root / "loose.png")
    draw(root / ".thumbs" / "1.png")
    draw(root / "Training" / "cat" / os.fsdecode(b"caf\xe9.png"))
    (root / "again").symlink_to(root / "Training")
    (root / "Training" / "cat" / "up").symlink_to(root)
    (root / "Training" / "cat" / "loop.png").symlink_to("loop.png")
    (root / "Training" / "dog" / "leak.png").symlink_to(root / "evalset" / "dog" / "0.png")
    (root / "Training" / "dog" / "twin.png").symlink_to("1.png")
    for name in ("a.heic", "b.HEIC", "c.jxl", "d.tga", "noending"):
        (root / "Training" / name).write_bytes(b"something")
    (root / "Training" / "empty.png").touch()
    for name, text in (("1.caption", b"one cat"), ("2.TXT", "two cats".encode("utf-16")), ("3.txt", "drei Kätzchen".encode("cp1252"))):
        (root / "Training" / "cat" / name).write_bytes(text)
    (root / "readme.txt").write_text("hello")
    rows = [
        {"file_name": "CAT/7.png", "text": ["a cat", "another caption"]},
        {"file_name": "Training/cat/4.png", "text": float("nan")},
        {"file_name": "Training/cat/5.png", "caption": "half \ud83d"},
        {"file_name": "Training/cat/gone.png", "caption": "gone"},
        {"file_name": str(root / "evalset" / "cat" / "0.png"), "caption": "held out"},
        {"file_name": "test/cat/t0.png", "caption": "left out"},
    ]
    (root / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "index.csv").write_text("id,url\n1,http\n")
    (root / "labels.xlsx").write_bytes(b"something")
    (root / "lost+found").mkdir()
    listing = os.scandir

    def refuse(path):
        if os.path.basename(path) == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for module in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.chdir(tmp_path)
    register.cache_clear()
    yield root.parent
    register.cache_clear()


def test_a_folder_with_every_oddity_is_trained_on_and_accounted_for_on_one_screen(oddities, capfd):
    assert run([*FIT_AE, str(oddities)]) == 0
    said = capfd.readouterr().err
    assert EXPECTED.splitlines() == said.splitlines()[1 : len(EXPECTED.splitlines()) + 1]
    assert len(EXPECTED.splitlines()) <= 24
    assert run([*FIT_AE, str(oddities), "--dry-run"]) == 0
    shown = capfd.readouterr()
    assert EXPECTED.splitlines()[10] in shown.out and EXPECTED.splitlines()[-1] in shown.err
