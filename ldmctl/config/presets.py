"""Presets by name, and the layers that make up the config of one command.

Weakest first: schema defaults, the data preset, the verb's preset, the
network that `init` names, the environment (LDMCTL_OVERRIDES), KEY=VALUE,
flags.
"""

import os
import shlex
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import create_model

from ldmctl.config import made_before
from ldmctl.config.base import Config, section_of, slot_of
from ldmctl.config.documents import Raw, parse_overrides, read_config, read_yaml
from ldmctl.config.network_origins import layer_of as network_layer_of
from ldmctl.config.origins import layer_of
from ldmctl.config.provenance import said_by
from ldmctl.config.relocated import relocated
from ldmctl.config.resolve import merge, renamed, resolve, spell_out
from ldmctl.config.schemas.verbs import VERBS
from ldmctl.errors import ConfigError, DataError, PluginError, UnknownPlugin, did_you_mean, with_article

Schema = TypeVar("Schema", bound=Config)


def names(folder: str) -> list[str]:
    """The presets in configs/FOLDER, sorted."""
    root = files("ldmctl_configs") / folder
    return sorted(Path(file.name).stem for file in root.iterdir() if file.name.endswith(".yaml")) if root.is_dir() else []


def text(folder: str, name: str) -> str:
    """The document itself, comments and all."""
    if name not in names(folder):
        raise ConfigError(
            f"No {folder} preset is called {name!r}.{did_you_mean(name, names(folder))} Presets: {', '.join(names(folder)) or 'none'}."
        )
    return (files("ldmctl_configs") / folder / f"{name}.yaml").read_text(encoding="utf-8")


def read(folder: str, source: str) -> Raw:
    """A preset by name, or a YAML file by path."""
    if source not in names(folder) and (Path(source).suffix in (".yaml", ".yml") or os.sep in source):
        return _document(source, _file_text(source))
    return _document(f"preset {folder}/{source}", text(folder, source))


def compose(
    schema: type[Schema],
    *,
    config: str | None = None,
    overrides: Sequence[str] | str = (),
    flags: Raw | None = None,
    below: Raw | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    only: Sequence[str] = (),
) -> tuple[Schema, str]:
    """(validated config, where it came from) of one command. `below` is a layer under the presets, such as a parent's own data.

    With `only` the config has these keys alone, and plugins that other keys name are not imported.
    `out` is the run folder of a command that may have `init`: its run can go on when the weights it began with are gone.
    """
    verb: str = schema.verb  # type: ignore[attr-defined]
    strong = [*environment(schema), *parse_overrides(overrides), _given(flags or {})]
    wish = merge([spell_out(schema, layer) for layer in strong])
    written = read(verb, config) if config is not None else {}
    beginning = {"fit-ae": _origin, "fit-diffusion": _network}.get(verb)
    origin = beginning({**written, **wish}, wish, out, overwrite=overwrite) if beginning else {}
    preset, source = written, f"--config {config}" if config is not None else ""
    if config is None and names(verb):
        preset, source = _preset(verb, wish, {**(below or {}), **origin})
    data = wish.get("data") or preset.get("data")
    if data != preset.get("data"):  # the file speaks of other pictures
        preset = {key: value for key, value in preset.items() if key != "dataset"}
    parent = {key: value for key, value in (below or {}).items() if key in schema.model_fields}
    expanded = [expand_data(str(data))] if data is not None and "data" in schema.model_fields else []
    # A parent's pictures are replaced by other data; the way it prepares them is not.
    own = [{"image": layer.pop("image")} for layer in (parent, origin) if "image" in layer]
    # The size of the default preset suits pictures of which nothing else says a size.
    weak = {key: preset[key] for key in ("image",) if key in preset and source == f"preset {verb}/default"}
    preset = {key: value for key, value in preset.items() if key not in weak}
    younger = made_before.layer_of(schema, out, overwrite=overwrite)
    layers = [weak, parent, *expanded, younger, *own, preset, origin, *strong]
    named = f"{source[:1].upper()}{source[1:]}{' with the keys given' if any(strong) else ''}" if preset else f"The {verb} command line"
    try:
        settings = resolve(*(_part(schema, layers, only) if only else (schema, layers)), source=named)
    except UnknownPlugin as error:
        places = [
            out,
            *(wish.get(key) for key in ("run", "latents", "init")),
            config and Path(config).parent,
            *(schema.model_fields[key].default for key in ("run", "latents") if key in schema.model_fields),
        ]
        raise PluginError(" ".join([str(error), said_by(filter(None, places), error.kind, error.name)]).strip()) from None
    if "image" in younger and settings.image.profile == younger["image"].get("profile"):  # type: ignore[attr-defined]
        source = f"{source}; {out} continues as it started, with colour profiles ignored (image.profile=keep)".removeprefix("; ")
    if origin:
        source = f"{source}; {'autoencoder' if verb == 'fit-ae' else 'network'} of {({**written, **wish})['init']}"
    elif getattr(settings, "train", None) == "decoder":
        raise ConfigError("train=decoder leaves the encoder as it is, so it needs one that was trained: name it with --init (runs/ae).")
    return settings, source


def _origin(asked: Raw, wish: Raw, out: str | Path | None, *, overwrite: bool) -> Raw:
    """The layer that `init` stands for: its autoencoder, how it saw pictures and, unless others are asked for, which; {} without."""
    if (init := asked.get("init")) is None:
        return {}
    layer = pictures_of(init) | layer_of(str(init), out=out, overwrite=overwrite)
    slot, there = wish.get("autoencoder"), layer["autoencoder"]["type"]
    if isinstance(slot, dict) and slot.get("type", there) != there:
        raise ConfigError(
            f"{init} holds {with_article(there)}, and {with_article(str(slot['type']))} is asked for. Leave out --ae, or start without --init."
        )
    return {key: value for key, value in layer.items() if key not in ("data", "dataset") or not asked.get("data")}


