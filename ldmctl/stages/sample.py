"""From noise to pictures: one PNG per seed, the same bytes whatever else is made with it.

Several ranks share the seeds, a batch each in turn; the first one writes what shows or holds them all. Nothing here grows with their number
but the list of those that are missing.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ldmctl.config.schemas.sample import Sample
from ldmctl.console import Console
from ldmctl.diffusion.cautions import cautions
from ldmctl.diffusion.grouping import together
from ldmctl.diffusion.task import Task, describe, look_around, undertake
from ldmctl.diffusion.trace import SHOWN, write_trace
from ldmctl.diffusion.wanted import shares
from ldmctl.errors import LdmctlError, Stopped
from ldmctl.pictures.album import KEY, Found, file_of, remove, shelves_in
from ldmctl.pictures.images import read
from ldmctl.pictures.npz import write_npz
from ldmctl.pictures.png import write_png
from ldmctl.pictures.recorded import ORIGIN, SUMS, Recorded, likeness, sums_of
from ldmctl.pictures.sheet import places, sheet
from ldmctl.pictures.writing import Writing
from ldmctl.signals import Signals
from ldmctl.storage.folder import make_folder
from ldmctl.storage.leftovers import sweep
from ldmctl.training import engine as engines


def sample(config: Sample, out: str | Path, *, console: Console, overwrite: bool = False, again: Recorded | None = None) -> dict[str, Any]:
    """Make the pictures that are asked for in the folder `out`, and grid.png beside them; those that are there already are kept.

    A file there that ldmctl did not make is a MismatchError, pictures that are not finite a DivergedError. So are pictures of another
    model or other settings, unless `overwrite`, which deletes them. With `again` the one picture is that of this file, byte for byte.
    """
    # Build the parts.
    engine = engines.start(config.machine)
    task = undertake(config, engine, again)
    config, model, asked = task.config, task.model, task.asked
    for sentence in cautions(config, model, asked.seeds) if engine.leads else ():
        console.warn(sentence)

    # Find what is still to be made.
    folder = Path(out).expanduser()
    fresh = not folder.exists()
    make_folder(folder)
    missing, others = found_by_first(task, folder, overwrite=overwrite)
    if others:
        many = f"{len(others)} pictures" if len(others) > 1 else "a picture"
        console.say(f"--overwrite deletes {many} of another model, other settings or other labels in {folder}.")

    # Make it, a batch at a time on each rank.
    there, done = len(asked) - len(missing), 0
    began = time.monotonic()
    with Signals(console.say) as signals, console.bar("sampling", len(asked), done=there) as bar, Writing() as files:
        while done < len(missing):
            size = together(config, model, len(missing) - done, asked.ask(missing[done]))
            turn = missing[done : done + size * engine.world]
            mine = turn[size * engine.rank :][:size]
            with evaluations(model.network.denoiser) as calls:
                pictures, bad = model.make(config, [asked.seeds[place] for place in mine], [asked.ask(place) for place in mine])
            if bad := engine.joined(bad):
                files.finish()
                if fresh and not done and engine.leads:
                    with suppress(OSError):
                        folder.rmdir()
                model.refuse(bad, config)
            if others and not done:
                if engine.leads:
                    remove(folder, others)
                engine.barrier()
            for place, picture in zip(mine, pictures, strict=True):
                text = task.text(place)
                sums = {} if again and again.sums is None else {SUMS: sums_of(text, picture)}
                files.write(file_of(folder, asked.seeds[place], shelved=task.shelved), picture, {KEY: text, **sums})
            done += len(turn)
            bar.advance(there + done, amount=done, facts={"evaluations/image": calls[0]})
            if engine.any(signals.asked) and done < len(missing):
                files.finish()
                how = "Run the same command to continue." if not overwrite else "Run the same command without --overwrite to continue."
                raise Stopped(f"Stopped after {done} of {len(missing)} pictures, which are in {folder}. {how}")
        files.finish()
    seconds = time.monotonic() - began

    # Say where.
    engine.barrier()
    answer: dict[str, Any] = {"samples": str(folder), "grid": str(folder / "grid.png"), "count": len(asked), "made": len(missing)}
    if engine.leads:
        put_together(task, folder, console)
    engine.barrier()
    rate = ""
    if missing:
        answer |= {"images_per_second": round(len(missing) / seconds, 3), "evaluations": calls[0]}
        rate = f", {len(missing) / seconds:.3g} images/s, {calls[0]} evaluation{'s' * (calls[0] != 1)} for each"
    if config.npz:
        answer["npz"] = str(folder / "samples.npz")
    if again is not None:
        answer["same"], how = likeness(again, file_of(folder, asked.seeds[0], shelved=False))
        (console.say if answer["same"] else console.warn)(how)
    if rows := shares(asked, partial(model.title, config=config)):
        console.say(rows)
    many = f"{len(asked)} pictures are" if len(asked) > 1 else "1 picture is"
    console.say(f"{many} in {folder} ({len(missing)} made now{rate}), all together in {folder / 'grid.png'}.")
    if config.prompt is not None:
        answer["prompts"] = [asked.ask(place).prompt for place in range(len(asked))]
    return answer | {"seeds": list(asked.seeds), "labels": [model.name_of(asked.label(place), config) for place in range(len(asked))]}


def found_by_first(task: Task, folder: Path, *, overwrite: bool) -> Found:
    """What the first rank finds in a folder, or the error that it raises, on every rank; what a killed command left half written is deleted."""

    def found() -> Found | LdmctlError:
        for place in (folder, *shelves_in(folder)):
            sweep(place)
        try:
            return look_around(task, folder, overwrite=overwrite)
        except LdmctlError as error:
            return error

    if isinstance(there := engines.on_all(task.model.engine, found), LdmctlError):
        raise there
    return there


def put_together(task: Task, folder: Path, console: Console) -> None:
    """Write the grid of the first pictures and, if wanted, one file of all, and how the first came about."""
    config, model, asked, settings = task.config, task.model, task.asked, task.settings
    channels = int(model.header["image"]["channels"])

    def picture(place: int) -> Tensor:
        return read(file_of(folder, asked.seeds[place], shelved=True), channels=channels)

    rows = len(asked.rows)
    shown = [asked.seeds[place] for place in places(len(asked), rows) if place is not None]
    about = {"rows": [model.title(row, config) for row in asked.rows]} if rows else {}
    text = {KEY: describe({"grid": shown, **about, **settings}), ORIGIN: describe({"run": config.run, "ae": config.ae})}
    write_png(folder / "grid.png", sheet(len(asked), rows, picture), text)
    if config.npz:
        everything = map(picture, range(len(asked)))
        write_npz(
            folder / "samples.npz", everything, (len(asked), *picture(0).shape[1:], channels), describe({"npz": len(asked), **settings})
        )
    if config.trace:
        first = range(min(SHOWN, len(asked)))
        seeds, asks = [asked.seeds[place] for place in first], [asked.ask(place) for place in first]
        if left_out := write_trace(model, config, seeds, asks, folder, describe({"trace": seeds, **settings})):
            console.warn(left_out)


@contextmanager
def evaluations(network: nn.Module) -> Iterator[list[int]]:
    """How often the network is asked meanwhile, in a list of one."""
    calls = [0]

    def count(*_: object) -> None:
        calls[0] += 1

    hook = network.register_forward_pre_hook(count)
    try:
        yield calls
    finally:
        hook.remove()
