"""Pictures of every format, spoilt: each is read as training reads it, and is a picture or one of the unreadable ones, within seconds."""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import faults_child
import faults_formats
import faults_mutations
import faults_mutators

EACH = 25  # pictures in a trial
SLOW = 10  # seconds
ROOM = 3072  # MiB of address space
FOUND = "found.jsonl"


def trial(made: Path, folder: Path, seed: int, number: int) -> dict[str, Any]:
    """EACH spoilt pictures in a folder of their own, read one after the other by children; one that dies has a follower."""
    random = Random(f"pictures {seed}/{number}")
    work = folder / "work"
    (work / "pictures").mkdir(parents=True)
    (folder / "canary.txt").write_text("untouched\n")
    (folder / "canary.py").write_text("")
    done = dict(spoilt(random, made, work / "pictures"))
    settings = {"size": random.choice([8, 16, 40]), "channels": random.choice([1, 3, 4]), "crop": random.choice(["center", "random"])}
    hook = faults_child.watch(work, [work], folder / "changes.txt")
    faults: list[tuple[str, str, str, Any]] = []
    first, memory, code = 0, 0, 0
    while first < EACH:
        outcome = faults_child.run([], work, hook=hook, memory=ROOM, patience=SLOW * 30, work=lambda at=first: read_all(settings, at))
        rows = [json.loads(line) for line in (work / FOUND).read_text().splitlines()] if (work / FOUND).exists() else []
        (work / FOUND).unlink(missing_ok=True)
        memory = max(memory, outcome.memory)
        faults += [(row["kind"], row["line"], row["whole"], how(row["name"], done, settings)) for row in rows if row.get("kind")]
        if outcome.code == 0:
            break
        last = rows[-1] if rows else {"index": first - 1}
        at = last["index"] + 1
        name = sorted(done)[at] if at < EACH else "?"
        line = "still reading after 10 s" if outcome.code == -signal.SIGALRM else f"the process ended with {outcome.code}"
        faults.append(("hang" if outcome.code == -signal.SIGALRM else "code", line, outcome.said[-3000:], how(name, done, settings)))
        first, code = at + 1, outcome.code
    outside = (folder / "changes.txt").read_text().splitlines()
    faults += [("outside", line[:160], line, sorted(done)) for line in outside[:1]]
    if memory > faults_mutations.MOST:
        faults.append(("memory", "more than is bounded", f"{memory:,} MiB", done))
    return {"target": "pictures", "code": code, "inputs": EACH, "memory": memory, "faults": faults}


def how(name: str, done: dict[str, str], settings: dict[str, Any]) -> dict[str, Any]:
    """What it takes to see it again."""
    return {"picture": name, "done": done.get(name), "image": settings}


def spoilt(random: Random, made: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """(name, what was done to it) of EACH pictures, written."""
    sound = sorted((made / "formats").iterdir())
    for number in range(EACH):
        file = random.choice(sound)
        data, done = file.read_bytes(), []
        for _ in range(random.choice([1, 1, 2])):
            try:
                data, said = faults_formats.spoil_picture(random, data)
            except (ValueError, LookupError):  # an earlier change left nothing that this one understands
                data, said = faults_mutators.spoil_bytes(random, data)
            done.append(said)
        name = f"{number:03d}-{file.name}"
        if random.random() < 0.05:
            name = f"{number:03d}-{file.stem}.{random.choice(['png', 'jpg', 'gif', 'webp', 'tif', 'bmp'])}"
        (folder / name).write_bytes(data or b"x")
        yield name, f"{file.name}: {'; '.join(done)}"


class One:
    """A data set of one of another's items."""

    def __init__(self, whole: Any, index: int):
        self.whole, self.index, self.classes = whole, index, whole.classes

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> Any:
        return self.whole[self.index]

    def stamp(self, _: int) -> str:
        """Name and version."""
        return self.whole.stamp(self.index)


def read_all(settings: dict[str, Any], first: int) -> int:
    """In a child: read each picture from `first` on as training does; a line in FOUND for each."""
    from ldmctl.config.schemas.shared import Image
    from ldmctl.pictures.batches import Pictures
    from ldmctl.registry import build, load

    config = load("dataset", "folder").Config(type="folder", path="./pictures", val_share=0)
    dataset = build("dataset", config, split="train")
    names = sorted(os.listdir("pictures"))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if len(dataset) != EACH:
        raise AssertionError(f"{len(dataset)} of {EACH} pictures are listed")
    with Path(FOUND).open("a") as out:
        for index in range(first, EACH):
            pictures = Pictures(One(dataset, index), Image(**settings))
            signal.alarm(4 * SLOW)
            began = time.process_time()
            row: dict[str, Any] = {"index": index, "name": names[index]}
            try:
                pictures.look(0)
            except Exception as error:
                said = "".join(traceback.format_exception(error))
                row |= {"kind": "traceback", "line": faults_mutations.signature(said), "whole": said[-3000:]}
            if time.process_time() - began > SLOW:
                row |= {"kind": "hang", "line": "more than 10 s", "whole": f"{time.process_time() - began:.0f} s"}
            signal.alarm(0)
            out.write(json.dumps(row) + "\n")
            out.flush()
            sys.stdout.flush()
    return 0
