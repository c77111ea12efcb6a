"""What files and their names hold is printed so that it cannot steer a terminal, nor begin a line of its own in a list."""

import json

import pytest
from PIL import Image

from ldmctl.cli.app import run
from ldmctl.console import Console, escaped


def controls(text):
    """The control characters of a text, without line breaks."""
    return [each for each in text if each != "\n" and (each < " " or "\x7f" <= each <= "\x9f")]


@pytest.mark.parametrize(
    ("text", "one_line", "lines"),
    [
        ("plain, \u00fc \u2581 \U0001f600 \\ [x]", "plain, \u00fc \u2581 \U0001f600 \\ [x]", "plain, \u00fc \u2581 \U0001f600 \\ [x]"),
        ("a\n\tb", r"a\n\tb", "a\n\tb"),
        ("\x1b[31m\r\x07\x7f\x9b", r"\x1b[31m\r\x07\x7f\x9b", r"\x1b[31m\r\x07\x7f\x9b"),
        ("\udcff", r"\udcff", r"\udcff"),
    ],
)
def test_control_characters_are_written_as_escapes_and_all_else_as_it_is(text, one_line, lines):
    assert (escaped(text), escaped(text, lines=True)) == (one_line, lines)


def test_a_console_prints_no_control_character_of_a_text(capsys):
    console = Console(verbose=True)
    for say in (console.say, console.detail, console.warn):
        say("name \x1b[2J\x07 of a file\nsecond line")
    said = capsys.readouterr().err
    assert said.count(r"name \x1b[2J\x07 of a file" + "\nsecond line") == 3 and not controls(said)


def test_an_error_prints_no_control_character_of_a_name(capsys):
    assert run(["runs", "show", "no\x1b[31m", "--json"]) == 6
    said = capsys.readouterr()
    assert r"no\x1b[31m" in said.err and not controls(said.err) and json.loads(said.out)["exit_code"] == 6


def test_data_check_names_a_file_in_one_line_whatever_its_name_holds(tmp_path, capsys):
    for index in range(3):
        Image.new("RGB", (32, 32), (40 * index, 9, 9)).save(tmp_path / f"{index}.png")
    (tmp_path / "\x1b[31mbad\nname.png").write_bytes(b"none")
    assert run(["data", "check", str(tmp_path), "--size", "32"]) == 0
    said = capsys.readouterr()
    assert "\n  " + r"\x1b[31mbad\nname.png: " in said.out and not controls(said.out + said.err)


def test_a_word_that_an_option_does_not_take_is_answered_with_the_nearest(capsys):
    assert run(["fit-ae", "--device", "cud"]) == 2
    said = capsys.readouterr().err
    assert "'cud' is not one of 'auto', 'cuda', 'mps', 'cpu'. Did you mean 'cuda'?" in said and "Value error" not in said
