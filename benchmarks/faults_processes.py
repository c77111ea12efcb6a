"""Clocks that jump, commands that meet, are stopped, told to stop or robbed of a process, of their folders or of memory."""

import os
import shutil
import signal
import time
from pathlib import Path
from random import Random

import faults_child
import faults_kills
from faults_kills import Recipe
from faults_seen import ALONE, RUNS, THEN, Seen, last_line


def clock_back(made: Path, folder: Path, random: Random, mounted: list[Path]) -> Seen:
    """A clock that jumps back an hour or ten years, killed and continued besides, with files from the future."""
    recipe = random.choice(ALONE)
    whole = faults_kills.reference(made, recipe.name)
    work = faults_kills.lay_out(made, folder, recipe)
    back = random.choice([3600.0, 3e8])
    now, calls = time.time, [0]

    def jumping() -> float:
        calls[0] += 1
        return now() - (back if calls[0] > 3 else 0)

    def before() -> None:
        time.time = jumping  # type: ignore[assignment]

    child = faults_child.start(recipe.words, work, before=before)
    time.sleep(random.random() * whole["seconds"])
    os.kill(child.pid, signal.SIGKILL)
    child.wait(60)
    for file in (work / recipe.out).rglob("*") if (work / recipe.out).exists() else []:
        os.utime(file, (4e9, 4e9))
    outcome = faults_child.run(recipe.words, work, before=before, patience=60)
    return Seen(recipe, f"the clock jumps back {back:.0f} s", [outcome], (0,))


def two_at_once(made: Path, folder: Path, random: Random, mounted: list[Path]) -> Seen:
    """The same command twice at the same time: one does it, the other says so or finds it done."""
    recipe = random.choice(ALONE)
    whole = faults_kills.reference(made, recipe.name)
    work = faults_kills.lay_out(made, folder, recipe)
    first = faults_child.start(recipe.words, work)
    time.sleep(random.random() * whole["seconds"])
    second = faults_child.run(recipe.words, work, patience=60)
    seen = Seen(recipe, "two at once", [first.wait(60), second], (0, 6) if recipe in RUNS else (0,))
    if {each.code for each in seen.outcomes} == {6}:
        seen.faults.append(("code", "neither did it", second.said))
    if 6 in {each.code for each in seen.outcomes} and "Another ldmctl command" not in second.said:
        seen.faults.append(("sentence", last_line(second.said), second.said))
    return seen


def stopped(made: Path, folder: Path, random: Random, mounted: list[Path]) -> Seen:
    """SIGSTOP for a second, or one time in eight for a minute, one rank or all, then SIGCONT."""
    recipe = random.choice(THEN)
    whole = faults_kills.reference(made, recipe.name)
    work = faults_kills.lay_out(made, folder, recipe)
    children = faults_kills.begin(recipe, work)
    time.sleep(random.random() * whole["seconds"])
    asleep = random.sample(children, random.randint(1, len(children)))
    seconds = random.choice([1, 1, 1, 1, 1, 1, 1, 60])
    for number, pause in ((signal.SIGSTOP, seconds), (signal.SIGCONT, 0)):
        for child in asleep:
            os.kill(child.pid, number)
        time.sleep(pause)
    return Seen(recipe, f"{len(asleep)} of {recipe.world} stopped for {seconds} s", [child.wait(60) for child in children], (0,))


def told_to_stop(made: Path, folder: Path, random: Random, mounted: list[Path]) -> Seen:
    """SIGTERM, SIGINT or SIGUSR1 at any time: 75 with everything saved, or the end that the system makes of it before there is anything."""
    recipe = random.choice(THEN)
    whole = faults_kills.reference(made, recipe.name)
    work = faults_kills.lay_out(made, folder, recipe)
    number = random.choice([signal.SIGTERM, signal.SIGINT])
    children = faults_kills.begin(recipe, work)
    time.sleep(0.1 + random.random() * whole["seconds"])
    for child in children:
        os.kill(child.pid, number)
    outcomes = [child.wait(60) for child in children]
    return Seen(recipe, f"{number.name} after a while", outcomes, (0, 75, 130, -number, *((1, 6) if recipe.world > 1 else ())))


def worker_killed(made: Path, folder: Path, random: Random, mounted: list[Path]) -> Seen:
    """A process that decodes pictures is killed, as the system does where memory is short."""
    recipe = random.choice([each for each in ALONE if each.words[0] == "fit-ae"])
    recipe = Recipe(recipe.name, [*recipe.words, "loop.workers=2"], recipe.beside, recipe.out, recipe.prepare)
    work = faults_kills.lay_out(made, folder, recipe)
    child = faults_child.start(recipe.words, work)
    ended, killed = time.monotonic() + 20, 0
    while not killed and time.monotonic() < ended and Path(f"/proc/{child.pid}/stat").exists():
        below = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        workers = [int(word) for word in below.read_text().split()] if below.exists() else []
        if workers:
            time.sleep(random.random() * 0.3)
            killed = random.choice(workers)
            try:
                os.kill(killed, signal.SIGKILL)
            except ProcessLookupError:
                break
        if child_done(child.pid):
            break
        time.sleep(0.001)
    outcome = child.wait(60)
    return Seen(recipe, "a decoding process was killed", [outcome], (0, 3, 7), ("worker", "process", "memory"), aside=("config.yaml",))


def child_done(pid: int) -> bool:
    """Whether a child has ended and waits to be seen."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def cache_deleted(made: Path, folder: Path, random: Random, mounted: list[Path]) -> Seen:
    """What a command reads is deleted while it runs; then it is there again."""
    recipe = random.choice(ALONE)
    whole = faults_kills.reference(made, recipe.name)
    work = faults_kills.lay_out(made, folder, recipe)
    name = random.choice([each for each in recipe.beside if "." not in each and each != recipe.out] or ["tmp"])
    child = faults_child.start(recipe.words, work)
    time.sleep(random.random() * whole["seconds"])
    shutil.rmtree(work / name, ignore_errors=True)
    outcome = child.wait(60)
    shutil.rmtree(work / name, ignore_errors=True)
    whole_again = folder / "again"
    shutil.copytree(faults_kills.lay_out(made, whole_again, recipe) / name, work / name) if name != "tmp" else None
    return Seen(recipe, f"{name} is deleted while it runs", [outcome], (0, 3, 6), after=(0,) if name != "pictures" else (0, 3, 6))


def out_deleted(made: Path, folder: Path, random: Random, mounted: list[Path]) -> Seen:
    """The folder that a command writes is deleted while it runs."""
    recipe = random.choice([each for each in ALONE if each.out == "out"])
    whole = faults_kills.reference(made, recipe.name)
    work = faults_kills.lay_out(made, folder, recipe)
    child = faults_child.start(recipe.words, work)
    time.sleep(0.05 + random.random() * whole["seconds"])
    shutil.rmtree(work / "out", ignore_errors=True)
    outcome = child.wait(60)
    shutil.rmtree(work / "out", ignore_errors=True)
    return Seen(recipe, "out is deleted while it runs", [outcome], (0, 6))


def little_memory(made: Path, folder: Path, random: Random, mounted: list[Path]) -> Seen:
    """Little memory: 7, and what makes it need less; then there is enough."""
    recipe = random.choice(ALONE)
    work = faults_kills.lay_out(made, folder, recipe)
    room = random.choice([0, 2, 5, 10, 20, 40])
    outcome = faults_child.run(recipe.words, work, memory=room)
    return Seen(recipe, f"{room} MiB of memory more than at the start", [outcome], (0, 7), ("emory",))
