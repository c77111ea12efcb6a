"""Pictures to begin samples with, prepared as a run's own data is, and what of them may be painted."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as Pillow
from torch import Tensor

from ldmctl.config.schemas.shared import Image
from ldmctl.errors import ConfigError, DataError, with_article
from ldmctl.pictures.album import shelves_in
from ldmctl.pictures.images import pad_to, prepare, to_tensor
from ldmctl.pictures.pillow import FILTER, load, opened
from ldmctl.pictures.said import is_sheet
from ldmctl.pictures.stored_maps import frame_of

HALF = 128  # grey from which a mask is white


@dataclass(frozen=True)
class Canvas:
    """Pictures taken in turn, each on a sheet of `size` with margins that are free, and a mask of the sheet."""

    pictures: Sequence[Any]  # files, or pictures in memory
    image: Image
    size: tuple[int, int]  # width and height of the sheet
    margins: tuple[int, int, int, int] = (0, 0, 0, 0)  # left, top, right, bottom
    free: Tensor | None = None  # bool [H,W], what is painted; None: nothing is kept as it is

    @property
    def inner(self) -> tuple[int, int]:
        """Width and height of the picture on the sheet."""
        left, top, right, bottom = self.margins
        return self.size[0] - left - right, self.size[1] - top - bottom

    def picture(self, seed: int) -> Tensor:
        """uint8 [C,H,W], the picture for a seed; the nearest of its pixels in the margins."""
        given = self.pictures[seed % len(self.pictures)]
        inner = fitted(opened(given) if isinstance(given, Path) else given, self.inner, self.image)
        left, top, right, bottom = self.margins
        return F.pad(inner[None].float(), (left, right, top, bottom), mode="replicate")[0].to(torch.uint8)


def open_canvas(
    start: Any, mask: Any, image: Mapping[str, Any], *, size: tuple[int, int] | None = None, margins: Sequence[int] | None = None
) -> Canvas:
    """The canvas of a picture, a folder or a list of them, and of a mask, files or in memory.

    `image` says how the run's own pictures were prepared. What cannot be read, and a mask that does not fit, is a DataError.
    """
    settings = Image.model_validate(image).model_copy(update={"crop": "center"})
    pictures = listed(start)
    sheet = size or (settings.size, settings.size)
    canvas = Canvas(pictures, settings, sheet, tuple(margins or (0, 0, 0, 0)))  # type: ignore[arg-type]
    if min(canvas.inner) < 2:
        raise ConfigError(f"outpaint={','.join(map(str, canvas.margins))} leaves no room for the picture on {sheet[0]}x{sheet[1]} pixels.")
    free = torch.ones(sheet[1], sheet[0], dtype=torch.bool)
    left, top = canvas.margins[:2]
    inner = free[top : top + canvas.inner[1], left : left + canvas.inner[0]]
    if mask is not None:
        whole, given = mask_of(mask, canvas)
        inner[:] = (
            given[top : top + canvas.inner[1], left : left + canvas.inner[0]] if whole else given
        )  # margins are painted whatever it says
    else:
        inner[:] = False
    if mask is None and margins is None:
        return canvas
    if not free.any():
        raise DataError(
            f"{named(mask)} is black everywhere, that is below {HALF} of 255, so there is nothing to paint: white is what is painted. Transparency "
            "is not looked at."
        )
    if free.all():
        raise DataError(
            f"{named(mask)} is white everywhere, that is {HALF} of 255 or more, so nothing of the picture is kept. Leave it away, or paint some of it "
            "black."
        )
    return Canvas(pictures, settings, sheet, canvas.margins, free)


def listed(start: Any, purpose: str = "to start from") -> list[Any]:
    """The pictures that a path, or what is in memory, stands for; all are looked at, by their headers.

    A DataError names one that is none, or says that there are none for this `purpose`.
    """
    if isinstance(start, str | Path):
        path = Path(start).expanduser()
        if not path.exists():
            raise DataError(f"There is no picture or folder {path} {purpose}.")
        files = (
            [path] if path.is_file() else sorted(file for each in (path, *shelves_in(path)) for file in _pictures_in(each)) or _below(path)
        )
        if not files:
            raise DataError(f"The folder {path} holds no picture {purpose}.")
        for file in files:
            with opened(file):
                pass
        return files
    many = list(start) if isinstance(start, list | tuple) or (isinstance(start, Tensor | np.ndarray) and start.ndim == 4) else [start]
    if not many:
        raise DataError(f"The list of pictures {purpose} is empty.")
    if odd := [each for each in many if not isinstance(each, str | Path | Pillow.Image | Tensor | np.ndarray)]:
        raise DataError(f"A picture {purpose} is a path, a Pillow image or uint8 [C,H,W], and not {with_article(type(odd[0]).__name__)}.")
    return [Path(each).expanduser() if isinstance(each, str) else each for each in many]


def _below(folder: Path) -> list[Path]:
    """The pictures of a folder's sub-folders, such as `train` and `val`, at any depth, sorted."""
    places = [
        each for each in folder.rglob("*") if each.is_dir() and not any(part.startswith(".") for part in each.relative_to(folder).parts)
    ]
    return sorted(file for place in places for file in _pictures_in(place))


