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


def cell(rate="1e-3", *, batch=16, precision="fp32", events=(), before=(22.0, 0.2), end=(22.5, 0.1), shrunk=21.0):
    before, end = ({"psnr": psnr, "features": 0.3, "frechet": frechet} for psnr, frechet in (before, end))
    found = {"before": before, "end": end, "shrunk": {"psnr": shrunk}, "events": list(events), "published": {"which": "last", "step": 800}}
    about = {"cell": ["clothing", "vae", "weight", rate, 0, "yes"], "steps": 800, "precision": precision}
    return about | found | ({} if batch == 16 else {"batch": batch})


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
    assert photographs.row(found).endswith(f" {'; '.join(said) or 'met'} |")


def test_a_line_of_the_table_has_as_many_cells_as_its_head(photographs):
    found = cell(events=[{"what": "turned down", "step": 500}])
    line = photographs.row(found)
    assert line.count("|") == photographs.HEAD.count("|") and "turned down after 500" in line


def test_cells_of_other_machines_are_kept_and_those_that_are_made_again_take_their_place(photographs, monkeypatch, tmp_path):
    monkeypatch.setattr(photographs, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    kept = [cell("1e-4"), cell("1e-3"), cell("1e-3", precision="bf16"), cell("1e-3", batch=4)]
    (tmp_path / "results" / "photographs.json").write_text(json.dumps({"cells": kept}))
    again, new = cell("1e-3", end=(23.0, 0.1)), cell("5e-4")
    for name, found in {"again": again, "new": new, "unfinished": {"minutes": 1.0}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "cell.json").write_text(json.dumps(found))
    assert photographs.together(tmp_path) == [kept[0], again, kept[2], kept[3], new]


def test_cells_that_the_result_has_are_not_made_again_where_only_the_missing_are_asked_for(photographs, monkeypatch, tmp_path):
    monkeypatch.setattr(photographs, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    kept = tmp_path / "results" / "photographs.json"
    monkeypatch.setattr(photographs, "keep", lambda name, found, *_, **__: kept.write_text(json.dumps(found)))
    monkeypatch.setattr(photographs, "describe", lambda: {"bf16": False})
    monkeypatch.setattr(photographs, "place", lambda folder, pictures: folder)
    made, found = [], {key: value for key, value in cell().items() if key not in ("cell", "steps", "precision")}
    monkeypatch.setattr(photographs, "cell", lambda folder, given, name, *_: made.append(name) or (folder / name).mkdir() or found)
    kept.write_text(json.dumps({"cells": [cell("1e-4"), cell("5e-4", batch=4)]}))
    words = ["--sets", "clothing", "--models", "vae", "--losses", "weight", "--seeds", "0", "--missing"]
    monkeypatch.setattr("sys.argv", ["photographs.py", str(tmp_path / "grid"), *words])
    photographs.main()
    assert made == ["clothing-vae-weight-5e-4-0-yes-800x16", "clothing-vae-weight-1e-3-0-yes-800x16"]
    photographs.main()
    assert len(made) == 2 and len(json.loads(kept.read_text())["cells"]) == 4
