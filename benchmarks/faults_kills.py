"""kill -9, then the same command again: the end is, bit for bit, what it would have been.

`kills` come at a random time of the command. `moments` come at a chosen one: just before the k-th time that it opens a file
for writing, syncs, renames or deletes one, with what was being written cut short. One trial in four is killed twice.
Two ranks are two processes that torchrun would start; one of them is killed, or both. A recipe has the first seed that draws it, so that
numbers of older seeds stay what they were.
"""

import csv
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import faults_child
import faults_heard
import faults_made
import faults_moments
from faults_child import Child, Outcome

RATES = ("images_per_second", "peak_share", "memory_gib")
RECORD = ("verb", "status", "exit_code", "step", "parent", "plugins")  # the step of encode-dataset only counts what was written


@dataclass(frozen=True)
class Recipe:
    """A command to be killed, what it reads, the folder that it writes, on how many ranks, since which seed, and what it keeps elsewhere."""

    name: str
    words: list[str]
    beside: tuple[str, ...]
    out: str
    prepare: Callable[[Path], None] | None = None
    world: int = 1
    since: int = 1
    also: str = ""


def one_broken(work: Path) -> None:
    """A picture that cannot be read."""
    broken = work / "pictures" / "train" / "dog" / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    os.utime(broken, (1e9, 1e9))


def other_pictures(work: Path) -> None:
    """Some pictures gone, some new, some with another caption."""
    one_broken(work)
    folder = work / "pictures"
    (folder / "train/cat/1.png").unlink()
    (folder / "val/dog/0.png").unlink()
    shutil.copy2(folder / "train/cat/0.png", folder / "train/dog/new.png")
    shutil.copy2(folder / "train/cat/2.png", folder / "train/cat/later.png")
    table = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    rows = [row for row in rows if (folder / row["file_name"]).exists()]
    rows += [{"file_name": f"train/{name}.png", "label": name[:3], "text": "new"} for name in ("dog/new", "cat/later")]
    rows[3]["text"] = "another caption"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))


def without_table(work: Path) -> None:
    """Pictures whose captions nobody has written down."""
    (work / "scenes" / "metadata.jsonl").unlink()


def nothing_prepared(work: Path) -> None:
    """A cache that no run has listened to, and that no one has looked at."""
    for name in ("conditions", "features"):
        shutil.rmtree(work / "heard" / name)


def recipe(name: str, words: list[str], beside: str, prepare: Callable[[Path], None] | None = None, **more: Any) -> Recipe:
    """One of those that came with conditions, into `out`."""
    return Recipe(name, words, tuple(beside.split()), "out", prepare, since=faults_heard.SINCE, **more)


def hearing(name: str, config: str, beside: str = "", *added: str, world: int = 1) -> Recipe:
    """fit-diffusion on a cache for which nothing is prepared yet."""
    words = ["fit-diffusion", "--config", f"{config}.yaml", "--latents", "heard", "--out", "out", *added]
    also = "" if config == "words" else "heard/conditions"  # what words hears is made anew each time
    return recipe(name, words, f"{config}.yaml heard scenes {beside}", nothing_prepared, world=world, also=also)


