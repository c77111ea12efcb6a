"""Documents: YAML and JSON texts, KEY=VALUE words, and the plain dicts they stand for.

YAML is read as version 1.2 reads it: 1e-4 is a number, `no` and `on` are words,
010 is ten. What is written here reads back equal.
"""

import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from ldmctl.endings import file_trouble
from ldmctl.errors import ConfigError, MismatchError

Raw = dict[str, Any]


class _Yaml12(yaml.SafeLoader):
    """YAML whose numbers and booleans are those of YAML 1.2: 1e-4 is a number, `no` and `on` are words. A key stands once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """The dict of a mapping node; a key that appears twice is an error with its line."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} appears twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


_Yaml12.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag.rpartition(":")[2] not in ("float", "bool", "int", "timestamp", "value")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml12.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Yaml12.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Yaml12.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+0123456789."),
)
_Yaml12.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(str(node.value)))  # 010 is ten


def read_yaml(text: str, *, source: str) -> Any:
    """The value of a YAML text, numbers as in YAML 1.2; a ConfigError names the source and the line."""
    try:
        return yaml.load(text, Loader=_Yaml12)
    except RecursionError:
        raise ConfigError(f"{source} is nested too deeply to be a config.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:  # such as an integer of five thousand digits
        raise ConfigError(f"{source} holds a value that cannot be read: {error}") from None


def write_yaml(values: Mapping[str, Any]) -> str:
    """Text that `read_yaml` reads back to the same values."""
    return yaml.dump(dict(values), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=100)


def write_json(value: Any) -> str:
    """One line of JSON; what it has no word for, such as nan, is null."""
    return json.dumps(_finite(value), default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_config(folder: Path) -> Raw:
    """The values in a run folder's config.yaml, as a run wrote them; a damaged one is a MismatchError."""
    file = folder / "config.yaml"
    try:
        raw = read_yaml(file.read_text(encoding="utf-8"), source=str(file))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise MismatchError(file_trouble(error) or f"{file} cannot be read: {error}") from None
    if not isinstance(raw, dict):
        raise MismatchError(f"{file} is damaged: it holds no keys and values.")
    return raw


class _Plain(yaml.SafeDumper):
    """Writes floats so that both YAML 1.1 and 1.2 read them as floats, quotes what either would not read as text, lists on one line."""

    yaml_implicit_resolvers = {
        first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_Yaml12.yaml_implicit_resolvers.get(first, [])]
        for first in {**yaml.SafeDumper.yaml_implicit_resolvers, **_Yaml12.yaml_implicit_resolvers}
    }


_Plain.add_representer(
    float, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:float", repr(value) if "." in repr(value) else f"{value:.1e}")
)
_Plain.add_representer(list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True))


def parse_overrides(words: Iterable[str] | str) -> list[Raw]:
    """One layer for each `a.b.c=value`; values are read as YAML. One string is split as a shell does."""
    try:
        return [parse_override(word) for word in (shlex.split(words) if isinstance(words, str) else words)]
    except ValueError as error:
        raise ConfigError(f"{words!r} cannot be split into words: {error}.") from None


def parse_override(word: str) -> Raw:
    """`a.b=1` -> {"a": {"b": 1}}."""
    path, equals, value = word.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        hint = f" Did you mean --{word.lstrip('-')}?" if re.fullmatch(r"[a-z-]+", word) else ""
        raise ConfigError(f"{word!r} is not KEY=VALUE, such as loop.steps=500.{hint}")
    out: Any = read_yaml(value, source=f"The value of {path}")
    for key in reversed(keys):
        out = {key: out}
    return out


def write_override(path: str, value: Any) -> str:
    """A word that `parse_override` reads as this value at this path, quoted where a shell wants it."""
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        with suppress(ConfigError):
            text = value if read_yaml(value, source=path) == value else text
    return shlex.quote(f"{path}={text}")
