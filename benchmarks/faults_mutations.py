"""Files and words that are not as ldmctl or a person wrote them: whatever they hold, a command ends with a sentence and its code.

Case `number` of a seed is always the same: one target of faults_targets, spoilt by one to three changes, and the command that
reads it. It holds when the command ends by itself or when told, with a code that has a meaning, without a traceback, in bounded
memory, and with nothing changed outside the folder that it writes, no program started and no foreign code loaded.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import faults_child
import faults_formats
import faults_made
import faults_mutators
import faults_targets
import faults_words
from faults_child import Outcome

CODES = (0, 2, 3, 4, 5, 6, 7, 75, -15)  # -15: told to stop before there was anything to save
ROOM = 3072  # MiB of address space that a command may add
MOST = 1500  # MiB of memory that it may add
LARGEST = 1 << 26  # bytes of a file before it is changed again
HARMLESS = (
    "__pycache__",
    "/proc/self",
    "uname",
    "lscpu",
    "ldconfig",
    "'gcc'",
    "pickle.find_class ('collections', 'OrderedDict')",
    "torch_shm",
    "ldmctl.cli.launcher",  # the ranks of machine.devices
)


@dataclass
class Case:
    """One spoilt input, laid out in a folder, and the command that reads it."""

    target: str
    words: list[str]
    out: str  # the folders that it may change, blanks between them
    done: list[str]  # what was done to it


@dataclass(frozen=True)
class Fault:
    """What went wrong, in a word, in a line by which equal ones are known, and whole."""

    kind: str
    line: str
    whole: str


def lay_out(made: Path, folder: Path, seed: int, number: int, changes: int | None = None) -> Case:
    """Case `number` of a seed, laid out; `changes` leaves out the later ones."""
    random = Random(f"{seed}/{number}")
    target = faults_targets.target_of(seed, number)
    folder.mkdir(parents=True)
    (folder / "canary.txt").write_text("untouched\n")
    (folder / "canary.py").write_text("open('canary.txt', 'w').write('loaded')\n")
    work = folder / "work"
    work.mkdir()
    faults_made.copy(made, work, target.beside.split(" "))
    if not target.files:
        words, out = faults_words.words(random) if target.since == 1 else faults_words.words(random, faults_words.LATER)
        return Case(target.name, words, out, ["KEY=VALUE words as they stand in the command"])
    name = random.choice(target.files)
    words, out = faults_targets.command(random.choice(target.commands))
    if "{" in name:
        there = sorted((work / name).parent.glob("*.safetensors"))
        name = str(there[0 if "first" in name else -1].relative_to(work))
    if "*" in name:
        name = str(random.choice(sorted(work.glob(name))).relative_to(work))
    file = work / name
    if not file.exists():
        faults_made.copy(made, work, [name]) if (made / name).exists() else file.write_bytes(begun(name))
    if name.endswith("metadata.csv"):
        (file.parent / "metadata.jsonl").unlink(missing_ok=True)
    data, done = file.read_bytes(), []
    for _ in range(min(random.choice([1, 1, 1, 2, 3]), changes or 9)):
        try:
            data, said = faults_formats.mutator_of(name)(random, data[:LARGEST])
        except Exception:  # an earlier change left nothing that this one understands
            data, said = faults_mutators.spoil_bytes(random, data)
        done.append(f"{name}: {said}")
    file.write_bytes(data)
    if Random(f"{seed}/{number}/hash").random() < 0.5 and rehash(file):
        done.append("its hash in latents.json made right")
    there = {"{file}": name, "{folder}": name.partition("/")[0], "{folder}.yaml": f"{name.partition('/')[0]}.yaml"}
    return Case(target.name, [there.get(word, word) for word in words], " ".join(there.get(each, each) for each in out.split(" ")), done)


def rehash(file: Path) -> bool:
    """Make the hash right that latents.json has of a shard or its items -> whether it has one."""
    manifest = file.parent / "latents.json"
    if not file.name.startswith(("train-", "val-")) or not manifest.exists():
        return False
    whole = json.loads(manifest.read_text())
    for shard in (shard for row in whole["splits"].values() for shard in row if file.name.startswith(Path(shard["file"]).stem)):
        shard["sha256" if file.suffix == ".safetensors" else "items_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(whole))
    return True


def begun(name: str) -> bytes:
    """A file that is not among those that were made."""
    if name == "mine/metadata.csv":
        return b"file_name,text\n0.png,a <mine>\n1.png,two <mine> here\n2.png,a cat\n"
    if name.endswith("classes.txt"):
        return b"sky\ngrass\nhouse\n"
    if name.endswith(".csv"):
        places = [
            (split, kind, number) for split, count in (("train", 9), ("val", 3)) for kind in ("cat", "dog") for number in range(count)
        ]
        rows = [f"{split}/{kind}/{number}.png,{kind},a {kind}" for split, kind, number in places]
        return ("\n".join(["file_name,label,text", *rows]) + "\n").encode()
    return b"a caption\n" if name.endswith(".txt") else pickled()


def pickled() -> bytes:
    """A file of weights that runs a program where pickles are trusted."""
    import os
    import pickle

    class Bad:
        def __reduce__(self) -> Any:
            return os.system, ("touch canary_run",)

    return pickle.dumps({"features.0.weight": Bad()})


def listing(folder: Path, but: str) -> dict[str, str]:
    """A hash of every file, without those below the folders of `but` and what the campaign itself writes."""
    files = [file for file in folder.rglob("*") if file.is_file() or file.is_symlink()]
    skipped = (folder / "work" / faults_child.SAID, folder / "changes.txt")
    kept = [file for file in files if file not in skipped and not file.is_relative_to(folder / "work" / "tmp")]
    kept = [file for file in kept if not any(file.is_relative_to(folder / "work" / each) for each in but.split())]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in kept}


def tried(case: Case, folder: Path, patience: float = faults_child.PATIENCE) -> tuple[Outcome, Fault | None]:
    """Run it -> how it ended, and what is wrong with that."""
    work, report = folder / "work", folder / "changes.txt"
    there = listing(folder, case.out)
    hook = faults_child.watch(work, [work / each for each in case.out.split()], report)
    outcome = faults_child.run(case.words, work, hook=hook, memory=ROOM, patience=patience, environment={"HOME": str(work / "tmp")})
    outside = [line for line in report.read_text().splitlines() if harmful(line, case)]
    after = listing(folder, case.out)
    differ = sorted(name for name in {**there, **after} if there.get(name) != after.get(name))
    asked = case.target == "words" or case.target.startswith("config of")
    return outcome, fault_of(outcome, outside, differ, most=ROOM if asked and outcome.code == 7 else MOST)


def harmful(line: str, case: Case) -> bool:
    """Whether a noted event is more than a program that torch or Python asks about the machine."""
    return not any(word in line for word in HARMLESS)


def fault_of(outcome: Outcome, outside: Sequence[str], differ: Sequence[str], most: int = MOST) -> Fault | None:
    """What is wrong with how a command ended; None when nothing is. `most` MiB: a network that a person asks for takes what there is, and ends with 7."""
    if outside:
        return Fault("outside", outside[0][:160], "\n".join(outside[:20]))
    if differ:
        return Fault("outside", f"changes {', '.join(differ[:4])}", "\n".join(differ))
    if outcome.hung:
        return Fault("hang", f"still running after {outcome.seconds:.0f} s and SIGTERM", outcome.said[-2000:])
    if outcome.traceback or outcome.code in (1, 70):
        return Fault("traceback", signature(outcome.said), outcome.said[-6000:])
    if outcome.code not in CODES:
        return Fault("code", f"exit code {outcome.code}", outcome.said[-3000:])
    if outcome.memory > most:
        return Fault("memory", f"{outcome.memory:,} MiB", outcome.said[-2000:])
    return None


def signature(said: str) -> str:
    """The error and the innermost line of ldmctl or its plugins in a traceback."""
    lines = said.splitlines()
    frames = [
        line.strip()
        for line in lines
        if line.strip().startswith('File "') and ("ldmctl" in line or "/plugins/" in line or "p_faults" in line)
    ]
    frames = [line for line in frames if "benchmarks" not in line and "cli/app.py" not in line]
    where = "?"
    if frames:
        parts = frames[-1].split('"')
        where = "/".join(parts[1].split("/")[-2:]) + parts[2].replace(", line ", ":").replace(", in ", " ")
    bug = [line for line in lines if "This is a bug" in line]
    error = (
        bug[-1].partition("This is a bug")[2].partition(": ")[2]
        if bug
        else next((line for line in reversed(lines) if line and not line.startswith(" ")), "?")
    )
    return f"{error[:70]} @ {where}"


def trial(made: Path, folder: Path, seed: int, number: int) -> dict[str, Any]:
    """Case `number` of a seed: what it was, how it ended, and what is wrong; a hang only where twice the time does not help."""
    case = lay_out(made, folder, seed, number)
    outcome, fault = tried(case, folder)
    for changes in range(1, len(case.done)) if fault is not None else ():  # is it the first change alone?
        shutil.rmtree(folder)
        smaller = lay_out(made, folder, seed, number, changes)
        again = tried(smaller, folder)[1]
        if again is not None and (again.kind, again.line) == (fault.kind, fault.line):
            case = smaller
            break
    if fault is not None and fault.kind == "hang":
        shutil.rmtree(folder)
        fault = tried(lay_out(made, folder, seed, number), folder, 2 * faults_child.PATIENCE)[1]
    how = {"done": case.done, "command": " ".join(["ldmctl", *case.words])}
    faults = [] if fault is None else [(fault.kind, fault.line, fault.whole, how)]
    return {"target": case.target, "code": outcome.code, "seconds": outcome.seconds, "memory": outcome.memory, "faults": faults}
