"""A dataset whose items, length or classes are not what it promises is named; nothing of it is taken for a broken picture or for a bug of ours."""

import pytest
from test_promises import PICTURE, fit_ae_words

DATASET = """
import numpy, pathlib
class Odd:
    Config = Plain
    classes = ["cat", "dog"]
    def __init__(self, config, *, split): pass
    def __len__(self): return 8
    def __getitem__(self, index): return Example({picture}, 1, {text})
    def stamp(self, index): return str(index)
"""
SOUND = DATASET.format(picture=PICTURE, text="''")


@pytest.fixture
def trained_on(install, said, tmp_path):
    """trained_on(source, *words) -> (exit code, stderr) of fit-ae on this data set."""

    def train(source, *words):
        install("odd", dataset={"odd": "Odd"}, source=source)
        code, _, err = said(*fit_ae_words(tmp_path / "ae", "dataset={type: odd}", "perceptual=null", *words))
        return code, err

    return train


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("picture", "complaint"),
    [
        ("None", "None"),
        ("'a.png'", "of type str"),
        ("b'abc'", "of type bytes"),
        ("[1, 2]", "of type list"),
        ("{}", "of type dict"),
        ("pathlib.Path('a.png')", "of type PosixPath"),
        ("torch.zeros(3, 16, 16)", "float32 [3, 16, 16]"),
        ("numpy.zeros((16, 16, 3), 'uint8')", "uint8 [16, 16, 3]"),
        ("torch.zeros(3, 0, 16, dtype=torch.uint8)", "uint8 [3, 0, 16]"),
    ],
)
def test_what_is_no_picture_names_the_plugin(trained_on, picture, complaint, workers):
    code, err = trained_on(DATASET.format(picture=picture, text="''"), f"loop.workers={workers}")
    wanted = f"The dataset 'odd' from odd 1.0 does not keep its promise: the picture of item 0 is {complaint}, not a Pillow image or uint8 [C,H,W]."
    assert code == 4 and wanted.replace("item 0", "item ")[:70] in err and complaint in err and "Traceback" not in err


@pytest.mark.parametrize("text", ["None", "5", "['a', 'b']"])
def test_a_caption_that_is_no_string_names_the_plugin(trained_on, text):
    code, err = trained_on(DATASET.format(picture=PICTURE, text=text))
    assert code == 4 and "The dataset 'odd' from odd 1.0 does not keep its promise: the caption of item " in err and "not a string" in err


@pytest.mark.parametrize(("given", "complaint"), [("5", "of type int"), ("numpy.zeros((16, 16))", "float64 [16, 16]")])
def test_what_is_no_map_names_the_plugin(trained_on, given, complaint):
    code, err = trained_on(DATASET.format(picture=PICTURE, text=f"'', {given}"))
    assert code == 4 and f"is {complaint}, not a Pillow image, its path, uint8 [H,W] or [K,H,W]" in err


@pytest.mark.parametrize(
    ("length", "complaint"),
    [
        ("", "does not keep its promise: it has no __len__."),
        ("def __len__(self): return None", "__len__ gave None, not how many items there are"),
        ("def __len__(self): return '8'", "__len__ gave '8', not"),
        ("def __len__(self): return 8.0", "__len__ gave 8.0, not"),
        ("def __len__(self): return -1", "__len__ gave -1, not"),
        ("def __len__(self): return len(self.files)", "raised AttributeError: 'Odd' object has no attribute 'files'"),
    ],
)
def test_a_length_that_is_none_names_the_plugin(trained_on, length, complaint):
    code, err = trained_on(SOUND.replace("def __len__(self): return 8", length))
    assert code == 4 and "The dataset 'odd' from odd 1.0 " in err and complaint in err and "Traceback" not in err


def test_a_length_beyond_the_items_there_are_names_the_plugin(trained_on):
    source = SOUND.replace("return 8", "return 80").replace("return Example", "return [None] * 8 and list(range(8))[index] + 1 and Example")
    code, err = trained_on(source, "loop.steps=20")
    assert code == 4 and "The dataset 'odd' from odd 1.0 raised IndexError: list index out of range, at " in err


