"""README and docs are held to the code: the plugin is the tested one, lists are the registry's, commands, keys, options and paths exist."""

import functools
import re

import pytest
import typer
from pages import MARK, PLAIN, ROOT, SHELL, blocks, code_marks, pages, shell_blocks

from ldmctl import cli, registry
from ldmctl.config.base import section_of, slot_of
from ldmctl.config.presets import compose, names
from ldmctl.config.schemas.verbs import VERBS
from ldmctl.errors import LdmctlError

PAGES = pages()
README = PAGES["README.md"]
PLACEHOLDERS = {"spacing=runs/ldm/spacing.json": "spacing=trailing", "...": "1", "$HEAD:29500": "host:1"}
OUTER = {"--nproc-per-node", "--logdir"}  # options of other programs
COMMENTS = re.compile(r"<!-- .*? -->", re.S)


def test_there_is_something_to_check():
    assert len(PAGES) >= 15 and len(shell_blocks()) >= 40
    assert {"docs/quickstart.md", "docs/plugins.md", "docs/house.md"} <= set(PAGES)


@pytest.mark.parametrize("file", ["pyproject.toml", "ldmctl_lfq.py"])
def test_the_plugin_in_the_docs_is_the_tested_one(file):
    assert (ROOT / "tests" / "sample_plugin" / file).read_text(encoding="utf-8").strip() in PAGES["docs/plugins.md"]


def test_every_built_in_plugin_is_named_in_the_readme():
    table = README[README.index("| kind of plugin |") : README.index("## How it is built")]
    known = [plugin.name for kind in registry.GROUPS for plugin in registry.plugins(kind) if plugin.target.startswith("ldmctl_plugins.")]
    assert len(known) >= 17
    assert [name for name in known if f"`{name}`" not in table] == []


def test_the_readme_is_a_page():
    assert README.count("\n") <= 130


# -- blocks ----------------------------------------------------------------------------


def test_every_block_says_its_language_and_every_shell_block_what_is_done_with_it():
    known = (*SHELL, *PLAIN)
    assert [block.where for block in blocks() if block.language not in known and not block.language.startswith("{")] == []
    wrong = [f"{block.where}: {block.mark or 'no mark'}" for block in shell_blocks() if not MARK.fullmatch(block.mark)]
    assert wrong == [], "write <!-- run -->, <!-- dry-run --> or <!-- not run: why --> before each of them"


def test_blocks_that_are_run_hold_commands_of_ldmctl_alone():
    run = [block for block in shell_blocks() if block.mark in ("run", "dry-run")]
    assert len(run) >= 20
    assert [f"{block.where}: {line}" for block in run for line in block.lines if not line.startswith("ldmctl ")] == []


def test_every_comment_is_one_that_the_tests_know():
    known = re.compile(r"<!-- (run|dry-run|not run: .+|starts with: runs) -->")
    assert [found for text in PAGES.values() for found in COMMENTS.findall(text) if not known.fullmatch(found)] == []


# -- commands --------------------------------------------------------------------------


@functools.cache
def commands() -> dict[tuple[str, ...], object]:
    """Every command of the executable by its words."""

    def walk(group, above):
        for word, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from walk(command, (*above, word))
            else:
                yield (*above, word), command

    return dict(walk(typer.main.get_command(application()), ()))


def application():
    """The Typer app, wherever in the package of the command line it is."""
    if isinstance(getattr(cli, "app", None), typer.Typer):
        return cli.app
    from ldmctl.cli.app import app

    return app


def parsed(words):
    """(verb, values of its options and arguments) of a command line; a usage error is raised."""
    words = [PLACEHOLDERS.get(word, word) for word in words]
    size = 2 if tuple(words[:2]) in commands() else 1
    command = commands()[tuple(words[:size])]
    return " ".join(words[:size]), command.make_context(words[0], words[size:]).params


def described():
    return [(block.where, words) for block in shell_blocks() for words in block.commands]


@pytest.mark.parametrize(("where", "words"), [pytest.param(*each, id=f"{each[0]} {' '.join(each[1])[:40]}") for each in described()])
def test_commands_options_keys_and_names_exist(where, words, monkeypatch):
    monkeypatch.delenv("LDMCTL_OVERRIDES", raising=False)
    words = [word for word in words if word not in ("...", "0") or "..." not in words]  # `--label 0 ... --label 9`
    words = [word for index, word in enumerate(words) if not (word == "--label" and words[index + 1 : index + 2] == ["--label"])]
    verb, values = parsed(words)
    if verb in VERBS:
        check_config(verb, values)
    elif verb in ("plugins show", "plugins check"):
        if values["name"] not in ("lfq", "my-autoencoder"):
            registry.find(registry.kind_of(values["kind"]), values["name"])
    elif verb == "plugins new":
        registry.kind_of(values["kind"])
    elif verb == "configs show":
        assert values["name"].rpartition("/")[2] in [*names("data"), *names("fit-ae"), *names("fit-diffusion")]
    elif verb == "configs schema":
        assert next(iter(values.values())) in VERBS


