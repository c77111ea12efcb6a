"""Every tracker keeps its protocol; what it was told can be read back, also when a run is resumed."""

import csv
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from ldmctl import registry
from ldmctl.errors import MissingError
from ldmctl.testing import check

needs_tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs pip install 'ldmctl[tensorboard]'")


def build(run: Path, name: str = "tensorboard", **keys):
    plugin = registry.load("tracker", name)
    return plugin(plugin.Config(type=name, **keys), run=run)


def read(run: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()


@pytest.mark.parametrize("name", [plugin.name for plugin in registry.plugins("tracker") if plugin.source.startswith("ldmctl")])
def test_every_tracker_keeps_its_promises(name, monkeypatch):
    if name in ("tensorboard", "wandb"):
        pytest.importorskip(name)
    monkeypatch.setenv("WANDB_SILENT", "true")
    check("tracker", registry.load("tracker", name), **({"mode": "offline"} if name == "wandb" else {}))


def test_there_are_three():
    assert {"csv", "tensorboard", "wandb"} <= {plugin.name for plugin in registry.plugins("tracker")}


@pytest.mark.parametrize("name", ["csv", "wandb"])
def test_a_file_named_as_a_package_does_not_hide_it(name):
    assert registry.load("tracker", name).__module__ == f"ldmctl_plugins.trackers.{name}"
    assert csv.DictReader


# -- tensorboard ---------------------------------------------------------------


def test_a_missing_package_says_what_to_install_before_anything_is_written(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard" or name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingError, match=r"pip install 'ldmctl\[tensorboard\]'") as caught:
        build(tmp_path)
    assert caught.value.exit_code == 4 and not list(tmp_path.iterdir())


@needs_tensorboard
def test_scalars_and_pictures_are_read_back(tmp_path):
    (tmp_path / "samples").mkdir()
    for step, mode in [(5, "RGB"), (10, "L"), (15, "RGBA")]:
        Image.new(mode, (8, 4)).save(tmp_path / "samples" / f"{step:06}.png")
    tracker = build(tmp_path)
    for step in (5, 10, 15):
        tracker.log(step, {"loss": step / 10, "share/pixel": 0.5})
        tracker.image(step, tmp_path / "samples" / f"{step:06}.png")
    events = read(tmp_path)  # before close: what was logged is on the disk
    tracker.close()
    tracker.close()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(5, 0.5), (10, 1.0), (15, 1.5)]
    assert events.Tags()["scalars"] == ["loss", "share/pixel"] and events.Tags()["images"] == ["samples"]
    assert [(event.step, event.width, event.height) for event in events.Images("samples")] == [(5, 8, 4), (10, 8, 4), (15, 8, 4)]


@needs_tensorboard
def test_two_pictures_of_a_step_stand_beside_each_other(tmp_path):
    tracker = build(tmp_path)
    for name in ("000500-train", "000500-val"):
        (tmp_path / "samples").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "samples" / f"{name}.png")
        tracker.image(500, tmp_path / "samples" / f"{name}.png")
    tracker.close()
    assert sorted(read(tmp_path).Tags()["images"]) == ["samples/train", "samples/val"]


@needs_tensorboard
def test_a_run_that_goes_on_from_an_earlier_step_hides_what_was_logged_after_it(tmp_path):
    first = build(tmp_path)
    for step in (1, 2, 3):
        first.log(step, {"loss": 1.0})
    first.close()
    second = build(tmp_path)
    second.log(2, {"loss": 0.5})
    second.close()
    assert [(event.step, event.value) for event in read(tmp_path).Scalars("loss")] == [(1, 1.0), (2, 0.5)]


# -- csv -----------------------------------------------------------------------


def table(run: Path) -> list[list[str]]:
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def reported(run: Path, *steps: int) -> None:
    """metrics.jsonl as the host leaves it."""
    (run / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in steps))