def _pictures_in(folder: Path) -> list[Path]:
    """The pictures of one folder, without what ldmctl made to show several."""
    known = Pillow.registered_extensions()
    return [file for file in folder.iterdir() if file.suffix.lower() in known and file.is_file() and not is_sheet(file)]


def fitted(picture: Any, size: tuple[int, int], settings: Image) -> Tensor:
    """uint8 [C,H,W] of `size` = (width, height): as large as covers it, the middle of it."""
    width, height = size
    if width == height:
        return prepare(picture, settings.model_copy(update={"size": width}))
    image = load(
        picture,
        channels=settings.channels,
        background=settings.background,
        enough=max(size),
        profile=settings.profile,
        max_pixels=settings.max_pixels,
    )
    return to_tensor(covering(image, size, FILTER))


def covering(image: Pillow.Image, size: tuple[int, int], way: Pillow.Resampling) -> Pillow.Image:
    """A picture as large as covers `size` = (width, height), the middle of it."""
    width, height = size
    scale = max(width / image.width, height / image.height)
    image = image.resize((max(width, round(image.width * scale)), max(height, round(image.height * scale))), way)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def mask_of(mask: Any, canvas: Canvas) -> tuple[bool, Tensor]:
    """(whether it is of the whole sheet, bool [H,W]): white is True. It has the size of the sheet or of the pictures as they are stored.

    A pixel with some white in it is white, so that a thin line stays.
    """
    if isinstance(mask, str | Path) and not Path(mask).expanduser().exists():
        raise DataError(f"There is no mask {mask}.")
    given = opened(mask) if isinstance(mask, str | Path) else in_memory(mask)
    grey = load(given, channels=1, background="black", profile="keep")
    if grey.size == canvas.size:
        return True, to_tensor(grey)[0] >= HALF
    sizes = {upright(each) for each in canvas.pictures}
    if sizes != {grey.size}:
        stored = " or ".join(sorted(f"{width}x{height}" for width, height in sizes)[:3])
        raise DataError(
            f"{named(mask)} is {grey.size[0]}x{grey.size[1]} pixels, the picture {stored}. A mask has the size of the picture it lies on, "
            f"or {canvas.size[0]}x{canvas.size[1]}, which is what the model makes."
        )
    white = grey.point(lambda level: level >= HALF).convert("F")  # whose mean over a pixel is not rounded to 0
    return False, torch.from_numpy(np.array(covering(white, canvas.inner, Pillow.Resampling.BOX))) > 0


def in_memory(mask: Any) -> Any:
    """A mask as a Pillow image, or uint8 [C,H,W]; a DataError for what is none."""
    if not isinstance(mask, Tensor | np.ndarray):
        return mask
    array = torch.as_tensor(mask)
    if array.dtype not in (torch.bool, torch.uint8) or array.ndim not in (2, 3):
        raise DataError(
            f"The mask is {str(array.dtype).removeprefix('torch.')} {list(array.shape)}: it must be bool or uint8, [H,W] or [1,H,W]."
        )
    if array.dtype == torch.uint8 and array.numel() and int(array.max()) == 1:
        raise DataError("The mask holds 0 and 1 as uint8, of which none is white: white is 255, or True in a mask of bool.")
    array = array.to(torch.uint8) * 255 if array.dtype == torch.bool else array
    return array[None] if array.ndim == 2 else array


def upright(picture: Any) -> tuple[int, int]:
    """(width, height) of a picture as it is seen."""
    return frame_of(opened(picture) if isinstance(picture, Path) else picture, None).upright


def named(mask: Any) -> str:
    """The mask in a sentence."""
    return f"The mask {mask}" if isinstance(mask, str | Path) else "The mask"


def digest(given: Any, purpose: str = "to start from") -> str:
    """SHA-256 of pictures, maps or a mask, of their files or of what is in memory: another one makes other samples."""
    found = hashlib.sha256()
    for each in listed(given, purpose):
        if isinstance(each, Path):
            found.update(hashlib.sha256(each.read_bytes()).digest())
        else:
            array = np.ascontiguousarray(np.asarray(each.cpu() if isinstance(each, Tensor) else each))
            found.update(repr((array.shape, str(array.dtype))).encode() + array.tobytes())
    return found.hexdigest()


def filled(image: Tensor, free: Tensor) -> Tensor:
    """[B,C,H,W] whose free pixels (bool [H,W]) continue what is around them, so that an encoder sees nothing of what was there."""
    kept = (~free).to(image)[None, None]
    levels = [(image * kept, kept.expand(len(image), 1, -1, -1))]
    while min(levels[-1][0].shape[-2:]) > 1:
        levels.append(tuple(F.avg_pool2d(pad_to(each, 2), 2) for each in levels[-1]))  # type: ignore[arg-type]
    picture = torch.zeros_like(levels[-1][0])
    for colours, weight in reversed(levels):
        around = F.interpolate(picture, size=colours.shape[-2:], mode="bilinear", align_corners=False)
        picture = torch.where(weight > 0, colours / weight.clamp(min=1e-6), around)
    return torch.where(free, picture, image)


def feathered(free: Tensor, pixels: int) -> Tensor:
    """How much of what was made is seen, float [1,1,H,W]: 1 where it is free, falling to 0 over so many pixels around it."""
    grown = [free.float()[None, None]]
    for _ in range(pixels):
        grown.append(F.max_pool2d(grown[-1], 3, stride=1, padding=1))
    return torch.stack(grown).mean(0)
