"""A busy machine is noticed and said: other processes' share of the processors, and steps that became many times slower."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from ldmctl.contention import Contention, wait_sparingly
from ldmctl.training.engine import Engine
from ldmctl.training.slowdown import Slowdown

HOST = Engine(torch.device("cpu"), torch.float32)
TICKS = os.sysconf("SC_CLK_TCK")


class Shares:
    """Stands for a Contention that measures these shares."""

    def __init__(self, share):
        self.value = share

    def start(self):
        pass

    def share(self):
        return self.value


def kernel(root, *, everyone, processes, processors=None):
    """A /proc in which each processor has worked `everyone` seconds, and processes (number, parent) so many."""
    processors = sorted(os.sched_getaffinity(0)) if processors is None else processors
    spent = int(everyone * TICKS)
    rows = ["cpu  9 9 9 9 9 9 9 9 9 9", *(f"cpu{number} {spent} 0 0 777 55 0 0 0 0 0" for number in processors), "intr 1"]
    (root / "stat").write_text("\n".join(rows) + "\n")
    for (process, parent), seconds in processes.items():
        (root / str(process)).mkdir(exist_ok=True)
        (root / str(process) / "stat").write_text(f"{process} (a (strange) name) R {parent} {' 0' * 9} {int(seconds * TICKS)} 0 0 0 20 0\n")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_the_share_of_others_is_what_neither_this_process_nor_its_children_took(tmp_path, clock):
    own, count = os.getpid(), len(os.sched_getaffinity(0))
    kernel(tmp_path, everyone=10, processes={(own, 1): 3, (own + 1, own): 1, (own + 2, own + 1): 0, (own + 3, 1): 50})
    contention = Contention(tmp_path)
    clock[0] += 2.0  # each processor works all the time: 2 * count seconds, of which this process 0.5 and its children 0.3
    kernel(tmp_path, everyone=12, processes={(own, 1): 3.5, (own + 1, own): 1.2, (own + 2, own + 1): 0.1, (own + 3, 1): 99})
    assert contention.share() == pytest.approx((2 * count - 0.8) / (2 * count), abs=0.02)


def test_processors_that_this_process_may_not_use_do_not_count(tmp_path, clock):
    own = os.getpid()
    other = max(os.sched_getaffinity(0)) + 1
    kernel(tmp_path, everyone=0, processes={(own, 1): 0}, processors=[other])
    contention = Contention(tmp_path)
    clock[0] += 1.0
    kernel(tmp_path, everyone=1, processes={(own, 1): 0}, processors=[other])
    assert contention.share() == 0


def test_where_the_system_does_not_say_nothing_is_known(tmp_path, clock):
    contention = Contention(tmp_path)
    clock[0] += 1.0
    assert contention.share() is None


def test_too_short_a_time_says_nothing(tmp_path, clock):
    kernel(tmp_path, everyone=0, processes={(os.getpid(), 1): 0})
    contention = Contention(tmp_path)
    clock[0] += 0.01
    assert contention.share() is None


def sentences(slowdown, *rates):
    return [text for rate in rates if (text := slowdown.note(rate)) is not None]


def test_steps_that_became_many_times_slower_are_said_once_with_what_others_take():
    (text,) = sentences(Slowdown(HOST, Shares(0.97)), 90, 100, 95, 80, 20, 20, 19, 100, 18, 18)
    assert text.startswith("Steps take 5.0 times as long as at first. Other processes use 97% of this machine's processors.")


def test_one_slow_report_or_half_the_speed_is_nothing_to_say():
    assert sentences(Slowdown(HOST, Shares(0.9)), 100, 100, 100, 10, 100, 50, 50, 50, 50, 10, 90) == []


def test_slow_steps_on_a_quiet_machine_send_elsewhere():
    (text,) = sentences(Slowdown(HOST, Shares(0.02)), 100, 100, 100, 10, 10)
    assert "only 2% of the processors" in text and "something else" in text


def test_among_several_ranks_the_others_are_not_blamed():
    ranks = Engine(torch.device("cpu"), torch.float32, rank=0, world=2)
    assert sentences(Slowdown(ranks, Shares(0.9)), 100, 100, 100, 10, 10) == ["Steps take 10.0 times as long as at first."]


@pytest.mark.parametrize(
    ("words", "share", "environment", "changed"),
    [
        (["fit-ae", "--data", "shapes"], 0.6, {}, True),
        (["sample"], 0.6, {}, True),
        (["fit-ae"], 0.1, {}, False),
        (["fit-ae"], None, {}, False),
        (["fit-ae", "--help"], 0.6, {}, False),
        (["plugins", "list"], 0.6, {}, False),
        ([], 0.6, {}, False),
        (["fit-ae"], 0.6, {"GOMP_SPINCOUNT": "7"}, False),
        (["fit-ae"], 0.6, {"OMP_WAIT_POLICY": "active"}, False),
    ],
)
def test_threads_wait_sparingly_where_a_command_that_computes_starts_beside_busy_neighbours(
    monkeypatch, words, share, environment, changed
):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Contention, "share", lambda self: share)
    monkeypatch.setattr(Contention, "_taken", lambda self: (0.0, 0.0))
    assert wait_sparingly(words) is changed
    assert os.environ.get("GOMP_SPINCOUNT") == ("3000" if changed else environment.get("GOMP_SPINCOUNT"))
    os.environ.pop("GOMP_SPINCOUNT", None)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_busy_strangers_are_seen_and_busy_children_are_not():
    loop = f"{sys.executable} -c 'while True: pass'"

    def measured():
        contention = Contention()
        time.sleep(1.0)
        return contention.share()

    count, quiet = len(os.sched_getaffinity(0)), measured()
    children = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        own = measured()
    finally:
        for each in children:
            each.kill()
            each.wait()
    shell = f"for i in $(seq {count}); do {loop} >/dev/null 2>&1 & echo $!; done"  # the shell ends, so they are nobody's children
    strangers = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout.split()
    try:
        others = measured()
    finally:
        for each in strangers:
            os.kill(int(each), signal.SIGKILL)
    assert len(strangers) == count and others > 0.8
    assert own < max(0.3, quiet + 0.3)
