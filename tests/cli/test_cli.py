"""What a person at the terminal sees: sentences, exit codes, and one JSON object when asked."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ldmctl.cli.app import less_memory, run
from ldmctl.config.base import section_of
from ldmctl.config.presets import compose
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.config.schemas.verbs import VERBS
from ldmctl.errors import PluginError
from ldmctl.pictures.loading import open_pictures
from ldmctl.registry import Plugin

AE = ["autoencoder.widths=[8,8]", "autoencoder.layers=1", "autoencoder.norm_groups=4", "autoencoder.attention=false"]
LOOP = ["loop.steps=2", "loop.batch=4", "loop.report=1", "loop.save=2", "loop.preview=2", "loop.decay=constant", "loop.workers=0"]
SHAPES = ["--data", "shapes", "dataset.count=12", "dataset.val_count=3", "image.size=16"]
UNET = ["denoiser.widths=[8,8]", "denoiser.layers=1", "denoiser.norm_groups=4", "denoiser.attention=[false,false]", "denoiser.head_dim=8"]
HOST = ["--device", "cpu", "--precision", "fp32"]
FIT_AE = ["fit-ae", *SHAPES, *AE, *LOOP, *HOST]
FIT_DIFFUSION = ["fit-diffusion", *UNET, *LOOP, "preview.count=2", "preview.steps=2", *HOST]
SAMPLE = ["sample", "-n", "2", "--steps", "2", "batch=2", *HOST]
CHAIN = {"fit-ae": FIT_AE, "encode-dataset": ["encode-dataset", *HOST], "fit-diffusion": FIT_DIFFUSION, "sample": SAMPLE}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    """A folder in which the four verbs were run one after the other. Read only."""
    folder, before = tmp_path_factory.mktemp("chain"), Path.cwd()
    os.chdir(folder)
    try:
        assert [run([*words, "-q"]) for words in CHAIN.values()] == [0, 0, 0, 0]
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """An empty folder, no network, and nothing in the environment that could help."""
    monkeypatch.chdir(tmp_path)
    for name in ("LDMCTL_OVERRIDES", "LDMCTL_DATA", "LDMCTL_WEIGHTS_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"LDMCTL_OFFLINE": "1", "TORCH_HOME": str(tmp_path / "hub")}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def there(chain, tmp_path):
    """The current folder with a copy of the chain in it, free to be broken."""
    for name in ("runs", "cache", "samples"):
        shutil.copytree(chain / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def tell(capfd):
    """tell("fit-ae", ...) -> code, out (stdout) and err (stderr); there is no traceback but in a bug."""

    def command(*words):
        capfd.readouterr()
        code = run([str(word) for word in words])
        out, err = capfd.readouterr()
        assert code == 1 or "Traceback" not in err
        return SimpleNamespace(code=code, out=out, err=err)

    return command


def pictures(folder, *names, size=(20, 20), mode="RGB"):
    """Pictures of noise with these names."""
    for index, name in enumerate(names):
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 255, (size[1], size[0], 4), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
    return Path(folder)


# -- the chain ---------------------------------------------------------------


def test_four_commands_one_after_the_other_make_pictures(chain):
    assert {file.name for file in (chain / "samples").iterdir()} == {"000000.png", "000001.png", "grid.png"}
    for run_folder in ("runs/ae", "runs/ldm", "cache"):
        assert json.loads((chain / run_folder / "run.json").read_text())["status"] == "finished"


def test_every_verb_prints_one_json_object_and_nothing_else_on_stdout(there, tell):
    for verb, words in CHAIN.items():
        said = tell(*words, "--json")
        assert said.code == 0, verb
        assert isinstance(json.loads(said.out), dict) and said.out.count("\n") == 1
    said = tell("eval-lpips", "perceptual=null", "count=1", "--json", *HOST)
    assert json.loads(said.out)["psnr"]["low"] is None  # one picture has no interval, JSON no nan


def test_a_dry_run_prints_the_config_and_writes_nothing(chain, tell, monkeypatch):
    monkeypatch.chdir(chain)
    for verb, words in {**CHAIN, "eval-lpips": ["eval-lpips", "perceptual=null"]}.items():
        out = [] if verb == "eval-lpips" else ["--out", "dry"]
        assert tell(*words, *out, "--dry-run").out.strip(), verb
        assert json.loads(tell(*words, *out, "--dry-run", "--json").out)["dry_run"] is True
    assert not Path("dry").exists()


def test_quiet_says_nothing_and_a_pipe_gets_no_control_characters(there, tell):
    assert (tell(*SAMPLE, "-q").err, tell(*SAMPLE, "-q").out) == ("", "")
    said = tell(*FIT_AE, "--out", "new")
    assert "fit-ae step 2/2" in said.err and "images/s" in said.err and "ETA" in said.err
    assert not set("\x1b\r") & set(said.out + said.err)


def test_two_measurements_of_one_vae_agree_to_the_last_digit(there, tell):
    words = ["eval-lpips", "perceptual=null", "--json", *HOST]
    assert tell(*words).out == tell(*words).out


@pytest.mark.parametrize(
    ("channels", "mode", "size", "autoencoder"),
    [
        (1, "L", 30, ["--ae", "vae", *AE, "autoencoder.widths=[8,8,8]"]),
        (4, "RGBA", 28, ["--ae", "vae", *AE, "autoencoder.widths=[8,8,8,8]"]),
        (3, "RGB", 15, ["--ae", "identity"]),
    ],
)
def test_grey_alpha_odd_sizes_and_no_autoencoder_go_through_the_whole_chain(tell, channels, mode, size, autoencoder):
    pictures("ein Ordner ü", "a b.png", "ñ.png", "c.png", mode=mode)
    words = ["fit-ae", "--data", "ein Ordner ü", f"image.size={size}", f"image.channels={channels}", *autoencoder, *LOOP, *HOST]
    for command in (words, *list(CHAIN.values())[1:]):
        said = tell(*command)
        assert said.code == 0, said.err
    with Image.open("samples/000000.png") as picture:
        assert (picture.size, picture.mode) == ((size, size), mode)


def test_a_batch_larger_than_the_set_and_a_set_of_one_are_trained_on(tell):
    pictures("one", "a.png")
    assert tell("fit-ae", "--data", "one", "image.size=16", "--ae", "vae", *AE, *LOOP, *HOST).code == 0


# -- wrong usage: 2 ------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lop.steps=3"], "lop: unknown key. Did you mean 'loop'?"),
        (["loop.stps=3"], "loop.stps: unknown key. Did you mean 'steps'?"),
        (["autoencoder.width=[8]"], "autoencoder.width: unknown key. Did you mean 'widths'?"),
        (["loop.lr=-1"], "loop.lr: input should be greater than 0 (got -1)"),
        (["loop.lr=abc"], "loop.lr: input should be a valid number"),
        (["loop.steps=true"], "loop.steps: input should be a number, neither true nor false"),
        (["adversarial.start=true"], "adversarial.start: input should be a number, neither true nor false"),
        (["loop.batch=0"], "loop.batch: input should be greater than 0 (got 0)"),
        (["loop.betas=[2,3]"], "loop.betas.0: input should be less than 1 (got 2)"),
        (["image.size=-3"], "image.size: "),
        (
            ["image.background=whit"],
            "image.background: not a colour; write a name such as white, or #rrggbb. Did you mean 'white'? (got 'whit')",
        ),
        (["autoencoder=null"], "autoencoder: names no autoencoder: take one of fsq, identity, vae, vqvae"),
        (["autoencoder.type=null"], "autoencoder.type is missing: name an autoencoder, one of fsq, identity, vae, vqvae."),
        (["autoencoder={type: vae, type: vqvae}"], "the key 'type' appears twice"),
        (["autoencoder.widths=[]"], "autoencoder.widths: "),
        (["autoencoder.widths=[0]"], "autoencoder.widths.0: input should be greater than 0 (got 0)"),
        (["loop=3"], "loop: has keys of its own"),
        (["nonsense"], "'nonsense' is not KEY=VALUE"),
        (["overwrite"], "Did you mean --overwrite?"),
        (["--bogus"], "No such option: --bogus"),
        (["--device", "gpu"], "is not one of 'auto', 'cuda', 'mps', 'cpu'"),
        (["--data", "shaps"], "Did you mean 'shapes'?"),
        (["--config", "shaps"], "Did you mean 'shapes'?"),
        (["discriminator=patchgan", "adversarial.start=1000"], "The discriminator starts at step 1,000 of 2: never."),
    ],
)
def test_a_mistake_is_refused_with_what_would_be_right(tell, words, said):
    place = FIT_AE.index(words[0]) if words[0] in FIT_AE else len(FIT_AE)  # an option is given once
    told = tell(*FIT_AE[:place], *FIT_AE[place + 2 :], *words)
    assert told.code == 2 and said in told.err and told.out == ""
    assert not Path("runs").exists()


def test_wrong_usage_is_one_json_object_too(tell):
    for words, said in ((["sample", "-n", "0"], "'-n' / '--count'"), (["smaple"], "No such command"), (["sample", "sed=1"], "'seed'")):
        told = tell(*words, "--json")
        answer = json.loads(told.out)
        assert (told.code, answer["exit_code"]) == (2, 2) and said in answer["error"]


def test_a_dry_run_refuses_what_the_command_refuses(there, tell):
    shared = "loop.batch=10 cannot be shared by 3 devices; take a multiple of 3."
    for words, said in (
        ([*FIT_AE, "loop.batch=10", "--devices", "3"], shared),
        ([*FIT_DIFFUSION, "loop.batch=10", "--devices", "3"], shared),
        ([*FIT_DIFFUSION, "flip=true"], "flip=true, but cache holds no mirrored variants. Encode them: ldmctl encode-dataset flip=true"),
    ):
        told = tell(*words, "--out", "new", "--dry-run")
        assert told.code == 2 and said in told.err and not Path("new").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-n", "0"], "greater than or equal to 1"),
        (["--seed", "-1"], "greater than or equal to 0"),
        (["--label", "red circl"], "There is no label 'red circl'. Did you mean 'red circle'?"),
        (["--label", "99"], "or a number from 0 to 15, or none for no class."),
        (["label=[]"], "names nothing"),
        (["--seeds", "5-2"], "seeds: '5-2' goes backwards; write 2-5"),
        (["--seeds", "x"], "seeds: 'x' names no seeds; write numbers and ranges, such as 0-63,100"),
        (["--seeds", "0-3", "--seed", "3"], "seeds=0-3 and seed=3 both say which pictures to make; leave one of them away"),
        (["--seeds", "0-3", "-n", "4"], "seeds=0-3 and count=4 both say which pictures to make"),
        (["--each", "4"], "each=4 counts pictures of each label or prompt, and none is asked for"),
    ],
)
def test_sample_refuses_what_it_cannot_make(there, tell, words, said):
    for also in ([], ["--dry-run"]):
        told = tell("sample", *words, *also)
        assert told.code == 2 and said in told.err


def test_a_preview_is_drawn_on_a_terminal_only(there, tell):
    told = tell(*SAMPLE, "--preview")
    assert (
        told.code == 0 and "--preview draws on a terminal only, and this output is none." in told.err and "\x1b" not in told.out + told.err
    )


def test_without_words_the_help_is_shown(tell):
    told = tell()
    assert told.code == 2 and "Usage: ldmctl" in told.err
    assert tell("--help").code == tell("fit-ae", "-h").code == tell("--version").code == 0


def test_a_folder_named_by_key_is_read_like_one_named_by_flag(there, tell):
    Path("runs/ae").rename("runs/my ae")
    assert tell("encode-dataset", "run=runs/my ae", "--out", "c2", *HOST).code == 0
    Path("cache").rename("my cache")
    assert tell(*FIT_DIFFUSION, "latents=my cache", "--out", "l2").code == 0


# -- data: 3 -------------------------------------------------------------------


def test_a_folder_without_pictures_says_what_is_in_it(tell):
    Path("text").mkdir()
    Path("text/a.txt").write_text("a")
    told = tell("fit-ae", "--data", "text", *HOST)
    assert told.code == 3 and "No pictures were found" in told.err and "1 .txt" in told.err


def test_missing_data_names_the_exact_path_and_how_to_get_it(tell, tmp_path):
    told = tell("fit-ae", "--data", "celebhq", "perceptual=null", *HOST)
    assert told.code == 3
    assert str(tmp_path / "data" / "CelebAMask-HQ" / "CelebA-HQ-img") in told.err and "https://github.com/" in told.err


def test_one_broken_picture_is_noted_and_too_many_stop_the_run(tell):
    pictures("good", *(f"{i}.png" for i in range(8)), "x.jpg")
    whole = Path("good/x.jpg").read_bytes()
    Path("good/x.jpg").write_bytes(whole[: len(whole) // 2])
    words = ["image.size=16", "--ae", "vae", *AE, *LOOP, "loop.batch=12", "dataset.val_share=0", *HOST]
    told = tell("fit-ae", "--data", "good", *words)
    assert told.code == 0 and "Nothing is held out" in told.err
    assert "x.jpg" in Path("runs/ae/bad_images.jsonl").read_text()
    for name in ("y.jpg", "z.jpg"):
        Path("good", name).write_bytes(whole[:100])
    told = tell("fit-ae", "--data", "good", *words, "--out", "other")
    assert told.code == 3 and "of 11 pictures cannot be used" in told.err


@pytest.mark.parametrize("size", [(1, 1), (10000, 1)])
def test_a_picture_that_is_a_dot_or_a_line_is_refused_with_its_size(tell, size):
    pictures("p", "a.png", size=size)
    told = tell("fit-ae", "--data", "p", "image.size=16", "--ae", "vae", *AE, *LOOP, *HOST)
    assert told.code == 3 and "too small or too narrow" in told.err


def test_pairs_need_equal_names_and_sizes(tell):
    pictures("a", "1.png", "2.png")
    pictures("b", "1.png")
    words = ["eval-lpips", "perceptual=null", *HOST, "--pairs", "a", "b"]
    told = tell(*words)
    assert told.code == 3 and "2.png" in told.err
    pictures("b", "2.png", size=(21, 20))
    told = tell(*words)
    assert told.code == 3 and "A pair must agree in size" in told.err
    pictures("b", "1.png", "2.png")
    assert tell(*words).code == 0


# -- weights, plugins, packages: 4 ------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["autoencoder=vea"], "Did you mean 'vae'?"),
        (["tracker=tensorbord"], "Did you mean 'tensorboard'?"),
        (["perceptual=lpips"], "losses.perceptual_missing=skip"),
    ],
)
def test_what_is_not_there_is_named_with_every_way_out(tell, words, said):
    told = tell(*FIT_AE, *words)
    assert told.code == 4 and said in told.err
    if "perceptual=lpips" in words:
        assert "vgg16-397923af.pth" in told.err and "LDMCTL_WEIGHTS_DIR" in told.err and "download https://" in told.err


def test_without_vgg_eval_lpips_says_how_to_have_the_other_numbers(there, tell):
    told = tell("eval-lpips", *HOST)
    assert told.code == 4 and "vgg16-397923af.pth" in told.err and "ldmctl eval-lpips perceptual=null" in told.err


# -- memory: 7 ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "own", "foreign"),
    [("fit-ae", "image.size", "machine.parallel"), ("fit-diffusion", "machine.parallel=fsdp", "image.size")],
)
def test_without_memory_only_keys_are_named_that_help_the_verb(there, tell, verb, own, foreign):
    told = tell(*CHAIN[verb], "--out", "new", "loop.micro=auto", "machine.memory=0.001", "--json")
    one, step = json.loads(told.out)["error"], less_memory([verb])
    assert told.code == 7 and "A step of one picture needs" in one and "loop.micro" in step
    for said in (one, step):
        assert own in said and foreign not in said and "widths" not in said
        named = re.findall(r"\b([a-z]+)\.([a-z]+)\b", said)
        assert len(named) > 1 and all(key in section_of(VERBS[verb].model_fields[section]).model_fields for section, key in named)
    assert "loop." not in less_memory(["sample"]) and "batch" in less_memory(["sample"])


# -- what does not fit: 6 ---------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (SAMPLE, "`ldmctl fit-diffusion --out runs/ldm` makes one"),
        (["encode-dataset"], "`ldmctl fit-ae --out runs/ae` makes one"),
        (["fit-diffusion"], "`ldmctl encode-dataset --out cache` makes one"),
    ],
)
def test_a_verb_before_its_turn_names_the_one_before_it(tell, words, said):
    told = tell(*words)
    assert told.code == 6 and said in told.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*FIT_AE, "loop.seed=1"], "loop.seed: 0 there, 1 asked for"),
        ([*FIT_DIFFUSION, "--out", "runs/ae"], "holds a run of fit-ae, not of fit-diffusion"),
        ([*SAMPLE, "--run", "runs/ae"], "holds an autoencoder, not a denoiser"),
        ([*SAMPLE, "--run", "runs/ldm@7"], "Snapshots: best."),
        ([*FIT_DIFFUSION, "--latents", "runs/ae"], "`ldmctl encode-dataset --run runs/ae` makes one"),
        ([*FIT_AE, "--out", "samples/grid.png"], "is a file; --out wants a folder"),
        ([*SAMPLE, "--out", "samples/grid.png"], "is a file; --out wants a folder"),
        ([*SAMPLE, "--out", "samples/grid.png/x"], "cannot be made"),
        (["eval-lpips", "perceptual=null", "image.channels=1", *HOST], "takes pictures of 3 channels"),
    ],
)
def test_what_does_not_fit_together_is_refused_and_stays_as_it_is(there, tell, words, said):
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*.safetensors")}
    told = tell(*words)
    assert told.code == 6 and said in told.err
    assert before == {path: path.stat().st_mtime_ns for path in there.rglob("*.safetensors")}


@pytest.mark.parametrize("damage", ["cut", "junk", "gone"])
@pytest.mark.parametrize(
    ("file", "verb"),
    [
        ("runs/ae/state.safetensors", "fit-ae"),
        ("runs/ae/config.yaml", "fit-ae"),
        ("runs/ae/run.json", "fit-ae"),
        ("cache/latents.json", "fit-diffusion"),
        ("cache/autoencoder.safetensors", "fit-diffusion"),
        ("cache/train-00000.safetensors", "fit-diffusion"),
        ("runs/ldm/model.safetensors", "sample"),
        ("runs/ldm/autoencoder.safetensors", "sample"),
    ],
)
def test_a_damaged_file_is_named_and_nothing_is_trained_over(there, tell, file, verb, damage):
    path = Path(file)
    if damage == "cut" and path.suffix == ".yaml":
        path.write_text("loop: {steps")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "junk":
        path.write_bytes(b"\xff\xfe junk" * 20)
    else:
        path.unlink()
    told = tell(*CHAIN[verb])
    assert told.code == 6 and str(path.parent) in told.err


def test_a_damaged_model_beside_a_good_state_is_written_again(there, tell):
    model = Path("runs/ae/model.safetensors")
    whole = model.read_bytes()
    model.write_bytes(whole[:100])
    assert tell(*FIT_AE).code == 0 and model.read_bytes() == whole


def test_pictures_of_others_are_not_replaced_by_samples(there, tell):
    pictures("own", "000001.png")
    told = tell(*SAMPLE, "--out", "own")
    assert told.code == 6 and "own/000001.png is there already" in told.err
    before = Path("own/000001.png").read_bytes()
    assert tell(*SAMPLE, "--out", "own", "--overwrite").code == 6 and Path("own/000001.png").read_bytes() == before


def test_a_prolonged_run_keeps_the_step_at_which_its_discriminator_began(tell):
    words = [*FIT_AE, "discriminator={type: patchgan, widths: [8], norm: none}"]
    assert tell(*words, "loop.steps=4").code == 0
    assert tell(*words, "loop.steps=6").code == 0
    assert "start: 2" in Path("runs/ae/config.yaml").read_text()


# -- signals and locks: 75, 130, 6 ------------------------------------------------


def started(*words, until):
    """`ldmctl` in a process of its own, once it has said `until`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, "-m", "ldmctl", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    said = b""
    while until.encode() not in said and (byte := process.stderr.read1(4096)):
        said += byte
    assert until.encode() in said, said.decode()
    return process


