"""What a tracker promises: to take what is reported, and to leave it as it is."""

import tempfile
from pathlib import Path
from typing import Any

import torch

from ldmctl.pictures import png
from ldmctl.testing.promises import calling, expect, maker, promise


@promise("tracker")
def check_tracker(cls: type, /, **options: Any) -> None:
    """Two runs into one folder, the second going on from the first."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "samples" / "000001.png"
        png.write_png(picture, torch.zeros(3, 8, 8, dtype=torch.uint8))
        content = picture.read_bytes()
        for first in (0, 2):
            tracker = maker(cls, options, run=Path(folder))()
            scalars = {"loss": 0.5, "denoiser/gradient": 1.0}
            with calling("log, image or close"):
                tracker.log(first, scalars)
                tracker.image(first + 1, picture)
                tracker.log(first + 1, {"loss": float("nan")})
                tracker.close()
            expect(scalars == {"loss": 0.5, "denoiser/gradient": 1.0}, "log changes the numbers it is given")
            expect(picture.is_file() and picture.read_bytes() == content, "image changes the picture it is given")
