"""Find plugins by kind and name, and load one only when it is asked for.

A plugin is a class that an installed distribution advertises under one of the
groups below. Listing reads metadata and imports nothing; `load` imports one
module. So a plugin that cannot be imported fails only where it is used.
Notebooks and tests may `register` a class that no distribution advertises.

This is the only file that knows the `entrypoints` package. It is longer than a page because what a name means, who offers it
and how it is loaded are one question.
"""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import entrypoints

from ldmctl.errors import PluginError, PluginWarning, UnknownPlugin, did_you_mean, one_line
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
    "guide": "ldmctl.guides",
    "tracker": "ldmctl.trackers",
    "extractor": "ldmctl.extractors",
}


NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*")
SESSION = "registered"  # in place of a distribution, of a class that `register` was given


@dataclass(frozen=True, order=True)
class Plugin:
    """One advertised class, not yet imported."""

    kind: str
    name: str
    target: str  # "package.module:Class"
    source: str  # "distribution version"

    @property
    def distribution(self) -> str:
        """The name of the package that it comes in, without its version."""
        return self.source.partition(" ")[0]

    @property
    def built_in(self) -> bool:
        """Whether it comes with ldmctl."""
        return self.distribution == "ldmctl"

    def load(self) -> type:
        """Import the class and check that it has the nested Config every plugin has, or raise PluginError."""
        try:
            with redirect_stdout(sys.stderr):  # stdout is for results
                plugin = _registered().get(self) or entrypoints.EntryPoint.from_string(self.target, self.name).load()
            refuse_class(plugin)
        except (Exception, SystemExit) as error:  # importing third-party code can raise anything
            raise PluginError(f"{self.kind} {self.name!r} from {self.source} is broken: {one_line(error)}") from error
        loaded().setdefault(plugin, self)
        return plugin


def refuse_class(plugin: Any) -> None:
    """A TypeError for what cannot be a plugin: without its nested Config, or written for another API."""
    config: Any = plugin.Config
    if not isinstance(config, type) or not hasattr(config, "model_validate"):
        raise TypeError(f"{plugin.__name__}.Config is not a pydantic model")
    if "type" not in getattr(config, "model_fields", {}) or getattr(config, "model_config", {}).get("extra") != "forbid":
        raise TypeError(f"{plugin.__name__}.Config is not a PluginConfig (from ldmctl.config import PluginConfig)")
    if getattr(plugin, "api", API) != API:
        raise TypeError(f"it was written for plugin API {plugin.api}, this ldmctl speaks {API}")


def register(kind: str, name: str, plugin: type) -> None:
    """Make a class a plugin for as long as this process lives, for notebooks and tests: `register("sampler", "mine", Mine)`.

    The same name again replaces it; one that an installed package has is refused. What is written with it can be read only
    where it is registered again.
    """
    if not isinstance(plugin, type):
        raise PluginError(f"{plugin!r} cannot be the {kind} {name!r}: it is no class. Register the class, not what it makes.")
    kind, origin = kind_of(str(kind)), f"{plugin.__module__}:{plugin.__qualname__}"
    if others := [each for each in _advertised()[0] if (each.kind, each.name) == (kind, name)]:
        raise PluginError(f"The {kind} {name!r} is there already, from {others[0].source}. Register yours under another name.")
    if not NAME.fullmatch(str(name)) or name is None:
        raise PluginError(f"{name!r} cannot be a plugin's name. Take letters, digits and single hyphens, such as my-{kind}.")
    try:
        refuse_class(plugin)
    except (TypeError, AttributeError) as error:
        raise PluginError(f"{plugin!r} cannot be the {kind} {name!r}: {one_line(error)}") from error
    for old in [each for each in _registered() if (each.kind, each.name) == (kind, name)]:
        loaded().pop(_registered().pop(old), None)
    _registered()[Plugin(kind, name, origin, f"{SESSION} {origin}")] = plugin


def kind_of(word: str) -> str:
    """The kind that a user means by `autoencoder` or `autoencoders`."""
    if (kind := word.removesuffix("s")) not in GROUPS:
        raise PluginError(f"No kind of plugin is called {word!r}.{did_you_mean(word, GROUPS)} Kinds: {', '.join(GROUPS)}.")
    return kind


def plugins(kind: str) -> list[Plugin]:
    """Everything advertised or registered for one kind, sorted by name. Imports no plugin."""
    return sorted(plugin for plugin in (*_advertised()[0], *_registered()) if plugin.kind == kind)


def strays() -> tuple[str, ...]:
    """A sentence for each entry point in a group that looks like ldmctl's and is none."""
    return _advertised()[1]


def clashes() -> list[str]:
    """A sentence for each name that several packages offer."""
    names = dict.fromkeys((plugin.kind, plugin.name) for kind in GROUPS for plugin in plugins(kind))
    several = ([plugin for plugin in plugins(kind) if plugin.name == name] for kind, name in names)
    return [_clash(each) for each in several if len(each) > 1]


def word_for(plugin: Plugin) -> str:
    """What a config calls it: its name, `distribution:name` where the name alone means another or is doubtful."""
    others = [each for each in plugins(plugin.kind) if each.name == plugin.name and each != plugin]
    return f"{plugin.distribution}:{plugin.name}" if others and not plugin.built_in else plugin.name


