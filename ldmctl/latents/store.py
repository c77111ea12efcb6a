"""What a cache keeps of each picture: the moments that its autoencoder makes, or the codes of its codebook, in a fraction of the room."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldmctl.config.mapped import opened
from ldmctl.config.schemas.encode_dataset import EncodeDataset
from ldmctl.errors import ConfigError, DataError, PluginError, with_article
from ldmctl.latents.codec import Codec
from ldmctl.latents.items import Item
from ldmctl.latents.manifest import Manifest, Shard
from ldmctl.latents.usage import CodeUsage
from ldmctl.latents.writer import DTYPES, ROWS_PER_CRC, Rows, checked_rows

COARSE = 0.01  # of a channel's deviation: float16 rounds finer than this, or float32 is taken
INTEGERS = ("uint8", "uint16", "int32")  # that codes are stored in
NONE = -1  # the code of what is not finite, until it is refused


@dataclass(frozen=True)
class Store:
    """What is stored of a picture, and how."""

    dtype: str
    moments: list[int]  # shape of one item's, stored or looked up
    latent: list[int]  # shape of one item's
    codes: list[int] | None = None  # shape of one item's; None: moments are stored
    size: int = 0  # how many codes there are

    @property
    def name(self) -> str:
        """Of its tensor."""
        return "moments" if self.codes is None else "codes"

    def of(self, image: Tensor, codec: Codec) -> Tensor:
        """image [B,C,H,W] in [-1, 1] -> moments [B,m,h,w] in their dtype, or codes [B,h,w] yet to be `checked`, on the device."""
        moments = codec.encode(image)
        if self.codes is None:
            return moments.to(DTYPES[self.dtype])
        codes = codec.autoencoder.codes(moments).int()
        finite = moments.flatten(1).isfinite().all(1).view(-1, *[1] * (codes.ndim - 1))
        return torch.where(finite, codes, NONE)  # some code would be nearest

    def checked(self, rows: Rows, items: Sequence[Item]) -> Rows:
        """The rows as they are stored; moments that are not finite are a DataError that names the pictures."""
        if self.codes is None:
            return checked_rows(rows, items)
        return {name: self._narrowed(value, items) for name, value in rows.items()}

    def _narrowed(self, codes: Tensor, items: Sequence[Item]) -> Tensor:
        values = codes.flatten(1)
        if (lost := values.amin(1) < 0).any():
            which = [items[row].stamp for row in lost.nonzero().flatten().tolist()[:5]]
            raise DataError(f"There are no codes of {which}: their moments are not finite. The autoencoder has diverged.")
        if (largest := int(values.max())) >= self.size:
            raise PluginError(
                f"The autoencoder gives code {largest}, and its code_count is {self.size}: codes go from 0 to code_count - 1."
            )
        return codes.to(DTYPES[self.dtype])


def store_of(manifest: Manifest) -> Store:
    """What a finished cache stores."""
    moments, latent = list(manifest.moments), list(manifest.latent)
    if manifest.codes is None:
        return Store(manifest.dtype, moments, latent)
    return Store(manifest.dtype, moments, latent, list(manifest.codes.shape), manifest.codes.size)


def plan_store(config: EncodeDataset, image: Tensor, codec: Codec) -> Store:
    """What a cache will store, from some of its pictures [B,C,H,W]: moments in float16 where its range and rounding are enough.

    Codes only of an autoencoder that `refuse_without_codes` has let through.
    """
    moments = codec.encode(image)
    latent = list(codec.draw(moments[:1]).shape[1:])
    if config.store == "moments":
        dtype = config.dtype if config.dtype != "auto" else "float16" if fits_half(moments) else "float32"
        return Store(dtype, list(moments.shape[1:]), latent)
    size = codec.autoencoder.code_count
    return Store(smallest(size), list(moments.shape[1:]), latent, list(codec.autoencoder.codes(moments[:1]).shape[1:]), size)


def refuse_without_codes(config: EncodeDataset, autoencoder: Any) -> None:
    """A ConfigError where codes are to be stored of an autoencoder that has none, or not how many there are."""
    if config.store == "moments":
        return
    kind = with_article(type(autoencoder).__name__)
    if lacking := [name for name in ("codes", "lookup", "code_count") if not hasattr(autoencoder, name)]:
        raise ConfigError(
            f"store=codes needs an autoencoder with a codebook, and {config.run} is {kind}, which has no {', '.join(lacking)}. "
            "Take store=moments, which any has, or train one with codes: ldmctl fit-ae --ae vqvae, or --ae fsq."
        )
    if autoencoder.code_count > 1 + torch.iinfo(DTYPES[INTEGERS[-1]]).max:
        raise ConfigError(
            f"store=codes stores up to 2^31 codes, and {config.run} is {kind} of {autoencoder.code_count:,}. Take store=moments."
        )


def smallest(size: int) -> str:
    """The dtype for codes below `size`."""
    return next(dtype for dtype in INTEGERS if size <= 1 + torch.iinfo(DTYPES[dtype]).max)


def fits_half(moments: Tensor) -> bool:
    """Whether moments [B,m,h,w] lose next to nothing in float16."""
    values = moments.transpose(0, 1).flatten(1)
    error = (values - values.half().float()).square().mean(1).sqrt()
    return bool(values.abs().max() < 3e4) and bool((error <= COARSE * values.std(1).clamp_min(1e-12)).all())


def codes_in_use(folder: Path, store: Store, row: Sequence[Shard]) -> dict[str, Any] | None:
    """What latents.json says of the codes in these shards, mirrored variants left out; None where moments are stored."""
    if store.codes is None:
        return None
    usage = CodeUsage(store.size)
    for shard in row:
        with opened(folder / shard.file) as file:
            for rows in file.get_tensor(store.name).split(ROWS_PER_CRC):
                usage.add(rows)
    return {"shape": store.codes, "size": store.size, "used": usage.used, "perplexity": usage.perplexity}
