"""`ldmctl quickstart` runs the whole chain in an empty folder, without network or weights."""

import json
import os
import subprocess
import sys

import pytest

SHORT = "loop.steps=30 loop.batch=16 steps=5"  # of both fits, and of sampling; in full it takes minutes (benchmarks/quickstart.py)


def quickstart(folder, *words):
    env = os.environ | {"LDMCTL_OVERRIDES": SHORT, "LDMCTL_OFFLINE": "1"}
    command = [sys.executable, "-m", "ldmctl", "quickstart", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.slow
def test_quickstart_goes_from_nothing_to_samples_and_the_same_command_keeps_them(tmp_path):
    first = quickstart(tmp_path, "--json")
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert set(found) == {"out", "seconds", "fit-ae", "eval-lpips", "encode-dataset", "fit-diffusion", "sample", "sentence"}
    assert found["fit-ae"]["steps"] == found["fit-diffusion"]["steps"] == 30
    assert found["eval-lpips"]["psnr"]["mean"] > 8
    assert set(found["sentence"]["prompts"]) == {"a blue star on a dark background"} and found["sentence"]["made"] == 16
    assert found["sample"]["made"] == 64 and (tmp_path / "quickstart" / "samples" / "grid.png").is_file()
    assert len(list((tmp_path / "quickstart" / "samples").glob("[0-9]*.png"))) == 64

    again = quickstart(tmp_path)
    assert again.returncode == 0, again.stderr
    assert (
        "0 made now" in again.stderr
        and "$ ldmctl fit-ae --data shapes" in again.stderr
        and "Next, write a sentence of your own" in again.stderr
    )
