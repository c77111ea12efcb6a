"""The command line in processes of its own: one, or two that are ranks of one run."""

import os
import socket
import subprocess
import sys
from pathlib import Path

TINY = Path(__file__).parent / "tiny"


def start(verb, out, *words, program=("-m", "ldmctl"), **environment):
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, *program, verb, "--config", str(TINY / f"{verb}.yaml"), "--out", str(out), *words],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(verb, out, *words, program=("-m", "ldmctl")):
    """Two ranks of one run, as torchrun starts them -> their exit codes and last words."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [start(verb, out, *words, program=program, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    return [rank.returncode for rank in ranks], said