def _network(asked: Raw, wish: Raw, out: str | Path | None, *, overwrite: bool) -> Raw:
    """The layer that `init` of fit-diffusion stands for: its network, and what that was trained to predict; {} without."""
    return {} if (init := asked.get("init")) is None else network_layer_of(str(init), out=out, overwrite=overwrite)


def _preset(verb: str, wish: Raw, below: Raw) -> tuple[Raw, str]:
    data = wish.get("data") or below.get("data")
    stem = data if data in names("data") else None  # not a folder that happens to be called so
    slots = [layer.get("autoencoder") for layer in (wish, below)]
    plugin = next((slot["type"] for slot in slots if isinstance(slot, dict) and "type" in slot), None)
    for name in [f"{stem}-{plugin}", stem, "default"] if plugin else [stem, "default"]:
        if name and name in names(verb):
            return _document(f"preset {verb}/{name}", text(verb, name)), f"preset {verb}/{name}"
    return {}, "no preset, every key at its default"


def pictures_of(run: object) -> Raw:
    """The pictures of the fit-ae run of this name (`runs/ae`, `runs/ae@best`): data, dataset and image; {} when there is none."""
    name = str(run)
    folder = Path(name.rpartition("@")[0] if "@" in Path(name).name else name).expanduser()
    raw = relocated(folder, read_config(folder)) if (folder / "config.yaml").exists() else {}
    found = {key: raw[key] for key in ("data", "dataset", "image") if raw.get(key) is not None}
    return {**found, "image": made_before.spelled_out(found["image"])} if isinstance(found.get("image"), dict) else found


def wished(schema: type[Config], overrides: Sequence[str] | str | None, key: str, *, config: str | None = None) -> Any:
    """The value of one top-level key in `config`, LDMCTL_OVERRIDES and KEY=VALUE words, where it must be known before the rest; None without."""
    written = [] if config is None else [read(schema.verb, config)]  # type: ignore[attr-defined]
    return merge([*written, *environment(schema), *parse_overrides(overrides or [])]).get(key)


def expand_data(data: str) -> Raw:
    """The layer that `data: NAME|DIR` stands for: `dataset` and `image`."""
    if data in names("data"):
        return _document(f"preset data/{data}", text("data", data))
    folder = Path(data).expanduser()
    under_root = Path(os.environ.get("LDMCTL_DATA", "data")).expanduser() / data
    for candidate in (folder, under_root):
        if candidate.is_dir():
            return {"dataset": {"type": "folder", "path": str(candidate.resolve())}}
    if folder.exists():
        raise DataError(f"--data {data} is a file; a folder of pictures or a name is wanted. Names: {', '.join(names('data'))}.")
    if os.sep in data:
        raise DataError(
            f"There is no folder {data}. Looked for {' and '.join(dict.fromkeys(map(str, (folder.absolute(), under_root.absolute()))))}."
        )
    raise ConfigError(
        f"No data preset or folder is called {data!r}.{did_you_mean(data, names('data'))} Names: {', '.join(names('data'))}; "
        f"folders looked for: {folder.absolute()}, {under_root.absolute()}."
    )


def environment(schema: type[Config]) -> list[Raw]:
    """LDMCTL_OVERRIDES, the keys that this verb has; a key that no verb has is a ConfigError."""
    try:
        words = shlex.split(os.environ.get("LDMCTL_OVERRIDES", ""))
    except ValueError as error:
        raise ConfigError(f"LDMCTL_OVERRIDES cannot be split into words: {error}") from None
    try:
        parsed = parse_overrides(words)
    except ConfigError as error:
        raise ConfigError(f"LDMCTL_OVERRIDES: {error}") from None
    layers = []
    for word, layer in zip(words, parsed, strict=True):
        if _has(schema, layer):
            layers.append(layer)
        elif not any(_has(other, layer) for other in VERBS.values()):
            key = word.partition("=")[0]
            known = [name for other in VERBS.values() for name in other.model_fields]
            raise ConfigError(f"LDMCTL_OVERRIDES: no verb has the key {key!r}.{did_you_mean(key.split('.')[0], known)}")
    return layers


def _has(schema: Any, layer: Raw) -> bool:
    """Whether the one path of this layer leads to a key, or into a slot, of the schema."""
    ((key, value),) = renamed(schema, layer).items()
    field = schema.model_fields.get(key)
    if field is None:
        return False
    section = section_of(field)
    return slot_of(field) is not None or section is None or not isinstance(value, dict) or _has(section, value)


def _part(schema: type[Schema], layers: Sequence[Raw], keys: Sequence[str]) -> tuple[Any, list[Raw]]:
    """A schema of some keys of another, and what layers say of these."""
    fields: Any = {key: (schema.model_fields[key].annotation, schema.model_fields[key]) for key in keys}
    part = create_model(schema.__name__, __base__=Config, **fields)
    part.verb = schema.verb  # type: ignore[attr-defined]
    return part, [{key: value for key, value in spell_out(schema, layer).items() if key in keys} for layer in layers]


def _given(flags: Raw) -> Raw:
    return {key: _given(value) if isinstance(value, dict) else value for key, value in flags.items() if value is not None and value != {}}


def _file_text(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The config file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"The config file {path} is not text, so it is no YAML.") from None


def _document(source: str, content: str) -> Raw:
    raw = read_yaml(content, source=source) or {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{source} holds {type(raw).__name__}, not keys and values.")
    return raw
