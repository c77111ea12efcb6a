"""Parts to build networks of, public for plugin authors. Parameter names follow diffusers, so weights can be exchanged."""

from ldmctl.blocks.attention import Attention, attend
from ldmctl.blocks.autoencoding import Decoder, Encoder
from ldmctl.blocks.backbone import (
    UNREADABLE,
    FrozenConvolution,
    channels_order,
    check_channels,
    fill,
    in_colour,
    inverse_length,
    read_weights,
    torchvision_models,
)
from ldmctl.blocks.betas import BetaTable
from ldmctl.blocks.codebook import Codebook, Quantized
from ldmctl.blocks.conditions import heard_tokens, join_maps, refuse_tokens
from ldmctl.blocks.embedding import TimestepEmbedding, sinusoids
from ldmctl.blocks.kmeans import Clusters, k_means
from ldmctl.blocks.levels import DownBlock, MidBlock, UpBlock, run_block
from ldmctl.blocks.nearest import nearest_codes
from ldmctl.blocks.patches import Patches, PatchNorm
from ldmctl.blocks.resnet import Downsample, ResnetBlock, Upsample, group_norm
from ldmctl.blocks.solvers import fresh_noise, level_integrals, log_level_integrals, phi_2
from ldmctl.blocks.spatial import SpatialTransformer
from ldmctl.blocks.transformer import (
    CrossAttention,
    RotaryAttention,
    SwiGLU,
    TransformerBlock,
    axial_rotary,
    axial_sinusoids,
    gated_width,
    modulated_norm,
    patchify,
    rotate,
    unpatchify,
)

__all__ = [
    "UNREADABLE",
    "Attention",
    "BetaTable",
    "Clusters",
    "Codebook",
    "CrossAttention",
    "Decoder",
    "DownBlock",
    "Downsample",
    "Encoder",
    "FrozenConvolution",
    "MidBlock",
    "PatchNorm",
    "Patches",
    "Quantized",
    "ResnetBlock",
    "RotaryAttention",
    "SpatialTransformer",
    "SwiGLU",
    "TimestepEmbedding",
    "TransformerBlock",
    "UpBlock",
    "Upsample",
    "attend",
    "axial_rotary",
    "axial_sinusoids",
    "channels_order",
    "check_channels",
    "fill",
    "fresh_noise",
    "gated_width",
    "group_norm",
    "heard_tokens",
    "in_colour",
    "inverse_length",
    "join_maps",
    "k_means",
    "level_integrals",
    "log_level_integrals",
    "modulated_norm",
    "nearest_codes",
    "patchify",
    "phi_2",
    "read_weights",
    "refuse_tokens",
    "rotate",
    "run_block",
    "sinusoids",
    "torchvision_models",
    "unpatchify",
]
