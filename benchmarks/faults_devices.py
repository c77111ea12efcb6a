"""`--devices 2` in processes of its own, as a person starts it: the command, torchrun or a worker is killed, and nobody is left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from random import Random
from typing import Any

import faults_kills
from faults_kills import RECIPES, Recipe

NAMES = ("fit-ae with a discriminator, two ranks", "encode-dataset, two ranks", "fit-diffusion, two ranks")
MARK = "LDMCTL_TRIAL"
LEAVE = 20  # seconds in which all processes are to be gone


def trial(made: Path, folder: Path, seed: int, number: int) -> dict[str, Any]:
    """Kill one of the processes at a random time, look who is left, run to the end, compare."""
    random = Random(f"devices {seed}/{number}")
    recipe = next(each for each in RECIPES if each.name == NAMES[number % len(NAMES)])
    whole, seconds = reference(made, recipe)
    work = faults_kills.lay_out(made, folder, recipe)
    mark = uuid.uuid4().hex
    process = start(recipe, work, mark)
    time.sleep(1 + random.random() * seconds)
    there = marked(mark)
    victim = process.pid if random.random() < 0.5 or not there else random.choice(there)
    done = status(work / recipe.out)
    os.kill(victim, signal.SIGKILL)
    ended = time.monotonic() + LEAVE
    while (left := marked(mark)) and time.monotonic() < ended:
        process.poll()
        time.sleep(0.2)
    for each in left:
        os.kill(each, signal.SIGKILL)
    process.wait()
    said = (work / "said.txt").read_text()
    faults = (
        [("left running", f"{'the command' if victim == process.pid else 'a process of it'} was killed", f"{len(left)} of {len(there)}")]
        if left
        else []
    )
    if victim == process.pid and done != "finished" and status(work / recipe.out) == "finished":
        faults.append(("left running", "the command was killed, its processes worked on to the end", said[-2000:]))
    again = start(recipe, work, mark)
    again.wait()
    if again.returncode:
        faults.append(("code", f"the same command again ends with {again.returncode}", (work / "said.txt").read_text()[-3000:]))
    elif lines := faults_kills.different(whole, work / recipe.out):
        faults.append(("different", lines[0], "\n".join(lines)))
    how = {"command": f"ldmctl {' '.join(recipe.words)} --devices 2", "killed": f"{victim - process.pid} after the command's process"}
    code = process.returncode if victim != process.pid else "the command"
    if victim != process.pid and process.returncode == 1 and "Traceback" in said and "This is a bug" in said:
        faults.append(("traceback", "of a killed worker", said[-3000:]))
    return {"target": f"{recipe.name}, --devices 2", "code": code, "faults": [(*each, how) for each in faults]}


def status(out: Path) -> str | None:
    """What run.json says."""
    return json.loads((out / "run.json").read_text()).get("status") if (out / "run.json").exists() else None


def start(recipe: Recipe, work: Path, mark: str) -> subprocess.Popen[bytes]:
    """The command with --devices 2; what it says goes to said.txt."""
    with (work / "said.txt").open("w") as said:
        command = [sys.executable, "-m", "ldmctl", *recipe.words, "--devices", "2"]
        return subprocess.Popen(command, cwd=work, env={**os.environ, MARK: mark}, stdout=said, stderr=said)


def marked(mark: str) -> list[int]:
    """Processes with this mark that run."""
    out = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                out.append(int(entry.name))
        except OSError:
            continue
    return sorted(out)


def reference(made: Path, recipe: Recipe) -> tuple[Path, float]:
    """(what the undisturbed command leaves, its seconds)."""
    kept = made / "whole" / f"{recipe.name}, --devices 2"
    if not (kept / "seconds").exists():
        shutil.rmtree(kept, ignore_errors=True)
        work = faults_kills.lay_out(made, kept / "laid", recipe)
        began = time.monotonic()
        process = start(recipe, work, "whole")
        if process.wait():
            raise SystemExit(f"{recipe.name} ended with {process.returncode}:\n{(work / 'said.txt').read_text()}")
        seconds = time.monotonic() - began
        shutil.copytree(work / recipe.out, kept / recipe.out)
        shutil.rmtree(kept / "laid")
        (kept / "seconds").write_text(str(seconds))
    return kept / recipe.out, float((kept / "seconds").read_text())
