"""What may change when a run is resumed changes on two ranks as on one, and in any precision that this machine has."""

import json

import pytest
import torch
from two_ranks import together

from ldmctl.storage import weights

FIRST = ["loop.steps=2", "loop.batch=8", "loop.lr=1e-4", "loop.warmup=1", "loop.clip=null", "preview.count=1"]
THEN = ["loop.steps=5", "loop.batch=4", "loop.lr=3e-5", "loop.warmup=1", "loop.clip=0.5", "loop.ema=0.5", "preview.count=1"]


def record(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_changes_hold_on_two_ranks_as_on_one_and_are_said_once(tmp_path, fit_diffusion, vae_cache, parallel):
    for words in (FIRST, THEN):
        fit_diffusion(tmp_path / "one", vae_cache, *words)
        codes, said = together("fit-diffusion", tmp_path / "two", f"latents={vae_cache}", f"machine.parallel={parallel}", *words)
        assert codes == [0, 0], said
    told = "\n".join(said)
    assert all(told.count(f"loop.{key} changes from") == 1 for key in ("lr", "batch", "clip", "ema")), told
    assert record(tmp_path / "two")["changes"] == record(tmp_path / "one")["changes"] and len(record(tmp_path / "one")["changes"]) >= 4
    one, two = (weights.load(tmp_path / name / "model.safetensors")[0] for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("fp32", "bf16"), ("bf16", "bf16"), ("bf16", "fp32")])
def test_changes_hold_in_another_precision_and_the_state_stays_in_float32(tmp_path, fit_diffusion, vae_cache, before, after):
    fit_diffusion(tmp_path, vae_cache, *FIRST, f"machine.precision={before}")
    first, _ = weights.load(tmp_path / "state.safetensors")
    fit_diffusion(tmp_path, vae_cache, *THEN, f"machine.precision={after}")
    last, header = weights.load(tmp_path / "state.safetensors")
    changed = [each["key"] for each in record(tmp_path)["changes"]]
    assert {"loop.lr", "loop.batch", "loop.clip", "loop.ema"} <= set(changed) and ("machine.precision" in changed) == (before != after)
    assert header["scalars"]["step"] == 5 and set(first) == set(last)
    assert all(value.dtype == first[name].dtype and value.isfinite().all() for name, value in last.items())
    rates = [row["lr"] for row in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()) if "lr" in row]
    assert max(rates[:2]) <= 1e-4 and max(rates[2:]) <= 3e-5


def test_a_gpus_precision_is_refused_on_a_cpu_and_the_run_stays(tmp_path, fit_diffusion, vae_cache):
    from ldmctl.errors import ConfigError

    fit_diffusion(tmp_path, vae_cache, *FIRST)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(ConfigError, match="fp16 is for GPUs; on a CPU take bf16 or fp32"):
        fit_diffusion(tmp_path, vae_cache, *THEN, "machine.precision=fp16")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
