"""An exception in a plugin's code names the plugin, its package and the line; what is nobody's fault passes as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ldmctl import api
from ldmctl.cli.app import run
from ldmctl.errors import PluginError
from ldmctl_plugins.samplers.ddim import DDIM

SAMPLER = """
class Ralston:
    Config = Plain
    def __init__(self, config):
        {made}
    def __call__(self, denoise, x, sigmas, noise):
        {called}
"""
STEP = "return denoise(x, sigmas[0])"
TINY = Path(__file__).parents[1] / "tiny"
DATASET = """
class Still:
    class Config(PluginConfig):
        pass
    def __init__(self, config, *, split):
        self.classes = ["cat", "dog"]
    def __len__(self):
        return 8
    def __getitem__(self, index):
        {read}
    def stamp(self, index):
        return str(index)
"""
PICTURE = "torch.full((3, 16, 16), 30 * index, dtype=torch.uint8)"


def fit_ae_words(out, *more):
    return ["fit-ae", "--config", TINY / "fit-ae.yaml", "--out", out, "loop.steps=2", "perceptual=null", *more]


@pytest.mark.parametrize(
    ("made", "called", "raised"),
    [
        ("raise ValueError('bad order')", STEP, "ValueError: bad order"),
        ("pass", "raise KeyError('beta')", "KeyError: 'beta'"),
        ("pass", "return denoise(x, sigmas[0]) @ torch.zeros(7)", "RuntimeError: "),
        ("pass", "return denoise(x, 'sigma')", "ValueError: could not convert"),  # what it called the host with
        ("pass", "raise SystemExit(3)", "SystemExit: 3"),
        ("pass", "raise StopIteration", "StopIteration"),
        ("self.speed = config.speed", STEP, "AttributeError: "),
    ],
)
def test_an_exception_of_a_plugin_names_it_with_its_package_and_line(install, said, sample_words, made, called, raised):
    site = install("ldmctl-ralston", "1.4", sampler={"ralston": "Ralston"}, source=SAMPLER.format(made=made, called=called))
    code, _, err = said(*sample_words, "--sampler", "ralston")
    assert code == 4 and "The sampler 'ralston' from ldmctl-ralston 1.4 raised " in err and raised in err
    assert f"{site / 'ldmctl_ralston.py'}, line " in err and "Traceback" not in err and "bug" not in err
    code, _, err = said(*sample_words, "--sampler", "ralston", "-v")
    assert code == 4 and "Traceback" in err and "in __call__" in err + ("in __call__" if made != "pass" else "")


BROKEN = """
class Broken(nn.Module):
    Config = Plain
    factor, channels, rescale = 2, 3, "channel"
    def __init__(self, config, **context):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
    def broken(self, *given, **more):
        raise KeyError("mine")
    forward = marginal = loss = encode = broken
