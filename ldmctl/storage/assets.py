"""Where pictures and published weights are looked for, and how weights are fetched. Without torch.

Data: relative paths below LDMCTL_DATA (default ./data), then below the current
folder. Weights: the path a config gives, LDMCTL_WEIGHTS_DIR, torch hub's cache.
What is missing is an error that names every place and every way out.
"""

import hashlib
import http.client
import os
import secrets
import sys
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ldmctl.console import terminal
from ldmctl.errors import DataNotFound, MissingError

CHUNK = 1 << 18  # bytes
TIMEOUT = 30  # seconds without an answer


@dataclass(frozen=True)
class Weights:
    """A published file of weights; `sha256` may be its first digits, as torch writes them into names."""

    name: str
    url: str
    sha256: str
    purpose: str
    also: tuple[str, ...] = ()  # other names that the same weights are known by


WEIGHTS = (
    Weights("vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth", "397923af", "LPIPS (VGG16)"),
    Weights(
        "squeezenet1_0-b66bff10.pth",
        "https://download.pytorch.org/models/squeezenet1_0-b66bff10.pth",
        "b66bff10",
        "the perceptual distance `features` (SqueezeNet)",
        ("squeezenet1_0-imagenet.safetensors",),
    ),
)
LPIPS_HEADS = "functional/image/lpips_models/vgg.pth"  # inside torchmetrics


# -- data --------------------------------------------------------------------


def data_root() -> Path:
    """The folder below which relative data paths are looked for first."""
    return Path(os.environ.get("LDMCTL_DATA") or "data").expanduser()


def data_places(candidates: str | Iterable[str]) -> list[Path]:
    """Every path that `find_data` would look at, in order."""
    names = [candidates] if isinstance(candidates, str) else list(candidates)
    paths = [Path(name).expanduser() for name in names]
    return list(dict.fromkeys(place for path in paths for place in ([path] if path.is_absolute() else [data_root() / path, path])))


def find_data(candidates: str | Iterable[str], *, source: str = "", layout: str = "") -> Path:
    """The first candidate that exists; DataNotFound with every place, the layout expected and the source when none does."""
    places = data_places(candidates)
    if (found := next((place for place in places if place.exists()), None)) is not None:
        return found
    lines = ["No data found. Looked for:", *(f"  {place.absolute()}" for place in places)]
    lines += [f"Expected there: {layout}."] if layout else []
    lines += [f"How to get it: {source}"] if source else []
    lines += [f"Relative paths are looked for below LDMCTL_DATA (now {data_root().absolute()}), then in the current folder."]
    raise DataNotFound("\n".join(lines))


# -- weights -----------------------------------------------------------------


def offline() -> bool:
    """Whether nothing may be downloaded: LDMCTL_OFFLINE is set, and not to 0."""
    return os.environ.get("LDMCTL_OFFLINE", "").lower() not in ("", "0", "false", "no")


def hub_folder() -> Path:
    """Torch hub's cache of weights, as torch.hub computes it."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser() / "hub" / "checkpoints"


def weights_places(name: str) -> list[Path]:
    """Where a file of weights is looked for when no config names it, in order."""
    own = os.environ.get("LDMCTL_WEIGHTS_DIR")
    folders = [*([Path(own).expanduser()] if own else []), hub_folder()]
    return [folder / each for folder in folders for each in _names(name)]


def find_weights(name: str, *, url: str | None = None, sha256: str | None = None, given: str | Path | None = None) -> Path:
    """Path of a file of weights, downloaded into torch hub's cache if need be; MissingError when it cannot be had.

    `given` is a file, or a folder that holds `name`; it is trusted, and never passed over when it is missing.
    """
    known = next((item for item in WEIGHTS if item.name == name), None)
    if known is not None:
        url, sha256 = url or known.url, sha256 or known.sha256
    if given is not None:
        path = Path(given).expanduser()
        places = [path / each for each in _names(name)] if path.is_dir() else [path]
    else:
        places = weights_places(name)
    if (found := next((place for place in places if place.is_file()), None)) is not None:
        return found
    if given is not None:
        raise MissingError(_missing(name, places, url, "The config names a file that is not there, and nothing else is taken instead."))
    if url is None:
        raise MissingError(_missing(name, places, url, "No official source is known for it."))
    if offline():
        raise MissingError(_missing(name, places, url, "Downloads are switched off (LDMCTL_OFFLINE or --offline)."))
    try:
        return download(url, hub_folder() / name, sha256=sha256)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise MissingError(_missing(name, places, url, f"The download failed: {error}")) from None


def weights_report() -> list[tuple[Weights, Path | None]]:
    """Every file of weights that ldmctl itself may ask for and fetch, and where it is."""
    return [(item, next((place for place in weights_places(item.name) if place.is_file()), None)) for item in WEIGHTS]


def lpips_heads() -> Path | None:
    """The learned heads of LPIPS v0.1 for VGG16, a file inside the installed torchmetrics."""
    spec = find_spec("torchmetrics")  # found, not imported: its import would pull in torchvision
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((file for folder in folders if (file := Path(folder) / LPIPS_HEADS).is_file()), None)


def _names(name: str) -> tuple[str, ...]:
    return name, *next((item.also for item in WEIGHTS if item.name == name), ())


def download(url: str, path: Path, *, sha256: str | None = None) -> Path:
    """Fetch a file, all or nothing; ValueError when its checksum does not begin with `sha256`. A bar on a terminal only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    request = urllib.request.Request(url, headers={"User-Agent": "ldmctl"})
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # with the rights that the umask leaves, not tempfile's
    try:
        with partial.open("xb") as file, urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            total = int(answer.headers.get("Content-Length") or 0) or None
            digest, size = _copy(answer, file, path.name, total)
        if total is not None and size != total:
            raise ValueError(f"{size:,} of {total:,} bytes arrived")
        if sha256 is not None and not digest.startswith(sha256.lower()):
            raise ValueError(f"its SHA-256 is {digest}, where {sha256} was expected")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _copy(answer: http.client.HTTPResponse, file: object, title: str, total: int | None) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal(), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=total)
        while block := answer.read(CHUNK):
            file.write(block)  # type: ignore[attr-defined]
            digest.update(block)
            size += len(block)
            progress.update(task, completed=size)
    return digest.hexdigest(), size


def _missing(name: str, places: list[Path], url: str | None, why: str) -> str:
    lines = [f"The weights {name} are missing. {why}", "Looked for:", *(f"  {place.absolute()}" for place in places), "Ways out:"]
    ways = []
    if url is not None:
        ways.append(f"download {url}\n  and put it at {hub_folder() / name}")
        ways += ["unset LDMCTL_OFFLINE and leave out --offline, so that it is downloaded there"] if offline() else []
    ways += [f"set LDMCTL_WEIGHTS_DIR to a folder that holds {name}", "give the path of the file in the config"]
    return "\n".join([*lines, "  " + "\n  or ".join(ways)])
