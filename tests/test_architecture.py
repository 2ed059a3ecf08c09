"""The rooms of the package, and the arrows between them: what README's source map says, held by the imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Dict, FrozenSet, Iterator, List, NamedTuple, Set, Tuple

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "cowstorage"

# Room → the rooms that it may import, besides itself and errors.
BELOW = {
    "system": (),
    "database": ("system",),
    "part": ("system", "database"),
    "union": ("system", "database", "part"),
    "production": ("system", "database", "part"),
    "actions": ("system", "database", "part", "union", "production"),
    "commands": ("system", "database", "part", "union", "production", "actions"),
    "buildout": ("system", "part", "production", "union"),
}
# Modules that stand beside the rooms, and whatever they may import.
BESIDE = {
    "errors": (),
    "cli": ("system", "part", "actions", "commands"),
    "demo": ("cli", "buildout", "part", "system"),
    "init": ("buildout", "part", "system"),
    "__main__": ("init",),
}
# A function imports what most scripts can do without, and says so.
REASON = "# start-up"


class Import(NamedTuple):
    """One import of a module of ours, wherever it stands.

    :param source: the importing module, ``actions.plan``.
    :param target: the imported one.
    :param lazy: it stands in a function.
    :param type_only: it stands below ``if TYPE_CHECKING``.
    """

    source: str
    target: str
    line: int
    lazy: bool
    type_only: bool


def modules(package: Path) -> Dict[str, Path]:
    """Return the modules of a package by their names below it; a room's ``__init__`` has the room's name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package).with_suffix("").parts)
        found[name[: -len(".__init__")] if name.endswith(".__init__") else name] = path
    del found["__init__"]
    return found


def imports_of(name: str, source: str, known: FrozenSet[str]) -> Iterator[Import]:
    """Yield the imports of our own modules in the source of one."""

    def visit(node: ast.AST, lazy: bool, type_only: bool) -> Iterator[Import]:
        lazy = lazy or isinstance(node, (ast.FunctionDef, ast.Lambda))
        type_only = type_only or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for target in targets(node):
            yield Import(name, target, node.lineno, lazy, type_only)  # type: ignore[attr-defined]
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy, type_only)

    def targets(node: ast.AST) -> Iterator[str]:
        full: List[Tuple[str, str]] = []
        if isinstance(node, ast.Import):
            full = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            full = [(node.module or "", alias.name) for alias in node.names]
        for module, attribute in full:
            if module == "cowstorage" or module.startswith("cowstorage."):
                whole = ".".join(filter(None, (module, attribute)))[len("cowstorage.") :]
                yield whole if whole in known else whole.rpartition(".")[0]

    yield from visit(ast.parse(source), lazy=False, type_only=False)


def all_imports(package: Path = PACKAGE) -> List[Import]:
    """Return every import of our own modules in a package."""
    found = modules(package)
    return [one for name, path in found.items() for one in imports_of(name, path.read_text("utf-8"), frozenset(found))]


def room(module: str) -> str:
    """Return the room of a module, or the module itself where it stands beside them."""
    return module.partition(".")[0]


def forbidden(imports: List[Import]) -> List[str]:
    """Return the imports that go where the table allows no arrow, a line each."""
    allowed = {**BELOW, **BESIDE}
    wrong = []
    for one in imports:
        here, there = room(one.source), room(one.target)
        if there not in (here, "errors", *allowed[here]):
            wrong.append(f"{one.source}:{one.line} imports {one.target}")
        # A command is what one types: what two of them need is an action.
        elif here == there == "commands" and one.target != "commands":
            wrong.append(f"{one.source}:{one.line} imports another command, {one.target}")
    return wrong


