"""Disks that are full or fail, folders that may not be touched, and things in the way."""

import ctypes
import errno
import os
import resource
import shutil
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import faults_child
import faults_kills
import faults_moments
from faults_seen import ALONE, Seen, last_line

READS = {
    "pictures": 3,
    "ae": 6,
    "vq": 6,
    "cache": 6,
    "ldm": 6,
    "ae.yaml": 2,
    "gan.yaml": 2,
    "ldm.yaml": 2,
}  # the code where it may not be read
FULL = ("could not be written", "make room")


# -- the disk ------------------------------------------------------------------------


def full_disk(made: Path, folder: Path, random: Random, mounted: list[Path]) -> Seen:
    """A small tmpfs, full at any write; then there is room."""
    recipe = random.choice(ALONE)
    whole = made / "whole" / recipe.name / recipe.out
    faults_kills.reference(made, recipe.name)
    work = faults_kills.lay_out(made, folder, recipe)
    there = sum(pages(file) for file in (work / recipe.out).rglob("*")) if (work / recipe.out).exists() else 0
    most = sum(pages(file) for file in whole.rglob("*"))
    size = there + 8 + round(random.random() * (most - there + 8) * 1.1)
    aside = work / "aside"
    if there:
        (work / recipe.out).rename(aside)
    (work / recipe.out).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size * 4}k", "tmpfs", str(work / recipe.out)], check=True)
    mounted.append(work / recipe.out)
    if there:
        shutil.copytree(aside, work / recipe.out, dirs_exist_ok=True)
        shutil.rmtree(aside)
    outcome = faults_child.run(recipe.words, work)
    subprocess.run(["mount", "-o", "remount,size=64m", str(work / recipe.out)], check=True)
    return Seen(recipe, f"a disk of {size * 4} KiB for {recipe.out}", [outcome], (0, 6), FULL)


def pages(file: Path) -> int:
    """Of 4 KiB that a file takes."""
    return 1 + file.stat().st_size // 4096


def failing(made: Path, folder: Path, random: Random, mounted: list[Path]) -> Seen:
    """One change to a file that fails, whatever the reason; then it works."""
    recipe = random.choice(ALONE)
    turn = random.randrange(faults_kills.reference(made, recipe.name)["events"][0])
    number = random.choice([errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN])
    work = faults_kills.lay_out(made, folder, recipe)
    outcome = faults_child.run(recipe.words, work, hook=raising(work, turn, number))
    return Seen(recipe, f"change {turn + 1} fails with {errno.errorcode[number]}", [outcome], (0, 6))


def failing_rename(made: Path, folder: Path, random: Random, mounted: list[Path]) -> Seen:
    """One rename that fails; then they work."""
    recipe = random.choice(ALONE)
    number = random.choice([errno.EACCES, errno.EBUSY, errno.EIO, errno.ESTALE, errno.EXDEV])
    turn = random.randrange(8)
    work = faults_kills.lay_out(made, folder, recipe)
    outcome = faults_child.run(recipe.words, work, hook=raising(work, turn, number, only="os.rename"))
    return Seen(recipe, f"rename {turn + 1} fails with {errno.errorcode[number]}", [outcome], (0, 6))


def raising(work: Path, turn: int, number: int, only: str = "") -> Any:
    """A hook by which change number `turn` of a kind fails, once."""
    seen = [0]

    def act(event: str, path: str) -> None:
        if only in ("", event):
            seen[0] += 1
            if seen[0] == turn + 1:
                raise OSError(number, os.strerror(number), path or None)

    return faults_moments.each_change(work, act)


def large_file(made: Path, folder: Path, random: Random, mounted: list[Path]) -> Seen:
    """A limit on the size of files, as ulimit -f sets it; then there is none."""
    recipe = random.choice(ALONE)
    size = random.choice([4000, 8000, 20_000, 50_000, 100_000])  # what is said goes to a file too
    work = faults_kills.lay_out(made, folder, recipe)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    (work / "tmp").mkdir()
    outcome = faults_child.run(recipe.words, work, before=limit)
    return Seen(recipe, f"files of {size} bytes at most", [outcome], (0, 6), FULL)


# -- what may not be touched -----------------------------------------------------------


