"""How much memory a process may take is what its container grants, not what the machine has."""

import sys

import pytest

from ldmctl.training.memory import granted

GIB = 2**30


def group(folder, limit, taken, names, cached=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{taken}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cached}\n")


SECOND = ("memory.max", "memory.current", "inactive_file")
FIRST = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@pytest.mark.parametrize(("line", "below", "names"), [("0::", "", SECOND), ("7:memory:", "memory", FIRST)])
def test_the_tightest_group_above_a_process_decides(tmp_path, line, below, names):
    own, root = tmp_path / "own", tmp_path / "groups"
    own.write_text(f"3:cpu:/else\n{line}/job/step\n")
    group(root / below / "job", 4 * GIB, 3 * GIB, names, cached=GIB // 2)
    group(root / below / "job" / "step", 8 * GIB, 3 * GIB, names)
    assert granted(own, root) == GIB + GIB // 2, "what is cached can be had"


def test_without_a_limit_nothing_is_taken_away(tmp_path):
    own, root = tmp_path / "own", tmp_path / "groups"
    assert granted(own, root) == sys.maxsize
    own.write_text("0::/\n")
    group(root, "max", GIB, SECOND)
    assert granted(own, root) == sys.maxsize


def test_what_is_overdrawn_leaves_nothing(tmp_path):
    own, root = tmp_path / "own", tmp_path / "groups"
    own.write_text("0::/\n")
    group(root, GIB, 2 * GIB, SECOND)
    assert granted(own, root) == 0