def ended(process):
    """(exit code, stdout, the rest of stderr)."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


ENDLESS = ["loop.steps=1000000", "loop.report=5"]


def test_one_signal_saves_and_a_second_command_meets_a_lock(tell):
    first = started(*FIT_AE, *ENDLESS, "--json", until="step 5/")
    told = tell(*FIT_AE, *ENDLESS)
    assert told.code == 6 and f"Another ldmctl command (process {first.pid}) is writing to runs/ae" in told.err
    first.send_signal(signal.SIGINT)
    code, out, err = ended(first)
    assert code == json.loads(out)["exit_code"] == 75 and "Run the same command to continue." in err and "Traceback" not in err
    assert json.loads(Path("runs/ae/run.json").read_text())["status"] == "stopped"
    again = started(*FIT_AE, *ENDLESS, until="images/s")
    again.send_signal(signal.SIGTERM)
    assert ended(again)[0] == 75


def test_a_second_ctrl_c_stops_at_once_with_a_sentence(chain, tell):
    shutil.copytree(chain / "runs", "runs")
    words = ["sample", "-n", "64", "--steps", "3000", "batch=64", "--json", *HOST]
    running = subprocess.Popen(
        [sys.executable, "-m", "ldmctl", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    while not Path("samples").exists():
        time.sleep(0.05)
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    assert b"SIGINT received" in running.stderr.readline()  # else two that come together are one to Python
    running.send_signal(signal.SIGINT)
    code, out, err = ended(running)
    assert code == json.loads(out)["exit_code"] == 130 and "Stopped at once" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "file", "said"),
    [
        (["encode-dataset", "dataset.count=200000", "workers=0", "--out", "c2", *HOST], "c2/run.json", "The same command starts over."),
        (["sample", "-n", "4000", "batch=16", "--out", "s2", *HOST], "s2/000000/000000.png", "Run the same command to continue."),
    ],
)
def test_encoding_and_sampling_stop_after_the_batch_at_hand(chain, words, file, said):
    shutil.copytree(chain / "runs", "runs")
    process = subprocess.Popen([sys.executable, "-m", "ldmctl", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    while not Path(file).exists():
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == 75 and said in err and not Path("c2/latents.json").exists()


# -- the edge ---------------------------------------------------------------------


def test_a_plugin_that_exits_while_it_is_imported_is_a_broken_plugin(tmp_path, monkeypatch):
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match="schedule 'leaving' from nowhere is broken: SystemExit"):
        Plugin("schedule", "leaving", "leaving:Class", "nowhere").load()


def test_the_pictures_of_a_run_can_be_sent_to_another_process():
    config, _ = compose(FitAE, flags={"data": "shapes"})
    assert len(pickle.loads(pickle.dumps(open_pictures(config, "val")))) == 256


def test_a_path_is_said_as_it_is_written(tell):
    assert "[red]:smile:[/]" in tell("fit-ae", "--data", "x/[red]:smile:[/]").err


def test_doctor_says_what_each_file_of_weights_is_for_and_where_it_is_or_how_it_is_got(tell, tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    (own / "squeezenet1_0-imagenet.safetensors").touch()
    monkeypatch.setenv("LDMCTL_WEIGHTS_DIR", str(own))
    said = tell("doctor").out
    assert f"at {own / 'squeezenet1_0-imagenet.safetensors'}" in said and "MISSING vgg16-397923af.pth, for LPIPS (VGG16)" in said
    for place in (own, tmp_path / "hub/hub/checkpoints"):
        assert f"not at {place / 'vgg16-397923af.pth'}" in said
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in said
    listed = {item["name"]: item for item in json.loads(tell("doctor", "--json").out)["weights"]}
    assert listed["vgg16-397923af.pth"]["path"] is None and len(listed["vgg16-397923af.pth"]["looked_for"]) == 2
    assert listed["squeezenet1_0-b66bff10.pth"]["path"] == str(own / "squeezenet1_0-imagenet.safetensors")
    assert listed["functional/image/lpips_models/vgg.pth"]["path"] is not None
