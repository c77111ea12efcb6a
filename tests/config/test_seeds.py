"""Seeds as people write them."""

import pytest

from ldmctl.config.seeds import parse_seeds
from ldmctl.errors import ConfigError


def test_numbers_and_ranges_are_seeds_in_the_order_in_which_they_stand():
    seeds = parse_seeds("100, 0-3,7")
    assert list(seeds) == [100, 0, 1, 2, 3, 7] == [seeds[place] for place in range(6)] and len(seeds) == 6
    assert str(seeds) == "100,0-3,7" and 2 in seeds and 4 not in seeds
    for beyond in (6, -1):
        with pytest.raises(IndexError):
            seeds[beyond]


def test_a_billion_seeds_are_as_small_as_one():
    seeds = parse_seeds("5,10-1000000009")
    assert len(seeds) == 1_000_000_001 and seeds[1_000_000_000] == 1_000_000_009 and 999 in seeds and len(seeds.ranges) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("5-2", "'5-2' goes backwards; write 2-5"),
        ("x", "'x' names no seeds; write numbers and ranges, such as 0-63,100"),
        ("", "'' names no seeds"),
        ("1,,2", "'' in '1,,2' is no seed"),
        ("-3", "'-3' names no seeds"),
        ("0..5", "names no seeds"),
        ("1.5", "names no seeds"),
        ("²", "names no seeds"),
        ("0-9,100,4-5", "'0-9,100,4-5' names seed 4 twice; each seed makes one picture"),
    ],
)
def test_what_names_no_seeds_is_refused_with_what_would(tiny, text, said):
    with pytest.raises(ValueError, match=r"twice|backwards|no seed") as caught:
        parse_seeds(text)
    assert said in str(caught.value)
    with pytest.raises(ConfigError, match="seeds: ") as refused:
        tiny("sample", f"seeds='{text}'")
    assert said in str(refused.value)


def test_a_config_takes_them_as_a_number_a_text_or_a_list(tiny):
    for given in ("seeds=7", "seeds=7-7", "seeds=[7]", "seeds='7'"):
        assert tiny("sample", given).seeds == "7"
    assert tiny("sample", "seeds=[1,2,10-12]").seeds == "1,2,10-12"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seeds=0-3", "seed=7"], "seeds=0-3 and seed=7 both say which pictures to make; leave one of them away"),
        (["seeds=0-3", "count=16"], "seeds=0-3 and count=16 both say"),
        (["seeds=0-3", "each=2", "label=all"], "seeds=0-3 and each=2 both say"),
        (["count=3", "each=2", "label=all"], "each=2 and count=3 both say"),
        (["each=2"], "each=2 counts pictures of each label or prompt, and none is asked for; name labels, take label=all, or give prompts"),
        (
            ["interpolate=[3,9]", "between=5", "seeds=2-5"],
            "place 5 lies beyond between=5: the way has the places 0 to 4",
        ),
        (["interpolate=[3,9]", "seeds=2-5"], "seeds are places on the way, counted from 0: say by between how many there are"),
        (["interpolate=[3,9]", "each=5", "label=cat"], "interpolate counts its pictures by -n (count): leave each away"),
    ],
)
def test_saying_twice_how_many_is_refused(tiny, words, said):
    with pytest.raises(ConfigError) as caught:
        tiny("sample", *words)
    assert said in str(caught.value)


def test_seeds_name_places_on_the_way_between_two(tiny):
    assert tiny("sample", "interpolate=[3,9]", "between=5", "seeds=2-4").seeds == "2-4"
