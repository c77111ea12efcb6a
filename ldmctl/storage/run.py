"""One run folder: opened by one writer at a time, resumed by the same command, written atomically."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ldmctl.attribution import attributed
from ldmctl.config.base import Config
from ldmctl.config.differences import noted_differences
from ldmctl.config.documents import read_config, write_json, write_yaml
from ldmctl.config.relocated import FOLDER
from ldmctl.config.schemas.verbs import VERBS
from ldmctl.config.usual import usual
from ldmctl.endings import FULL, exit_code
from ldmctl.errors import LdmctlError, MismatchError
from ldmctl.storage import changes as changing
from ldmctl.storage import history, weights
from ldmctl.storage.apart import refuse_inputs
from ldmctl.storage.atomic import write_over
from ldmctl.storage.folder import _refuse_foreign, make_folder, start_over, sweep
from ldmctl.storage.hold import Hold
from ldmctl.storage.lines import write_line
from ldmctl.storage.lock import _take
from ldmctl.storage.record import versions, warn_of_others
from ldmctl.storage.same_run import _refuse_other, _verb


class Run:
    """A run folder, held by this process until `close`. On other ranks than the first it writes nothing."""

    def __init__(
        self,
        folder: Path,
        record: dict[str, Any],
        *,
        resumed: bool,
        writes: bool,
        hold: Hold | None,
        before: Mapping[str, str] | None = None,
    ):
        self.folder = folder
        self.record = record
        self.resumed = resumed
        self.writes = writes
        self.changes: list[changing.Change] = []  # that this command makes, by keys that may change
        self.unwritten: list[Mapping[str, str]] = []  # unreadable pictures that this rank has met and does not write down
        self._hold = hold
        self._before = before or {}  # text of the files that `open_run` changed, by name

    def refuse_if_gone(self) -> None:
        """A MismatchError when somebody has deleted, moved or emptied the folder since it was opened."""
        if self._hold is not None and self._hold.gone():
            raise self._hold.error()

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one object to metrics.jsonl."""
        if self.writes:
            self.refuse_if_gone()
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(write_json({"step": step, **values}) + "\n")

    def cut_metrics(self, step: int) -> None:
        """Drop the reports after a step, which a killed run made and a resumed one makes again."""
        file = self.folder / "metrics.jsonl"
        if self.writes and file.exists():
            rows = [line for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if _step_of(line) <= step]
            weights.write_text(file, "".join(f"{row}\n" for row in rows))

    def note_bad(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Add unreadable pictures and the reasons to bad_images.jsonl, each once; other ranks than the first keep them in `unwritten`."""
        if not self.writes:
            self.unwritten += rows
        elif rows:
            known = set(self.bad())
            fresh = dict.fromkeys(write_line(dict(row)) for row in rows)
            with (self.folder / "bad_images.jsonl").open("a", encoding="utf-8") as out:
                out.writelines(row for row in fresh if row not in known)

    def bad(self) -> list[str]:
        """The lines of bad_images.jsonl, with their ends."""
        file = self.folder / "bad_images.jsonl"
        return [f"{line}\n" for line in file.read_text(encoding="utf-8", errors="replace").split("\n") if line] if file.exists() else []

    def update(self, **values: Any) -> None:
        """Change run.json. With a step something is saved, and from then on nothing is put back."""
        self.record |= values
        history.follow(self.record, values)
        if "step" in values:
            self._before = {}
        if self.writes:
            self.refuse_if_gone()
            weights.write_text(self.folder / "run.json", self._text())

    def _text(self) -> str:
        return json.dumps(self.record, indent=2) + "\n"

    def note_change(self, changes: Mapping[str, Any]) -> None:
        """Write down what this command changes in the run, such as {"loop.lr": [1e-3, 1e-4]}, with its entry in the history."""
        if self.record.get("history"):
            entry = self.record["history"][-1]
            entry["changes"] = {**entry.get("changes", {}), **changes}
            self.update()

    def note_changes(self, differences: Iterable[tuple[str, Any, Any]]) -> None:
        """Write (key, before, after) into run.json, in force from the saved state on; without a state nothing has been learned otherwise."""
        step = changing.step_of_state(self.folder)
        if step is None or not self.resumed:
            return
        known = self.record.get("changes", [])
        if (now := changing.added(known, step, differences)) != known:
            self.changes = [each for each in now if each["step"] == step]
            self.update(changes=now)

    def close(self, status: str, exit_code: int = 0) -> None:
        """Say how it ended and let the folder go."""
        if self._hold is not None:
            try:
                ended = max(history.now(), str(self.record.get("history", [{}])[-1].get("started", "")))  # a clock may go back
                self.update(status=status, exit_code=exit_code, ended=ended)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                write_over(self.folder / "run.json", self._text(), *map(json.dumps, history.shorter(self.record)))
            finally:
                self._release()

    def _put_back(self) -> None:
        """A command that does not fit a run leaves no trace in its folder."""
        with suppress(OSError):
            for name, text in self._before.items():
                weights.write_text(self.folder / name, text)
        self._release()

    def _release(self) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        error = error and attributed(error)  # what a plugin raises ends the command by its own exit code
        if self._hold is not None and (self._hold.gone() or is_being_emptied(self.folder, error)):
            gone = self._hold.error()
            self._release()
            if error is None or (isinstance(error, Exception) and not isinstance(error, LdmctlError) and exit_code(error) in (1, 6)):
                raise gone from error
            return
        if error is None:
            self.close("finished")
        elif isinstance(error, MismatchError) and self._before:
            self._put_back()
        else:
            code = exit_code(error)
            with suppress(OSError):  # of a disk that is full or gone; the error that ends the command says more
                self.close(history.STATUS.get(code, "failed"), code)


def open_run(
    out: str | Path,
    config: Config,
    *,
    parent: str | None = None,
    plugins: Sequence[str] = (),
    overwrite: bool = False,
    writes: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Run:
    """The run folder `out`, new or resumed. Another run's folder, or one in use, is a MismatchError, one that is read a ConfigError.

    What `overwrite` deletes is told to `say` before it goes.
    """
    refuse_inputs(config, out)
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise MismatchError(f"{folder} is a file; --out wants a folder.")
    if not writes:
        return Run(folder, {}, resumed=(folder / "state.safetensors").exists(), writes=False, hold=None)
    _refuse_foreign(folder)
    make_folder(folder)
    hold = Hold(folder, _take(folder))
    try:
        sweep(folder)
        if overwrite:
            start_over(folder, _verb(config), say)
        resumed = _refuse_other(folder, config)
        before = {name: (folder / name).read_text(encoding="utf-8") for name in ("config.yaml", "run.json")} if resumed else {}
        record = json.loads(before["run.json"]) if resumed else {"format": weights.FORMAT, "started": history.now()}
        warn_of_others(record, plugins)
        earlier = history.entries(record)
        record |= {"verb": _verb(config), "status": "running", "exit_code": None, "command": _command()}
        record[FOLDER] = os.path.realpath(folder)
        record |= {"parent": parent, "versions": versions(), "plugins": list(plugins)}
        record["defaults"] = dict(usual(VERBS[_verb(config)], config.model_dump(mode="json")))
        record["history"] = history.begin(record, earlier)
        run = Run(folder, record, resumed=resumed, writes=True, hold=hold, before=before)
    except BaseException:
        hold.release()
        raise
    try:
        run.update()  # first: a folder with run.json is ours, however soon after this the process ends
        if resumed:  # before config.yaml, which from then on says what is asked for now
            run.note_changes(noted_differences(VERBS[_verb(config)], read_config(folder), config.model_dump(mode="json")))
        weights.write_text(folder / "config.yaml", write_yaml(config.model_dump(mode="json")))
    except BaseException as error:
        run.__exit__(type(error), error, None)
        raise
    hold.opened = True
    return run


def is_being_emptied(folder: Path, error: BaseException | None) -> bool:
    """Whether a half-written file in a folder has gone under the hand that wrote it: somebody deletes the folder, and is not through yet."""
    name = getattr(error, "filename", None)
    return isinstance(error, FileNotFoundError) and isinstance(name, str) and name.endswith(".tmp") and folder in Path(name).parents


def _command() -> str:
    return " ".join(["ldmctl", *sys.argv[1:]])


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):  # the half line of a killed process
        return sys.maxsize
