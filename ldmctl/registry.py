"""Find plugins by kind and name, and load one only when it is asked for.

A plugin is a class that an installed distribution advertises under one of the
groups below. Listing reads metadata and imports nothing; `load` imports one
module. So a plugin that cannot be imported fails only where it is used.

This is the only file that knows the `entrypoints` package.
"""

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import entrypoints

from ldmctl.errors import PluginError, did_you_mean, one_line
from ldmctl.protocols import API

GROUPS = {
    "autoencoder": "ldmctl.autoencoders",
    "discriminator": "ldmctl.discriminators",
    "schedule": "ldmctl.schedules",
    "denoiser": "ldmctl.denoisers",
    "sampler": "ldmctl.samplers",
    "dataset": "ldmctl.datasets",
    "perceptual": "ldmctl.perceptuals",
    "conditioner": "ldmctl.conditioners",
    "tracker": "ldmctl.trackers",
}


@dataclass(frozen=True, order=True)
class Plugin:
    """One advertised class, not yet imported."""

    kind: str
    name: str
    target: str  # "package.module:Class"
    source: str  # "distribution version"

    def load(self) -> type:
        """Import the class and check that it has the nested Config every plugin has, or raise PluginError."""
        try:
            plugin = entrypoints.EntryPoint.from_string(self.target, self.name).load()
            if not hasattr(plugin.Config, "model_validate"):
                raise TypeError(f"{plugin.__name__}.Config is not a pydantic model")
            if getattr(plugin, "api", API) != API:
                raise TypeError(f"it was written for plugin API {plugin.api}, this ldmctl speaks {API}")
        except (Exception, SystemExit) as error:  # importing third-party code can raise anything
            raise PluginError(f"{self.kind} {self.name!r} from {self.source} is broken: {one_line(error)}") from error
        return plugin


def kind_of(word: str) -> str:
    """The kind that a user means by `autoencoder` or `autoencoders`."""
    if (kind := word.removesuffix("s")) not in GROUPS:
        raise PluginError(f"No kind of plugin is called {word!r}.{did_you_mean(word, GROUPS)} Kinds: {', '.join(GROUPS)}.")
    return kind


def plugins(kind: str) -> list[Plugin]:
    """Everything advertised for one kind, sorted by name. Imports no plugin."""
    return [plugin for plugin in _advertised() if plugin.kind == kind]


def find(kind: str, name: str) -> Plugin:
    """The one plugin of that name, or a PluginError that says what to do."""
    known = plugins(kind)
    matches = [plugin for plugin in known if plugin.name == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        sources = " and ".join(plugin.source for plugin in matches)
        raise PluginError(f"{kind} {name!r} is offered by {sources}; uninstall one of them.")
    names = [plugin.name for plugin in known]
    raise PluginError(
        f"No {kind} is called {name!r}.{did_you_mean(name, names)} Installed: {', '.join(names) or 'none'}. See `ldmctl plugins list`."
    )


def load(kind: str, name: str) -> type:
    """The class of one plugin, or a PluginError that says what to do."""
    return find(kind, name).load()


def build(kind: str, config: Any, **context: Any) -> Any:
    """An instance: the plugin class called with its config and what the run knows."""
    return load(kind, config.type)(config, **context)


@cache
def _advertised() -> tuple[Plugin, ...]:
    kinds = {group: kind for kind, group in GROUPS.items()}
    seen: set[str] = set()
    rows = []
    for folder in _metadata_folders():
        distribution, version = _name_and_version(folder)
        if distribution in seen:  # the first on sys.path wins, as for imports
            continue
        seen.add(distribution)
        for group, name, target in _entries(folder, distribution, set(kinds)):
            rows.append(Plugin(kinds[group], name, target, f"{distribution} {version}".strip()))
    return tuple(sorted(rows))


def _metadata_folders() -> Iterator[Path]:
    roots = [root for entry in dict.fromkeys(sys.path) if (root := Path(entry or ".")).is_dir()]
    # An egg-info lying in the current folder must not hide what was installed: dist-info comes first.
    for pattern in ("*.dist-info", "*.egg-info"):
        for root in roots:
            yield from sorted(root.glob(pattern))


def _entries(folder: Path, distribution: str, groups: set[str]) -> list[tuple[str, str, str]]:
    """(group, name, target) of one distribution. One that cannot be read costs a warning and hides nobody else's."""
    file = folder / "entry_points.txt"
    try:
        if not file.is_file() or "ldmctl." not in file.read_text(encoding="utf-8", errors="replace"):
            return []
        parser = entrypoints.CaseSensitiveConfigParser(delimiters=("=",), interpolation=None)
        parser.read(file, encoding="utf-8")
        return [(group, name, target) for group in groups & set(parser.sections()) for name, target in parser[group].items()]
    except Exception as error:  # any package may ship any file
        warnings.warn(f"plugins of {distribution} are hidden, its {file.name} is unreadable: {one_line(error)}", stacklevel=2)
        return []


def _name_and_version(folder: Path) -> tuple[str, str]:
    stem, _, _ = folder.name.rpartition(".")
    name, _, version = stem.partition("-")
    return name.replace("_", "-"), version.split("-py")[0]
