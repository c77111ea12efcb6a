"""What a discriminator learns, what it teaches, when and how loudly.

First the autoencoder trains without it; from `start` on the discriminator
learns alone; after its warm-up the autoencoder hears it, at first softly.
Losses read lists of maps of logits, each map counted equally.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from ldmctl.config.schemas.fit_ae import Adversarial
from ldmctl.errors import ConfigError
from ldmctl.losses.advantage import Advantage
from ldmctl.losses.balance import Balance
from ldmctl.losses.diffaugment import augment
from ldmctl.losses.plateau import Plateau
from ldmctl.losses.regularizers import LeCam, r1_penalty

# kind: loss of logits of real pictures, of fake ones, and of fake ones as their maker wants them judged
LOSSES = {
    "hinge": (lambda x: relu(1 - x), lambda x: relu(1 + x), lambda x: -x),  # arXiv:1705.02894
    "vanilla": (lambda x: softplus(-x), softplus, lambda x: softplus(-x)),  # arXiv:1406.2661, not saturating
    "lsgan": (lambda x: (x - 1) ** 2, lambda x: x**2, lambda x: (x - 1) ** 2),  # arXiv:1611.04076
}


class Adversary(nn.Module):
    """The discriminator's part in a run of so many steps, without its weights. What it remembers is buffers, so that a run resumes with it.

    Steps are optimizer steps, counted from 0. `gradient` and `judgement` are called for each micro-batch, `after_step` once per step.
    """

    begun: Tensor  # the first step of the discriminator, -1 while `auto` waits
    turned: Tensor  # [2]: what its weight is multiplied by, 1 until it is turned down and 0 when it is off, and the step of that or -1

    def __init__(self, config: Adversarial, steps: int):
        super().__init__()
        self.config = config
        first = -1 if config.start == "auto" else start_step(config.start, steps)
        self.warmup, self.ramp = (in_steps(each, steps) for each in (config.warmup, config.ramp))
        self.plateau = Plateau(steps) if config.start == "auto" else None
        self.latest = (
            first if self.plateau is None else self.plateau.latest
        )  # the first step of the discriminator, or what it is without a plateau
        if self.latest + self.warmup >= steps:
            on = "on: never" if self.plateau is None else "at the latest, if adversarial.start=auto finds no plateau: never"
            raise ConfigError(
                f"The autoencoder hears its discriminator from step {self.latest + self.warmup:,} of {steps:,} {on}. "
                "Set adversarial.start or adversarial.warmup lower, or loop.steps higher."
            )
        self.register_buffer("begun", torch.tensor(first))
        self.register_buffer("turned", torch.tensor([1.0, -1.0]))
        self.balance = Balance(
            config.balance,
            every=config.balance_every,
            smoothing=config.balance_smoothing,
            largest=config.balance_max,
            growth=config.balance_growth,
        )
        self.advantage = Advantage(config.loss)
        self.lecam = LeCam() if config.lecam else None
        self._begun: int | None = first
        self._turned: tuple[float, int] | None = (1.0, -1)

    def trains_discriminator(self, step: int) -> bool:
        """Whether the discriminator learns in this step."""
        return 0 <= self._first() <= step and self.volume > 0

    def starts_after(self, step: int) -> bool:
        """Whether the next step is the discriminator's first."""
        return self._first() == step + 1

    def weight(self, step: int) -> float:
        """The weight of its opinion in this step: 0 in its warm-up, then rising to `adversarial.weight`; less where it was turned down."""
        heard = step - self._first() - self.warmup + 1
        if not self.trains_discriminator(step) or heard <= 0:
            return 0.0
        return self.volume * self.config.weight * min(heard / max(self.ramp, 1), 1.0)

    @property
    def heard_after(self) -> int:
        """How many steps are done when the autoencoder first hears it; -1 while `auto` waits."""
        return self._first() + self.warmup if self._first() >= 0 else -1

    @property
    def volume(self) -> float:
        """What its weight is multiplied by: 1, less after it was turned down, 0 when it was turned off."""
        return self._turns()[0]

    @property
    def turned_down_at(self) -> int | None:
        """The step after which it was turned down, None if it was not."""
        step = self._turns()[1]
        return step if step >= 0 else None

    def turn(self, volume: float, step: int) -> None:
        """Multiply its weight by `volume` after this step; 0 ends the adversarial phase."""
        self.turned.copy_(torch.tensor([volume, float(step)]))
        self._turned = None

    def generator_loss(self, discriminator: nn.Module, made: Tensor) -> Tensor:
        """The loss of a reconstruction [B,C,H,W] before a discriminator that does not learn from it."""
        return generator_loss(self.config.loss, discriminator.requires_grad_(False)(augment(made, self.config.augment)))

    def gradient(
        self,
        losses: Mapping[str, Tensor],
        weights: Mapping[str, float],
        made: Tensor,
        *,
        step: int,
        share: float = 1.0,
        scale: float | Tensor = 1.0,
        last_layer: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(gradient of all losses at the reconstruction, facts), as `Balance.gradient` has it."""
        return self.balance.gradient(losses, weights, made, step=step, share=share, scale=scale, last_layer=last_layer, heard=self.heard())

    def heard(self) -> Tensor | float:
        """The part of its weight that the discriminator gets in this step, in [0, 1], by its advantage."""
        return self.advantage.heard(self.config.advantage) if self.config.advantage else 1.0

    def notice(self, loss: Tensor, share: float) -> None:
        """The loss on the picture, a scalar, of a micro-batch that is `share` of this rank's batch: what `auto` watches."""
        if self.plateau is not None and self._first() < 0:
            self.plateau.add(loss, share)

    def discriminator_loss(
        self,
        network: Callable[[Tensor], list[Tensor]],
        made: Tensor,
        image: Tensor,
        *,
        step: int,
        share: float = 1.0,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
        again: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(the discriminator's own loss, facts) of a micro-batch that is `share` of this rank's: one forward over real and made pictures
        together, the made ones without gradient.

        In every `r1_every`-th step it is in float32 throughout, because a gradient of a gradient needs its digits. Pictures that are shown
        `again` in a step, for a further update, tell nothing of its advantage and move no average.
        """
        made = made.detach()
        penalized = self.config.r1 > 0 and step % self.config.r1_every == 0 and not again
        if penalized:
            image = image.detach().clone().requires_grad_()
        with nullcontext() if penalized else autocast():
            maps = network(augment(torch.cat([image, made]), self.config.augment))
        real, fake = [each.chunk(2)[0] for each in maps], [each.chunk(2)[1] for each in maps]
        loss, facts = discriminator_loss(self.config.loss, real, fake), discriminator_facts(real, fake)
        if not again:
            self.advantage.add(loss, share)
        facts["advantage"] = self.advantage.said(loss)
        if penalized:
            penalty = r1_penalty(real, image)
            loss = loss + self.config.r1 * self.config.r1_every * penalty
            facts["r1"] = penalty.detach()
        if self.lecam is not None:
            penalty = self.lecam.penalty(real, fake)
            if not again:
                self.lecam.note(real, fake)
            loss = loss + self.config.lecam * penalty
            facts["lecam"] = penalty.detach()
        return loss, facts

    def after_step(self, step: int) -> bool:
        """Takes in the step on all ranks; whether `auto` has just decided that the discriminator starts with the next one."""
        self.balance.after_step()
        self.advantage.after_step()
        if self.lecam is not None and self.trains_discriminator(step):
            self.lecam.after_step()
        if self.plateau is None or self._first() >= 0 or not self.plateau.after_step(step):
            return False
        self.begun.fill_(step + 1)
        self._begun = step + 1
        return True

    def _first(self) -> int:
        if self._begun is None:
            self._begun = int(self.begun)
        return self._begun

    def _turns(self) -> tuple[float, int]:
        if self._turned is None:
            volume, step = self.turned.tolist()  # once, not at every step: it would wait for the device
            self._turned = float(volume), int(step)
        return self._turned

    def _load_from_state_dict(self, *given: object, **more: object) -> None:
        super()._load_from_state_dict(*given, **more)  # type: ignore[arg-type]
        self._begun = self._turned = None


def discriminator_loss(kind: str, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Mean of the losses on real and on fake pictures, float32 scalar; the fakes were made without gradient."""
    of_real, of_fake, _ = LOSSES[kind]
    return (_mean([of_real(x.float()) for x in real]) + _mean([of_fake(x.float()) for x in fake])) / 2


def generator_loss(kind: str, fake: Sequence[Tensor]) -> Tensor:
    """How far the maker of these pictures is from passing them off as real, float32 scalar; its scale means nothing."""
    return _mean([LOSSES[kind][2](x.float()) for x in fake])


def discriminator_facts(real: Sequence[Tensor], fake: Sequence[Tensor]) -> dict[str, Tensor]:
    """Mean logits, detached: equal ones mean that it cannot tell them apart."""
    means = {"logits_real": real, "logits_fake": fake}
    return {name: _mean([x.detach().float() for x in maps]) for name, maps in means.items()}


def start_step(start: int | float, steps: int) -> int:
    """The step at which the discriminator starts, given as a step or as a share of the run; a ConfigError when that is never."""
    step = min(in_steps(start, steps), steps - 1) if 0 < start < 1 else int(start)
    if step >= steps:
        raise ConfigError(
            f"The discriminator starts at step {step:,} of {steps:,}: never. "
            "Set adversarial.start lower (0.5 is half of any run), loop.steps higher, or discriminator: null."
        )
    return step


def in_whole_steps(config: Adversarial, steps: int) -> Adversarial:
    """The same with `start`, `warmup` and `ramp` in steps."""
    start = config.start if config.start == "auto" else start_step(config.start, steps)
    return config.model_copy(update={"start": start, "warmup": in_steps(config.warmup, steps), "ramp": in_steps(config.ramp, steps)})


def in_steps(value: int | float, steps: int) -> int:
    """A number of steps, given as such or, below 1, as a share of the run."""
    return round(value * steps) if 0 < value < 1 else int(value)


def _mean(maps: Sequence[Tensor]) -> Tensor:
    return torch.stack([x.mean() for x in maps]).mean()
