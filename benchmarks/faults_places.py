"""Places that fail: full disks, folders that may not be touched, files that vanish, processes that are stopped or met by another.

Each trial runs a command where something fails, holds it to the promised exit code and sentence, mends the place, and gives the same
command again: that must end as if nothing had been. Mounts and lost capabilities need root on Linux.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import faults_disks
import faults_kills
import faults_processes
from faults_seen import Seen, judged

Place = Callable[[Path, Path, Random, list[Path]], Seen]
PLACES: dict[str, Place] = {
    "a full disk": faults_disks.full_disk,
    "a change to a file fails once": faults_disks.failing,
    "a rename fails once": faults_disks.failing_rename,
    "a limit on the size of files": faults_disks.large_file,
    "a folder that may not be written": faults_disks.read_only,
    "something that may not be read": faults_disks.unreadable,
    "something in the way": faults_disks.in_the_way,
    "a clock that jumps back": faults_processes.clock_back,
    "two processes on one folder": faults_processes.two_at_once,
    "stopped and continued": faults_processes.stopped,
    "told to stop": faults_processes.told_to_stop,
    "a decoding process killed": faults_processes.worker_killed,
    "what it reads is deleted": faults_processes.cache_deleted,
    "what it writes is deleted": faults_processes.out_deleted,
    "little memory": faults_processes.little_memory,
}


def trial(made: Path, folder: Path, seed: int, number: int) -> dict[str, Any]:
    """Trial `number`: its place is number modulo how many there are."""
    random = Random(f"places {seed}/{number}")
    name, place = list(PLACES.items())[number % len(PLACES)]
    work = folder / "work"
    mounted: list[Path] = []
    try:
        seen = place(made, folder, random, mounted)
        faults = judged(seen)
        if not faults:
            again = faults_kills.together(seen.recipe, work)
            faults += [
                ("again", f"the same command again ends with {each.code}", each.said[-3000:])
                for each in again
                if each.code not in seen.after
            ]
            if not faults and seen.after == (0,) and "*" not in seen.aside:
                faults_kills.reference(made, seen.recipe.name)
                lines = faults_kills.different(made / "whole" / seen.recipe.name / seen.recipe.out, work / seen.recipe.out)
                lines = [line for line in lines if line.partition(":")[0] not in seen.aside]
                faults += [("different", line, "\n".join(lines)) for line in lines[:1]]
    finally:
        for place_there in mounted:
            subprocess.run(["umount", "-l", str(place_there)], check=False)
    codes = ", ".join(str(each.code) for each in seen.outcomes)
    how = {"command": " ".join(["ldmctl", *seen.recipe.words]), "place": f"{name}: {seen.how}"}
    return {"target": name, "code": codes, "faults": [(*each, how) for each in faults[:1]]}
