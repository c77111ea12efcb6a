"""Whose code raised an exception, found in its traceback when it has arrived: calls into plugins are not wrapped and cost nothing.

The innermost frame that lies in a plugin's package names the plugin. What is written for the person (LdmctlError), a full
disk and a device without room are nobody's fault and pass as they are.
"""

import errno
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from types import FrameType
from typing import Any, NamedTuple, ParamSpec, TypeVar

from ldmctl import registry
from ldmctl.endings import is_memory_shortage
from ldmctl.errors import LdmctlError, PluginError, one_line

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
DEPTH = 5  # causes of causes that are looked at
P = ParamSpec("P")
T = TypeVar("T")


class Culprit(NamedTuple):
    """The plugin whose code raised, what it raised, and where."""

    plugin: registry.Plugin
    error: BaseException
    place: str  # "/path/heun.py, line 12, in __call__"


def attributed(error: BaseException) -> BaseException:
    """A PluginError that names the plugin of another package whose code raised this; otherwise the error itself."""
    if isinstance(error, LdmctlError) or not isinstance(error, Exception | SystemExit) or is_surroundings(error):
        return error
    found = culprit(error)
    if found is None or found.plugin.built_in:
        return error
    said = PluginError(
        f"{named(found.plugin)} raised {one_line(found.error)[:400]}, at {found.place}. "
        f"ldmctl plugins check {found.plugin.kind} {registry.word_for(found.plugin)} tries it by itself."
    )
    said.__cause__ = error
    return said


def blaming(function: Callable[P, T]) -> Callable[P, T]:
    """The same function, whose exceptions from a plugin's code are PluginErrors that name it."""

    @wraps(function)
    def call(*given: P.args, **options: P.kwargs) -> T:
        try:
            return function(*given, **options)
        except Exception as error:
            if (said := attributed(error)) is error:
                raise
            raise said from error

    return call


def culprit(error: BaseException) -> Culprit | None:
    """The plugin whose frame is the innermost, of ldmctl's own too; None where no plugin's code was running."""
    for each in _causes(error):
        frames = [(frame, line) for frame, line in traceback.walk_tb(each.__traceback__)]
        for file, line, name in _traced(each):
            for cls, candidate in registry.loaded().items():
                if file == getattr(sys.modules.get(cls.__module__), "__file__", None):
                    return Culprit(candidate, each, f"{file}, line {line}, in {name}")
        for index in range(len(frames) - 1, -1, -1):
            frame, line = frames[index]
            if (plugin := _owner([frame for frame, _ in frames[: index + 1]])) is not None:
                return Culprit(plugin, each, f"{frame.f_code.co_filename}, line {line}, in {frame.f_code.co_name}")
        if (blamed := _not_begun(each, frames[-1][0] if frames else None)) is not None:
            return Culprit(*blamed)
    return None


def named(plugin: registry.Plugin) -> str:
    """`The sampler 'heun' from ldmctl-heun 0.1.0`."""
    return f"The {plugin.kind} {plugin.name!r} from {plugin.source}"


def plugin_of(instance: Any) -> registry.Plugin | None:
    """The plugin that something was made by."""
    return next((registry.loaded()[cls] for cls in type(instance).__mro__ if cls in registry.loaded()), None)


def foreign_plugins(parts: Iterable[Any]) -> list[str]:
    """`sampler heun (ldmctl-heun 0.1.0)` of each part that was made by a plugin of another package, sorted."""
    made = {plugin for part in parts if (plugin := plugin_of(part)) is not None and not plugin.built_in}
    return sorted(f"{plugin.kind} {plugin.name} ({plugin.source})" for plugin in made)


def expect(holds: Any, instance: Any, complaint: str) -> None:
    """A PluginError that names the plugin which `instance` is of, unless it holds."""
    if not holds:
        plugin = plugin_of(instance)
        raise PluginError(f"{named(plugin) if plugin else type(instance).__name__} does not keep its promise: {complaint}.")


def expect_shape(found: Any, wanted: tuple[Any, ...], instance: Any, method: str, *, like: Any = None) -> None:
    """A PluginError that names the plugin, unless its `method` gave a tensor of real numbers of this shape, on the device of `like`.

    None in `wanted` stands for any size.
    """
    tensor = hasattr(found, "is_floating_point")
    gave = str(list(found.shape)) if tensor else type(found).__name__
    fits = tensor and len(found.shape) == len(wanted) and all(want in (None, size) for size, want in zip(found.shape, wanted, strict=True))
    expect(fits, instance, f"{method} gave {gave}, not [{', '.join('*' if want is None else str(want) for want in wanted)}]")
    kind, place = str(found.dtype).removeprefix("torch."), found.device if like is None else like.device
    expect(found.is_floating_point(), instance, f"{method} gave {gave} of {kind}, not of floating-point numbers")
    expect(found.device == place, instance, f"{method} gave {gave} on {found.device}, not on {place}")