def circle(imports: List[Import]) -> List[str]:
    """Return modules that import each other in a circle, imports in functions included; nothing when none do."""
    arrows: Dict[str, Set[str]] = {}
    for one in imports:
        # A room's __init__ has no code; production.filesystems has, and its back ends are loaded by it by name.
        if not one.type_only and one.source != one.target:
            arrows.setdefault(one.source, set()).add(one.target)
    done: Set[str] = set()

    def follow(module: str, path: List[str]) -> List[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(arrows.get(module, ())):
            found = follow(target, [*path, module])
            if found:
                return found
        done.add(module)
        return []

    return next(filter(None, (follow(module, []) for module in sorted(arrows))), [])


def lazy_without_reason(package: Path = PACKAGE) -> List[str]:
    """Return the imports in functions that don't say why they stand there, of any module."""
    wrong = []
    for name, path in modules(package).items():
        source = path.read_text("utf-8")
        lines = source.splitlines()
        functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
        inside = {
            node.lineno
            for function in functions
            for node in ast.walk(function)
            if isinstance(node, (ast.Import, ast.ImportFrom))
        }
        wrong += [f"{name}:{line}" for line in sorted(inside) if REASON not in lines[line - 1]]
    return wrong


def test_the_rooms_are_those_of_the_table() -> None:
    directories = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    beside = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert directories == set(BELOW)
    assert beside == set(BESIDE)


def test_arrows_point_where_the_table_allows() -> None:
    assert forbidden(all_imports()) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(all_imports()) == []


def test_an_import_in_a_function_says_why() -> None:
    assert lazy_without_reason() == []


def test_one_module_starts_programs() -> None:
    """By sh; a child process that calls a function is time_limits' affair, and one that replaces itself this one's.

    sh can't give a program a socket as its standard input and output, which the wire's ssh has.
    """
    importing = {
        name for name, path in modules(PACKAGE).items() if re.search(r"^ *import sh\b", path.read_text("utf-8"), re.M)
    }
    assert importing == {"system.processes"}
    for name, path in modules(PACKAGE).items():
        others = r"\bimport subprocess\b|\bos\.(system|spawn|posix_spawn)" + (
            "" if name in importing or name == "system.connected" else r"|\bos\.exec"
        )
        assert not re.search(others, path.read_text("utf-8")), name


def test_buildout_alone_imports_buildout() -> None:
    for name, path in modules(PACKAGE).items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert room(name) == "buildout" or not [one for one in names if one.split(".")[0] == "zc"], name


@pytest.mark.parametrize("name", sorted(BELOW))
def test_a_room_says_what_lives_there_and_where_to_begin(name: str) -> None:
    text = (PACKAGE / name / "__init__.py").read_text("utf-8")
    lines = (ast.get_docstring(ast.parse(text)) or "").splitlines()
    assert 4 <= len(lines) <= 7
    assert "Begin with" in " ".join(lines)
    assert len(text.splitlines()) == len(lines) + 1, "a room's __init__ has no code"


# The test itself


@pytest.mark.parametrize(
    "module, line, finding",
    [
        ("system/x.py", "from cowstorage.part import settings", "system.x:1 imports part.settings"),
        ("union/x.py", "from cowstorage.production.look import look", "union.x:1 imports production.look"),
        ("part/x.py", "def f():\n    import cowstorage.actions.plan", "part.x:2 imports actions.plan"),
        ("buildout/x.py", "from cowstorage import cli", "buildout.x:1 imports cli"),
        (
            "commands/x.py",
            "from cowstorage.commands import sync",
            "commands.x:1 imports another command, commands.sync",
        ),
        ("commands/x.py", "import cowstorage.buildout.recipe", "commands.x:1 imports buildout.recipe"),
    ],
)
def test_an_arrow_that_is_turned_is_found(module: str, line: str, finding: str) -> None:
    name = module[: -len(".py")].replace("/", ".")
    known = frozenset(modules(PACKAGE))
    assert forbidden(list(imports_of(name, line, known))) == [finding]


def test_a_circle_is_found_also_through_functions() -> None:
    known = frozenset(("part.a", "part.b", "part.c"))
    sources = {
        "part.a": "from cowstorage.part import b",
        "part.b": "def f():\n    from cowstorage.part.c import x",
        "part.c": "import cowstorage.part.a",
    }
    found = [one for name, source in sources.items() for one in imports_of(name, source, known)]
    assert circle(found) == ["part.a", "part.b", "part.c", "part.a"]
    assert circle(found[:-1]) == []


def test_a_lazy_import_without_a_reason_is_found(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    (tmp_path / "x.py").write_text("def f():\n    import json\n\n\ndef g():\n    import json  # start-up\n")
    assert lazy_without_reason(tmp_path) == ["x:2"]
