"""What is said of a folder of samples with other files in it."""

import pytest

from ldmctl.config.seeds import Seeds
from ldmctl.errors import MismatchError
from ldmctl.pictures.album import differing, look


def test_one_file_in_the_place_of_a_shelf_is_one_file(tmp_path):
    (tmp_path / "000000").write_text("mine")
    with pytest.raises(MismatchError) as caught:
        look(tmp_path, Seeds((range(1001),)), lambda place: "{}", sides=(8, 8), overwrite=False)
    assert str(caught.value).startswith(f"{tmp_path / '000000'} is there already") and "others" not in str(caught.value)
    (tmp_path / "grid.png").write_text("mine")
    with pytest.raises(MismatchError, match=r"So is 1 other\."):
        look(tmp_path, Seeds((range(1001),)), lambda place: "{}", sides=(8, 8), overwrite=False)


def test_long_words_are_shortened_within_their_quotes():
    said = differing({"pictures": "0123456789abcdef" * 4}, {"pictures": "f" * 64})
    assert said == 'with pictures="0123456789ab..." instead of "ffffffffffff..."'