def expect_slope(found: Any, instance: Any, method: str) -> None:
    """A PluginError that names the plugin, where gradients are asked for and none leads from what its `method` gave."""
    expect(found.requires_grad, instance, f"no gradient leads from what {method} gave to what is trained")


def resembles(found: Any, given: Any) -> bool:
    """Whether what a network gave is a tensor of real numbers of the shape and on the device of the one it was given."""
    alike = getattr(found, "shape", None) == given.shape and getattr(found, "device", None) == given.device
    return alike and bool(found.is_floating_point())


def suspects() -> str:
    """' It may be ...' that names the plugins of other packages in use; '' without any."""
    foreign = sorted({plugin for plugin in registry.loaded().values() if not plugin.built_in})
    names = " or ".join(f"the {plugin.kind} {plugin.name!r} from {plugin.source}" for plugin in foreign)
    return f" It may also be {names}: `ldmctl plugins check` tries one." if foreign else ""


def is_surroundings(error: BaseException) -> bool:
    """Whether a device, the machine or a disk has no room: nobody's fault. Without importing torch."""
    return is_memory_shortage(error) or getattr(error, "errno", None) in FULL


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, the nearest first."""
    each: BaseException | None = error
    for _ in range(DEPTH):
        if each is None:
            return
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


def _traced(error: BaseException) -> list[tuple[str, int, str]]:
    """(file, line, function) of the lines that torch.compile read when it failed, the innermost first; they were not run and have no frames."""
    stack: Any = getattr(error, "real_stack", None) or []
    return [(each.filename, each.lineno, each.name) for each in reversed(stack)]


def _owner(frames: list[FrameType]) -> registry.Plugin | None:
    """The plugin in whose package the last of these frames lies; where that has several, the one whose method is on the way to it."""
    module = str(frames[-1].f_globals.get("__name__", ""))
    own = plugin_of(frames[-1].f_locals.get("self"))  # a method from elsewhere, or an attribute that a network lacks
    if own is not None and (not module.startswith("torch") or frames[-1].f_code.co_name == "__getattr__"):
        return own
    ranks = {cls: rank for cls in registry.loaded() if (rank := _shares(module, cls, registry.loaded()[cls]))}
    best = [cls for cls, rank in ranks.items() if rank == max(ranks.values())]
    for frame in reversed(frames):
        for cls in best:
            if isinstance(frame.f_locals.get("self"), cls):
                return registry.loaded()[cls]
    return registry.loaded()[best[0]] if best else None


def _shares(module: str, cls: type, plugin: registry.Plugin) -> int:
    """How many names at their beginnings a module and the plugin's module share, one more where they are the same; 0 for strangers."""
    if module == cls.__module__:
        return len(module.split(".")) + 1
    if plugin.distribution == registry.SESSION:
        return 0
    pairs = zip(module.split("."), cls.__module__.split("."), strict=False)
    return next((count for count, (one, other) in enumerate(pairs) if one != other), min(module.count("."), cls.__module__.count(".")) + 1)


def _not_begun(error: BaseException, frame: FrameType | None) -> tuple[registry.Plugin, BaseException, str] | None:
    """What was called or asked for in another way than the plugin has it, so that no frame is its own."""
    cls: Any = None
    if isinstance(error, AttributeError):
        cls = error.obj if isinstance(error.obj, type) else type(error.obj)
        cls = next((each for each in cls.__mro__ if each in registry.loaded()), None)
    elif isinstance(error, TypeError) and (said := re.match(r"([\w.<>]+)\.\w+\(\) (?:takes|missing|got)", str(error))):
        cls = next((each for each in registry.loaded() if each.__qualname__ == said[1]), None)
    if cls is None and frame is not None and frame.f_code is registry.build.__code__:
        cls = frame.f_locals.get("plugin")
    if cls not in registry.loaded():
        return None
    return registry.loaded()[cls], error, _source_of(cls)


def _source_of(cls: type) -> str:
    """Where a class is written."""
    try:
        return f"{inspect.getsourcefile(cls)}, line {inspect.getsourcelines(cls)[1]}, in {cls.__name__}"
    except (OSError, TypeError):  # typed into a console
        return f"{getattr(sys.modules.get(cls.__module__), '__file__', None) or cls.__module__}, in {cls.__name__}"
