"""What surrounds the steps: reports, states, snapshots, and giving up in time."""

import json
import time

import pytest
import torch
from torch import nn

from ldmctl.errors import DivergedError, Stopped
from ldmctl.storage import weights
from ldmctl.storage.run import open_run
from ldmctl.training import meter as meters
from ldmctl.training.engine import Engine
from ldmctl.training.guard import Guard
from ldmctl.training.learner import Learner, learning_rate
from ldmctl.training.loop import Training
from ldmctl.training.meter import Meter
from ldmctl.training.order import batch_items
from ldmctl.training.snapshots import Snapshots

CPU = Engine(torch.device("cpu"), torch.float32)
ITEMS = torch.tensor([7, 3])
GOOD, BAD = torch.tensor(0.0), torch.tensor(1.0)


@pytest.fixture
def train(tiny, quiet):
    """train(folder, "loop.steps=4", ...) fits a line to points -> (learner, training). `poison`: steps with a NaN in their batch."""

    def go(folder, *overrides, poison=(), losses=None, stop=None):
        config = tiny("fit-ae", *overrides)
        points = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(0)
        learner = Learner(nn.Linear(2, 1), config.loop, CPU)
        with (
            open_run(folder, config) as run,
            Training(run, CPU, config.loop, {"line": learner}, header={"kind": "line"}, console=quiet) as training,
        ):
            for step in training:
                items = batch_items(0, len(points), config.loop.batch, step)
                x = points[items] * (float("nan") if step in poison else 1)
                loss = (learner.network(x) - x.sum(1, keepdim=True)).square().mean()
                loss.backward()
                training.add({"loss": loss})
                training.update(step, learner, items)
                if training.previews(step):
                    training.validated(step, {"val/loss": losses[step + 1] if losses else loss.item()}, judged_by="val/loss")
                training.signals.asked = step + 1 == stop
        return learner, training

    return go


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def facts(folder):
    """The reports without how fast it went."""
    return [
        {key: value for key, value in row.items() if key not in ("images_per_second", "peak_share", "memory_gib")} for row in rows(folder)
    ]


def record(folder):
    return json.loads((folder / "run.json").read_text())


def snapshots(folder):
    return sorted(path.stem for path in folder.glob("snapshots/*.safetensors"))


def step_of(path):
    return weights.read_header(path)["step"]


# -- the guard -----------------------------------------------------------------------


def test_the_run_is_given_up_after_patience_bad_steps_in_a_row():
    guard = Guard(3)
    for step in range(3):
        guard.add(step, BAD, ITEMS)
    with pytest.raises(DivergedError, match=r"for 3 steps in a row, up to step 3.*Items of the last such batch: 7, 3\.") as caught:
        guard.check()
    assert caught.value.exit_code == 5


def test_bad_steps_that_are_not_in_a_row_are_forgiven():
    guard = Guard(3)
    for step in range(60):
        guard.add(step, GOOD if step % 3 == 2 else BAD, ITEMS)
    guard.check()
    assert guard.in_a_row == 0


def test_two_networks_in_one_step_count_once():
    guard = Guard(3)
    for step in range(2):
        guard.add(step, BAD, ITEMS)
        guard.add(step, BAD, ITEMS)
    guard.check()
    assert guard.in_a_row == 2
    for flags in [(GOOD, BAD), (BAD, GOOD)]:
        one = Guard(9)
        for flag in flags:
            one.add(0, flag, ITEMS)
        one.check()
        assert one.in_a_row == 1, "one bad network makes a bad step"


def test_reading_the_flags_twice_counts_nothing_twice():
    guard = Guard(3)
    guard.add(0, BAD, ITEMS)
    guard.check()
    guard.check()
    assert guard.in_a_row == 1


# -- the meter -------------------------------------------------------------------------


def test_codes_used_are_counted_over_an_epoch_and_not_over_a_batch():
    meter, found = Meter(CPU, epoch=4), []
    for step in range(10):  # one code a batch, four in an epoch; the sixth to the tenth batch use only two
        code = step if step < 4 else step % 2
        meter.add({"codes_counts": torch.eye(8, dtype=torch.int64)[code]})
        meter.step(step + 1)
        found.append(meter.read()[0]["codes_used"])
    assert found == [1, 2, 3, 4, 4, 4, 4, 2, 2, 2]  # the first epoch so far, then the last whole one


