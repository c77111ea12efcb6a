"""Does anything break it? Kills at any moment, inputs that are not as they should be, places that fail: counted, and each to be repeated.

python benchmarks/faults.py --kind kills|moments|devices|mutations|pictures|places [--count 200] [--seed 1] [--first 0]

Trials are numbered, and the same seed and number is the same trial; so a campaign runs in pieces over several sittings, and
benchmarks/results/faults.json adds them up. `--again NUMBER` runs one and leaves its folder. Needs Linux, and for some of the places root.
"""

import argparse
import importlib
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import faults_child
import faults_made
import machine

import ldmctl

FILE = machine.RESULTS / "faults.json"
TABLES = (("kills", "moments", "devices"), ("mutations", "pictures"), ("places",))
PLACE = re.compile(r"(?<![\w.~/])(?!//)/[^\s'\"()\[\]{},:;<>|`*?!\\]+")
EVERYWHERE = ("/dev/null", "/dev/zero", "/proc/self", "/etc/passwd", "/nonexistent")
KINDS = ("mutations", "pictures", "kills", "moments", "devices", "places")


def trial_of(kind: str) -> Any:
    """The function (made, folder, seed, number) -> {"target", "code", "faults": [(kind, line, whole, how)], perhaps "inputs"}."""
    name = "faults_kills" if kind == "moments" else f"faults_{kind}"
    return getattr(importlib.import_module(name), kind if kind in ("kills", "moments") else "trial")


def campaign(kind: str, count: int, seed: int, first: int, work: Path, *, until: float | None = None) -> dict[str, Any]:
    """Trials `first` to `first + count` -> what is kept of them: numbers tried, what held by target, what broke by its line."""
    made, run = faults_made.make(work / "made"), trial_of(kind)
    found: dict[str, Any] = {"first": first, "commit": commit(), "tried": 0, "inputs": 0, "held": 0, "seconds": 0.0, "by": {}, "broke": {}}
    began = time.monotonic()
    for number in range(first, first + count):
        folder = work / f"{kind}-{seed}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        result = run(made, folder, seed, number)
        note(found, number, result)
        shutil.rmtree(folder, ignore_errors=True)
        if until is not None and time.monotonic() - began > until:
            break
    found["seconds"] = round(time.monotonic() - began, 1)
    return found


def commit() -> str:
    """Which state of the code is tried."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(ldmctl.__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def note(found: dict[str, Any], number: int, result: dict[str, Any]) -> None:
    """Add one trial to the counts."""
    inputs = result.get("inputs", 1)
    broke = result["faults"]
    found["tried"] += 1
    found["inputs"] += inputs
    found["held"] += inputs - len(broke)
    by = found["by"].setdefault(result["target"], {"tried": 0, "held": 0, "codes": {}})
    by["tried"] += inputs
    by["held"] += inputs - len(broke)
    by["codes"][str(result["code"])] = by["codes"].get(str(result["code"]), 0) + 1
    for kind, line, whole, how in broke:
        there = found["broke"].setdefault(f"{result['target']}: {kind}: {line}", {"count": 0, "numbers": [], "smallest": None})
        there["count"] += 1
        there["numbers"] = [*there["numbers"], number][:5]
        if there["smallest"] is None or len(str(how)) < len(str(there["smallest"])):
            there["smallest"], there["whole"] = how, whole[-1500:]


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The counts of two sittings together."""
    out = {key: old.get(key, 0) + new[key] for key in ("tried", "inputs", "held")}
    out["seconds"] = round(old.get("seconds", 0) + new["seconds"], 1)
    out["pieces"] = [*old.get("pieces", []), [new["first"], new["first"] + new["tried"], new["commit"]]]
    by = old.get("by", {})
    for name, each in new["by"].items():
        there = by.setdefault(name, {"tried": 0, "held": 0, "codes": {}})
        there["tried"] += each["tried"]
        there["held"] += each["held"]
        for code, count in each["codes"].items():
            there["codes"][code] = there["codes"].get(code, 0) + count
    broke = old.get("broke", {})
    for line, each in new["broke"].items():
        there = broke.setdefault(line, {**each, "count": 0, "numbers": []})
        there["count"] += each["count"]
        there["numbers"] = [*there["numbers"], *each["numbers"]][:5]
        if len(str(each["smallest"])) < len(str(there["smallest"])):
            there |= {"smallest": each["smallest"], "whole": each["whole"]}
    return {**out, "by": by, "broke": broke}


