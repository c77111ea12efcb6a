"""Batches are the same whatever prepares them, and a broken picture stops nobody."""

import multiprocessing
import os
import pickle
import signal
import subprocess
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from ldmctl.errors import DataError, MemoryShortage
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.workers import ADDRESSED, batches
from ldmctl.protocols import Example


class Drawn:
    """Pictures of one colour each, some of them broken."""

    classes = ["even", "odd"]

    def __init__(self, count, broken=()):
        self.count, self.broken, self.asked = count, set(broken), []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.asked.append(index)
        if index in self.broken:
            raise DataError(f"{index}.png is broken")
        return Example(Image.linear_gradient("L").rotate(index), index % 2, f"number {index}")

    def stamp(self, index):
        return f"folder/{index}.png:10:999"


def pictures(count=24, broken=(), *, crop="random", **options):
    return Pictures(Drawn(count, broken), SimpleNamespace(size=8, channels=3, crop=crop, flip=True, background="white"), **options)


def order(count, batch=5):
    pairs = [(1000 + i, (7 * i) % count) for i in range(count)]
    return [pairs[i : i + batch] for i in range(0, count, batch)]


def seed_of(position):
    return position * 31


@pytest.mark.parametrize("broken", [(), (4,)])
def test_batches_are_the_same_whatever_the_workers(broken):
    runs = []
    for workers in (0, 2):
        whole = pictures(broken=broken)
        before = torch.get_rng_state()
        runs.append(list(batches(whole, order(24), seeds=seed_of, workers=workers)))
        assert torch.equal(torch.get_rng_state(), before), "loading draws nothing from the global generator"
        assert [item["index"] for item in whole.bad] == list(broken)
    for alone, helped in zip(*runs, strict=True):
        assert torch.equal(alone.image, helped.image)
        assert vars(alone) | {"image": 0} == vars(helped) | {"image": 0}


def test_crops_belong_to_positions_and_come_again_from_memory():
    whole = pictures()
    first, second = (list(batches(whole, order(24), seeds=seed_of)) for _ in range(2))
    assert whole.fits and len(whole.dataset.asked) == 24
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, second, strict=True))
    other = list(batches(whole, order(24), seeds=lambda position: position * 31 + 1))
    assert not all(torch.equal(a.image, b.image) for a, b in zip(first, other, strict=True))


def test_without_seeds_nothing_is_left_to_chance():
    whole = pictures()
    batch = next(batches(whole, [[(0, 3), (1, 3)]]))
    assert torch.equal(batch.image[0], batch.image[1]) and torch.equal(batch.image[0], whole.item(3))
    assert (batch.label, batch.text, batch.index) == ([1, 1], ["number 3"] * 2, [3, 3])


def test_a_set_larger_than_the_limit_is_not_kept():
    whole = pictures(memory=1000)
    for _ in range(2):
        list(batches(whole, order(24), seeds=seed_of))
    assert not whole.fits and len(whole.dataset.asked) == 48


def test_an_endless_order_is_read_only_as_far_as_needed():
    def forever():
        position = 0
        while True:
            yield [(position, position % 24)]
            position += 1

    for workers in (0, 1):
        stream = batches(pictures(), forever(), seeds=seed_of, workers=workers)
        assert [next(stream).index for _ in range(3)] == [[0], [1], [2]]
        stream.close()


def test_a_broken_picture_is_replaced_by_the_next_and_reported_once():
    whole = pictures(300, broken=[7, 8, 299])
    first, second, third = batches(whole, [[(0, 7), (1, 1)], [(2, 8), (3, 7)], [(4, 299)]])
    assert first.used == [9, 1] and first.index == [7, 1] and first.label == [1, 1] and first.text[0] == "number 9"
    assert [(item["file_name"], item["reason"]) for item in first.bad] == [
        ("folder/7.png", "7.png is broken"),
        ("folder/8.png", "8.png is broken"),
    ]
    assert second.used == [9, 9] and second.bad == []
    assert third.used == [0] and len(whole.bad) == 3
    assert whole.label(7) == 1 and whole.text(8) == "number 9" and torch.equal(whole.item(7), whole.item(9))


@pytest.mark.parametrize("workers", [0, 1])
def test_more_than_one_in_a_hundred_is_an_error_with_reasons(workers):
    with pytest.raises(DataError, match=r"(?s)2 of 50 pictures cannot be used.*4\.png is broken") as caught:
        list(batches(pictures(50, broken=[4, 30]), order(50), workers=workers))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_set_that_is_all_broken_ends_at_once(count):
    whole = pictures(count, broken=range(count))
    with pytest.raises(DataError, match=f"of {count} pictures cannot be used"):
        next(batches(whole, [[(0, 0)]]))
    assert len(whole.dataset.asked) <= 2
    with pytest.raises(DataError):
        whole.item(0)


@pytest.mark.skipif(not ADDRESSED, reason="this system does not say who sent a signal")
def test_workers_outlive_signals_meant_for_the_main_process_and_end_with_it():
    stream = batches(pictures(), ([(i, i % 24)] for i in range(1000)), seeds=seed_of, workers=2)
    assert next(stream).index == [0]
    workers = multiprocessing.active_children()
    for name in ("-TERM", "-INT", "-HUP"):
        subprocess.run(["kill", name, *(str(worker.pid) for worker in workers)], check=True)
    assert [next(stream).index for _ in range(40)] == [[(i + 1) % 24] for i in range(40)]
    assert len(workers) == 2 and all(worker.is_alive() for worker in workers)
    for worker in workers:
        worker.terminate()  # this SIGTERM is the main process's own
        worker.join(5)
    assert [worker.exitcode for worker in workers] == [0, 0]
    stream.close()


def test_a_bug_in_a_dataset_stays_a_bug():
    whole = pictures()
    whole.dataset.broken = None
    with pytest.raises(TypeError):
        whole.prepared(0)


def test_pictures_travel_to_a_worker_without_what_they_keep():
    whole = pictures()
    sent = pickle.dumps(whole)
    for index in range(24):
        whole.prepared(index)
    assert abs(len(pickle.dumps(whole)) - len(sent)) < 200
    assert torch.equal(pickle.loads(sent).item(5, seed=3), whole.item(5, seed=3))


def test_stamps_and_classes_are_those_of_the_dataset():
    assert pictures().stamp(3) == "folder/3.png:10:999" and pictures().classes == ["even", "odd"] and len(pictures(9)) == 9


class Deadly(Drawn):
    """A data set whose worker is ended as by the system when memory is short."""

    def __getitem__(self, index):
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_worker_that_is_ended_from_outside_is_said_to_be_short_of_memory():
    settings = SimpleNamespace(size=8, channels=3, crop="center", flip=False, background="white")
    with pytest.raises(MemoryShortage, match="A process that decodes pictures was ended from outside"):
        list(batches(Pictures(Deadly(12), settings), order(12), workers=1))


@pytest.mark.parametrize("begins", [True, False])
def test_a_worker_that_is_gone_while_something_else_is_done_is_said_as_that(monkeypatch, capsys, begins):
    """torch raises it by a signal handler, in whatever the main thread does: a forward of a plugin, a save."""
    from ldmctl.cli import app

    def ends(**_):
        raise RuntimeError(f"{'' if begins else 'a '}DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr(app, "app", ends)
    assert app.run(["fit-ae"]) == (7 if begins else 1)
    said = capsys.readouterr().err
    assert ("A process that decodes pictures was ended from outside" in said) == begins == ("Traceback" not in said)
    assert not begins or "loop.workers=1" in said
