"""The house as anyone can check it: wings, the floors they stand on, files, the longest of all. `python tests/house.py`."""

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]

# The drawing of the house: a wing may import the wings above it in this list and none below. One line is one floor.
FLOORS = [
    (
        "errors",
        "endings",
        "protocols",
        "registry",
        "attribution",
        "console",
        "signals",
        "contention",
        "blocks",
    ),  # the door: what a plugin author reads, and public parts
    ("config",),  # from words to a validated config, without torch
    ("storage",),  # what lies on disk
    ("training",),  # one engine, one loop
    ("pictures",),  # pictures in
    ("latents",),  # the cache
    ("diffusion",),  # noise, and networks that take it away
    ("evaluation",),  # how good a thing is
    ("losses",),  # what the first stage minimises
    ("testing", "template"),  # for plugin authors
    ("stages",),  # the verbs, which never import each other
    ("plan",),  # --dry-run
    ("cli", "api"),  # shell and Python
    ("__main__",),
]
LIMIT = 250  # lines; a longer file says why in its first lines, by the word LONG
LONG = "longer than a page because"


def files(*patterns: str) -> list[Path]:
    """Files of the repository, sorted."""
    return sorted(file for pattern in patterns for file in ROOT.glob(pattern))


def name_of(file: Path) -> str:
    """`ldmctl.cli.app`, and of a package's __init__ the package."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(source: str, package: str) -> Iterator[str]:
    """Every module that a text imports, anywhere in it, spelled out: `from . import b` in package `a` is `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:  # a name of a package may be a module of it
                yield f"{module}.{alias.name}" if is_module(f"{module}.{alias.name}") else module


def is_module(name: str) -> bool:
    """Whether ldmctl has a module or package of this name; all are taken for one in another tree than this."""
    path = ROOT.joinpath(*name.split("."))
    return name.startswith("ldmctl.") and (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())


def imported(file: Path) -> set[str]:
    """What a file of this repository imports."""
    return set(imports(file.read_text(encoding="utf-8"), ".".join(file.relative_to(ROOT).parent.parts)))


def wing_of(module: str) -> str:
    """`cli` of `ldmctl.cli.app`; `__init__` of `ldmctl` itself."""
    return [*module.split("."), "__init__"][1]


def circles(modules: dict[str, set[str]]) -> set[str]:
    """The modules that import each other in a circle, and those between circles."""
    left = {name: needed & set(modules) - {name} for name, needed in modules.items()}
    while free := {name for name, needed in left.items() if not needed & set(left)}:
        left = {name: needed for name, needed in left.items() if name not in free}
    while free := set(left) - {each for needed in left.values() for each in needed}:
        left = {name: needed for name, needed in left.items() if name not in free}
    return set(left)


def functions(file: Path) -> Iterator[tuple[int, str]]:
    """(lines, name) of each function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node.end_lineno - node.lineno + 1, node.name


def length(file: Path) -> int:
    """Lines."""
    return len(file.read_text(encoding="utf-8").splitlines())


def main() -> None:
    """Print the house."""
    host = files("ldmctl/**/*.py")
    wings: dict[str, list[Path]] = {}
    for file in host:
        wings.setdefault(wing_of(name_of(file)), []).append(file)
    for floor, names in reversed(list(enumerate(FLOORS, start=1))):
        for name in names:
            own = wings.get(name, [])
            print(
                f"floor {floor:2}  {name:11} {len(own):3} files, {sum(map(length, own)):5,} lines, median {median(map(length, own)):3.0f}"
            )
    everything = [*host, *files("plugins/**/*.py")]
    sizes = sorted(length(file) for file in everything)
    longest = max(everything, key=length)
    lines, function, where = max((*each, file) for file in everything for each in functions(file))
    print(
        f"{len(everything)} files in ldmctl/ and plugins/, median {median(sizes):.0f} lines, longest {longest.relative_to(ROOT)}: {length(longest)}"
    )
    print(
        f"longest function {function} in {where.relative_to(ROOT)}: {lines} lines; median {median(n for f in everything for n, _ in functions(f)):.0f}"
    )
    print(f"above {LIMIT} lines: {', '.join(str(f.relative_to(ROOT)) for f in everything if length(f) > LIMIT) or 'none'}")
    print(f"circles: {', '.join(sorted(circles({name_of(file): imported(file) for file in host}))) or 'none'}")


if __name__ == "__main__":
    main()
