"""What every check is made of: a plugin made, called and held to its word. A complaint is a PluginError of one sentence."""

import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ldmctl.config.base import PluginConfig
from ldmctl.config.resolve import explained
from ldmctl.errors import LdmctlError, PluginError, one_line

Check = Callable[..., None]


def promise(kind: str) -> Callable[[Check], Check]:
    """Complaints start with the class, and the caller's random numbers stay as they were."""

    def decorate(function: Check) -> Check:
        @wraps(function)
        def checked(cls: type, /, *given: Any, **options: Any) -> None:
            try:
                with torch.random.fork_rng(devices=[]):
                    function(cls, *given, **options)
            except PluginError as error:
                raise PluginError(f"{cls.__name__} is not a good {kind}: {error}") from error.__cause__
            except LdmctlError:  # such as weights that are missing here
                raise
            except Exception as error:  # third-party code can do anything
                raise PluginError(f"{cls.__name__} is not a good {kind}: {one_line(error)}{_line_of(error)}") from error

        return checked

    return decorate


class _Refused(PluginError):
    """A constructor says in a PluginError that it does not serve this context."""


def maker(cls: Any, options: Mapping[str, Any], **context: Any) -> Callable[..., Any]:
    """A function from a seed to an instance, after the config was looked at."""
    config = _checked_config(cls, options)

    def make(seed: int = 0) -> Any:
        torch.manual_seed(seed)
        try:
            with calling("the constructor"):
                return cls(config, **context)
        except _Broken:
            raise
        except PluginError as error:
            raise _Refused(str(error)) from error

    return make


def _checked_config(cls: Any, options: Mapping[str, Any]) -> Any:
    """The Config of these options, which comes back as it was from YAML and refuses unknown keys."""
    expect(isinstance(getattr(cls, "Config", None), type), "it has no nested class Config")
    expect(issubclass(cls.Config, PluginConfig), "its Config is not a PluginConfig")
    try:
        config = cls.Config(type="check", **options)
    except ValidationError as error:
        raise PluginError(f"Config cannot be made of {dict(options)}: {'; '.join(explained(error, cls.Config))}") from error
    with calling("Config, written and read again,"):
        again = cls.Config.model_validate(config.model_dump(mode="json"))
    expect(again == config, "Config is another one after it was written and read again")
    expect(config.model_config.get("extra") == "forbid", "Config takes keys that it does not know")
    return config


@contextmanager
def refusal_allowed(allowed: bool) -> Iterator[None]:
    """A plugin may say that it does not serve grey pictures, tokens or maps."""
    try:
        yield
    except _Refused:
        if not allowed:
            raise


class _Broken(PluginError):
    """Third-party code raised something that is not meant for the user."""


@contextmanager
def calling(what: str) -> Iterator[None]:
    """Around a plugin's own code: what it raises becomes a complaint that says where, an LdmctlError passes."""
    try:
        yield
    except LdmctlError:
        raise
    except Exception as error:  # third-party code can raise anything
        raise _Broken(f"{what} raises {one_line(error)}{_line_of(error)}") from error


def _line_of(error: BaseException) -> str:
    """Where the innermost line stands that is neither ldmctl's nor a library's: "(heun.py, line 31)", '' where there is none."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not re.search(r"site-packages|/ldmctl/|/lib/python", frame.filename)
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def expect(holds: Any, complaint: str) -> None:
    """A PluginError with this complaint, unless it holds."""
    if not holds:
        raise PluginError(complaint)


def expect_same(one: Tensor, other: Tensor, complaint: str, *, exactly: bool = False, tolerance: float = 1e-4) -> None:
    """Equal shapes and values; `tolerance` is absolute and relative."""
    alike = one.shape == other.shape and (
        torch.equal(one, other) if exactly else torch.allclose(one, other, atol=tolerance, rtol=tolerance)
    )
    expect(alike, complaint)


def expect_different(one: Tensor, other: Tensor, complaint: str) -> None:
    """Further apart than rounding."""
    expect(not torch.allclose(one, other, atol=1e-7, rtol=1e-6), complaint)


def check_gradients(model: nn.Module, loss: Any) -> None:
    """Every parameter that is trained gets a finite gradient."""
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if isinstance(loss, Tensor) and loss.requires_grad:
        with calling("backward"):
            loss.backward()
    silent = [name for name, value in trained.items() if value.grad is None]
    expect(not silent, f"no gradient reaches {few(silent)}")
    wild = [name for name, value in trained.items() if value.grad is not None and not value.grad.isfinite().all()]
    expect(not wild, f"the gradient of {few(wild)} is not finite")


def check_saved(make: Callable[..., Any], model: Any, function: Callable[[Any], Tensor]) -> None:
    """The state is all that a model knows: another instance with it says the same."""
    other = make(seed=1)
    with calling("load_state_dict"):
        other.load_state_dict(model.state_dict())
    with torch.no_grad(), calling("a model loaded from its state"):
        pair = function(model.eval()), function(other.eval())
    expect_same(*pair, "a model loaded from its state_dict gives another result: something is kept outside of parameters and buffers")


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same each time."""
    return torch.randn(shape, generator=seeded(seed))


def seeded(seed: int = 0) -> torch.Generator:
    """A generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def is_whole(value: Any) -> bool:
    """Whether it is a whole number from 1."""
    return isinstance(value, int) and value >= 1


def shape_of(value: Tensor) -> list[int]:
    """As complaints print it: [2, 3]."""
    return list(value.shape)


def few(names: Sequence[str]) -> str:
    """The first three names, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