@pytest.mark.parametrize("classes", ["None", "'catdog'", "[1, 2]", "['cat', None]", "{'cat': 0}", "numpy.array(['cat'])", "7"])
def test_classes_that_are_no_list_of_names_name_the_plugin(trained_on, classes):
    code, err = trained_on(SOUND.replace('["cat", "dog"]', classes))
    assert code == 4 and "The dataset 'odd' from odd 1.0 does not keep its promise: classes are " in err and "not a list of strings" in err


@pytest.mark.parametrize("classes", ["['cat', 'dog']", "('cat', 'dog')"])
def test_classes_may_be_a_list_or_a_tuple(trained_on, classes):
    assert trained_on(SOUND.replace('["cat", "dog"]', classes))[0] == 0


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ("def stamp(self, index): return None", "the stamp of item 0 is None, not a string"),
        ("def stamp(self, index): return index", "the stamp of item 0 is 0, not a string"),
        ("def note(self, index): return None", "the note of item 0 is None, not a label and a caption"),
        ("def note(self, index): return 1, 'a', 2", "the note of item 0 is (1, 'a', 2), not a label and a caption"),
        ("def note(self, index): return 1, None", "the note of item 0 is (1, None), not a label and a caption"),
        ("def content(self, index): return None", "the content of item "),
        ("remarks = 'abc'", "remarks are 'abc', not a list of strings"),
        ("warnings = 5", "warnings are 5, not a list of strings"),
        ("counts = {'labels': None}", "counts are {'labels': None}, not a mapping to whole numbers"),
        ("map_classes = 'sky'", "map_classes are 'sky', not a list of strings"),
    ],
)
def test_whatever_else_it_says_in_another_form_names_the_plugin(trained_on, more, complaint):
    code, err = trained_on(f"{SOUND}    {more}\n")
    assert code == 4 and "The dataset 'odd' from odd 1.0 does not keep its promise: " in err and complaint in err


def test_pictures_left_out_for_their_size_do_not_hide_whose_the_others_are(trained_on):
    picture = "None if index else torch.zeros(3, 9, 9, dtype=torch.uint8)"
    code, err = trained_on(DATASET.format(picture=picture, text="''"), "image.smallest=12")
    assert code == 4 and "The dataset 'odd' from odd 1.0 does not keep its promise: the picture of item " in err


@pytest.mark.parametrize(
    "more",
    [
        "classes = 'catdog'",
        "remarks = 'abc'",
        "counts = 5",
        "map_classes = 'sky'",
        "def __len__(self): return None",
        "def stamp(self, index): return index",
        "def content(self, index): return None",
        "def note(self, index): return 1",
        "def __getitem__(self, index): return Example(None, 1)",
    ],
)
def test_the_check_refuses_what_the_host_does(install, said, more):
    install("odd", dataset={"odd": "Odd"}, source=f"{SOUND}    {more}\n")
    code, _, err = said("plugins", "check", "dataset", "odd")
    assert code == 4 and "Odd is not a good dataset: " in err


def test_the_check_takes_what_the_host_takes(install, said):
    install("odd", dataset={"odd": "Odd"}, source=SOUND)
    assert said("plugins", "check", "dataset", "odd")[0] == 0


def test_the_protocol_and_the_template_say_how_an_archive_is_opened_in_each_worker():
    from ldmctl import protocols
    from ldmctl.template import dataset

    assert all("os.getpid()" in text and "__getstate__" in text for text in (protocols.Dataset.__doc__, dataset.__doc__))
    assert "if self._process != os.getpid(): self._process, self._archive = os.getpid(), ZipFile(self.path)" in protocols.Dataset.__doc__
    assert "self.process, self.archive = os.getpid(), zipfile.ZipFile(self.path)" in dataset.__doc__
    assert 'return {**self.__dict__, "process": 0, "archive": None}' in dataset.__doc__