def test_each_step_is_a_row_and_columns_are_added_as_they_appear(tmp_path):
    tracker = build(tmp_path, "csv")
    tracker.log(1, {"loss": 0.5})
    tracker.log(2, {"loss": 0.25})
    assert table(tmp_path) == [["step", "loss"], ["1", "0.5"], ["2", "0.25"]]  # before close
    tracker.log(2, {"val/psnr": 20.0})  # a validation of the same step
    tracker.log(3, {"val/psnr": float("nan"), "a, b": 1e-7})
    tracker.log(4, {"loss": 0.125})
    tracker.close()
    tracker.close()
    assert table(tmp_path) == [
        ["step", "loss", "val/psnr", "a, b"],
        ["1", "0.5", "", ""],
        ["2", "0.25", "20.0", ""],
        ["3", "", "nan", "1e-07"],
        ["4", "0.125", "", ""],
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


def test_rows_after_the_step_from_which_a_run_continues_are_dropped(tmp_path):
    killed = build(tmp_path, "csv")
    for step in (5, 10, 15, 20):
        killed.log(step, {"loss": 1.0, "old": 0.0})
    reported(tmp_path, 5, 10, 20)  # cut back to 10; the host writes there first, and now reports every 20 steps
    resumed = build(tmp_path, "csv")
    resumed.log(20, {"loss": 0.5, "new": 2.0})
    assert table(tmp_path) == [["step", "loss", "old", "new"], ["5", "1.0", "0.0", ""], ["10", "1.0", "0.0", ""], ["20", "0.5", "", "2.0"]]


def test_half_a_row_of_a_killed_process_is_dropped(tmp_path):
    build(tmp_path, "csv").log(5, {"loss": 1.0, "other": 1.0})
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("10,0.")
    build(tmp_path, "csv").log(10, {"loss": 0.5, "other": 0.5})
    assert table(tmp_path) == [["step", "loss", "other"], ["5", "1.0", "1.0"], ["10", "0.5", "0.5"]]


def test_a_run_that_begins_anew_in_the_folder_keeps_no_row(tmp_path):
    build(tmp_path, "csv").log(5, {"loss": 1.0})
    reported(tmp_path, 10)
    build(tmp_path, "csv").log(10, {"loss": 0.5})
    assert table(tmp_path) == [["step", "loss"], ["10", "0.5"]]


def test_a_table_that_cannot_be_rewritten_stays_as_it_was(tmp_path, monkeypatch):
    tracker = build(tmp_path, "csv")
    tracker.log(1, {"loss": 0.5})
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        tracker.log(2, {"another": 1.0})
    assert table(tmp_path) == [["step", "loss"], ["1", "0.5"]]


def test_a_training_run_that_is_resumed_has_each_step_once(fit_ae, tmp_path):
    words = ["tracker=csv", "loop.report=1", "loop.save=2", "loop.preview=2"]
    fit_ae(tmp_path / "ae", *words, "loop.steps=2")
    fit_ae(tmp_path / "ae", *words, "loop.steps=4")
    names, *rows = table(tmp_path / "ae")
    assert [row[0] for row in rows] == ["1", "2", "3", "4"] and {"step", "loss", "lr"} <= set(names)
    lines = [json.loads(line) for line in (tmp_path / "ae" / "metrics.jsonl").read_text().splitlines()]
    assert {name for line in lines for name in line} == set(names)


# -- wandb ---------------------------------------------------------------------


class Calls(list):
    """Stands for the package wandb: remembers how it was called."""

    def module(self) -> ModuleType:
        calls = self

        class Run:
            def __init__(self, **options):
                calls.append(options)
                self.id = options["id"] or "abc123"

            def __getattr__(self, name):
                return lambda *words, **options: calls.append((name, *words, *options.items()))

        module = ModuleType("wandb")
        module.errors = ModuleType("wandb.errors")
        module.errors.Error = type("Error", (Exception,), {})
        module.init = Run
        module.Image = lambda path, caption: ("image", path, caption)
        return module


@pytest.fixture
def calls(monkeypatch):
    found = Calls()
    monkeypatch.setitem(sys.modules, "wandb", found.module())
    return found


def test_a_resumed_run_continues_under_the_id_in_its_folder(calls, tmp_path):
    (tmp_path / "config.yaml").write_text("loop: {steps: 10}\n")
    for _ in range(2):
        build(tmp_path, "wandb", project="birds", entity="us", group="small", tags=["a"]).close()
    first, second = (call for call in calls if isinstance(call, dict))
    assert first["id"] is None and second["id"] == "abc123" and first["resume"] == second["resume"] == "allow"
    assert json.loads((tmp_path / "wandb.json").read_text()) == {"id": "abc123"}
    asked = {"project": "birds", "entity": "us", "group": "small", "tags": ["a"], "mode": "online", "name": tmp_path.name}
    assert first.items() >= {**asked, "dir": str(tmp_path), "config": {"loop": {"steps": 10}}}.items()


def test_numbers_and_pictures_are_drawn_over_the_training_step(calls, tmp_path):
    tracker = build(tmp_path, "wandb")
    tracker.log(500, {"loss": 0.5})
    tracker.image(500, tmp_path / "samples" / "000500-train.png")
    tracker.close()
    assert calls[1:] == [
        ("define_metric", "*", ("step_metric", "step")),
        ("log", {"step": 500, "loss": 0.5}),
        ("log", {"step": 500, "samples/train": ("image", str(tmp_path / "samples" / "000500-train.png"), "step 500")}),
        ("finish", ("exit_code", 0)),
    ]


def test_a_run_that_an_error_ends_is_no_finished_run(calls, tmp_path):
    tracker = build(tmp_path, "wandb")
    try:
        raise RuntimeError
    except RuntimeError:
        tracker.close()
    assert calls[-1] == ("finish", ("exit_code", 1))


def test_a_disabled_tracker_leaves_no_id(calls, tmp_path):
    build(tmp_path, "wandb", mode="disabled")
    assert not list(tmp_path.iterdir())


def test_without_a_login_it_says_the_ways_out(calls, tmp_path):
    module = sys.modules["wandb"]

    def refuse(**_):
        raise module.errors.Error("No API key configured.")

    module.init = refuse
    with pytest.raises(MissingError, match=r"No API key configured.*`wandb login`.*tracker\.mode=offline") as caught:
        build(tmp_path, "wandb")
    assert caught.value.exit_code == 4 and not list(tmp_path.iterdir())


def test_without_the_package_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingError, match=r"pip install 'ldmctl\[wandb\]'") as caught:
        build(tmp_path, "wandb")
    assert caught.value.exit_code == 4 and not list(tmp_path.iterdir())


def test_offline_files_of_a_resumed_run_have_one_id(monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "samples").mkdir()
    Image.new("RGB", (8, 4)).save(tmp_path / "samples" / "000002.png")
    for step in (1, 2):
        tracker = build(tmp_path, "wandb", mode="offline")
        tracker.log(step, {"loss": 1 / step})
        tracker.image(step, tmp_path / "samples" / "000002.png")
        tracker.close()
    kept = json.loads((tmp_path / "wandb.json").read_text())["id"]
    assert len(list(tmp_path.glob(f"wandb/offline-run-*/run-{kept}.wandb"))) == 2
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/samples_*.png"))) == 2
