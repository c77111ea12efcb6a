"""Items come in an order that is a function of the seed, and the rows that are read are the rows that were written."""

import os
import threading
import time
import zlib
from pathlib import Path

import pytest
import torch

from ldmctl.config.schemas.shared import Loop
from ldmctl.errors import MismatchError
from ldmctl.latents import mapping, stream
from ldmctl.latents import reader as reading
from ldmctl.latents.manifest import Codes, Manifest, Shard, Statistics
from ldmctl.latents.reader import Latents, open_latents
from ldmctl.latents.resident import Resident
from ldmctl.latents.stream import ahead, training_latents
from ldmctl.pictures.batches import evenly
from ldmctl.storage import weights
from ldmctl.training.engine import Engine
from ldmctl.training.order import BLOCK, WINDOW, batch_items, epoch_order

CPU = Engine(torch.device("cpu"), torch.float32)
SHAPE = (2, 1, 2)
ROW = 4 * 2  # bytes


def write_cache(folder, count, *, shard, flipped=False, **checksums):
    """A cache of `count` rows: channels of row i are i // 1000 and i % 1000, those of its mirrored variant negative; label i % 3."""
    shards = []
    for number, first in enumerate(range(0, count, shard)):
        rows = torch.arange(first, min(first + shard, count))
        values = torch.stack([rows // 1000, rows % 1000], 1)[:, :, None, None].expand(-1, *SHAPE).half().contiguous()
        tensors = {"moments": values, "labels": rows % 3} | ({"flipped": -values} if flipped else {})
        path = folder / f"train-{number:05d}.safetensors"
        weights.save(path, tensors, {"kind": "latents", "split": "train"})
        crc32 = [zlib.crc32(part.numpy().tobytes()) for part in values.split(1024)]
        shards.append(Shard(file=path.name, count=len(rows), sha256=weights.file_sha256(path), crc32=crc32))
    return Manifest(
        format=1,
        moments=SHAPE,
        latent=SHAPE,
        dtype="float16",
        flipped=flipped,
        statistics=Statistics(mean=[0.0, 0.0], deviation=[1.0, 1.0]),
        classes=["a", "b", "c"],
        label_counts=torch.bincount(torch.arange(count) % 3, minlength=3).tolist(),
        data=None,
        image={},
        autoencoder={"type": "vae", "fingerprint": ""},
        fingerprint="",
        splits={"train": shards},
    )


def numbers(stored):
    """Which rows these are, negative for mirrored ones."""
    moments = stored.float()
    assert (moments == moments[:, :, :1, :1]).all()
    return (moments[:, 0, 0, 0] * 1000 + moments[:, 1, 0, 0]).long().tolist()


@pytest.fixture
def large(monkeypatch):
    """Every cache counts as too large to be hashed when it is opened."""
    monkeypatch.setattr(reading, "VERIFIED", -1)


def flip_bit(file, place):
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def place_of(latents, item, *, variant=0):
    """(file, offset in it) of the first byte of a row."""
    place = item + variant * len(latents)
    index = int((torch.from_numpy(latents.starts) <= place).sum()) - 1
    part = latents.parts[index]
    return latents.folder / part.shard.file, part.offset + (place - int(latents.starts[index])) * ROW


# -- order -------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", ["full", "blocks"])
@pytest.mark.parametrize("count", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7, WINDOW, WINDOW + 1, 2 * WINDOW + BLOCK + 5])
def test_every_order_is_a_permutation_of_its_own_epoch_and_seed(shuffle, count):
    orders = [epoch_order(seed, epoch, count, shuffle) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(count))
    if count > 2:
        assert len({tuple(order.tolist()) for order in orders}) == 3


@pytest.mark.parametrize("shuffle", ["full", "blocks"])
@pytest.mark.parametrize(("count", "size"), [(10, 3), (7, 16), (BLOCK + 44, 64), (1, 4)])
def test_batches_are_the_epochs_one_after_the_other_whatever_was_asked_before(shuffle, count, size):
    steps = [batch_items(5, count, size, step, shuffle) for step in range(12)]
    epochs = torch.cat([epoch_order(5, epoch, count, shuffle) for epoch in range(-(-12 * size // count))])
    assert torch.equal(torch.cat(steps), epochs[: 12 * size])
    for step in (11, 0, 7, 7):
        epoch_order.cache_clear()
        assert torch.equal(batch_items(5, count, size, step, shuffle), steps[step])


def test_blocks_read_from_one_window_at_a_time_and_batches_are_no_neighbours():
    count = 4 * WINDOW
    order = epoch_order(0, 3, count, "blocks")
    for window in order.split(WINDOW):
        blocks, sizes = (window // BLOCK).unique(return_counts=True)
        assert len(blocks) == WINDOW // BLOCK and (sizes == BLOCK).all()
    for batch in order.split(64)[::97]:
        assert len((batch // BLOCK).unique()) > 32, "64 of 128 blocks, with few twice"
    assert len((order[:WINDOW] // WINDOW).unique()) == 4, "blocks of a window come from everywhere"
    assert len((epoch_order(0, 3, count)[:WINDOW] // BLOCK).unique()) == count // BLOCK, "a full shuffle reads from everywhere"


# -- rows ----------------------------------------------------------------------------


@pytest.mark.parametrize("shard", [1, 7, 1000, 1024, 2500, 4000])
def test_rows_and_mirrored_rows_are_those_that_were_stored(tmp_path, shard, large):
    count = 60 if shard < 1000 else 3000
    latents = open_latents(tmp_path, write_cache(tmp_path, count, shard=shard, flipped=True), "train")
    items = torch.randint(0, count, (200,), generator=torch.Generator().manual_seed(0))
    items[:6] = torch.tensor([count - 1, 0, 0, count - 1, 5, 5])
    mirrored = torch.rand(200, generator=torch.Generator().manual_seed(1)) < 0.5
    assert len(latents) == count and latents.stored(items).dtype == torch.float16
    assert numbers(latents.stored(items)) == items.tolist()
    assert numbers(latents.stored(items, mirrored)) == torch.where(mirrored, -items, items).tolist()
    assert latents.stored(items[:0]).shape == (0, *SHAPE)
    assert torch.equal(latents.labels, torch.arange(count) % 3)


def test_rows_evenly_over_a_split_meet_all_of_its_sorted_classes_alike():
    rows = evenly(5000, 512)
    assert len(rows.unique()) == 512 and (rows[0], rows[-1]) == (0, 4999) and set(rows.diff().tolist()) == {9, 10}
    assert set((rows // 50).bincount().tolist()) == {5, 6}, "of a hundred classes of fifty each"
    assert all(torch.equal(evenly(total, 512), torch.arange(total)) for total in range(513))
    assert evenly(5000, 1).tolist() == [0]


@pytest.mark.parametrize("item", [-1, 20])
def test_an_item_that_is_not_there_is_no_other_item(tmp_path, item):
    latents = open_latents(tmp_path, write_cache(tmp_path, 20, shard=8), "train")
    with pytest.raises(IndexError, match=f"{item} to {item} were asked for; there are 20"):
        latents.stored(torch.tensor([item]))
    with pytest.raises(IndexError, match="there are 20"):
        latents.stored(torch.tensor([3]), torch.tensor([True]))


@pytest.mark.parametrize("flip", [False, True])
def test_resident_rows_are_the_mapped_ones(tmp_path, flip):
    latents = open_latents(tmp_path, write_cache(tmp_path, 50, shard=8, flipped=True), "train")
    resident = Resident(latents, CPU)
    items = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    mirrored = items % 2 == 0 if flip else None
    assert torch.equal(resident.stored(items, mirrored), latents.stored(items, mirrored))
    assert torch.equal(resident.labels, latents.labels) and len(resident) == 50
    assert not Resident.fits(latents, CPU), "memory maps are the page cache already"


def open_codes(folder, stored, size):
    """A training split of these codes [N,h,w] in one shard, opened."""
    count, manifest = len(stored), write_cache(folder, len(stored), shard=len(stored))
    file = folder / "train-00000.safetensors"
    weights.save(file, {"codes": stored, "labels": torch.arange(count) % 3}, {"kind": "latents", "split": "train"})
    crc32 = [zlib.crc32(part.numpy().tobytes()) for part in stored.split(1024)]
    shard = Shard(file=file.name, count=count, sha256=weights.file_sha256(file), crc32=crc32)
    kept = Codes(shape=tuple(stored.shape[1:]), size=size, used=size, perplexity=float(size))
    dtype = str(stored.dtype).removeprefix("torch.")
    return open_latents(folder, manifest.model_copy(update={"dtype": dtype, "codes": kept, "splits": {"train": [shard]}}), "train")


@pytest.mark.parametrize(("dtype", "wrong"), [("uint8", 250), ("uint16", 60_000), ("int32", 250), ("int32", -1)])
def test_a_code_that_the_codebook_does_not_have_is_damage_and_no_index_error(tmp_path, dtype, wrong):
    codes = torch.randint(0, 249, (20, 3, 5), generator=torch.Generator().manual_seed(0))
    codes[7, 1, 1] = wrong
    latents = open_codes(tmp_path, codes.to(getattr(torch, dtype)), 250)
    assert torch.equal(latents.stored(torch.tensor([1, 2])).long(), codes[1:3])
    for use in (lambda: latents.stored(torch.tensor([1, 7])), lambda: Resident(latents, CPU)):
        with pytest.raises(MismatchError, match=f"is damaged: it holds code {wrong}, and codes go from 0 to 249"):
            use()


@pytest.mark.parametrize(("dtype", "size"), [("uint8", 2**8), ("uint16", 2**16), ("int32", 2**20)])
def test_codes_of_every_width_are_read_and_held_as_they_were_stored(tmp_path, large, dtype, size):
    codes = torch.randint(0, size, (2000, 3, 5), generator=torch.Generator().manual_seed(0))
    codes[7], codes[1999] = 0, size - 1
    stored = codes.to(getattr(torch, dtype))
    latents = open_codes(tmp_path, stored, size)
    items = torch.tensor([1999, 7, 0, 1024, 7])
    for source in (latents, Resident(latents, CPU)):
        assert source.stored(items).dtype == stored.dtype and torch.equal(source.stored(items).long(), codes[items])
    (batch,) = training_latents(latents, Loop(steps=1, batch=64), CPU, rows=slice(0, 64), flip=False, first=0)
    assert torch.equal(batch.stored.long(), codes[batch.items]) and batch.stored.dtype == stored.dtype


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_cache_of_many_shards_holds_no_file_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    latents = open_latents(tmp_path, write_cache(tmp_path, 40, shard=1, flipped=True), "train")
    latents.stored(torch.arange(40))
    latents.expect(torch.arange(40))
    assert len(latents.shards) == 40 and len(os.listdir("/proc/self/fd")) <= before


# -- checks --------------------------------------------------------------------------


def test_a_large_cache_is_opened_without_reading_its_rows(tmp_path, large):
    manifest = write_cache(tmp_path, 3000, shard=2048, flipped=True)
    file, offset = place_of(Latents(tmp_path, manifest, "train"), 1500)
    flip_bit(file, offset)
    latents = open_latents(tmp_path, manifest, "train")
    assert not latents.checked.any()
    assert numbers(latents.stored(torch.tensor([0, 1023, 2048]))) == [0, 1023, 2048]
    assert latents.checked.tolist() == [True, False, True, False, False, False]
    with pytest.raises(
        MismatchError, match=r"train-00000\.safetensors has changed .* in block 1 of its moments \(rows 1,024 to 2,047\)"
    ) as caught:
        latents.stored(torch.tensor([0, 1024]))
    assert caught.value.exit_code == 6 and "the same ldmctl encode-dataset" in str(caught.value)
    with pytest.raises(MismatchError, match="in block 1 of its moments"):
        latents.stored(torch.tensor([1024]))


def test_every_block_is_checked_once(tmp_path, large, monkeypatch):
    latents = open_latents(tmp_path, write_cache(tmp_path, 5000, shard=2048), "train")
    asked = []
    monkeypatch.setattr(reading.zlib, "crc32", lambda data: asked.append(len(data)) or zlib_crc32(data))
    for batch in epoch_order(0, 0, 5000).split(64):
        latents.stored(batch)
    assert sorted(asked) == [904, 1024, 1024, 1024, 1024] and latents.checked.all()


zlib_crc32 = zlib.crc32


@pytest.mark.parametrize("item", [0, 1023, 1024, 2999])
def test_a_flipped_bit_is_found_before_its_row_is_used(tmp_path, large, item):
    manifest = write_cache(tmp_path, 3000, shard=2048)
    file, offset = place_of(Latents(tmp_path, manifest, "train"), item)
    flip_bit(file, offset + ROW - 1)
    latents = open_latents(tmp_path, manifest, "train")
    with pytest.raises(MismatchError, match=file.name):
        latents.stored(torch.tensor([item]))
    with pytest.raises(MismatchError, match=file.name):
        Resident(latents, CPU)
    with pytest.raises(MismatchError, match=file.name):
        latents.verify()
    with pytest.raises(MismatchError, match=file.name):
        for _ in training_latents(latents, Loop(steps=60, batch=64), CPU, rows=slice(0, 64), flip=False, first=0):
            pass


def test_a_small_cache_is_hashed_when_it_is_opened(tmp_path):
    manifest = write_cache(tmp_path, 3000, shard=2048)
    assert open_latents(tmp_path, manifest, "train").checked.all()
    flip_bit(*place_of(Latents(tmp_path, manifest, "train"), 2500))
    with pytest.raises(MismatchError, match=r"train-00001\.safetensors has changed"):
        open_latents(tmp_path, manifest, "train")


def test_mirrored_rows_without_checksums_are_checked_by_the_hash_of_their_shard(tmp_path, large):
    manifest = write_cache(tmp_path, 3000, shard=2048, flipped=True)
    file, offset = place_of(Latents(tmp_path, manifest, "train"), 2500, variant=1)
    flip_bit(file, offset)
    latents = open_latents(tmp_path, manifest, "train")
    mirrored = torch.tensor([True])
    assert numbers(latents.stored(torch.tensor([2500]))) == [2500]
    assert numbers(latents.stored(torch.tensor([1500]), mirrored)) == [-1500]
    with pytest.raises(MismatchError, match=r"train-00001\.safetensors has changed"):
        latents.stored(torch.tensor([2048]), mirrored)


def test_mirrored_rows_with_checksums_are_checked_by_block(tmp_path, large, monkeypatch):
    manifest = write_cache(tmp_path, 3000, shard=2048, flipped=True)
    whole = Latents(tmp_path, manifest, "train")
    found = {
        part.shard.file: [zlib.crc32(part.rows[i : i + 1024].tobytes()) for i in range(0, len(part.rows), 1024)] for part in whole.parts[2:]
    }
    plain = mapping._checksums
    monkeypatch.setattr(
        reading, "_checksums", lambda folder, shard, variant: found[shard.file] if variant == "flipped" else plain(folder, shard, variant)
    )
    file, offset = place_of(whole, 1500, variant=1)
    flip_bit(file, offset)
    latents = open_latents(tmp_path, manifest, "train")
    mirrored = torch.tensor([True])
    assert numbers(latents.stored(torch.tensor([1000]), mirrored)) == [-1000]
    with pytest.raises(MismatchError, match=r"train-00000\.safetensors has changed .* in block 1 of its flipped"):
        latents.stored(torch.tensor([1100]), mirrored)


@pytest.mark.parametrize("bit", [0, 3, 7, 62, 63])
def test_a_flipped_bit_in_a_label_is_found_when_a_large_cache_is_opened(tmp_path, large, bit):
    manifest = write_cache(tmp_path, 300, shard=100)
    file = tmp_path / "train-00001.safetensors"
    data = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    data[header + 8 * 17 + bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)
    with pytest.raises(MismatchError, match=r"train-00001\.safetensors has changed"):
        open_latents(tmp_path, manifest, "train")


@pytest.mark.parametrize(
    ("old", "new"),
    [('"dtype":"F16"', '"dtype":"I16"'), ("[100,2,1,2]", "[100,1,2,2]"), ("[100,2,1,2]", "[100,2,1,3]"), ('"labels"', '"lapels"')],
)
def test_a_header_that_does_not_fit_the_manifest_is_damage(tmp_path, large, old, new):
    manifest = write_cache(tmp_path, 100, shard=100)
    file = tmp_path / "train-00000.safetensors"
    assert old.encode() in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(old.encode(), new.encode()))
    with pytest.raises(MismatchError, match=r"train-00000\.safetensors is damaged .*Encode again") as caught:
        open_latents(tmp_path, manifest, "train")
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("left", [0, 5, 100, -1])
def test_a_large_shard_that_was_cut_off_is_noticed_when_it_is_opened(tmp_path, large, left):
    manifest = write_cache(tmp_path, 100, shard=100)
    file = tmp_path / "train-00000.safetensors"
    os.truncate(file, left % file.stat().st_size)
    with pytest.raises(MismatchError, match=r"train-00000\.safetensors .*the same ldmctl encode-dataset"):
        open_latents(tmp_path, manifest, "train")


def test_checksums_that_are_not_one_for_each_block_are_refused(tmp_path):
    manifest = write_cache(tmp_path, 3000, shard=3000)
    (shard,) = manifest.splits["train"]
    manifest.splits["train"][0] = shard.model_copy(update={"crc32": shard.crc32[:2]})
    with pytest.raises(MismatchError, match="has 2 checksums for 3000 moments"):
        open_latents(tmp_path, manifest, "train")


# -- reading ahead -------------------------------------------------------------------


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shuffle", ["full", "blocks"])
def test_training_reads_the_batches_of_the_order_with_their_labels(tmp_path, shuffle, flip, large):
    latents = open_latents(tmp_path, write_cache(tmp_path, 300, shard=100, flipped=True), "train")
    loop = Loop(steps=12, batch=64, shuffle=shuffle, seed=7)
    mapped, resident = (
        list(training_latents(source, loop, CPU, rows=slice(0, 64), flip=flip, first=0)) for source in (latents, Resident(latents, CPU))
    )
    assert len(mapped) == len(resident) == 12
    for step, (one, other) in enumerate(zip(mapped, resident, strict=True)):
        assert torch.equal(one.items, batch_items(7, 300, 64, step, shuffle))
        assert [abs(number) for number in numbers(one.stored)] == one.items.tolist()
        assert torch.equal(one.labels, one.items % 3) and one.stored.dtype == torch.float16
        assert all(torch.equal(*pair) for pair in zip(one[:3], other[:3], strict=True))
    mirrored = sum(number < 0 for batch in mapped for number in numbers(batch.stored))
    assert 300 < mirrored < 460 if flip else mirrored == 0


def test_ranks_and_resumed_runs_read_their_part_of_the_same_batches(tmp_path):
    latents = open_latents(tmp_path, write_cache(tmp_path, 300, shard=100, flipped=True), "train")
    loop = Loop(steps=9, batch=64, seed=7)
    whole, left, right, late = (
        list(training_latents(latents, loop, CPU, rows=slice(*rows), flip=True, first=first))
        for rows, first in [((0, 64), 0), ((0, 32), 0), ((32, 64), 0), ((0, 64), 4)]
    )
    assert len(whole) == 9 and len(late) == 5
    for batch, one, two in zip(whole, left, right, strict=True):
        assert torch.equal(torch.cat([one.stored, two.stored]), batch.stored) and torch.equal(one.items, batch.items)
        assert torch.equal(torch.cat([one.labels, two.labels]), batch.labels)
    for batch, again in zip(whole[4:], late, strict=True):
        assert torch.equal(batch.stored, again.stored) and torch.equal(batch.items, again.items)


def test_the_next_window_is_asked_for_once_and_before_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "WINDOW", 128)
    latents = open_latents(tmp_path, write_cache(tmp_path, 1000, shard=400), "train")
    seen: list[list[int]] = []
    monkeypatch.setattr(latents, "expect", lambda items: seen.append(items.tolist()))
    loop = Loop(steps=10, batch=32, shuffle="blocks")
    batches = list(training_latents(latents, loop, CPU, rows=slice(0, 32), flip=False, first=2))
    assert [len(items) for items in seen] == [128] * 4, "the window begun, and three that follow"
    known = [item for items in seen for item in items]
    assert [item for batch in batches for item in batch.items.tolist()] == known[64:320]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system takes no such advice")
def test_what_is_expected_is_asked_for_in_whole_blocks(tmp_path, monkeypatch):
    latents = open_latents(tmp_path, write_cache(tmp_path, 3000, shard=1000, flipped=True), "train")
    asked = []
    monkeypatch.setattr(reading.os, "posix_fadvise", lambda descriptor, offset, length, advice: asked.append((offset, length // ROW)))
    latents.expect(torch.tensor([2999, 0, 300, 301, 900]))
    rows = [(0, 512), (768, 232), (0, 24), (816, 184)]  # of each variant: 0 to 511, 768 to 1023 in two shards, the last block
    for variant in (0, 1):
        expected = [
            (place_of(latents, shard * 1000 + first, variant=variant)[1], count)
            for (first, count), shard in zip(rows, [0, 0, 1, 2], strict=True)
        ]
        assert asked[4 * variant : 4 * variant + 4] == expected
    assert len(asked) == 8


def test_reading_ahead_gives_what_reading_in_place_gives():
    assert list(ahead(lambda step: step * step, range(3, 40))) == [step * step for step in range(3, 40)]
    assert list(ahead(lambda step: step, range(0))) == []


def test_a_few_steps_are_read_before_they_are_asked_for_and_no_more():
    read = []
    stream = ahead(lambda step: read.append(step) or step, range(100), depth=3)
    assert next(stream) == 0 and read[:1] == [0]
    deadline = time.monotonic() + 10
    while len(read) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert read == [0, 1, 2, 3]
    stream.close()
    assert read == [0, 1, 2, 3]


def test_an_error_of_a_read_is_raised_at_its_step():
    def read(step):
        if step == 5:
            raise MismatchError("damaged")
        return step

    taken = []
    with pytest.raises(MismatchError, match="damaged"):
        for value in ahead(read, range(10)):
            taken.append(value)
    assert taken == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_step_that_fails_leaves_no_thread_behind(error):
    before = threading.active_count()
    stream = ahead(lambda step: step, range(1000))
    try:
        for value in stream:
            if value == 4:
                raise error
    except error:
        stream.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "lines",
    [
        ['{"stamp": "a", "text": ""}'],
        ['{"stamp": "a", "text": ""}'] * 3,
        ['{"stamp": "a", "text": ""}', '{"stamp": "b"'],
        ['{"stamp": "a", "text": ""}', '{"stamp": "b", "text": ["x"]}'],
        ['{"stamp": "a", "text": ""}', '{"stamp": "b", "text": "x", "texts": ["x", 3]}'],
        ['{"stamp": "a", "text": ""}', "[]"],
    ],
)
def test_lines_of_items_that_are_not_those_of_a_shard_are_named(tmp_path, lines):
    manifest = write_cache(tmp_path, 2, shard=2)
    file = tmp_path / "train-00000.items.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(MismatchError, match=r"train-00000\.items\.jsonl is damaged .* Encode again"):
        list(Latents(tmp_path, manifest, "train").items())
    file.unlink()
    with pytest.raises(MismatchError, match="is missing"):
        list(Latents(tmp_path, manifest, "train").items())
