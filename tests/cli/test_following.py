"""What ranks leave behind: nothing that runs, and one sentence."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from two_ranks import start

from ldmctl.cli import ranks
from ldmctl.cli.app import run

LONG = ["loop.steps=4000", "loop.report=4000", "loop.lr=1e-4", "loop.save=20", "loop.preview=4000", "preview.count=1", "--devices", "2"]
CHILD = """
import os, sys, time
sys.platform = sys.argv[1]
from ldmctl.cli.following import follow
follow(int(sys.argv[2]))
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = f"""
import os, signal, subprocess, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever runs these tests may ignore it, which is inherited
subprocess.Popen([sys.executable, "-c", {CHILD!r}, sys.argv[1], str(os.getpid())])
time.sleep(60)
"""


def lives(pid):
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(holds, seconds):
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
@pytest.mark.parametrize("platform", ["linux", "any other"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_process_ends_when_the_one_it_follows_has_ended(platform, number):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, platform], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert lives(child)
    parent.send_signal(number)
    parent.wait()
    assert wait_until(lambda: not lives(child), 10)
    parent.stdout.close()


def test_a_process_that_comes_too_late_for_the_one_it_follows_ends_too():
    late = subprocess.Popen([sys.executable, "-c", CHILD, "linux", "1"], stdout=subprocess.DEVNULL)
    assert late.wait(timeout=20) == -signal.SIGTERM


# -- one sentence ----------------------------------------------------------------------


@pytest.fixture
def left(tmp_path, monkeypatch):
    """left(words={rank: (sentence, code)}, (rank, code), ...) -> the folder as ranks and launcher leave it."""

    def leave(words, *failures):
        monkeypatch.setenv(ranks.FOLDER, str(tmp_path))
        for rank, (sentence, code) in words.items():
            monkeypatch.setenv("RANK", str(rank))
            assert ranks.leave(sentence, code)
        if failures:
            ranks.note_failures(list(failures))
        return tmp_path

    return leave


def test_the_rank_that_knows_why_has_the_word(left):
    ended = ranks.last_words(left({0: ("This is a bug", 1), 1: ("No such data.", 3)}, (0, 1)), 2, 1, [])
    assert (str(ended), ended.exit_code) == ("No such data.", 3)


def test_a_rank_that_was_killed_is_named_whatever_the_others_say_of_it(left):
    ended = ranks.last_words(left({0: ("Another process of this command is gone", 1)}, (1, -9)), 2, 1, [])
    assert ended.exit_code == 137 and str(ended).startswith("Rank 1 of 2 was ended by SIGKILL. Machines that run out of memory do that.")


@pytest.mark.parametrize(("number", "code"), [(-9, 137), (-11, 139), (-15, 1)])
def test_it_is_named_where_the_other_ended_in_the_same_second(left, number, code):
    """torchrun ends those that are left by SIGTERM, which says nothing of why."""
    ended = ranks.last_words(left({0: (ranks.LEFT_ALONE, 1)}, (0, 1), (1, number)), 2, 1, [])
    assert ended.exit_code == code and ("Rank 1 of 2 was ended by" in str(ended)) == (code > 1)


def test_the_first_that_failed_has_the_word_among_bugs(left):
    ended = ranks.last_words(left({0: ("Another process is gone", 1), 1: ("This is a bug in ldmctl", 1)}, (1, 1)), 2, 1, [])
    assert (str(ended), ended.exit_code) == ("This is a bug in ldmctl", 1)


def test_ranks_that_leave_no_word_are_told_of_all_the_same(left):
    assert ranks.last_words(left({}, (1, 3)), 2, 1, []).exit_code == 3
    stopped = ranks.last_words(left({}, (1, -2)), 2, 1, [signal.SIGINT])
    assert stopped.exit_code == 130 and "Stopped at once" in str(stopped)


def test_a_rank_says_nothing_itself_and_a_lost_connection_has_no_traceback(left, monkeypatch, capsys):
    from ldmctl.cli import app

    monkeypatch.setenv("WORLD_SIZE", "2")
    folder = left({})
    monkeypatch.setattr(app, "app", lambda **_: (_ for _ in ()).throw(RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:1")))
    assert run(["fit-ae", "--json"]) == 1
    assert capsys.readouterr() == ("", "")
    assert "Another process of this command is gone" in json.loads((folder / "00000.json").read_text())["error"]


# -- torchrun ----------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["doctor"], ["configs", "list"], ["--version"], ["eval-lpips"], ["sample", "--dry-run"]])
def test_other_ranks_leave_what_is_not_shared_to_the_first(words, monkeypatch, capsys):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert run(words) == 0
    assert capsys.readouterr() == ("", "")


def test_the_first_rank_does_what_is_not_shared_as_if_alone_and_says_so(monkeypatch, capsys):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert run(["configs", "list"]) == 0
    said = capsys.readouterr()
    assert "ldmctl configs is not shared: the first of 2 ranks does it alone." in said.err and "default" in said.out
    assert "WORLD_SIZE" not in os.environ and "RANK" not in os.environ


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("shared") / "ldm", vae_cache, "loop.steps=1")


def sampling(run, out, *words, **environment):
    """`ldmctl sample` in a process of its own."""
    own = ["-n", "7", "batch=2", "--steps", "2", "--device", "cpu", "--precision", "fp32", *words]
    command = [sys.executable, "-m", "ldmctl", "sample", "--run", str(run), "--out", str(out), *own]
    return subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def on_two_ranks(run, out, *words):
    """The same as torchrun starts it -> [(exit code, stdout, stderr)] of each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    both = [sampling(run, out, *words, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]
    said = [each.communicate(timeout=120) for each in both]
    return [(each.returncode, *told) for each, told in zip(both, said, strict=True)]


@pytest.mark.slow
def test_two_ranks_share_the_seeds_of_sample_and_make_what_one_makes(ldm, tmp_path, tiny, quiet):
    from ldmctl.stages.sample import sample

    words = [f"run={ldm}", "count=7", "batch=2", "steps=2", "machine.device=cpu", "machine.precision=fp32"]
    sample(tiny("sample", *words), tmp_path / "alone", console=quiet)
    (first, told, said), (second, nothing, silent) = on_two_ranks(ldm, tmp_path / "both", "--json")
    assert (first, second) == (0, 0), said + silent
    assert json.loads(told)["made"] == 7 and (nothing, silent) == ("", ""), "the first one speaks"
    one, other = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("alone", "both"))
    assert len(one) == 8 and one == other


@pytest.mark.slow
def test_a_folder_that_does_not_fit_ends_both_ranks_at_once(ldm, tmp_path):
    out = tmp_path / "samples"
    out.mkdir()
    (out / "grid.png").write_bytes(b"mine")
    ended = on_two_ranks(ldm, out)
    assert [code for code, _, _ in ended] == [6, 6] and "is none of ldmctl's samples" in ended[0][2]
    assert "Traceback" not in ended[0][2] + ended[1][2] and (out / "grid.png").read_bytes() == b"mine"


# -- whole commands --------------------------------------------------------------------------


def training(out, process):
    """Wait until a state is saved; -> process ids of the ranks."""
    assert wait_until(lambda: (out / "state.safetensors").exists() or process.poll() is not None, 120)
    assert process.poll() is None, process.communicate()[1]
    found = {}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # ended meanwhile
            found[int(file.parent.name)] = file.read_bytes().decode().split("\0")
    ours = {pid: words for pid, words in found.items() if str(out) in words and pid != process.pid}
    return [pid for pid, words in ours.items() if "ldmctl.cli.launcher" not in words]


@pytest.mark.slow
def test_killing_the_command_ends_its_ranks_and_frees_the_folder(tmp_path, vqvae_cache):
    out = tmp_path / "run"
    process = start("fit-diffusion", out, f"latents={vqvae_cache}", *LONG)
    pids = training(out, process)
    assert len(pids) == 2
    process.kill()
    process.communicate()
    assert wait_until(lambda: not any(map(lives, pids)), 30)
    with (out / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.slow
def test_a_killed_rank_ends_the_command_with_one_sentence(tmp_path, vqvae_cache):
    out = tmp_path / "run"
    process = start("fit-diffusion", out, f"latents={vqvae_cache}", *LONG, "--json")
    pids = training(out, process)
    os.kill(max(pids), signal.SIGKILL)
    told, said = process.communicate(timeout=90)
    assert process.returncode == 137 and "of 2 was ended by SIGKILL" in json.loads(told)["error"]
    assert "Traceback" not in said and said.count("error:") == 1, said


@pytest.mark.slow
def test_ctrl_c_is_answered_by_one_sentence_and_no_traceback(tmp_path, vqvae_cache):
    out = tmp_path / "run"
    process = start("fit-diffusion", out, f"latents={vqvae_cache}", *LONG)
    pids = training(out, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 75 and not any(map(lives, pids))
    assert said.count("error:") == 1 and "Run the same command to continue." in said.splitlines()[-1]
    assert "Traceback" not in said and "torch" not in said and len(said.splitlines()) < 12, said


@pytest.mark.slow
def test_sample_takes_devices(ldm, tmp_path):
    process = sampling(ldm, tmp_path / "samples", "--devices", "2", "--json")
    told, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert json.loads(told)["made"] == 7 and len(list((tmp_path / "samples").iterdir())) == 8
    process = sampling(ldm, tmp_path / "samples", "--devices", "2", "--json", "--guidance", "2")
    told, said = process.communicate(timeout=120)
    assert process.returncode == 6 == json.loads(told)["exit_code"] and said.count("error:") == 1 and "Traceback" not in said
