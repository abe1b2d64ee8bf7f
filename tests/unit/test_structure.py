"""The rooms: imports go down only, rooms know nothing of each other, and nothing grows too long."""

import ast
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from .made import REPO

PACKAGE = REPO / "vstools"

LAYERS: tuple[tuple[str, frozenset[str]], ...] = (
    ("commands", frozenset({"cli"})),
    ("the master", frozenset({"pool"})),
    ("lifecycle", frozenset({"lifecycle"})),
    (
        "rooms",
        frozenset(
            {
                "firewall",
                "hooks",
                "limits",
                "lxc",
                "monitor",
                "network",
                "packages",
                "stats",
                "storage",
                "tree",
                "units",
            }
        ),
    ),
    ("data", frozenset({"config"})),
    ("words", frozenset({"guest", "render"})),
    (
        "base",
        frozenset(
            {"", "ahead", "alive", "errors", "faults", "files", "inside", "libc", "log", "paths", "run", "signals"}
        ),
    ),
)
"""From the top down: each may use what is below it. Above each other: commands, then what they do, and so on."""
ROOMS = dict(LAYERS)["rooms"]
LEVEL = {room: level for level, (_, rooms) in enumerate(LAYERS) for room in rooms}

MODULES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """``vstools.tree.unpack``; a package is named by its directory."""
    parts = path.relative_to(REPO).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path) for path in MODULES}


def room(module: str) -> str:
    """The first name below vstools: a module or a directory."""
    return (*module.split("."), "")[1]


def imports(path: Path) -> set[str]:
    """The modules of ours that a file imports, wherever in it: at its top, in a function, for types."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import hides where it leads"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in NAMES else str(node.module) for name in names}
    return {name for name in found if name.split(".")[0] == "vstools"}


def test_every_module_has_its_place_in_the_table_and_every_place_its_module() -> None:
    assert {room(name) for name in NAMES} == set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down_only(path: Path) -> None:
    own = room(module_name(path))
    up = sorted(name for name in imports(path) if LEVEL[room(name)] < LEVEL[own])
    assert not up, f"{module_name(path)} is below what it imports"


@pytest.mark.parametrize("path", [path for path in MODULES if room(module_name(path)) in ROOMS], ids=module_name)
def test_rooms_never_import_each_other(path: Path) -> None:
    own = room(module_name(path))
    others = sorted(name for name in imports(path) if room(name) in ROOMS - {own})
    assert not others, f"{module_name(path)} looks into another room: lifecycle brings them together"


def test_programs_are_started_in_one_place() -> None:
    starters = {
        module_name(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in {("subprocess", "run"), ("os", "system"), ("os", "fork"), ("os", "popen")}
    }
    assert starters == {"vstools.run"}


def functions(path: Path) -> list[tuple[str, int]]:
    """Each function and how many lines it has below its signature and its docstring.

    The signature of a command is the table of its options, and the docstring is its help.
    """
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            found.append((node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1))
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_has_at_most_400_lines_and_a_function_at_most_50(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
    assert [found for found in functions(path) if found[1] > 50] == []


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_opens_with_a_sentence(path: Path) -> None:
    words = ast.get_docstring(ast.parse(path.read_text()))
    assert words
    assert words.splitlines()[0].rstrip()[-1] in ".:;,", words.splitlines()[0]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_public_function_says_what_it_does(path: Path) -> None:
    tree = ast.parse(path.read_text())
    bare = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_" and not ast.get_docstring(node)
    ]
    assert bare == []


def test_the_packages_that_are_installed_are_the_directories_that_there_are() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["setuptools"]
    directories = {module_name(path) for path in MODULES if path.name == "__init__.py"}
    moved = project["package-dir"]
    assert set(project["packages"]) == directories | set(moved)
    for folder in moved.values():
        assert (REPO / folder / "__init__.py").is_file()


def project_files() -> list[Path]:
    """The files of the project: all that git is not told to ignore."""
    ignored = [line.strip("/") for line in (REPO / ".gitignore").read_text().splitlines() if line]
    return [
        path
        for path in REPO.rglob("*")
        if path.is_file()
        and not any(fnmatch(part, pattern) for part in path.relative_to(REPO).parts for pattern in [".git", *ignored])
    ]


FOREIGN = {
    "the host of a package mirror": rb"\b(deb|ftp[.\w-]*|security|archive|snapshot|cdn[.\w-]*)\.(debian|ubuntu)\."
    rb"|\b(files\.)?pythonhosted\.|\bpypi\.org",
    "a place on somebody's machine": rb"(?<![\w.~/-])/(home|Users|work|workspace|builds)/\w",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_no_file_names(what: str) -> None:
    pattern = re.compile(FOREIGN[what])
    found = [
        f"{path.relative_to(REPO)}: {match[0].decode()}"
        for path in project_files()
        for match in pattern.finditer(path.read_bytes())
    ]
    assert found == []