def plain(kind: str, name: str) -> str:
    """`ddim` of `ldmctl:ddim`: the word for a plugin that is named with its package; what is not found stays as it is."""
    try:
        return word_for(find(kind, name)) if ":" in name else name
    except PluginError:
        return name


def find(kind: str, name: str, *, recorded: str = "") -> Plugin:
    """The one plugin of that name, or a PluginError that says what to do.

    `distribution:name` is that of this package. Of several that bear a name it is the one from the package `recorded` in a file,
    else ldmctl's own, with a warning.
    """
    package, _, plain = name.rpartition(":")
    known = plugins(kind)
    matches = [plugin for plugin in known if plugin.name == plain and normal(package) in ("", normal(plugin.distribution))]
    if len(matches) > 1 and (same := [plugin for plugin in matches if plugin.distribution == recorded.partition(" ")[0]]):
        return same[0]
    if len(matches) > 1 and (own := [plugin for plugin in matches if plugin.built_in]):
        warnings.warn(_clash(matches), PluginWarning, stacklevel=2)
        return own[0]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise PluginError(_clash(matches))
    names = [word_for(plugin) for plugin in known]
    stray = [each for each in strays() if f"offers {plain!r} in" in each]
    others = [other for other in GROUPS if other != kind and any(each.name == plain for each in plugins(other))]
    hints = [*stray, *(f"There is a {other} of that name." for other in others)]
    raise UnknownPlugin(
        f"No {kind} is called {name!r}.{did_you_mean(name, names)}{''.join(f' {hint}' for hint in hints)} "
        f"Installed: {', '.join(names) or 'none'}. See `ldmctl plugins list`.",
        kind,
        name,
    )


def load(kind: str, name: str) -> type:
    """The class of one plugin, or a PluginError that says what to do."""
    return find(kind, name).load()


def build(kind: str, config: Any, **context: Any) -> Any:
    """An instance: the plugin class called with its config and what the run knows."""
    plugin = load(kind, config.type)
    return plugin(config, **context)


def _clash(several: list[Plugin]) -> str:
    """What to do about a name that several packages offer."""
    kind, name = several[0].kind, several[0].name
    words = " or ".join(f"{plugin.distribution}:{name}" for plugin in several if not plugin.built_in)
    own = any(plugin.built_in for plugin in several)
    way = f"{name} alone is ldmctl's own, the other is {words}" if own else f"say which: {words}, or uninstall one of them"
    return f"{kind} {name!r} is offered by {' and '.join(plugin.source for plugin in several)}; {way}."


def normal(distribution: str) -> str:
    """Names of packages as pip compares them."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


@cache
def loaded() -> dict[type, Plugin]:
    """The classes that were loaded in this process, and what they are."""
    return {}


@cache
def _registered() -> dict[Plugin, type]:
    """What `register` was given."""
    return {}


@cache
def _advertised() -> tuple[tuple[Plugin, ...], tuple[str, ...]]:
    kinds = {group: kind for kind, group in GROUPS.items()}
    seen: set[str] = set()
    rows, stray = [], []
    for folder in _metadata_folders():
        distribution, version = _name_and_version(folder)
        if distribution in seen:  # the first on sys.path wins, as for imports
            continue
        seen.add(distribution)
        source = f"{distribution} {version}".strip()
        for group, name, target in _entries(folder, distribution):
            if group in kinds:
                rows.append(Plugin(kinds[group], name, target, source))
            elif group.lower().startswith("ldmctl"):
                near = did_you_mean(re.sub(r"[-_]", ".", group.lower()), GROUPS.values())
                stray.append(f"{source} offers {name!r} in the group {group}, which ldmctl does not read.{near}")
    return tuple(sorted(rows)), tuple(sorted(stray))


def _metadata_folders() -> Iterator[Path]:
    roots = [root for entry in dict.fromkeys(sys.path) if (root := Path(entry or ".")).is_dir()]
    # An egg-info lying in the current folder must not hide what was installed: dist-info comes first.
    for pattern in ("*.dist-info", "*.egg-info"):
        for root in roots:
            yield from sorted(root.glob(pattern))


def _entries(folder: Path, distribution: str) -> list[tuple[str, str, str]]:
    """(group, name, target) of one distribution. One that cannot be read costs a warning and hides nobody else's."""
    file = folder / "entry_points.txt"
    try:
        if not file.is_file() or not re.search(r"ldmctl\.|\[ldmctl", file.read_text(encoding="utf-8", errors="replace"), re.IGNORECASE):
            return []
        parser = entrypoints.CaseSensitiveConfigParser(delimiters=("=",), interpolation=None)
        parser.read(file, encoding="utf-8")
        return [(group, name, target) for group in parser.sections() for name, target in parser[group].items()]
    except Exception as error:  # any package may ship any file
        warnings.warn(
            f"plugins of {distribution} are hidden, its {file.name} is unreadable: {one_line(error)}", PluginWarning, stacklevel=2
        )
        return []


def _name_and_version(folder: Path) -> tuple[str, str]:
    stem, _, _ = folder.name.rpartition(".")
    name, _, version = stem.partition("-")
    return name.replace("_", "-"), version.split("-py")[0]
