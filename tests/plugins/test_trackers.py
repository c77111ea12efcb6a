"""Every tracker keeps its protocol; what TensorBoard was told can be read back."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from ldmctl import registry
from ldmctl.errors import MissingError

needs_tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs pip install 'ldmctl[tensorboard]'")


def build(run: Path, **keys):
    plugin = registry.load("tracker", "tensorboard")
    return plugin(plugin.Config(type="tensorboard", **keys), run=run)


def read(run: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()


def test_a_tracker_is_registered():
    assert "tensorboard" in [plugin.name for plugin in registry.plugins("tracker")]


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
