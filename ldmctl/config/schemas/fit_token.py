"""The keys of `ldmctl fit-token`."""

from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from ldmctl.config.base import Free, Place, before
from ldmctl.config.schemas.shared import Coding, Pictures

PLACE = "{}"  # where the word stands in a template
MARKS = "|:\\"  # which mean something in a prompt


class FitToken(Pictures):
    """ldmctl fit-token: learn one word, or one class, from a few pictures, for a model that stays as it is (textual inversion, arXiv:2208.01618)."""

    verb: ClassVar[str] = "fit-token"
    run: str = Field("runs/ldm", description="run folder of fit-diffusion, or runs/ldm@STEP, runs/ldm@best", json_schema_extra=Place)
    word: str = Field(
        "<mine>",
        description="the word to learn, or the name of the class, with a sign that no other has: a word is heard wherever it stands in a prompt",
    )
    kind: Literal["word", "class"] | None = Field(
        None,
        description="what is learned: a word, for prompts, by a model that listens to captions; or a class, for --label, by one that listens "
        "to labels; null: a word, unless the model listens to labels and not to captions",
        json_schema_extra=before("word"),
    )
    init_word: str | None = Field(
        None,
        min_length=1,
        description="a word, or the name of a class, that the model knows, whose vectors the new one begins with; null: for a word `a`, for a "
        "class the mean of all that were trained",
    )
    vectors: PositiveInt = Field(
        1, description="vectors that a word is heard as; more can hold more, and fit a few pictures more closely; a class is one"
    )
    templates: tuple[str, ...] = Field(
        ("a {}", "{}"),
        min_length=1,
        description="captions of pictures that have none of their own with the word in it, drawn by step; {} stands for the word; a class is "
        "learned without any",
    )
    label: str | None = Field(
        None, description="class of the pictures of a word, for a model that was never trained on words without a label"
    )
    flip: bool = Field(False, description="also learn from the mirrored pictures")
    steps: PositiveInt = Field(300, description="optimizer steps", json_schema_extra=Free)
    batch: PositiveInt = Field(16, description="noised pictures per step")
    lr: PositiveFloat = Field(
        0.1, description="peak learning rate, as a share of the size of the numbers that it begins with; it falls to 0 along a cosine"
    )
    seed: NonNegativeInt = Field(0, description="decides order, captions and noise")
    report: PositiveInt = Field(50, description="steps between reports, at which the file is saved", json_schema_extra=Free)
    workers: NonNegativeInt | None = Field(None, description="processes that decode pictures; null: chosen", json_schema_extra=Free)
    machine: Coding = Coding()

    @field_validator("word")
    @classmethod
    def _stands_out(cls, word: str) -> str:
        if not word or any(each.isspace() or each in MARKS for each in word):
            raise ValueError("write one word, without blanks and without the signs | : \\ of mixed prompts, such as <mine>")
        if word.isalnum():
            raise ValueError(
                f"give it a sign that no other word has, such as <{word}>: a word of letters alone would also be heard inside others"
            )
        return word

    @field_validator("templates", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _one_template_or_many(cls, templates: Any) -> Any:
        return [templates] if isinstance(templates, str) else templates

    @field_validator("templates")
    @classmethod
    def _hold_the_word(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if lacking := [each for each in templates if PLACE not in each]:
            raise ValueError(f"{lacking[0]!r} has no place for the word: write {{}} where it stands, such as 'a {{}} on a table'")
        return templates

    @property
    def captions(self) -> list[str]:
        """The templates with the word in its place."""
        return [each.replace(PLACE, self.word) for each in self.templates]
