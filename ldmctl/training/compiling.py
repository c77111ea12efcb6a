"""Whether torch.compile can be used here, and what it lacks."""

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ldmctl.errors import MissingError
from ldmctl.training.engine import Engine


def compiles(wanted: bool | Literal["auto"], engine: Engine) -> bool:
    """Whether networks are compiled: asked for, or on cuda where it can be done. MissingError when asked for and it cannot."""
    lacking = lacking_to_compile(engine)
    if wanted == "auto":
        return engine.device.type == "cuda" and lacking is None
    if wanted and lacking is not None:
        raise MissingError(f"machine.compile=true needs {lacking}, and there is none.")
    return wanted


def lacking_to_compile(engine: Engine) -> str | None:
    """What torch.compile needs here and does not find: a C++ compiler for a CPU; for cuda Triton, which builds its driver with a C compiler."""
    if engine.device.type != "cuda":
        return None if _is_there("CXX", "g++", "clang++", "c++") else "a C++ compiler (g++ or clang++ on the PATH, or the one CXX names)"
    if find_spec("triton") is None:
        return "the package triton"
    if not _is_there("CC", "gcc", "clang", "cc"):
        return "a C compiler (gcc or clang on the PATH, or the one CC names)"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "the header Python.h (of a package such as python3-dev)"
    return None


def _is_there(variable: str, *usual: str) -> bool:
    named = os.environ.get(variable)
    return any(shutil.which(name) for name in ([named] if named else usual))
