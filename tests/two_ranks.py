"""The command line in processes of its own: one, or two that are ranks of one run."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ldmctl.storage import weights

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


def assert_alike(alone, both, parallel):
    """That the run of two ranks learned what the one of a single process learned."""
    file = {"ddp": "state.safetensors", "fsdp": "model.safetensors"}[parallel]  # the state of shared networks lies in pieces
    one, other = (weights.load(run / file)[0] for run in (alone, both))
    assert one.keys() == other.keys() and len(one) > 50
    for name in one:
        torch.testing.assert_close(other[name], one[name], atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
    losses = [
        [row["loss"] for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in row] for run in (alone, both)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
