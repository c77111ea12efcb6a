"""The campaign of faults: a sample of it holds, and it sees what it is there to see."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from typer.main import get_command

from ldmctl.cli.app import app

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SEED = 12
linux = pytest.mark.skipif(sys.platform != "linux", reason="the campaign forks, and looks into /proc")


@pytest.fixture
def module(monkeypatch):
    """module("faults") -> benchmarks/faults.py, which imports its neighbours by their bare names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder in which what is broken is made once."""
    return tmp_path_factory.mktemp("faults")


def campaign(work, kind, first, count):
    """What `count` trials of a kind found."""
    file = work / f"{kind}.json"
    words = ["--kind", kind, "--first", str(first), "--count", str(count), "--seed", str(SEED), "--work", str(work), "--file", str(file)]
    done = subprocess.run([sys.executable, str(BENCHMARKS / "faults.py"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())["kinds"][f"{kind}, seed {SEED}"]


@linux
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "first", "count", "inputs"),
    [("mutations", 0, 20, 20), ("pictures", 0, 2, 50), ("kills", 0, 6, 6), ("moments", 25, 6, 6), ("places", 0, 12, 12)],
)
def test_a_sample_of_the_campaign_holds(work, kind, first, count, inputs):
    """Twelve commands killed, half of them at any time and half while they write; twenty inputs spoilt, and fifty pictures; twelve odd places."""
    if kind == "places" and os.geteuid():
        pytest.skip("mounts need root")
    found = campaign(work, kind, first, count)
    assert found["inputs"] == inputs
    assert not found["broke"], json.dumps(found["broke"], indent=1)


def test_the_same_seed_spoils_a_file_the_same_way(module):
    formats = module("faults_formats")
    text = b'{"a": {"b": [1, 2.5, "x"]}, "c": null}\n'
    for name in ("x.json", "x.jsonl", "x.yaml", "x.csv", "x.png", "x.bin"):
        made = [[formats.mutator_of(name)(Random(seed), text) for seed in range(40)] for _ in range(2)]
        assert made[0] == made[1]
        assert len({data for data, _ in made[0]}) > 10, f"{name} is spoilt in few ways"


def test_seeds_of_before_draw_from_what_there_was_then(module):
    kills, targets = module("faults_kills"), module("faults_targets")
    assert [kills.recipe_of(7, number).name for number in (0, 6, 11, 12)] == ["fit-ae", "sample", kills.RECIPES[11].name, "fit-ae"]
    assert [targets.target_of(7, number).name for number in (0, 18, 19)] == ["config of fit-ae", "weights of another", "config of fit-ae"]
    assert {kills.recipe_of(8, number).name for number in range(len(kills.RECIPES))} == {recipe.name for recipe in kills.RECIPES}
    assert {targets.target_of(8, number).name for number in range(len(targets.TARGETS))} == {target.name for target in targets.TARGETS}
    assert {"eval-lpips", "eval-samples", "sample, two ranks", "fit-token"} <= {
        recipe.name for recipe in kills.RECIPES if recipe.since == 8
    }


def test_every_command_that_is_given_spoilt_files_has_options_of_its_own_alone(module):
    """A command that does not parse would be refused before anything is read."""
    targets, later = module("faults_targets"), module("faults_listening")
    names = {name for target in targets.TARGETS for name in target.commands}
    assert names >= later.COMMANDS.keys(), "a command that nothing asks for"
    for name in names:
        words, _ = targets.command(name)
        verb, place = get_command(app), 0
        while hasattr(verb, "commands"):
            verb, place = verb.commands[words[place]], place + 1
        options = {option for parameter in verb.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words[place:] if re.fullmatch("--?[a-z][a-z-]*", word)} <= options, words


def test_two_sittings_add_up(module, tmp_path):
    faults = module("faults")
    how = {"done": ["x"], "command": "ldmctl"}
    result = {"target": "words", "code": 0, "faults": []}
    broken = {"target": "words", "code": 1, "faults": [("traceback", "KeyError", "...", how)]}
    for first in (0, 2):
        found = {"first": first, "commit": "abc", "tried": 0, "inputs": 0, "held": 0, "seconds": 1.0, "by": {}, "broke": {}}
        faults.note(found, first, result)
        faults.note(found, first + 1, broken)
        faults.keep("mutations", 1, found, tmp_path / "faults.json")
    kept = json.loads((tmp_path / "faults.json").read_text())["kinds"]["mutations, seed 1"]
    assert (kept["tried"], kept["held"], kept["by"]["words"]["codes"]) == (4, 2, {"0": 2, "1": 2})
    assert kept["pieces"] == [[0, 2, "abc"], [2, 4, "abc"]]
    assert kept["broke"]["words: traceback: KeyError"] == {"count": 2, "numbers": [1, 3], "smallest": how, "whole": "..."}
    row = "| mutations | words | 4 | 2 | 2 traceback |\n| all | | 4 | 2 | |"
    assert row in faults.table(tmp_path / "faults.json") and row in faults.table(tmp_path / "faults.json", 1)
    assert row not in faults.table(tmp_path / "faults.json", 2)


def test_the_record_names_no_place_of_the_machine_whatever_was_said(module, tmp_path):
    faults = module("faults")
    how = {"done": [f"out={tmp_path}/x"], "command": "ldmctl --out /dev/null", "at": f"{Path.home()}/x"}
    said = (
        f"File \"{tmp_path}/ldmctl/cli/app.py\", line 3\nKeyError: '{tmp_path / 'work/ae/run.json'}' or ae/run.json, see https://a.org/b/c"
    )
    found = {"first": 0, "commit": "abc", "tried": 0, "inputs": 0, "held": 0, "seconds": 1.0, "by": {}, "broke": {}}
    faults.note(found, 0, {"target": "words", "code": 1, "faults": [("traceback", f"KeyError @ {tmp_path}/a/b.py", said, how)]})
    faults.keep("mutations", 1, found, tmp_path / "faults.json")
    text = (tmp_path / "faults.json").read_text()
    assert str(tmp_path) not in text and str(Path.home()) not in text
    kept = json.loads(text)["kinds"]["mutations, seed 1"]["broke"]["words: traceback: KeyError @ a/b.py"]
    assert kept["whole"] == "File \"cli/app.py\", line 3\nKeyError: 'ae/run.json' or ae/run.json, see https://a.org/b/c"
    assert (
        kept["smallest"]["command"] == how["command"]
        and kept["smallest"]["done"][0].startswith("out=")
        and "/x" in kept["smallest"]["done"][0]
    )


def test_the_record_that_is_published_names_no_place_of_a_machine(module):
    faults = module("faults")
    report = json.loads(faults.FILE.read_text())
    assert report["kinds"]
    assert faults.placeless(report) == report


def test_two_runs_that_differ_in_rates_alone_are_the_same(module, tmp_path):
    kills = module("faults_kills")
    for name, rate, loss in (("one", 10, 0.5), ("other", 99, 0.5), ("third", 10, 0.6)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": loss, "images_per_second": rate}) + "\n")
        (tmp_path / name / "run.json").write_text(json.dumps({"verb": "fit-ae", "step": 1, "started": rate}))
    assert kills.different(tmp_path / "one", tmp_path / "other") == []
    assert kills.different(tmp_path / "one", tmp_path / "third") == ["metrics.jsonl: is another"]
    (tmp_path / "other" / "more.png").write_bytes(b"x")
    assert kills.different(tmp_path / "one", tmp_path / "other") == ["more.png: is left over"]


@linux
@pytest.mark.slow
def test_the_campaign_sees_what_is_written_elsewhere_run_and_never_ended(tmp_path):
    """In a process of its own: an audit hook stays for good."""
    script = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import faults_child as child
folder = Path(sys.argv[2])
for name in ("work", "work/out"):
    (folder / name).mkdir()
hook = lambda: child.watch(folder / "work", [folder / "work" / "out"], folder / "changes.txt")
def bad():
    open("out/fine.txt", "w").close()
    open("../canary.txt", "w").close()
    os.system("true")
    return 3
assert child.run([], folder / "work", hook=hook(), work=bad).code == 3
noted = (folder / "changes.txt").read_text()
assert "canary.txt" in noted and "os.system" in noted and "fine.txt" not in noted, noted
def forever():
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass
assert child.run([], folder / "work", patience=0.2, work=forever).hung
def fails():
    raise KeyError("x")
ended = child.run([], folder / "work", work=fails)
assert ended.code == 70 and ended.traceback
"""
    done = subprocess.run([sys.executable, "-c", script, str(BENCHMARKS), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
