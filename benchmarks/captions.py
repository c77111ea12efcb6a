"""100,000 captions, each once through a conditioner and then kept: minutes, disk, memory, seconds to start with all of them, and per batch.

python benchmarks/captions.py --encoder FOLDER              # such as all-MiniLM-L6-v2; writes results/captions.json
python benchmarks/captions.py --encoder FOLDER --read 500 --print    # fewer through the encoder, and only a look

The captions are sentences of 7 to 30 words, 15 on average, no two alike. Each line is a process of its own, on as many threads as torch takes:

words     a vocabulary learned from all of them, their ids (which are kept in memory alone), the start of a resumed run
text      --read of them through the encoder, from which the time of all follows; their rows are kept and, in the place of the others, the same
          rows once more under other keys, so that disk, start and batches are those of all

A start is what a resumed run does until its first batch: the items of the cache are read, captions are found among the kept rows.
It is measured once for files that were just written, so they are in the page cache. Beside each time stands that of the processor, which others on the
machine change little. A batch is 256 items drawn at random,
padded, as a step is given it; the median of all but the first. Memory is the process's own at its end, above one that has only imported torch.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import describe, keep

from ldmctl import registry
from ldmctl.config.resolve import plugin_config
from ldmctl.console import Console
from ldmctl.latents import conditions, prepared
from ldmctl.latents import manifest as manifests
from ldmctl.latents.items import Item, write_items
from ldmctl.latents.manifest import Manifest, Shard, Statistics
from ldmctl.latents.reader import Latents
from ldmctl.storage import weights
from ldmctl.training.engine import Engine

COUNT, SHARD, BATCH, BATCHES = 100_000, 16_384, 256, 200
PARTS_OF_SPEECH = [
    row.split(",")
    for row in (
        ",a photograph of,a painting of,close-up of,black and white photo of",
        "a,one,the,two,some,his,her",
        "small,old,red,wooden,happy,yellow,tired,large,striped,young,silver,round,empty,green",
        "dog,bicycle,woman,kitchen,train,clock,horse,sandwich,giraffe,surfer,bench,umbrella,child,bus,vase,player,elephant,laptop",
        "standing,lying,parked,seen,running,waiting,sitting,placed,moving,resting",
        "beside,in front of,on top of,behind,under,next to,near,across from",
        "a,the,an old,another,a tall,a broken,a white",
        "tree,building,river,table,fence,car,lake,window,wall,road,field,mountain,bridge,stove,bed,crowd,airport,skateboard",
        ",in the rain,at night,during summer,on a sunny day,with people watching,in winter,before dinner",
    )
]
HOST = Engine(torch.device("cpu"), torch.float32)
OWN = "RssAnon"  # what is mapped from files of the cache is not a process's own
TORCH_ALONE = f"""
import torch, json
line = next(line for line in open("/proc/self/status") if line.startswith("{OWN}"))
print(json.dumps({{"own": int(line.split()[1]) / 1024}}))
"""


def main() -> None:
    """Write the items, then each measurement in a process of its own."""
    options = argparse.ArgumentParser()
    options.add_argument("--encoder", required=True, help="folder of a text encoder")
    options.add_argument("--read", type=int, default=2048, help="captions that go through it")
    options.add_argument("--print", action="store_true", help="show the result and keep nothing")
    options.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.part:
        kind, folder = asked.part
        print(json.dumps(PARTS[kind](Path(folder), asked)))
        return
    machine = describe()
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))
        alone = json.loads(child("-c", TORCH_ALONE))["own"]
        found: dict[str, Any] = {"captions": COUNT, "batch": BATCH, "read": asked.read, "encoder": Path(asked.encoder).name}
        for kind in ("words", "text", "text_kept"):
            said = json.loads(child(__file__, "--encoder", asked.encoder, "--read", str(asked.read), "--part", kind, name))
            found[kind] = {**said, "private_mib_above_torch": round(said.pop("own") - alone, 1)}
    if asked.print:
        print(json.dumps(found, indent=2))
    else:
        keep("captions", found, machine)


def child(*words: str) -> str:
    """The last line that a fresh process prints."""
    done = subprocess.run([sys.executable, *words], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()[-1]


def sentences(count: int) -> list[str]:
    """So many different captions, as people write them under photographs."""
    draw, found = random.Random(0), {}
    while len(found) < count:
        words = [draw.choice(row) for row in (*PARTS_OF_SPEECH, *(PARTS_OF_SPEECH[4:] if draw.random() < 0.3 else ()))]
        found[" ".join(filter(None, words))] = None
    return list(found)


def make(folder: Path) -> None:
    """A cache of the smallest latents there are, with a caption of each item."""
    captions, shards = sentences(COUNT), []
    for number, first in enumerate(range(0, COUNT, SHARD)):
        part = captions[first : first + SHARD]
        path = folder / f"train-{number:05d}.safetensors"
        labels = torch.full((len(part),), -1)
        weights.save(path, {"moments": torch.zeros(len(part), 1, 1, 1).half(), "labels": labels}, {"kind": "latents", "split": "train"})
        write_items(path.with_suffix(".items.jsonl"), [Item(f"{first + row}.png", text, -1) for row, text in enumerate(part)])
        shards.append(Shard(file=path.name, count=len(part), sha256="", crc32=[0] * (-(-len(part) // 1024))))
    manifest = Manifest(
        format=manifests.FORMAT,
        moments=(1, 1, 1),
        latent=(1, 1, 1),
        dtype="float16",
        flipped=False,
        statistics=Statistics(mean=[0.0], deviation=[1.0]),
        classes=[],
        label_counts=[],
        data=None,
        image={},
        autoencoder={"type": "identity", "fingerprint": ""},
        fingerprint="",
        splits={"train": shards},
    )
    (folder / "latents.json").write_text(manifest.model_dump_json())


def captions_in(folder: Path) -> list[tuple[str, ...]]:
    """Of every item of the cache."""
    return conditions.captions_of(Latents(folder, manifests.read(folder), "train"))


def conditioner(kind: str, captions: list[str], **keys: Any) -> tuple[Any, dict[str, float]]:
    """(a conditioner fitted to captions, what that took)."""
    config, plugin = plugin_config("conditioner", {"type": kind, **keys}), registry.load("conditioner", kind)
    began = now()
    fitted = plugin.fit(config, captions)
    return plugin(config, fitted=fitted), spent(began)


def now() -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    return time.perf_counter(), time.process_time()


def spent(since: tuple[float, float]) -> dict[str, float]:
    """The same since then."""
    clock, processor = (after - before for before, after in zip(since, now(), strict=True))
    return {"seconds": round(clock, 2), "processor_seconds": round(processor, 2)}


def learned(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Of the conditioner `words`."""
    every = [text for (text,) in captions_in(folder)]
    made, fitting = conditioner("words", every)
    return {"fit": fitting, **started(folder, made), "own": own()}


