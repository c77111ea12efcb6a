"""The keys of `ldmctl sample`."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from ldmctl.config.base import Config, Free, PluginConfig, Slot
from ldmctl.config.editing import REPEATS, Guiding, Painting
from ldmctl.config.levels import Spacing
from ldmctl.config.schemas.shared import Coding
from ldmctl.config.seeds import parse_seeds

Side = Annotated[int, Field(ge=4, le=4096)]


def of_painting(raw: Mapping[str, Any]) -> str | None:
    """The sampler of `repaint` as it was published, since it takes the same step several times and `unipc` builds each on those before it."""
    painting = raw.get("painting")
    return "ddpm" if isinstance(painting, Mapping) and painting.get("method") == "repaint" else None


class Decoding(Coding):
    """Where pictures are made."""

    devices: PositiveInt = Field(
        1, description="processes on this machine, one device each, which share the pictures", json_schema_extra=Free
    )


class Sample(Config):
    """ldmctl sample: pictures from a trained denoiser."""

    verb: ClassVar[str] = "sample"
    run: str = Field("runs/ldm", description="run folder of fit-diffusion, or runs/ldm@STEP, runs/ldm@best")
    ae: str | None = Field(
        None, description="run folder of fit-ae whose decoder is used, such as one of train=decoder; null: that of the latents themselves"
    )
    count: PositiveInt = Field(16, description="how many pictures (-n)")
    seed: NonNegativeInt = Field(0, description="seed of the first picture; the next ones count up")
    seeds: str | None = Field(None, description="in place of seed and count: numbers and ranges, such as 0-63,100")
    each: PositiveInt | None = Field(None, description="pictures of each label that is asked for, in place of count")
    sampler: Annotated[PluginConfig, Slot("sampler", default="unipc", beside=of_painting)]
    steps: PositiveInt = Field(20, description="steps of the sampler per picture; most evaluate the network once in each")
    spacing: Spacing = Spacing()
    label: list[str] | None = Field(
        None,
        description="classes, taken in turn: a name, class:NAME, index:N counted from 0 (plain N where no class has a number for its name), "
        "`none` for no class, or `all` for every class in turn, those of `token` among them; null: drawn as in the data",
    )
    prompt: list[str] | None = Field(
        None,
        description="words, taken in turn; `a red circle :0.6 | a blue star :0.4` mixes what is heard of them, \\| and \\: stand for themselves",
    )
    token: list[str] | None = Field(
        None, description="files of fit-token, each with a word that prompts may then say, or a class that label may name"
    )
    map: str | None = Field(
        None, description="a map to paint by, or a folder of them, taken in turn by seed, for models that listen to maps"
    )
    picture: str | None = Field(
        None, description="a picture to follow, or a folder of them, taken in turn by seed, for models that listen to pictures (lowres)"
    )
    guidance: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="classifier-free guidance: 0 unconditional, 1 plain, more follows what is asked for harder",
    )
    guiding: Guiding = Guiding()
    negative: str | None = Field(
        None, description="a class, or words, to go away from, where guidance otherwise goes away from no class and no words"
    )
    autoguide: str | None = Field(
        None, description="run folder of fit-diffusion, or a snapshot, of a weaker model to go away from (arXiv:2406.02507)"
    )
    start: str | None = Field(None, description="a picture to start from, or a folder of them, taken in turn by seed (--from)")
    strength: float | None = Field(
        None,
        ge=0,
        le=1,
        description="the time to start at, and so how much may change: 0 returns the picture through the autoencoder, 1 is a fresh sample; "
        "null: 0.6, with a mask 1",
    )
    mask: str | None = Field(None, description="a picture that is white where `start` is painted anew, of its size or of the model's")
    outpaint: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt, NonNegativeInt] | None = Field(
        None, description="pixels left, above, right and below of `start` that are painted; the picture gets the rest of the size"
    )
    painting: Painting = Painting()
    guide: Annotated[tuple[PluginConfig, ...], Slot("guide", many=True)] = Field(
        (), description="what pictures should be like, by losses that correct each step: a guide, or a list of several"
    )
    size: tuple[Side, Side] | None = Field(
        None, description="width and height of the pictures, pixels (WxH); null: as the model was trained"
    )
    interpolate: tuple[NonNegativeInt, NonNegativeInt] | None = Field(
        None, description="two seeds: the pictures go from the noise of one to that of the other"
    )
    between: Annotated[int, Field(ge=2)] | None = Field(
        None, description="how many pictures make the whole way of interpolate, of which `count` are made; null: as many"
    )
    trace: int | tuple[int, ...] = Field(
        0,
        description="how many steps of the first pictures are shown in trace.png, beside trace.gif and trace.webp; 0 for none of them; or "
        "which steps are shown in all three, a list counted from 1",
    )
    batch: PositiveInt | None = Field(
        None,
        description="pictures per forward; short batches are padded so that bytes depend on the seed alone; null: 16 on a CPU, on a GPU 16 to "
        "64, fewer of larger latents",
    )
    npz: bool = Field(False, description="also write samples.npz, uint8 [N,H,W,C] as arr_0, which FID tools read")
    machine: Decoding = Decoding()

    @field_validator("spacing", mode="before", json_schema_input_type=str | list[float] | Spacing)
    @classmethod
    def _named_or_spelled_out(cls, spacing: Any) -> Any:
        return spacing

    @field_validator("prompt", "token", mode="before", json_schema_input_type=str | list[str] | None)
    @classmethod
    def _one_prompt_or_many(cls, prompt: Any) -> Any:
        return prompt if prompt is None or isinstance(prompt, list) else [str(prompt)]

    @field_validator("run", "ae", "map", "picture", "autoguide", "start", "mask")
    @classmethod
    def _names_something(cls, place: str | None) -> str | None:
        if place == "":  # as a path it would be the folder that the command runs in
            raise ValueError("the name is empty: name a file or a folder, or leave it away")
        return place

    @property
    def level(self) -> float:
        """The time to start at: `strength`, or its default."""
        paints = self.mask is not None or self.outpaint is not None
        return self.strength if self.strength is not None else 1.0 if paints or self.start is None else 0.6

    @field_validator("size", mode="before", json_schema_input_type=str | list[int] | None)
    @classmethod
    def _width_by_height(cls, size: Any) -> Any:
        if size is None or isinstance(size, list | tuple):
            return size
        if len(sides := str(size).lower().split("x")) != 2:
            raise ValueError("write WIDTHxHEIGHT, such as 64x32")
        return sides

    @field_validator("outpaint", mode="before", json_schema_input_type=str | list[int] | None)
    @classmethod
    def _four_margins(cls, outpaint: Any) -> Any:
        if outpaint is None or isinstance(outpaint, list | tuple):
            return outpaint
        if len(margins := str(outpaint).split(",")) != 4:
            raise ValueError("write LEFT,TOP,RIGHT,BOTTOM, such as 8,0,8,0")
        return margins

    @field_validator("trace", mode="before", json_schema_input_type=NonNegativeInt | str | list[PositiveInt])
    @classmethod
    def _so_many_or_these(cls, trace: Any) -> Any:
        if not (isinstance(trace, list | tuple) or (isinstance(trace, str) and "," in trace)):
            if not isinstance(trace, int | str) or not str(trace).isdecimal():
                raise ValueError("write how many steps, such as 8, or which, such as [1, 5, 20]")
            return trace
        words = [str(each).strip() for each in (trace.split(",") if isinstance(trace, str) else trace)]
        steps = tuple(int(word) if word.isascii() and word.isdecimal() else 0 for word in words)
        if not steps or 0 in steps or any(one >= other for one, other in pairwise(steps)):
            raise ValueError("steps are counted from 1 and rise, each named once, such as [1, 5, 20]")
        return steps

    @model_validator(mode="after")
    def _edits_a_picture(self) -> Self:
        if self.outpaint is not None and not any(self.outpaint):
            raise ValueError("outpaint=0,0,0,0 paints nothing: one of LEFT,TOP,RIGHT,BOTTOM is above 0, or leave it away")
        if self.start is None and (named := [key for key in ("mask", "outpaint", "strength") if getattr(self, key) is not None]):
            raise ValueError(f"{named[0]} needs a picture to start from: --from IMAGE (start=IMAGE)")
        if self.mask is None and self.outpaint is None and self.painting != Painting():
            raise ValueError("painting needs a part to paint: --mask MASK, or --outpaint LEFT,TOP,RIGHT,BOTTOM")
        if self.painting.repeats != REPEATS and self.painting.method != "repaint":
            raise ValueError(f"painting.repeats belongs to painting.method=repaint, and the method is {self.painting.method}")
        return self

    @model_validator(mode="after")
    def _goes_from_one_seed_to_another(self) -> Self:
        if self.interpolate is None and self.between is not None:
            raise ValueError("between counts the pictures of interpolate, which is not asked for")
        if self.interpolate is None:
            return self
        if self.between is None and self.count < 2:
            raise ValueError("interpolate goes from one seed to another: take -n 2 or more")
        if self.interpolate[0] == self.interpolate[1]:
            raise ValueError(f"interpolate goes from one seed to another, and both are {self.interpolate[0]}")
        if self.seed != 0:
            raise ValueError("interpolate names its seeds itself: leave seed away")
        if len(self.label or []) > 1:
            raise ValueError("interpolate goes between seeds of one label: name one")
        if self.each is not None:
            raise ValueError("interpolate counts its pictures by -n (count): leave each away")
        if self.seeds is not None and self.between is None:
            raise ValueError("with interpolate, seeds are places on the way, counted from 0: say by between how many there are")
        last = self.count - 1 if self.seeds is None else max(each[-1] for each in parse_seeds(self.seeds).ranges)
        if self.between is not None and last >= self.between:
            raise ValueError(f"place {last} lies beyond between={self.between}: the way has the places 0 to {self.between - 1}")
        return self

    @model_validator(mode="after")
    def _guidance_has_an_effect(self) -> Self:
        asked = {"autoguide": self.autoguide, "negative": self.negative, "guiding": self.guiding != Guiding() or None}
        if self.autoguide is not None and 0 < self.guidance < 1:
            raise ValueError(f"guidance={self.guidance:g} goes towards the weaker model of autoguide: take more than 1")
        if self.guidance in (0, 1) and (named := [key for key, value in asked.items() if value is not None]):
            raise ValueError(f"{named[0]} does nothing at guidance={self.guidance:g}: take another, such as guidance=2, or leave it away")
        if self.guiding.zero_steps >= self.steps:
            raise ValueError(f"guiding.zero_steps={self.guiding.zero_steps} leaves none of steps={self.steps} to move in")
        if self.autoguide is not None and self.negative is not None:
            raise ValueError("autoguide and negative both say what to go away from: leave one away")
        return self

    @field_validator("seeds", mode="before", json_schema_input_type=str | int | list[str | int] | None)
    @classmethod
    def _numbers_and_ranges(cls, seeds: Any) -> Any:
        return seeds if seeds is None else str(parse_seeds(",".join(map(str, seeds)) if isinstance(seeds, list) else str(seeds)))

    @model_validator(mode="after")
    def _says_once_how_many(self) -> Self:
        for one, others in {"seeds": ("seed", "count", "each"), "each": ("count",)}.items():
            for other in others:
                if getattr(self, one) is not None and getattr(self, other) is not None and other in self.model_fields_set:
                    raise ValueError(
                        f"{one}={getattr(self, one)} and {other}={getattr(self, other)} both say which pictures to make; leave one of them away"
                    )
        if self.each is not None and not self.label and not self.prompt:
            raise ValueError(
                f"each={self.each} counts pictures of each label or prompt, and none is asked for; name labels, take label=all, or give prompts"
            )
        return self

    @field_validator("label", mode="before", json_schema_input_type=str | int | list[str | int] | None)
    @classmethod
    def _one_or_many(cls, label: Any) -> Any:
        labels = label if isinstance(label, list) else [label]
        words = {None: "none", True: "true", False: "false"}  # as YAML writes them
        return None if label is None else [words[each] if each is None or isinstance(each, bool) else str(each) for each in labels]
