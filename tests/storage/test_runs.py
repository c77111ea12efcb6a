"""`ldmctl runs`: run folders are read as they lie there; what is damaged or of others is named, and nothing ends the command."""

import fcntl
import json

import pytest

from ldmctl.cli.app import run
from ldmctl.console import sparkline
from ldmctl.storage import runs
from ldmctl.storage.measured import measured_since

LDM = {"prediction": "x0", "latents": "cache", "denoiser": {"type": "unet"}, "loop": {"steps": 300, "lr": 0.1}}


def make(folder, *, verb="fit-diffusion", status="finished", rows=(), config=None, **record):
    folder.mkdir(parents=True)
    said = {"verb": verb, "status": status, "started": "2026-01-01T10:00:00+00:00", "ended": "2026-01-01T10:02:05+00:00", **record}
    (folder / "run.json").write_text(json.dumps(said))
    (folder / "config.yaml").write_text(json.dumps(LDM if config is None else config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def losses(*values, name="val/loss"):
    return [{"step": 100 * (index + 1), name: value} for index, value in enumerate(values)]


@pytest.fixture
def tell(capsys):
    """tell("runs", "list") -> (exit code, stdout)."""

    def command(*words):
        code = run(list(map(str, words)))
        return code, capsys.readouterr().out

    return command


def test_a_list_says_of_each_run_what_it_is_and_how_far(tmp_path, tell):
    rows = [*losses(0.5, 0.25, 0.3), {"step": 300, "loss": 0.2, "images_per_second": 120.5}]
    folder = make(tmp_path / "runs" / "ldm", rows=rows, step=300, parent="cache")
    code, out = tell("runs", "list", tmp_path / "runs", "--json")
    (row,) = json.loads(out)["runs"]
    assert code == 0
    assert row == {
        "run": str(folder),
        "verb": "fit-diffusion",
        "state": "finished",
        "step": 300,
        "steps": 300,
        "val": 0.3,
        "not_finite": {},
        "best": {"step": 200, "value": 0.25},
        "images_per_second": 120.5,
        "seconds": 125.0,
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "parent": "cache",
        "started": "2026-01-01T10:00:00+00:00",
        "troubles": [],
    }


@pytest.mark.parametrize(
    ("sort", "first"), [("name", "a"), ("best", "b"), ("step", "c"), ("started", "a"), ("time", "a"), ("state", "b"), ("disk", "b")]
)
def test_a_list_is_sorted_by_what_is_asked_for_and_unknown_ones_come_last(tmp_path, tell, sort, first):
    make(tmp_path / "a", rows=losses(0.4), step=100, started="2026-01-01T10:01:00+00:00", ended="2026-01-01T11:00:00+00:00")
    make(tmp_path / "b", rows=[*losses(0.3), *({"step": 100} for _ in range(30))], step=200, status="diverged")
    make(tmp_path / "c", rows=[], step=300)
    found = json.loads(tell("runs", "list", tmp_path, "--sort", sort, "--json")[1])["runs"]
    assert len(found) == 3 and found[0]["run"].endswith(f"/{first}")
    if sort == "best":
        assert found[-1]["run"].endswith("/c")


def test_a_run_that_says_running_is_killed_unless_somebody_holds_its_lock(tmp_path):
    folder = make(tmp_path / "ldm", status="running")
    assert runs.look(folder).state == "killed"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert runs.look(folder).state == "running"
    assert runs.look(folder).state == "killed"


def test_looking_at_a_run_lets_its_writer_in(tmp_path):
    folder = make(tmp_path / "ldm", status="running")
    with (folder / ".lock").open("w") as lock:
        assert runs.look(folder).summary()["state"] == "killed"
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a BlockingIOError if looking had kept the lock
        assert runs.look(folder).state == "running"


def test_damaged_and_foreign_folders_are_named_and_end_nothing(tmp_path, tell):
    make(tmp_path / "good", rows=losses(0.5))
    half = make(tmp_path / "half", rows=losses(0.5, 0.4))
    with (half / "metrics.jsonl").open("a") as file:
        file.write('[1]\n{"step": "x"}\n{"step": 300, "val/lo')
    (make(tmp_path / "broken") / "run.json").write_text('{"verb": ')
    (make(tmp_path / "unread") / "config.yaml").write_text("a: [")
    (make(tmp_path / "bare") / "config.yaml").unlink()
    (make(tmp_path / "odd", verb=7, status=["x"], started=3, history=[4], parent={}) / "metrics.jsonl").write_bytes(b"\xff\n")
    (tmp_path / "notes").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    code, out = tell("runs", "list", tmp_path)
    assert code == 0
    for words in (
        "metrics.jsonl: 3 of its lines cannot be read, and are left out.",
        "broken/run.json is damaged",
        "unread/config.yaml cannot be read",
        "bare has no config.yaml.",
        "notes holds no run.",
    ):
        assert words in out, out
    assert "[Errno" not in out and "loop" not in out
    states = {row["run"].rpartition("/")[2]: row["state"] for row in json.loads(tell("runs", "list", tmp_path, "--json")[1])["runs"]}
    assert states == dict(good="finished", half="finished", broken="damaged", unread="finished", bare="finished", odd="damaged")
    for name in states:
        assert tell("runs", "show", tmp_path / name)[0] == 0


def test_what_is_not_there_is_said_with_where_runs_lie(tmp_path, tell, capsys):
    assert run(["runs", "list", str(tmp_path / "none")]) == 6
    assert "Runs lie in runs/ unless --out said otherwise" in capsys.readouterr().err
    assert run(["runs", "show", str(tmp_path)]) == 6
    assert "is not a run folder: it has no run.json" in " ".join(capsys.readouterr().err.split())
    assert run(["runs", "compare", str(tmp_path)]) == 2
    assert "name two or more" in " ".join(capsys.readouterr().err.split())


def test_one_run_on_a_page_has_its_curve_and_what_is_not_at_its_default(tmp_path, tell):
    folder = make(tmp_path / "ldm", rows=losses(0.8, 0.4, 0.1), step=300, command="ldmctl fit-diffusion [x]")
    out = tell("runs", "show", folder)[1]
    assert "ldmctl fit-diffusion [x]" in out and "300 of 300" in out and "█▄▁" in out and "loop.lr" in out
    found = json.loads(tell("runs", "show", folder, "--json")[1])
    assert found["metrics"] == {"val/loss": 0.1}
    assert {"key": "loop.steps", "value": 300, "default": 10000} in found["changed"]
    assert not [each for each in found["changed"] if each["key"] == "prediction" and each["value"] == each["default"]]


def test_a_run_is_told_beside_the_defaults_that_it_recorded(tmp_path, tell):
    folder = make(tmp_path / "ldm", step=300, defaults={"loop.steps": 5})
    found = json.loads(tell("runs", "show", folder, "--json")[1])
    assert found["changed"] == [{"key": "loop.steps", "value": 300, "default": 5}]


def test_numbers_too_large_to_be_steps_are_damage(tmp_path, tell):
    folder = make(tmp_path / "ldm", rows=[{"step": 10**400, "loss": 1.0}, {"step": 3, "loss": 10**400}], step=10**400)
    (folder / "config.yaml").write_text(json.dumps({"loop": {"steps": 10**400}}))
    look = runs.look(folder)
    assert (look.step, look.steps, look.last()) == (3, None, {}) and "1 of its lines" in look.troubles[0]
    assert tell("runs", "list", tmp_path)[0] == 0


def test_losses_that_are_null_or_infinite_are_no_numbers(tmp_path):
    folder = make(tmp_path / "ldm", rows=losses(0.5, None, float("nan"), float("inf"), True))
    look = runs.look(folder)
    assert look.values("val/loss") == ([100], [0.5]) and look.last() == {} and look.best() == (100, 0.5)
    again = runs.look(make(tmp_path / "again", rows=losses(0.5, None, float("nan"), 0.25)))
    assert again.last() == {"val/loss": 0.25} and again.lost == {} and again.troubles == []


def test_losses_that_became_nan_are_a_trouble_with_the_step_since_which(tmp_path, tell):
    rows = [*losses(0.5, 0.4, None, float("nan")), *losses(0.3, None, None, None, name="loss"), {"step": 400, "advantage": None, "lr": 0.1}]
    folder = make(tmp_path / "ldm", rows=rows, step=400)
    sentences = [f"{folder}: loss is not finite since step 200.", f"{folder}: val/loss is not finite since step 300."]
    (row,) = json.loads(tell("runs", "list", tmp_path, "--json")[1])["runs"]
    assert row["troubles"] == sentences and row["val"] is None and row["best"] == {"step": 200, "value": 0.4}
    shown = json.loads(tell("runs", "show", folder, "--json")[1])
    assert shown["troubles"] == sentences and shown["metrics"] == {"lr": 0.1}
    assert shown["not_finite"] == {"val/loss": 300, "loss": 200, "advantage": 400}
    for words in (("list", tmp_path), ("show", folder), ("compare", folder, folder)):
        out = tell("runs", *words)[1]
        assert all(each in out for each in sentences), out
    assert "not finite since step 300  █▁" in tell("runs", "show", folder)[1] and "not finite" in tell("runs", "list", tmp_path)[1]


def test_what_a_file_says_cannot_steer_the_terminal(tmp_path, tell, monkeypatch):
    monkeypatch.chdir(tmp_path)  # so that paths are short enough for a table
    hostile = "ldmctl \x1b[31m \x07 \x9b2J\nnext"
    config = {**LDM, "latents": "\x1b]0;title\x07"}
    folder = make(
        tmp_path / "a\x1b[2J", command=hostile, parent=hostile, verb="fit-diffusion", status=hostile, config=config, rows=losses(0.5)
    )
    other = make(tmp_path / "b", config=LDM)
    for words in (("list", "."), ("show", folder.name), ("compare", folder.name, other.name)):
        out = tell("runs", *words)[1]
        assert not [each for each in out if (each < " " and each != "\n") or "\x7f" <= each <= "\x9f"], repr(out)
        assert r"a\x1b[2J" in out
    assert r"ldmctl \x1b[31m \x07 \x9b2J\nnext" in tell("runs", "show", folder)[1]


def test_a_mistyped_run_is_answered_with_the_run_that_is_nearest(tmp_path, tell, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "runs" / "ldm")
    make(tmp_path / "elsewhere" / "first")
    for typed, meant in (("ldm", "runs/ldm"), ("runs/lmd", "runs/ldm"), ("elsewhere/frist", "elsewhere/first")):
        assert run(["runs", "show", typed]) == 6
        assert f"There is no run folder {typed}. Did you mean '{meant}'?" in capsys.readouterr().err
    assert run(["runs", "show", "nothing/like/it"]) == 6
    assert "Did you mean" not in capsys.readouterr().err


def test_a_mistyped_sort_is_answered_with_the_one_that_is_nearest(tell, capsys):
    assert run(["runs", "list", "--sort", "bst"]) == 2
    said = capsys.readouterr().err
    assert "'bst' is not one of 'started'" in said and "Did you mean 'best'?" in said and "Value error" not in said


def test_a_folder_that_lost_its_run_json_is_named(tmp_path, tell):
    (make(tmp_path / "bare", rows=losses(0.5)) / "run.json").unlink()
    assert f"{tmp_path / 'bare'} has no run.json, though it looks like a run." in tell("runs", "list", tmp_path)[1]


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([], ""), ([1.0], "▁"), ([2, 2, 2], "▁▁▁"), ([0, 1], "▁█"), ([0, 7, float("nan"), 3.5], "▁█▅"), ([3, 1, 2], "█▁▅")],
)
def test_a_sparkline_goes_from_the_lowest_block_to_the_highest(values, drawn):
    assert sparkline(values) == drawn


def test_a_sparkline_of_many_values_is_of_the_means_of_neighbours():
    assert sparkline([0, 0, 2, 0, 3, 1], width=3) == "▁▅█"
    assert len(sparkline(list(range(1000)))) == 24


def test_the_best_is_among_those_that_are_measured_as_the_last_one_is(tmp_path, tell):
    changed = [{"step": 200, "key": key, "from": 1, "to": 5} for key in ("losses.pixel_weight", "loop.lr")] + ["damage", {"step": None}]
    make(tmp_path / "a", rows=losses(0.3, 0.2, 2.5, 2.6), changes=changed)
    make(tmp_path / "b", rows=losses(0.3, 0.2, 2.5, 2.6), changes=[{"step": 200, "key": "loop.lr", "from": 1, "to": 5}])
    found = json.loads(tell("runs", "list", tmp_path, "--sort", "name", "--json")[1])["runs"]
    assert [each["best"]["step"] for each in found] == [300, 200]
    assert [measured_since({"changes": damaged}) for damaged in (None, 3, [], [{}], [{"key": "losses.shares.pixel", "step": 7}])] == [
        *[0] * 4,
        7,
    ]