def keep(kind: str, seed: int, new: dict[str, Any], file: Path = FILE) -> None:
    """Add a sitting to the result file."""
    report = json.loads(file.read_text()) if file.exists() else {"benchmark": "faults"}
    report["machine"] = machine.describe()
    kinds = report.setdefault("kinds", {})
    name = f"{kind}, seed {seed}"
    kinds[name] = merged(kinds.get(name, {}), new)
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(placeless(report), indent=1) + "\n")


def placeless(value: Any) -> Any:
    """The same without a place of this machine: of a path from / on stay the last two names, but for those that every system has."""
    if isinstance(value, str):
        return PLACE.sub(
            lambda found: found[0] if found[0].startswith(EVERYWHERE) else "/".join(found[0].rsplit("/", 2)[-2:]).lstrip("/"), value
        )
    if isinstance(value, list):
        return [placeless(each) for each in value]
    return {placeless(key): placeless(each) for key, each in value.items()} if isinstance(value, dict) else value


def table(file: Path, seed: int | None = None) -> str:
    """The counts of a seed, or over all of them, as the three tables of docs/numbers.md."""
    kinds = json.loads(file.read_text())["kinds"]
    kinds = {name: each for name, each in kinds.items() if seed is None or name.endswith(f", seed {seed}")}
    return "\n\n".join(
        "\n".join(rows_of({name: each for name, each in kinds.items() if name.partition(",")[0] in part})) for part in TABLES
    )


def rows_of(kinds: dict[str, Any]) -> list[str]:
    """One table: what was tried by kind and target, and in which ways it broke."""
    rows: dict[tuple[str, str], list[int]] = {}
    ways: dict[tuple[str, str], Counter[str]] = {}
    for name, found in kinds.items():
        kind = name.partition(",")[0]
        for what, each in found["by"].items():
            row = rows.setdefault((kind, what), [0, 0])
            row[0], row[1] = row[0] + each["tried"], row[1] + each["held"]
        for line, each in found["broke"].items():
            what, way = line.split(": ")[:2]
            ways.setdefault((kind, what), Counter())[way] += each["count"]
    lines = ["| kind | what | tried | held | broke |", "|---|---|---|---|---|"]
    for (kind, what), (tried, held) in sorted(rows.items()):
        broke = ", ".join(f"{count} {way}" for way, count in sorted(ways.get((kind, what), Counter()).items()))
        lines.append(f"| {kind} | {what} | {tried:,} | {held:,} | {broke} |")
    tried, held = (sum(row[place] for row in rows.values()) for place in (0, 1))
    return [*lines, f"| all | | {tried:,} | {held:,} | |"]


def main() -> None:
    """Run a piece of the campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, default="mutations")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="1 by default; of --table, all")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=None, help="stop after so long")
    parser.add_argument("--again", type=int, default=None, metavar="NUMBER", help="run one trial, say all and leave its folder")
    parser.add_argument("--work", type=Path, default=None, help="a folder on a fast disk")
    parser.add_argument("--file", type=Path, default=FILE, help="where the counts are added")
    parser.add_argument("--table", action="store_true", help="show what was counted so far")
    asked = parser.parse_args()
    if asked.table:
        print(table(asked.file, asked.seed))
        return
    asked.seed = 1 if asked.seed is None else asked.seed
    work = asked.work or Path(tempfile.mkdtemp(prefix="ldmctl-faults-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    faults_child.warm()
    if asked.again is not None:
        folder = work / f"{asked.kind}-{asked.seed}-{asked.again}"
        shutil.rmtree(folder, ignore_errors=True)
        print(json.dumps(trial_of(asked.kind)(faults_made.make(work / "made"), folder, asked.seed, asked.again), indent=1))
        print(f"It lies in {folder}.")
        return
    found = campaign(asked.kind, asked.count, asked.seed, asked.first, work, until=asked.seconds)
    keep(asked.kind, asked.seed, found, asked.file)
    print(
        f"{asked.kind}: {found['held']} of {found['inputs']} held, in {found['seconds']:.0f} s; next: --first {asked.first + found['tried']}"
    )
    for line, each in found["broke"].items():
        print(f"  {each['count']:4} {line}  {each['numbers']}")
    if asked.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