def test_an_epoch_that_was_interrupted_is_counted_on():
    whole, first = Meter(CPU, epoch=3), Meter(CPU, epoch=3)
    batches = [{"codes_counts": torch.eye(5, dtype=torch.int64)[code]} for code in (0, 1, 2, 3, 3, 4)]
    for step, batch in enumerate(batches):
        whole.add(batch)
        whole.step(step + 1)
        if step < 4:
            first.add(batch)
            first.step(step + 1)
    second = Meter(CPU, epoch=3)
    second.restore(first.state())
    for step in (4, 5):
        second.add(batches[step])
        second.step(step + 1)
    assert second.read()[0] == whole.read()[0] and second.whole["codes_counts"].tolist() == [0, 0, 0, 2, 1]


def test_endings_say_how_values_join():
    meter = Meter(CPU)
    for share, mean, largest, histogram in [(0.75, 1.0, 4.0, [1, 0, 0]), (0.25, 5.0, 2.0, [2, 0, 3])]:
        values = {"loss": mean, "latent_max": largest, "model/skipped_sum": 1.0, "codes_counts": histogram}
        meter.add({name: torch.tensor(value) for name, value in values.items()}, share)
    meter.add({"loss": torch.tensor(8.0)}, 1.0)
    values, seconds, steps = meter.read()
    codes = {"codes_used": 2.0, "codes_dead": pytest.approx(1 / 3), "codes_perplexity": pytest.approx(2.0)}
    assert values == {"loss": 5.0, "latent_max": 4.0, "model/skipped": 2.0, **codes}
    assert steps == 2 and seconds > 0
    assert meter.read()[0] == {}, "a report begins the next one"


def test_a_value_of_some_steps_only_is_averaged_over_these():
    meter = Meter(CPU)
    for step in range(4):
        meter.add({"loss": torch.tensor(1.0), **({"adversarial": torch.tensor(6.0)} if step == 3 else {})})
    assert meter.read()[0] == {"loss": 1.0, "adversarial": 6.0}


# -- when things happen ----------------------------------------------------------------------


def test_reports_previews_and_states_come_at_their_steps(tmp_path, train):
    train(tmp_path, "loop.steps=11", "loop.report=3", "loop.preview=4", "loop.save=5", "loop.keep.every=5")
    assert [row["step"] for row in rows(tmp_path) if "loss" in row] == [3, 6, 9, 11]
    assert [row["step"] for row in rows(tmp_path) if "val/loss" in row] == [4, 8, 11]
    assert snapshots(tmp_path) == ["000000005", "000000010", "best"]
    assert step_of(tmp_path / "model.safetensors") == 11 and record(tmp_path)["step"] == 11
    assert (record(tmp_path)["status"], record(tmp_path)["exit_code"]) == ("finished", 0)


def test_the_published_weights_are_the_average(tmp_path, train):
    learner, _ = train(tmp_path)
    tensors, header = weights.load(tmp_path / "model.safetensors")
    assert all(torch.equal(tensors[name], value) for name, value in learner.average.items())
    assert (header["kind"], header["step"]) == ("line", 4)
    assert not torch.equal(tensors["weight"], learner.module.weight)


def test_snapshots_come_at_their_own_steps_whatever_the_saves(tmp_path, train):
    train(tmp_path, "loop.steps=10", "loop.save=4", "loop.keep.every=3", "loop.keep.best=false")
    assert snapshots(tmp_path) == ["000000003", "000000006", "000000009"]


def test_only_the_newest_snapshots_are_kept(tmp_path, train):
    train(tmp_path, "loop.steps=12", "loop.save=2", "loop.keep.every=2", "loop.keep.last=2", "loop.keep.best=false")
    assert snapshots(tmp_path) == ["000000010", "000000012"]
    assert step_of(tmp_path / "snapshots" / "000000010.safetensors") == 10


def test_the_best_snapshot_has_the_lowest_validation_loss(tmp_path, train):
    losses = {2: 3.0, 4: 1.0, 6: 2.0, 8: 1.0}
    train(tmp_path, "loop.steps=8", "loop.preview=2", "loop.save=2", losses=losses)
    assert step_of(tmp_path / "snapshots" / "best.safetensors") == 4
    # A resumed run remembers what it has to beat.
    train(tmp_path, "loop.steps=10", "loop.preview=2", "loop.save=2", losses=losses | {10: 1.5})
    assert step_of(tmp_path / "snapshots" / "best.safetensors") == 4
    train(tmp_path, "loop.steps=12", "loop.preview=2", "loop.save=2", losses=losses | {12: 0.5})
    assert step_of(tmp_path / "snapshots" / "best.safetensors") == 12