ENCODE = ["encode-dataset", "--run", "ae", "--out", "out", "shard=4", "batch=3"]
TRAIN = ["fit-diffusion", "--config", "ldm.yaml", "--latents", "cache", "--out", "out"]
GAN = ["fit-ae", "--config", "gan.yaml", "--out", "out"]
MAKE = ["sample", "--out", "out", "--steps", "2", "batch=2"]
JUDGE = [*faults_heard.JUDGE, "--out", "out"]
HEARD = (
    recipe("eval-lpips", ["eval-lpips", "--run", "ae", "perceptual=null", "--out", "out"], "ae pictures"),
    recipe("eval-samples", JUDGE, "words heard scenes", nothing_prepared, also="heard/features"),
    recipe("eval-samples --curve", [*JUDGE, "--curve"], "words heard scenes"),
    recipe("eval-samples --samples", [*JUDGE, "--samples", "judged"], "judged words heard scenes"),
    recipe("sample, two ranks", [*MAKE, "--run", "ldm", "-n", "6"], "ldm", world=2),
    recipe(
        "sample --prompts, two ranks", [*MAKE, "--run", "words", "--prompts", "prompts.txt", "--each", "2"], "words prompts.txt", world=2
    ),
    recipe("sample --prompts", [*MAKE, "--run", "text", "--prompts", "prompts.txt", "--guidance", "2"], "text encoder prompts.txt"),
    recipe("sample --map", [*MAKE, "--run", "map", "--map", "scenes/masks/train", "-n", "6", "--npz"], "map scenes"),
    recipe("sample --picture", [*MAKE, "--run", "large", "--picture", "small", "-n", "6", "--trace"], "large small"),
    recipe("sample --token", [*MAKE, "--run", "words", "--token", "tokens/mine.safetensors", "--prompt", "a <mine>"], "words tokens"),
    recipe("fit-token", [*faults_heard.LEARN, "--out", "out/mine.safetensors"], "words mine"),
    hearing("fit-diffusion conditions.text=words", "words"),
    hearing("fit-diffusion conditions.text=text", "text", "encoder", "--embed-text"),
    hearing("fit-diffusion conditions.map=map", "map"),
    hearing("fit-diffusion conditions.picture=lowres", "large"),
    hearing("fit-diffusion conditions.text=words, two ranks", "words", world=2),
    hearing("fit-diffusion conditions.text=text, two ranks", "text", "encoder", world=2),
    hearing("fit-diffusion conditions.map=map, two ranks", "map", world=2),
    recipe("report", ["report", "ldm", "judged", "checked", "--out", "out/report.html"], "ldm cache ae judged checked"),
    recipe("data check", ["data", "check", "./scenes", "--out", "out"], "scenes"),
)
RECIPES = (
    Recipe("fit-ae", ["fit-ae", "--config", "ae.yaml", "--out", "out"], ("ae.yaml", "pictures"), "out"),
    Recipe("fit-ae with a discriminator", GAN, ("gan.yaml", "pictures"), "out", one_broken),
    Recipe("encode-dataset", ENCODE, ("ae", "pictures"), "out", one_broken),
    Recipe("encode-dataset store=codes", ["encode-dataset", "--run", "vq", *ENCODE[3:], "store=codes", "flip=true"], ("vq", "pictures"), "out"),
    Recipe("encode-dataset of a finished cache", [*ENCODE[:4], "cache", "shard=8", "batch=3"], ("ae", "cache", "pictures"), "cache", other_pictures),
    Recipe("fit-diffusion", TRAIN, ("ldm.yaml", "cache"), "out"),
    Recipe("sample", ["sample", "--run", "ldm", "--out", "out", "-n", "6", "--steps", "2", "batch=2"], ("ldm",), "out"),
    Recipe("ema", ["ema", "--run", "ldm", "--length", "0.1"], ("ldm",), "ldm"),
    Recipe("fit-ae with a discriminator, two ranks", GAN, ("gan.yaml", "pictures"), "out", one_broken, 2),
    Recipe("encode-dataset, two ranks", ENCODE, ("ae", "pictures"), "out", one_broken, 2),
    Recipe("fit-diffusion, two ranks", TRAIN, ("ldm.yaml", "cache"), "out", None, 2),
    Recipe("fit-diffusion machine.parallel=fsdp, two ranks", [*TRAIN, "machine.parallel=fsdp"], ("ldm.yaml", "cache"), "out", None, 2),
    *HEARD,
)  # fmt: skip


def recipe_of(seed: int, number: int) -> Recipe:
    """The recipe of a trial, among those that its seed draws from."""
    there = [each for each in RECIPES if each.since <= seed]
    return there[number % len(there)]


def kills(made: Path, folder: Path, seed: int, number: int) -> dict[str, Any]:
    """Trial `number`, killed at random times."""
    return trial(made, folder, Random(f"kills {seed}/{number}"), recipe_of(seed, number), chosen=False)


def moments(made: Path, folder: Path, seed: int, number: int) -> dict[str, Any]:
    """Trial `number`, killed at chosen moments of writing."""
    return trial(made, folder, Random(f"moments {seed}/{number}"), recipe_of(seed, number), chosen=True)


