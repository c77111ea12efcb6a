"""What was promised of a command in a place that fails, and what was seen."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from faults_child import Outcome
from faults_kills import RECIPES, Recipe

WORK = "work"  # folder of a trial, below the one that --work names
THEN = [recipe for recipe in RECIPES if recipe.since == 1]  # places have their numbers of these
ALONE = [recipe for recipe in THEN if recipe.world == 1]
RUNS = [recipe for recipe in ALONE if recipe.name not in ("sample", "ema")]  # with a lock


@dataclass
class Seen:
    """What a trial did and saw."""

    recipe: Recipe
    how: str
    outcomes: list[Outcome]
    codes: Sequence[int]  # promised
    words: tuple[str, ...] = ()  # promised, of any code but 0
    after: Sequence[int] = (0,)  # of the same command when the place is mended
    aside: tuple[str, ...] = ()  # files that may be others afterwards; "*": all
    faults: list[tuple[str, str, str]] = field(default_factory=list)


def judged(seen: Seen) -> list[tuple[str, str, str]]:
    """What is wrong with how the commands ended."""
    out = list(seen.faults)
    for outcome in seen.outcomes:
        if outcome.hung:
            out.append(("hang", "still running", outcome.said[-2000:]))
        elif outcome.traceback:
            out.append(("traceback", f"{seen.recipe.words[0]}: {last_line(outcome.said)}", outcome.said[-5000:]))
        elif outcome.code not in seen.codes:
            out.append(
                (
                    "code",
                    f"{seen.recipe.words[0]}: {outcome.code}, where {' or '.join(map(str, seen.codes))} is promised",
                    outcome.said[-3000:],
                )
            )
        elif outcome.code not in (0, 75, 130) and seen.words and not any(word in outcome.said for word in seen.words):
            out.append(("sentence", last_line(outcome.said), outcome.said[-3000:]))
    return out


def last_line(said: str) -> str:
    """The last thing that was said, without numbers of processes."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    line = next(
        (line for line in reversed(lines) if line.startswith(("error:", "This is a bug"))), lines[-1] if lines else "nothing was said"
    )
    line = re.sub(r"^This is a bug in [^:]*:", "a bug:", line.removeprefix("error: "))
    line = re.sub(rf"'?/[^ ']*/{WORK}/", "", line)
    return re.sub(r"[0-9]+", "N", re.sub(r"\.tmp\w{6}", ".tmp and random letters", line))[:120]