def reading(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Of the conditioner `text`, the first time."""
    some = captions_in(folder)[: asked.read]
    made, opening = conditioner("text", [], encoder=asked.encoder)
    began = now()
    conditions.prepare_captions(made, folder, some, HOST, Console(quiet=True))
    took = spent(began)
    return {
        "open": opening,
        "read": took,
        "captions_per_processor_second": round(len(some) / took["processor_seconds"], 1),
        "processor_minutes_for_all": round(COUNT * took["processor_seconds"] / len(some) / 60, 2),
        "own": own(),
    }


def kept(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Of the conditioner `text`, when all captions are kept."""
    every = [text for (text,) in captions_in(folder)]
    made, _ = conditioner("text", [], encoder=asked.encoder)
    place = folder / conditions.FOLDER / f"text-{made.fingerprint[:16]}"
    fill(folder, place, every)
    made.release()
    files = list(place.glob("*.safetensors"))
    disk = sum(file.stat().st_size for file in files)
    again = json.loads(child(__file__, "--encoder", asked.encoder, "--part", "start", str(folder)))
    return {"disk_mib": round(disk / 2**20, 1), "shards": len(files), **again}


def fill(folder: Path, place: Path, every: list[str]) -> None:
    """Rows for all captions that have none, of those that there are in turn."""
    there = prepared.opened(place)
    keys = [prepared.key_of(text) for text in every]
    have, lack = [key for key in keys if key in there], [key for key in keys if key not in there]
    for first in range(0, len(lack), conditions.TOGETHER):
        part = lack[first : first + conditions.TOGETHER]
        rows = [there.row(have[(first + row) % len(have)]) for row in range(len(part))]
        prepared.write(place, rows, part, [False] * len(part))


def start(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Of a process that finds all captions kept."""
    made, _ = conditioner("text", [], encoder=asked.encoder)
    made.release()
    return {**started(folder, made), "own": own()}


def started(folder: Path, made: Any) -> dict[str, Any]:
    """What it takes until the first batch can be drawn, and what a batch takes."""
    began = now()
    found = captions_in(folder)
    reading, began = spent(began), now()
    source = conditions.Captions(conditions.prepare_captions(made, folder, found, HOST, Console(quiet=True)), found)
    finding, batches = spent(began), []
    for step in range(BATCHES):
        items = torch.randint(len(found), (BATCH,), generator=torch.Generator().manual_seed(step))
        began = now()
        source.known(items)
        batches.append([1000 * (after - before) for before, after in zip(began, now(), strict=True)])
    clock, processor = (round(statistics.median(row), 2) for row in zip(*batches[1:], strict=True))
    return {"read_items": reading, "find_captions": finding, "batch": {"milliseconds": clock, "processor_milliseconds": processor}}


def own() -> float:
    """MiB of this process alone, as it is now."""
    return next(int(line.split()[1]) / 1024 for line in Path("/proc/self/status").open() if line.startswith(OWN))


PARTS = {"words": learned, "text": reading, "text_kept": kept, "start": start}

if __name__ == "__main__":
    main()
