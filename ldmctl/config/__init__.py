"""From YAML, presets and KEY=VALUE to one validated config; every key of every verb. Readable without torch."""

from ldmctl.config.base import Noted as Noted
from ldmctl.config.base import Place as Place
from ldmctl.config.base import PluginConfig as PluginConfig