def obey() -> None:
    """In a child of root: permissions count, as for anyone."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    if libc.capget(header, data):
        raise OSError(ctypes.get_errno(), "capget")
    data[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def read_only(made: Path, folder: Path, random: Random, mounted: list[Path]) -> Seen:
    """A folder that may not be written to, by its permissions or by its mount."""
    recipe = random.choice(ALONE)
    work = faults_kills.lay_out(made, folder, recipe)
    out = work / recipe.out
    out.mkdir(exist_ok=True)
    how = random.choice(["permissions", "mount", "parent"])
    if how == "mount":
        subprocess.run(["mount", "--bind", str(out), str(out)], check=True)
        mounted.append(out)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(out)], check=True)
    elif how == "permissions":
        for each in [out, *(path for path in out.rglob("*") if path.is_dir())]:
            each.chmod(0o555)
    else:
        shutil.move(out, work / "aside")
        (work / "tmp").mkdir()
        (work / faults_child.SAID).write_text("")
        work.chmod(0o555)
    outcome = faults_child.run(recipe.words, work, before=obey)
    work.chmod(0o755)
    if how == "parent":
        shutil.move(work / "aside", out)
    if how == "mount":
        subprocess.run(["mount", "-o", "remount,bind,rw", str(out)], check=True)
    for each in [out, *(path for path in out.rglob("*") if path.is_dir())]:
        each.chmod(0o755)
    codes = (6, 0) if how == "parent" and recipe.out in recipe.beside else (6,)
    return Seen(recipe, f"{recipe.out} may not be written to ({how})", [outcome], codes)


def unreadable(made: Path, folder: Path, random: Random, mounted: list[Path]) -> Seen:
    """A folder or file that may not be read: it is called neither missing nor damaged."""
    recipe = random.choice(ALONE)
    work = faults_kills.lay_out(made, folder, recipe)
    name = random.choice(recipe.beside)
    inside = sorted(
        path for path in (work / name).rglob("*") if path.suffix in (".safetensors", ".json", ".png", ".jsonl", ".yaml") or path.is_dir()
    )
    path = random.choice(inside) if inside and random.random() < 0.6 else work / name
    mode = path.stat().st_mode
    path.chmod(0)
    outcome = faults_child.run(recipe.words, work, before=obey)
    path.chmod(mode)
    where = str(path.relative_to(work))
    codes = (READS[name],) if path == work / name else (0, READS[name], 6)
    left_out = (
        ("*",) if name == "pictures" and not outcome.code else ()
    )  # a cache without some pictures takes them up later, in other shards
    seen = Seen(recipe, f"{where} may not be read", [outcome], codes, aside=left_out)
    if (
        outcome.code
        and not outcome.traceback
        and ("missing" in outcome.said or "damaged" in outcome.said)
        and "ermission" not in outcome.said
    ):
        seen.faults.append(("sentence", f"{recipe.words[0]}: {last_line(outcome.said)}", outcome.said[-2000:]))
    return seen


def in_the_way(made: Path, folder: Path, random: Random, mounted: list[Path]) -> Seen:
    """A file, a dangling link, a link to itself or somebody's folder where --out is to be."""
    recipe = random.choice([each for each in ALONE if each.out == "out"])
    work = faults_kills.lay_out(made, folder, recipe)
    out, what = work / "out", random.choice(["a file", "a link to itself", "a pipe", "somebody's folder"])
    if what == "a file":
        out.write_text("mine\n")
    elif what == "a link to itself":
        out.symlink_to(out)
    elif what == "a pipe":
        os.mkfifo(out)
    else:
        out.mkdir()
        (out / "thesis.txt").write_text("mine\n")
    outcome = faults_child.run(recipe.words, work)
    codes = (6,) if what != "somebody's folder" or recipe.words[0] != "sample" else (0,)
    seen = Seen(recipe, f"{what} is where out is to be", [outcome], codes)
    if what == "somebody's folder" and (not (out / "thesis.txt").exists() or (out / "thesis.txt").read_text() != "mine\n"):
        seen.faults.append(("lost", "somebody's file", ""))
    shutil.rmtree(out) if out.is_dir() and not out.is_symlink() else out.unlink()
    return seen
