"""A first stage whose validation losses are made up: every second step, double from step 20 to step 30. As a program, the command line with them."""

import sys
from collections.abc import Callable

from ldmctl.stages import fit_ae as stage
from ldmctl.training import watch

BEST = 18  # the step of the lowest loss


def plant(put: Callable[[object, str, object], None] = setattr, until: int = 30, **curves: Callable[[int], float]) -> None:
    """Replace what validates by the curve, whose last high loss is at step `until`; `curves` are others, functions of the step."""
    validates, steps = stage.Training.validates, []

    def due(training, step):
        found = validates(training, step)
        if found:
            steps.append(step + 1)
        return found

    def validate(*_):
        count = steps[-1] // 2
        loss = 2.0 if BEST < steps[-1] <= until else 1 - 0.01 * min(count, BEST // 2)
        others = {f"val/{name}": curve(steps[-1]) for name, curve in curves.items()}
        return {"val/pixel": loss, "val/loss": loss, "val/psnr": 20.0, **others}

    put(watch, "APART", 2)
    put(stage.Training, "validates", due)
    put(stage, "validate", validate)


if __name__ == "__main__":
    plant()
    from ldmctl.cli.app import run

    sys.exit(run())