def trial(made: Path, folder: Path, random: Random, recipe: Recipe, *, chosen: bool) -> dict[str, Any]:
    """Kill, perhaps again, run to the end, compare."""
    whole = reference(made, recipe.name)
    work = lay_out(made, folder, recipe)
    how: list[str] = []
    ends: list[int] = []
    for _ in range(random.choice([1, 1, 1, 2])):
        said, code = killed(recipe, work, random, whole, chosen=chosen)
        how.append(said)
        ends.append(code)
    outcomes = together(recipe, work)
    faults = [
        *(("code", f"the same command again ends with {each.code}", each.said[-4000:]) for each in outcomes if each.code),
        *(("traceback", "the same command again", each.said[-4000:]) for each in outcomes if not each.code and each.traceback),
    ]
    if not faults:
        lines = different(made / "whole" / recipe.name / recipe.out, work / recipe.out)
        lines += kept_apart(made / "whole" / recipe.name / recipe.also, work / recipe.also) if recipe.also else []
        faults += [("different", line.split(":")[0], "\n".join(lines)) for line in lines[:1]]
        left = sorted(str(path.relative_to(work)) for place in written(recipe, work) for path in place.rglob(".*") if path.name != ".lock")
        faults += [("left behind", name_of(left[0]), ", ".join(left))] if left else []
    command = " ".join(["ldmctl", *recipe.words])
    return {
        "target": recipe.name,
        "code": "before the end" if any(ends) else "after the end",
        "faults": [(*each, {"command": command, "killed": how}) for each in faults[:1]],
    }


def written(recipe: Recipe, work: Path) -> list[Path]:
    """The folders that the command writes."""
    return [work / name for name in (recipe.out, recipe.also) if name]


def name_of(path: str) -> str:
    """The kind of a temporary file, without what differs in its name from one process to another."""
    name = re.sub(r"[0-9]+", "N", path.rpartition("/")[2])
    return re.sub(r"^\.tmp\w+$", ".tmp and random letters", name)


def lay_out(made: Path, folder: Path, recipe: Recipe) -> Path:
    """What the command reads, in a folder of the trial."""
    work = folder / "work"
    work.mkdir(parents=True)
    faults_made.copy(made, work, list(recipe.beside))
    if recipe.prepare is not None:
        recipe.prepare(work)
    return work


@cache
def reference(made: Path, name: str) -> dict[str, Any]:
    """What the undisturbed command leaves in made/whole: {"seconds", "events": of each rank}."""
    recipe = next(each for each in RECIPES if each.name == name)
    folder = made / "whole" / name
    if not (folder / "whole.json").exists():
        for attempt in (1, 2):
            shutil.rmtree(folder, ignore_errors=True)
            work = lay_out(made, folder / "laid", recipe)
            began = time.monotonic()
            hooks = [faults_moments.counting(work, folder / f"events-{rank}") for rank in range(recipe.world)]
            outcomes = together(recipe, work, hooks=hooks)
            seconds = time.monotonic() - began
            if attempt == 2 or all(each.code >= 0 for each in outcomes):
                break
            print(f"{name}: undisturbed, a process was aborted ({[each.code for each in outcomes]}); once more", file=sys.stderr)
        if any(each.code for each in outcomes):
            raise SystemExit(f"{name}: {[each.code for each in outcomes]}\n{outcomes[0].said}\n{outcomes[-1].said}")
        for place in written(recipe, work):
            shutil.copytree(place, folder / place.relative_to(work))
        shutil.rmtree(folder / "laid")
        events = [len((folder / f"events-{rank}").read_text().splitlines()) for rank in range(recipe.world)]
        (folder / "whole.json").write_text(json.dumps({"seconds": seconds, "events": events}))
    return json.loads((folder / "whole.json").read_text())


# -- running and killing -------------------------------------------------------------


