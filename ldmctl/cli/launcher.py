"""Between `--devices N` and its ranks: torchrun, without its own words and tracebacks, which ends when the command does.

`python -m ldmctl.cli.launcher PARENT ARGUMENTS_OF_TORCHRUN...`, started by `ldmctl.cli.ranks` alone.
"""

import logging
import os
import sys

from ldmctl.cli import ranks
from ldmctl.cli.following import follow


def main(parent: int, words: list[str]) -> int:
    """Start the ranks and wait for them -> 0, or 1 with the first failure left for the command."""
    follow(parent)
    os.environ[ranks.LAUNCHER] = str(os.getpid())
    logging.disable(logging.ERROR)  # what a rank has to say it says itself, and the command says it once
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.run(run.parse_args(words))
    except ChildFailedError as error:
        in_order = sorted(error.failures.items(), key=lambda each: each[1].timestamp)  # in seconds
        ranks.note_failures([(rank, failure.exitcode) for rank, failure in in_order])
        return 1
    except SignalException as end:
        return 128 + end.sigval
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
