"""What benchmarks/photographs.py makes of a cell, and that several sittings add up."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def photographs(monkeypatch):
    """The module benchmarks/photographs.py."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("photographs")


def cell(rate="1e-3", *, precision="fp32", events=(), before=(22.0, 0.2), end=(22.5, 0.1), shrunk=21.0):
    before, end = ({"psnr": psnr, "features": 0.3, "frechet": frechet} for psnr, frechet in (before, end))
    found = {"before": before, "end": end, "shrunk": {"psnr": shrunk}, "events": list(events), "published": {"which": "last", "step": 800}}
    return {"cell": ["clothing", "vae", "weight", rate, 0, "yes"], "steps": 800, "precision": precision, **found}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (cell(), []),
        (cell(end=(21.01, 0.1)), []),
        (cell(end=(20.9, 0.1), shrunk=20.0), ["lost 1.10 dB"]),
        (cell(end=(22.5, 0.2)), ["no nearer by Frechet distance"]),
        (cell(end=(20.5, 0.3)), ["lost 1.50 dB", "no nearer by Frechet distance", "0.50 dB below shrinking"]),
        (cell(end=(20.5, 0.3), shrunk=20.0, events=[{"what": "ended", "step": 500}]), []),
        (cell(end=(20.5, 0.3), events=[{"what": "ended", "step": 500}]), ["0.50 dB below shrinking"]),
        (cell(end=(20.5, 0.1), shrunk=20.0, events=[{"what": "turned down", "step": 500}]), ["lost 1.50 dB"]),
    ],
)
def test_a_cell_says_which_goals_it_missed(photographs, found, said):
    assert photographs.missed(found) == said
    assert photographs.row(tuple(found["cell"]), found).endswith(f" {'; '.join(said) or 'met'} |")


def test_a_line_of_the_table_has_as_many_cells_as_its_head(photographs):
    found = cell(events=[{"what": "turned down", "step": 500}])
    line = photographs.row(tuple(found["cell"]), found)
    assert line.count("|") == photographs.HEAD.count("|") and "turned down after 500" in line


def test_cells_of_other_machines_are_kept_and_those_that_are_made_again_take_their_place(photographs, monkeypatch, tmp_path):
    monkeypatch.setattr(photographs, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    kept = [cell("1e-4"), cell("1e-3"), cell("1e-3", precision="bf16")]
    (tmp_path / "results" / "photographs.json").write_text(json.dumps({"cells": kept}))
    again, new = cell("1e-3", end=(23.0, 0.1)), cell("5e-4")
    for name, found in {"again": again, "new": new, "unfinished": {"minutes": 1.0}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "cell.json").write_text(json.dumps(found))
    assert photographs.together(tmp_path) == [kept[0], again, kept[2], new]