def check_config(verb, values):
    """The keys and names of a command of a verb are ones that it has."""
    schema = VERBS[verb]
    overrides = list(values["overrides"] or [])
    if values.get("init") and verb == "fit-ae":
        overrides.remove("train=decoder")  # refused without a run to begin with
    config = values.get("config")
    flags = {"dataset": {"type": "shapes"}} if "dataset" in schema.model_fields else {}
    if (ae := values.get("ae")) and verb == "fit-ae" and ae != "lfq":
        flags["autoencoder"] = ae
    flags |= {key: values[key] for key in ("sampler", "guidance", "start", "mask", "outpaint") if values.get(key) is not None}
    if values.get("guide"):
        flags["guide"] = {"type": values["guide"][0]}
    compose(schema, config=config if config in names(verb) else None, overrides=overrides, flags=flags)
    assert config is None or config in names(verb) or config.endswith(".yaml")
    data = values.get("data")
    assert data in (None, "photos", "captioned", "FOLDER") or data in names("data")


@pytest.mark.parametrize(
    "line", ["sample --step 9", "sample stepz=9", "sample --sampler ddjm", "fit-diffusion denoiser.widthz=[8]", "smaple"]
)
def test_a_wrong_option_key_or_name_would_be_found(line):
    def check():
        check_config(*parsed(line.split()))

    try:
        check()
    except (LdmctlError, KeyError):
        return
    except Exception as error:
        assert hasattr(error, "format_message"), error  # wrong usage, in Typer's words
        return
    pytest.fail("it was not found")


# -- code marks in the text ------------------------------------------------------------


def test_options_in_the_text_exist():
    known = {
        name for command in commands().values() for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
    }
    known |= {"--help", "-h", "--version", "--install-completion"} | OUTER
    said = [(page, option) for page, mark in code_marks() if is_ours(mark) for option in re.findall(r"(?:^|\s)(--?[a-z][a-z-]*)", mark)]
    assert len(said) >= 20
    assert [each for each in said if each[1] not in known] == []


def is_ours(mark):
    """Whether a code mark holds options of ldmctl, and not those of another program."""
    return mark.startswith(("-", "ldmctl"))


def test_keys_in_the_text_exist():
    said = [(page, mark) for page, mark in code_marks() if re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+(=\S+)?", mark)]
    tops = {name for schema in VERBS.values() for name, field in schema.model_fields.items() if section_of(field) or slot_of(field)}
    keys = [(page, mark.partition("=")[0]) for page, mark in said if mark.split(".")[0] in tops]
    assert len(keys) >= 25
    assert [each for each in keys if not any(has(schema, each[1].split(".")) for schema in VERBS.values())] == []


def has(schema, path):
    """Whether this path leads to a key of a config class; in a slot, of any plugin of its kind, in a list of them at a place in it."""
    path = [part for part in path if not part.isdecimal()]
    name, *rest = path
    if (field := schema.model_fields.get(name)) is None:
        return False
    if not rest:
        return True
    if (slot := slot_of(field)) is not None:
        return any(rest[0] in plugin.load().Config.model_fields for plugin in registry.plugins(slot.kind))
    return (section := section_of(field)) is not None and has(section, rest)


def test_files_in_the_text_exist():
    folders = ("ldmctl/", "plugins/", "configs/", "tests/", "benchmarks/", "docs/")
    said = [(page, word) for page, mark in code_marks() for word in mark.split() if word.startswith(folders) and "<" not in word]
    assert len(said) >= 40
    assert [each for each in said if not (ROOT / each[1]).exists() and "_build" not in each[1]] == []


def test_links_lead_somewhere():
    wrong = []
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", COMMENTS.sub("", text)):
            path = target.partition("#")[0]
            if path and "://" not in target and not ((ROOT / page).parent / path).exists():
                wrong.append(f"{page}: {target}")
    assert wrong == []


def test_no_page_names_a_file_outside_of_the_project():
    outside = re.compile(r"(?<![\w.])/(?:root|work|home|tmp|mnt|Users)/")
    assert [page for page, text in PAGES.items() if outside.search(text)] == []
