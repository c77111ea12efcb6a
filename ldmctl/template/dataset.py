"""Pictures drawn when asked for: one colour fading into another, downwards or sideways.

A data set that reads an archive must not share the open file with the worker processes that it is copied into. `__getitem__` then says

    if self.process != os.getpid():
        self.process, self.archive = os.getpid(), zipfile.ZipFile(self.path)

with `self.process, self.archive = 0, None` in the constructor, and it is sent without them:

    def __getstate__(self):
        return {**self.__dict__, "process": 0, "archive": None}

A set of pictures with maps gives `Example(picture, label, text, map)`: the map lies on its picture, a Pillow image or uint8 [H,W], None where an
item has none. `self.map_classes = ["sky", "ground"]` names the classes that its numbers stand for; without names its values are continuous, 0 to 255.
"""

import random

from PIL import Image, ImageOps
from pydantic import Field

from ldmctl.config import PluginConfig
from ldmctl.protocols import Example


class Template:
    """Gradients of two colours; the class is their direction."""

    class Config(PluginConfig):
        count: int = Field(1024, ge=1, description="pictures to train on")
        val_count: int = Field(64, ge=1, description="pictures kept for validation")
        size: int = Field(32, ge=1, description="side of the pictures, in pixels")

    def __init__(self, config: Config, *, split: str):
        self.config, self.split = config, split
        self.classes = ["downwards", "sideways"]

    def __len__(self) -> int:
        return self.config.count if self.split == "train" else self.config.val_count

    def __getitem__(self, index: int) -> Example:
        """The same picture each time: split and index alone decide it."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        draw = random.Random(f"{self.split}/{index}")
        label = draw.randrange(len(self.classes))
        grey = Image.linear_gradient("L").resize((self.config.size, self.config.size))
        if label == 1:
            grey = grey.transpose(Image.Transpose.ROTATE_90)
        first, second = ((draw.randrange(256), draw.randrange(256), draw.randrange(256)) for _ in range(2))
        return Example(ImageOps.colorize(grey, first, second), label, f"colours fading {self.classes[label]}")

    def stamp(self, index: int) -> str:
        """What decides a picture, so that a cache knows when it is another one."""
        return f"gradient 1/{self.config.size}/{self.split}/{index}"
