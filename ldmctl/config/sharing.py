"""How a global batch is shared by devices. Readable without torch, so that it is refused before any process is started."""

from ldmctl.errors import ConfigError


def per_device(batch: int, devices: int) -> int:
    """How much of a global batch each device takes; a batch that they cannot share equally is a ConfigError."""
    if batch % devices:
        raise ConfigError(f"loop.batch={batch} cannot be shared by {devices} devices; take a multiple of {devices}.")
    return batch // devices