"""


@pytest.mark.parametrize("kind", ["autoencoder", "denoiser", "perceptual", "schedule", "guide", "extractor"])
def test_whatever_its_kind_it_is_named_with_its_line(install, said, sample_words, tmp_path, vae_cache, kind):
    site = install("ldmctl-broken", "1.4", **{kind: {"broken": "Broken"}}, source=BROKEN)
    train = ["fit-diffusion", "--config", TINY / "fit-diffusion.yaml", "--latents", vae_cache, "--out", tmp_path / "ldm", "loop.steps=1"]
    words = {
        "autoencoder": fit_ae_words(tmp_path / "ae", "autoencoder={type: broken}"),
        "denoiser": [*train, "denoiser={type: broken}"],
        "perceptual": fit_ae_words(tmp_path / "ae", "perceptual={type: broken}"),
        "schedule": [*train, "schedule={type: broken}"],
        "guide": [*sample_words, "guide={type: broken}"],
        "extractor": ["eval-samples", "--samples", tmp_path / "a", "--against", tmp_path / "b", "--extractor", "broken", "--device", "cpu"],
    }[kind]
    for index in range(48 if kind == "extractor" else 0):
        (tmp_path / "ab"[index % 2]).mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (index * 5, 99, 30)).save(tmp_path / "ab"[index % 2] / f"{index}.png")
    code, _, err = said(*words)
    assert code == 4 and f"The {kind} 'broken' from ldmctl-broken 1.4 raised KeyError: 'mine'" in err, err
    line = 1 + (site / "ldmctl_broken.py").read_text().splitlines().index('        raise KeyError("mine")')
    assert f"{site / 'ldmctl_broken.py'}, line {line}" in err and "Traceback" not in err and "bug" not in err


def test_what_has_other_arguments_than_its_kind_is_named_though_none_of_its_lines_ran(install, said, sample_words):
    install("ldmctl-ralston", sampler={"ralston": "Ralston"}, source="class Ralston:\n    Config = Plain\n    def __init__(self): pass\n")
    code, _, err = said(*sample_words, "--sampler", "ralston")
    assert code == 4 and "The sampler 'ralston' from ldmctl-ralston 1.0 raised TypeError" in err and "ldmctl_ralston.py, line " in err
    source = SAMPLER.format(made="pass", called=STEP).replace("sigmas, noise", "sigmas").replace("sigmas[0]", "sigmas")
    install("ldmctl-ralston", sampler={"ralston": "Ralston"}, source=source)
    code, _, err = said(*sample_words, "--sampler", "ralston")
    assert code == 4 and "The sampler 'ralston' from ldmctl-ralston 1.0 raised TypeError" in err


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_is_named_from_a_worker_process_too_and_the_run_says_how_it_ended(install, said, tmp_path, workers):
    read = f"if index == 5: raise KeyError('name')\n        return Example({PICTURE}, 0)"
    install("zip-set", "0.3", dataset={"still": "Still"}, source=DATASET.format(read=read))
    code, _, err = said(*fit_ae_words(tmp_path / "ae", "dataset={type: still}", f"loop.workers={workers}"))
    assert code == 4 and "The dataset 'still' from zip-set 0.3 raised KeyError: 'name', at " in err and "in __getitem__" in err
    assert "Traceback" not in err
    record = json.loads((tmp_path / "ae" / "run.json").read_text())
    assert (record["exit_code"], record["status"]) == (4, "failed")


def test_with_v_the_frames_of_a_worker_are_shown(install, said, tmp_path):
    install("zip-set", "0.3", dataset={"still": "Still"}, source=DATASET.format(read="raise OSError(13, 'Permission denied')"))
    code, _, err = said(*fit_ae_words(tmp_path / "ae", "dataset={type: still}", "loop.workers=1", "-v"))
    assert code == 4 and "raised PermissionError" in err and "Traceback" in err and "zip_set.py" in err


def test_sentences_of_a_plugin_for_the_person_pass_as_they_are(install, said, tmp_path):
    source = "from ldmctl.errors import DataError, MismatchError\n" + DATASET.format(
        read="raise MismatchError('the index is of another set')"
    )
    install("zip-set", dataset={"still": "Still"}, source=source)
    for workers in (0, 1):
        code, _, err = said(*fit_ae_words(tmp_path / "ae", "dataset={type: still}", f"loop.workers={workers}"))
        assert code == 6 and err.strip().endswith("error: the index is of another set")


@pytest.mark.parametrize(
    ("called", "code"),
    [
        ("raise torch.OutOfMemoryError('CUDA out of memory')", 7),
        ("raise MemoryError", 7),
        ("raise KeyboardInterrupt", 130),
        ("raise OSError(28, 'No space left on device')", 6),
    ],
)
def test_no_memory_no_disk_and_ctrl_c_are_no_plugins_fault(install, said, sample_words, called, code):
    install("ldmctl-ralston", sampler={"ralston": "Ralston"}, source=SAMPLER.format(made="pass", called=called))
    ended, _, err = said(*sample_words, "--sampler", "ralston")
    assert ended == code and "ldmctl-ralston" not in err


def test_a_bug_of_a_plugin_that_comes_with_ldmctl_is_ours(said, sample_words, monkeypatch):
    def broken(self, denoise, x, sigmas, noise):
        return self.no_such_thing

    monkeypatch.setattr(DDIM, "__call__", broken)
    code, _, err = said(*sample_words, "--sampler", "ddim")
    assert code == 1 and "This is a bug in ldmctl's sampler 'ddim': AttributeError" in err and "Traceback" in err


def test_a_built_in_network_under_a_foreign_sampler_is_still_ours(install, said, sample_words, monkeypatch):
    from ldmctl_plugins.denoisers.unet import UNet

    def broken(self, *given):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(UNet, "forward", broken)
    install("ldmctl-ralston", sampler={"ralston": "Ralston"}, source=SAMPLER.format(made="pass", called=STEP))
    code, _, err = said(*sample_words, "--sampler", "ralston")
    assert code == 1 and "This is a bug in ldmctl" in err


def test_python_gets_the_sentence_as_an_exception_with_its_cause(install, ldm_run, tmp_path):
    install("ldmctl-ralston", sampler={"ralston": "Ralston"}, source=SAMPLER.format(made="pass", called="raise ValueError('bad order')"))
    with pytest.raises(PluginError, match=r"The sampler .ralston. from ldmctl-ralston 1\.0 raised ValueError: bad order") as caught:
        api.sample(run=ldm_run, count=1, steps=1, sampler="ralston", out=tmp_path / "out", device="cpu", precision="fp32")
    assert isinstance(caught.value.__cause__, ValueError)


def test_of_two_plugins_in_one_module_the_one_whose_method_ran_is_named(install, said, sample_words):
    source = SAMPLER.format(made="pass", called="return helper()") + SAMPLER.format(made="pass", called=STEP).replace("Ralston", "Other")
    install("two", sampler={"other": "Other", "ralston": "Ralston"}, source=source + "\ndef helper():\n    raise ValueError('deep')\n")
    run(["plugins", "show", "sampler", "other"])  # both are loaded
    code, _, err = said(*sample_words, "--sampler", "ralston")
    assert code == 4 and "The sampler 'ralston' from two 1.0 raised ValueError: deep" in err and "in helper" in err


TRACKER = """
class Wall:
    Config = Plain
    def __init__(self, config, *, run):
        {made}
    def log(self, step, scalars):
        {log}
    def image(self, step, path):
        {log}
    def close(self):
        raise RuntimeError("close")
