"""What a PNG says is read from its chunks, and a file that was cut off says nothing that it did not say whole."""

import pytest
import torch

from ldmctl.pictures.album import is_foreign
from ldmctl.pictures.png import write_png
from ldmctl.pictures.png_text import KEY, Said, breaks_off, made_by, said_by

TEXT = '{"seed": 3}'


@pytest.fixture
def file(tmp_path):
    """A picture of 5 rows and 9 columns with a text."""
    write_png(tmp_path / "a.png", torch.arange(135, dtype=torch.uint8).reshape(3, 5, 9), {KEY: TEXT})
    return tmp_path / "a.png"


def test_text_wholeness_and_sides_are_read_without_decoding(file):
    assert said_by(file) == Said(TEXT, True, (5, 9)) and made_by(file) == TEXT


def test_wherever_a_file_is_cut_off_it_is_not_whole_and_its_text_is_all_or_none(file):
    data = file.read_bytes()
    texts = set()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        said = said_by(file)
        assert not said.whole, length
        texts.add(said.text)
        assert made_by(file) in (None, TEXT)
        assert not is_foreign(file), "a beginning without a text holds no pixel of anybody"
    assert texts == {None, TEXT}


def test_one_flipped_bit_of_the_pixels_is_seen(file):
    data = bytearray(file.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 1
    file.write_bytes(data)
    assert said_by(file) == Said(TEXT, False, (5, 9))


def test_files_of_others_and_no_files_say_nothing(tmp_path, file):
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert said_by(tmp_path / "b.png") == said_by(tmp_path / "none.png") == Said(None, False)
    assert said_by(file, "another").text is None
    assert breaks_off(tmp_path / "b.png") is breaks_off(tmp_path / "none.png") is breaks_off(file) is False
