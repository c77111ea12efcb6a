"""An option of one value that is given two is refused, whatever the verb; a key that is given twice has its last value, and it is said."""

import json

import pytest
import typer

from ldmctl.cli.app import app, run

VERBS = typer.main.get_command(app).commands


def commands(group, *above):
    """(words of a command, the command) of every one."""
    for name, command in group.items():
        if hasattr(command, "commands"):
            yield from commands(command.commands, *above, name)
        else:
            yield [*above, name], command


EVERY = [(words, param) for words, command in commands(VERBS) for param in command.params if param.param_type_name == "option"]
SINGLE = [(words, param) for words, param in EVERY if not (param.multiple or param.is_flag or param.count)]


def test_there_are_options_to_try():
    assert len(SINGLE) > 60 and {words[0] for words, _ in SINGLE} > {"sample", "fit-ae", "runs", "data", "plugins"}


@pytest.mark.parametrize(("words", "param"), SINGLE, ids=lambda each: "-".join(each) if isinstance(each, list) else each.name)
def test_two_values_of_a_single_option_are_a_sentence_before_anything_is_done(words, param, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = max(param.opts, key=len)
    one, other = (["1", "2"], ["3", "4"]) if param.nargs == 2 else (["1"], ["2"])
    assert run([*words, name, *one, name, *other]) == 2
    said = capsys.readouterr().err
    assert f"{name} takes one value, and 2 are given: {' '.join(one)}, {' '.join(other)}. Leave out all but one." in said
    assert "Traceback" not in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["--map", "a", "--map=b"],
        ["-o", "a", "--out", "b"],
        ["-n3", "-n", "4"],
        ["--out=a", "x=1", "-q", "--out", "b"],
        ["--out", "a", "--out", "b", "--help"],
    ],
)
def test_in_whatever_way_it_is_written(words, capsys):
    assert run(["sample", *words]) == 2
    assert "takes one value, and 2 are given" in capsys.readouterr().err


def test_scripts_are_told_as_of_any_other_mistake(capsys):
    assert run(["sample", "--negative", "a cat", "--negative", "dog", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {
        "error": "--negative takes one value, and 2 are given: 'a cat', dog. Leave out all but one.",
        "exit_code": 2,
    }


@pytest.mark.parametrize(
    "words",
    [
        ["--label", "a", "--label", "b"],
        ["--prompt", "a", "--prompt", "b"],
        ["--out", "a", "--out", "a"],
        ["-q", "-q"],
        ["--npz", "--npz"],
        ["--out", "a", "--", "--out=b"],
    ],
)
def test_what_may_be_given_again_still_may(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(["sample", *words])
    assert "takes one value" not in capsys.readouterr().err


@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_the_last_value_of_a_key_holds_and_it_is_said_once(capsys, quiet):
    assert run(["fit-ae", "--data", "shapes", "loop.steps=5", "loop.lr=1", "loop.steps=7", "loop.lr=1", "--dry-run", "--json", *quiet]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["config"]["loop"]["steps"] == 7
    assert told.err.count("loop.steps is given more than once: it is 7, the last, and not 5.") == 1 and "loop.lr is given" not in told.err


def test_a_rank_leaves_that_to_the_command(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("LDMCTL_RANKS", str(tmp_path))
    run(["fit-ae", "--data", "nowhere", "loop.steps=5", "loop.steps=7"])
    assert "is given more than once" not in capsys.readouterr().err