"""


@pytest.mark.parametrize(("made", "log"), [("pass", "raise ConnectionError('no route')"), ("raise ConnectionError('no route')", "pass")])
def test_a_tracker_that_fails_costs_a_warning_and_not_the_run(install, said, tmp_path, made, log):
    install("wall", "2.0", tracker={"wall": "Wall"}, source=TRACKER.format(made=made, log=log))
    code, _, err = said(*fit_ae_words(tmp_path / "ae", "tracker={type: wall}"))
    assert code == 0 and err.count("ConnectionError: no route") == 1
    assert "warning: The tracker 'wall' from wall 2.0 " in err and "wall.py, line " in err and "Training goes on" in err
    assert len((tmp_path / "ae" / "metrics.jsonl").read_text().splitlines()) >= 2


CHATTY = "print('imported')\n" + SAMPLER.format(made="print('made')", called="print('called'); " + STEP)


def test_what_a_plugin_prints_is_not_in_the_json(install, said, sample_words):
    install("ldmctl-ralston", sampler={"ralston": "Ralston"}, source=CHATTY)
    code, out, err = said(*sample_words, "--sampler", "ralston", "--json")
    assert code == 0 and json.loads(out)["count"] == 2 and out.count("\n") == 1
    assert all(word in err for word in ("imported", "made", "called"))
    _, out, _ = said("plugins", "show", "sampler", "ralston", "--json")
    assert json.loads(out)["kind"] == "sampler"


@pytest.mark.parametrize("option", ["--json", pytest.param("--dry-run", marks=pytest.mark.slow)])
def test_nor_what_its_processes_and_c_libraries_print(install, tmp_path, option):
    read = f"import os; os.write(1, b'from C'); print('from Python', flush=True); return Example({PICTURE}, 0)"
    site = install("zip-set", dataset={"still": "Still"}, source=DATASET.format(read=read))
    words = fit_ae_words(tmp_path / "ae", "dataset={type: still}", "loop.workers=1", option, "--json")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-m", "ldmctl", *map(str, words)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) and (option == "--dry-run" or "from C" in done.stderr)
