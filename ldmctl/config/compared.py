"""Which pictures samples are compared with: those of a cache, which says what it was made of, a folder's, or a name's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ldmctl.config.documents import Raw, read_config
from ldmctl.config.presets import compose, pictures_of, wished
from ldmctl.config.relocated import beside
from ldmctl.config.schemas.eval_samples import EvalSamples


def compose_judgement(overrides: Sequence[str] | str | None, flags: Raw) -> tuple[EvalSamples, str]:
    """(the validated config of eval-samples, where it came from), its pictures found by `run` and `against`."""
    run, against = (flags.get(key) or wished(EvalSamples, overrides, key) for key in ("run", "against"))
    return compose(EvalSamples, overrides=overrides or [], flags=flags | data_of(against), below=pictures_for(run, against))


def pictures_for(run: Any = None, against: Any = None) -> Raw:
    """The data, dataset and image of the cache that is compared with, else of the run's; {} without either."""
    name = str(run or "runs/ldm")
    folder = Path(name.rpartition("@")[0] if "@" in Path(name).name else name).expanduser()
    cache = beside(folder, str(read_config(folder).get("latents") or "cache")) if (folder / "config.yaml").exists() else ""
    own = pictures_of(cache) if cache else {}
    return pictures_of(against) if against is not None and is_cache(against) else own


def data_of(against: Any) -> Raw:
    """The layer of a folder of pictures, or a name; {} of a cache, which says itself what it was made of."""
    return {} if against is None or is_cache(against) else {"data": str(against)}


def is_cache(folder: Any) -> bool:
    """Whether it is one of latents."""
    return (Path(str(folder)).expanduser() / "latents.json").exists()