def test_a_validation_loss_that_is_not_a_number_is_never_the_best(tmp_path, train):
    losses = {2: float("nan"), 4: 1.0, 6: float("nan")}
    train(tmp_path, "loop.steps=6", "loop.preview=2", losses=losses)
    assert step_of(tmp_path / "snapshots" / "best.safetensors") == 4


# -- going on ----------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tmp_path, train):
    whole, _ = train(tmp_path / "whole", "loop.steps=9")
    with pytest.raises(Stopped, match=r"Stopped after step 5 of 9; everything is saved\. Run the same command to continue\.") as caught:
        train(tmp_path / "parts", "loop.steps=9", stop=5)
    assert caught.value.exit_code == 75
    assert (record(tmp_path / "parts")["status"], record(tmp_path / "parts")["exit_code"]) == ("stopped", 75)
    parts, training = train(tmp_path / "parts", "loop.steps=9")
    assert training.first == 5
    assert all(torch.equal(parts.average[name], value) for name, value in whole.average.items())
    assert facts(tmp_path / "parts") == facts(tmp_path / "whole")
    for name in ("state.safetensors", "model.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_signal_after_the_last_step_stops_nothing(tmp_path, train):
    train(tmp_path, "loop.steps=3", stop=3)
    assert record(tmp_path)["status"] == "finished"


def test_reports_after_the_saved_step_are_dropped_on_resume(tmp_path, train):
    with pytest.raises(Stopped):
        train(tmp_path, "loop.steps=9", stop=5)
    with (tmp_path / "metrics.jsonl").open("a") as file:  # what a killed run left after its last state
        file.write('{"step": 6, "loss": 1.0}\n{"step": 7, "lo')
    train(tmp_path, "loop.steps=9")
    assert [row["step"] for row in rows(tmp_path) if "loss" in row] == list(range(1, 10))


def test_reports_of_a_run_killed_before_its_first_state_are_dropped(tmp_path, train, tiny):
    with open_run(tmp_path, tiny("fit-ae")) as run:
        run.log(1, {"loss": 1.0})
    train(tmp_path)
    assert [row["step"] for row in rows(tmp_path) if "loss" in row] == [1, 2, 3, 4]


def test_a_model_of_another_step_than_the_state_is_written_again(tmp_path, train):
    train(tmp_path)
    good = (tmp_path / "model.safetensors").read_bytes()
    tensors, header = weights.load(tmp_path / "model.safetensors")
    header.pop("format")
    weights.save(tmp_path / "model.safetensors", {name: value + 1 for name, value in tensors.items()}, {**header, "step": 2})
    train(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == good
    (tmp_path / "model.safetensors").unlink()
    train(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == good


@pytest.mark.parametrize(
    "lost", ["averages/000000004-0.050.safetensors", "averages/000000004-0.100.safetensors", "snapshots/000000004.safetensors"]
)
def test_what_a_save_could_not_write_any_more_is_written_by_the_same_command(tmp_path, train, lost):
    words = ["loop.keep.averages=2", "loop.keep.every=4"]
    train(tmp_path, *words)
    good = (tmp_path / lost).read_bytes()
    (tmp_path / lost).unlink()
    train(tmp_path, *words)
    assert (tmp_path / lost).read_bytes() == good


def test_the_time_of_previews_and_saves_is_not_in_the_rate(tmp_path, train, monkeypatch):
    slow = [0.0]
    clock = time.monotonic
    monkeypatch.setattr(meters.time, "monotonic", lambda: clock() + slow[0])
    write = Snapshots._write

    def writing(self, *given, **more):
        slow[0] += 3600
        write(self, *given, **more)

    monkeypatch.setattr(Snapshots, "_write", writing)
    train(tmp_path, "loop.steps=8", "loop.save=1", "loop.report=4")
    rates = [row["images_per_second"] for row in rows(tmp_path) if "images_per_second" in row]
    assert slow[0] >= 8 * 3600 and len(rates) == 2 and all(rate > 1 for rate in rates)


def test_a_finished_run_has_nothing_to_do(tmp_path, train):
    train(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")} | {"metrics": facts(tmp_path)}
    _, training = train(tmp_path)
    assert training.done == 4
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")} | {"metrics": facts(tmp_path)}


@pytest.mark.parametrize("decay", ["constant", "inverse-sqrt"])
def test_a_run_without_an_end_can_be_prolonged(tmp_path, train, decay):
    whole, _ = train(tmp_path / "whole", "loop.steps=8", f"loop.decay={decay}")
    train(tmp_path / "parts", "loop.steps=3", f"loop.decay={decay}")
    parts, _ = train(tmp_path / "parts", "loop.steps=8", f"loop.decay={decay}")
    assert all(torch.equal(parts.average[name], value) for name, value in whole.average.items())


def test_a_cosine_run_that_is_prolonged_follows_the_longer_cosine(tmp_path, train):
    train(tmp_path, "loop.decay=cosine", "loop.warmup=1")
    _, training = train(tmp_path, "loop.decay=cosine", "loop.warmup=1", "loop.steps=8")
    asked = training.loop
    assert [row["lr"] for row in rows(tmp_path) if "lr" in row][4:] == [learning_rate(asked, step) for step in range(4, 8)]
    assert record(tmp_path)["changes"] == [{"step": 4, "key": "loop.steps", "from": 4, "to": 8}]


# -- not finite ------------------------------------------------------------------------------------


def test_a_few_bad_steps_are_skipped_counted_and_survived(tmp_path, train):
    learner, _ = train(tmp_path, "loop.steps=8", "loop.patience=3", poison=(2, 3, 6))
    assert [row["line/skipped"] for row in rows(tmp_path) if "loss" in row] == [0, 0, 1, 1, 0, 0, 1, 0]
    assert all(value.isfinite().all() for value in learner.average.values())


def test_a_diverged_run_keeps_its_last_good_state(tmp_path, train):
    with pytest.raises(DivergedError, match=r"not finite for 3 steps in a row, up to step 9\. The last good state is kept\."):
        train(tmp_path, "loop.steps=20", "loop.save=5", "loop.patience=3", poison=range(6, 20))
    assert (record(tmp_path)["status"], record(tmp_path)["exit_code"], record(tmp_path)["step"]) == ("diverged", 5, 5)
    tensors, header = weights.load(tmp_path / "state.safetensors")
    assert header["scalars"]["step"] == 5 and all(value.isfinite().all() for value in tensors.values())
    assert step_of(tmp_path / "model.safetensors") == 5
    _, training = train(tmp_path, "loop.steps=20", "loop.save=5", "loop.patience=3")
    assert training.first == 5 and training.done == 20


def test_bad_steps_are_counted_across_a_resume(tmp_path, train):
    with pytest.raises(Stopped):
        train(tmp_path, "loop.steps=20", "loop.patience=5", poison=range(2, 20), stop=5)
    with pytest.raises(DivergedError, match="5 steps in a row, up to step 7"):
        train(tmp_path, "loop.steps=20", "loop.patience=5", poison=range(2, 20))


def test_weights_that_are_not_finite_are_never_saved(tmp_path, train, tiny, quiet):
    train(tmp_path, "loop.steps=4")
    good = (tmp_path / "state.safetensors").read_bytes()
    config = tiny("fit-ae", "loop.steps=5")
    learner = Learner(nn.Linear(2, 1), config.loop, CPU)
    with (
        pytest.raises(DivergedError, match=r"Weights are not finite at step 5; the last good state in .* is kept"),
        open_run(tmp_path, config) as run,
        Training(run, CPU, config.loop, {"line": learner}, header={"kind": "line"}, console=quiet) as training,
    ):
        for _ in training:
            learner.module.weight.data[0, 0] = float("inf")
    assert (tmp_path / "state.safetensors").read_bytes() == good


def test_a_weight_that_is_called_scale_is_looked_at_as_all_others_are(tmp_path, tiny, quiet):
    config = tiny("fit-ae", "loop.steps=2")
    learner = Learner(nn.ModuleDict({"scales": nn.Linear(2, 1)}), config.loop, CPU)
    with (
        pytest.raises(DivergedError, match="Weights are not finite at step 2"),
        open_run(tmp_path, config) as run,
        Training(run, CPU, config.loop, {"line": learner}, header={"kind": "line"}, console=quiet) as training,
    ):
        for _ in training:
            learner.module["scales"].weight.data[0, 0] = float("inf")


def test_an_absurd_learning_rate_ends_with_exit_code_5(tmp_path, fit_ae):
    with pytest.raises(DivergedError) as caught:
        fit_ae(tmp_path / "ae", "loop.lr=1e30", "loop.warmup=0", "loop.steps=40", "loop.patience=3", "loop.save=1000")
    assert caught.value.exit_code == 5 and record(tmp_path / "ae")["status"] == "diverged"
    assert "Items of the last such batch" in str(caught.value) or "Weights are not finite" in str(caught.value)
    assert not (tmp_path / "ae" / "state.safetensors").exists()


def test_a_record_that_a_kill_left_behind_the_state_is_put_right(tmp_path, train):
    train(tmp_path)
    said = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(said | {"step": 1}))
    train(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["step"] == said["step"] > 1