def begin(recipe: Recipe, work: Path, hooks: Sequence[Any] | None = None) -> list[Child]:
    """Start the command, on its ranks."""
    if recipe.world == 1:
        return [faults_child.start(recipe.words, work, hook=hooks[0] if hooks else None)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": str(recipe.world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(recipe.world)]
    return [
        faults_child.start(recipe.words, work, hook=hooks[rank] if hooks else None, environment=each) for rank, each in enumerate(ranks)
    ]


def together(recipe: Recipe, work: Path, hooks: Sequence[Any] | None = None) -> list[Outcome]:
    """Run the command to its end; what was said before is forgotten."""
    (work / faults_child.SAID).unlink(missing_ok=True)
    return [child.wait(60) for child in begin(recipe, work, hooks)]


def killed(recipe: Recipe, work: Path, random: Random, whole: dict[str, Any], *, chosen: bool) -> tuple[str, int]:
    """(how it was killed, its exit code: 0 when it was through before)."""
    victim = random.randrange(recipe.world)
    hooks: list[Any] = [None] * recipe.world
    if chosen:
        if not whole["events"][victim]:
            victim = 0
        turn = random.randrange(whole["events"][victim])
        hooks[victim] = faults_moments.killing(work, turn, torn=random.random() < 0.5)
        said = f"rank {victim} at the {turn + 1}. of {whole['events'][victim]} changes to files"
    else:
        seconds = random.random() * whole["seconds"]
        said = f"after {seconds / whole['seconds']:.0%} of the time" + (f", rank {victim} first" if recipe.world > 1 else "")
    children = begin(recipe, work, hooks)
    if not chosen:
        time.sleep(seconds)
        os.kill(children[victim].pid, signal.SIGKILL)
    first = children[victim].wait(60)
    if first.code and random.random() < 0.5:  # else the other rank ends by itself, or when torchrun loses patience
        for other in children:
            if other is not children[victim]:
                os.kill(other.pid, signal.SIGKILL)
    for other in children:
        if other is not children[victim]:
            other.wait(0.5)
    for place in written(recipe, work):
        tear(place, random)
    return said, first.code


def tear(folder: Path, random: Random) -> None:
    """Cut off what was being written when the process died: any part of a temporary file may be there."""
    for file in [*folder.rglob(".*.tmp"), *folder.rglob(".*.part")]:
        if random.random() < 0.7:
            os.truncate(file, random.randrange(file.stat().st_size + 1))


# -- comparing -----------------------------------------------------------------------


def different(one: Path, other: Path) -> list[str]:
    """`name: what` of each file in which two folders of a command differ, but for how fast it went and when."""
    names = {str(file.relative_to(root)) for root in (one, other) for file in root.rglob("*") if file.is_file()}
    names = {name for name in names if not name.rpartition("/")[2].startswith(".")}
    out = []
    for name in sorted(names):
        there = [(root / name).exists() for root in (one, other)]
        if not all(there):
            out.append(f"{name}: is {'left over' if there[1] else 'missing'}")
        elif content(one / name) != content(other / name):
            out.append(f"{name}: is another")
    return out


def kept_apart(one: Path, other: Path) -> list[str]:
    """How what is prepared in two folders differs: by its rows where they lie in shards, which may be cut otherwise after a kill."""
    folders = {str(file.parent.relative_to(root)) for root in (one, other) for file in root.rglob("*.safetensors")}
    return [f"{name}: holds other rows" for name in sorted(folders) if rows_in(one / name) != rows_in(other / name)]


def rows_in(folder: Path) -> dict[Any, Any]:
    """The bytes of each row of a folder of prepared conditions; of other files, of each file."""
    from ldmctl.latents import prepared

    if not (folder / prepared.ABOUT).exists():
        return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith(".")}
    rows = prepared.opened(folder)
    return {key: (rows.is_cut(key), {name: part.numpy().tobytes() for name, part in rows.row(key).items()}) for key in rows.places}


def content(file: Path) -> Any:
    """What two runs must have in common."""
    if file.suffix == ".html":
        return re.sub(r"Made by ldmctl [^<]* UTC", "", file.read_text())
    if file.name == "judgement.json":
        return {key: value for key, value in json.loads(file.read_text()).items() if key != "made"}  # by the last of the commands
    if file.name == "check.json":
        return {key: value for key, value in json.loads(file.read_text()).items() if key != "pictures"}  # where they lie
    if file.name == "run.json":
        record = json.loads(file.read_text())
        return {key: record.get(key) for key in RECORD if key != "step" or record.get("verb") != "encode-dataset"}
    if file.name == "metrics.jsonl":
        return [without_rates(json.loads(line)) for line in file.read_text().splitlines()]
    if file.name == "metrics.csv":
        return [without_rates(row) for row in csv.DictReader(file.read_text().splitlines())]
    return file.read_bytes()


def without_rates(row: dict[str, Any]) -> dict[str, Any]:
    """A report without how fast it went."""
    return {key: value for key, value in row.items() if key not in RATES}
