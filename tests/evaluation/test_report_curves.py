"""Curves of a report: what stands in one picture, how it is averaged, and where its lines lie."""

import re

import pytest

from ldmctl.evaluation.report.curves import called, curves, happened
from ldmctl.evaluation.report.parts import Plot, Series
from ldmctl.evaluation.report.plot import BOTTOM, HEIGHT, LEFT, POINTS, RIGHT, TOP, WIDTH, decades, nice, reduced, svg
from ldmctl.storage.runs import Look


def lines(found):
    """Points [(x, y)] of each polyline."""
    return [
        [tuple(map(float, point.split(","))) for point in points.split()]
        for points in re.findall(r'<polyline[^>]* points="([^"]+)"', found["svg"])
    ]


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (1, 1000, [200, 400, 600, 800, 1000]),
        (-0.3, 0.4, [-0.2, 0, 0.2, 0.4]),
        (0.01, 0.012, [0.01, 0.0105, 0.011, 0.0115, 0.012]),
    ],
)
def test_ticks_are_round_numbers(low, high, found):
    assert nice(low, high) == pytest.approx(found, abs=1e-12)


def test_ticks_of_a_logarithmic_scale_are_powers_of_ten_with_two_and_five_where_they_are_few():
    assert decades(0.001, 100) == pytest.approx([0.001, 0.01, 0.1, 1, 10, 100])
    assert decades(0.03, 2) == pytest.approx([0.05, 0.1, 0.2, 0.5, 1, 2])


def test_a_line_goes_from_corner_to_corner_of_its_picture():
    (line,) = lines(svg(Plot("loss", [Series("loss", [0, 50, 100], [4.0, 2.0, 3.0])]), "p"))
    assert line == [(LEFT, TOP), ((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM), (WIDTH - RIGHT, (TOP + HEIGHT - BOTTOM) / 2)]


def test_a_line_over_many_decades_is_drawn_on_a_logarithmic_scale():
    found = svg(Plot("loss", [Series("loss", [0, 1, 2], [100.0, 1.0, 0.01])]), "p")
    (line,) = lines(found)
    assert [y for _, y in line] == [TOP, (TOP + HEIGHT - BOTTOM) / 2, HEIGHT - BOTTOM] and "Logarithmic scale." in found["note"]


def test_numbers_that_are_not_finite_break_the_line_and_are_counted():
    found = svg(Plot("loss", [Series("loss", [1, 2, 3, 4, 5, 6], [3.0, 2.0, None, 2.0, 1.0, None])]), "p")
    assert [len(line) for line in lines(found)] == [2, 2]
    assert "2 of 6 reported numbers are not finite; the lines are broken there." in found["note"]
    assert svg(Plot("loss", [Series("loss", [1, 2], [None, None])]), "p") is None


def test_one_report_is_a_dot_and_equal_values_lie_in_the_middle():
    found = svg(Plot("loss", [Series("loss", [7], [0.5])]), "p")
    assert not lines(found) and f'cx="{(LEFT + WIDTH - RIGHT) / 2:.1f}" cy="{(TOP + HEIGHT - BOTTOM) / 2:.1f}"' in found["svg"]


def test_many_reports_become_means_with_their_reach():
    shown = reduced(Series("loss", list(range(2 * POINTS)), [float(index % 2) for index in range(2 * POINTS)]))
    assert (len(shown.means), shown.each) == (POINTS, 2)
    assert set(shown.means) == {0.5} and set(shown.lows) == {0.0} and set(shown.highs) == {1.0} and shown.steps[:2] == [0.5, 2.5]


def test_twenty_thousand_reports_take_no_more_room_than_a_few_hundred():
    found = svg(Plot("loss", [Series("loss", list(range(20_000)), [1.0 + index % 7 for index in range(20_000)])]), "p")
    assert len(lines(found)[0]) == POINTS and len(found["svg"]) + len(found["data"]) < 30_000
    assert "Each point is the mean of up to 84 reports" in found["note"]


def test_every_number_of_a_run_stands_in_one_picture(tmp_path):
    row = {"step": 1, "loss": 1.0, "val/loss": 2.0, "val/loss_sigma_0-0.33": 0.1, "val/loss_sigma_3-inf": 0.2, "diffusion/gradient": 1.0}
    row |= {"images_per_second": 9.0, "lr": 1e-3, "something_new": 3.0, "word": "x", "flag": True}
    shown, more = curves(Look(tmp_path, {}, {}, [row]))
    assert [plot.title for plot in shown] == ["Losses", "Validation by noise level", "Gradient norms", "Pictures per second"]
    assert [plot.title for plot in more] == ["Learning rate", "something new"]
    assert [line.name for line in shown[1].lines] == ["noise 0 to 0.33", "noise above 3"]
    assert sum(len(plot.lines) for plot in [*shown, *more]) == 8


def test_what_was_changed_on_the_way_is_marked(tmp_path):
    record = {
        "changes": [{"step": 40, "key": "loop.lr", "from": 1, "to": 0.5}],
        "watch": [{"step": 80, "what": "risen", "why": "It rose"}, 3, {"step": 10**400}],
    }
    assert happened(Look(tmp_path, record)) == [(40, "step 40: loop.lr becomes 0.5"), (80, "step 80: It rose")]
    found = svg(Plot("loss", [Series("loss", [0, 100], [1.0, 2.0])], happened(Look(tmp_path, record))), "p")
    assert found["svg"].count('class="mark"') == 2


def test_names_are_those_that_a_person_says():
    assert [called(name) for name in ("val/loss", "val/lpips", "autoencoder/gradient")] == ["validation loss", "lpips", "autoencoder"]
