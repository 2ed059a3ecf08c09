"""README.rst says what the code does: options, scripts, messages and examples are compared with it."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path
from typing import Any, Dict, Iterator, List

import docutils.core
import docutils.utils
import pytest

from cowstorage import cli, errors
from cowstorage.buildout.options import OPTIONS, from_options
from cowstorage.part.scripts import SCRIPTS
from cowstorage.part.settings import to_script
from test_architecture import BELOW

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "src" / "cowstorage" / "pages").glob("*.rst"))
# README.rst and the pages that come with the package, one after the other.
README = "\n\n\n".join(path.read_text(encoding="utf-8").rstrip("\n") for path in (ROOT / "README.rst", *PAGES)) + "\n"
SOURCES = sorted((ROOT / "src" / "cowstorage").rglob("*.py"))


@pytest.mark.parametrize("name", ["README.rst", "CHANGES.rst", *(str(path.relative_to(ROOT)) for path in PAGES)])
def test_renders_without_a_warning(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    settings_overrides: Dict[str, Any] = {"halt_level": 2, "report_level": 1, "file_insertion_enabled": False}
    html = docutils.core.publish_string(text, writer="html5", settings_overrides=settings_overrides)
    assert b"<h1" in html


def rows_of_table(section: str) -> List[List[str]]:
    """The rows of the list-table in a section, cells on one line."""
    body = section_text(section)
    rows = re.findall(
        r"^   \* - (.*?)\n     - (.*?)\n     - (.*?)(?=\n   \* -|\n\n|\Z)", body, re.MULTILINE | re.DOTALL
    )
    return [[" ".join(cell.split()) for cell in row] for row in rows]


def section_text(title: str) -> str:
    """From a section's title to the next section of the same level."""
    match = re.search(rf"^{re.escape(title)}\n=+\n(.*?)(?=^[^\n]+\n=+\n|\Z)", README, re.MULTILINE | re.DOTALL)
    assert match, f"README.rst has no section {title}"
    return match.group(1)


def test_every_path_of_the_project_is_there() -> None:
    """The source map and the test map, wherever the page names them."""
    named = set(re.findall(r"\b((?:src/cowstorage|tests)(?:/[\w.]+)+)", README))
    assert len(named) > 20
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_source_map_has_every_room_and_names_what_is_there() -> None:
    contributing = section_text("Development").partition("Contributing\n")[2]
    assert re.findall(r"^   \* - ``(\w+)/``$", contributing, re.MULTILINE) == list(BELOW)
    nodes = [node for path in SOURCES for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    known = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    known |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    known |= {path.name for path in SOURCES}
    named = re.findall(r"``([A-Z]\w+|\w+\.\w+)``", contributing)
    assert len(named) > 10
    assert [name for name in named if name not in known and name.rpartition(".")[2] not in known] == []


def test_every_option_is_documented() -> None:
    documented = [tuple(row) for row in rows_of_table("Options")[1:]]
    assert documented == [(f"``{option.name}``", option.default, option.meaning) for option in OPTIONS]


def test_every_script_is_documented() -> None:
    table = dict(re.findall(r"^cow-(\w+) +(\S.*)$", section_text("Scripts"), re.MULTILINE))
    assert table == {name: script.summary for name, script in SCRIPTS.items()}


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_what_the_script_prints(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parts = {"remote": "host:/srv/plone", "file-storage": "var/filestorage", "blob-storage": "var/blobstorage"}
    parser = cli.parser(name, from_options(parts, "cow-storage", "/srv/buildout"))
    (shown,) = [text for text in examples("console") if text.startswith(f"$ bin/cow-{name} --help\n")]
    assert as_python_has_it(shown.partition("\n")[2]) == as_python_has_it(parser.format_help())


def as_python_has_it(text: str) -> List[str]:
    """A help's lines, with the words of Python 3.10 to 3.12 instead of those of older and newer ones."""
    text = text.replace("optional arguments:", "options:").replace("-n, --number N", "-n N, --number N")
    # Python 3.13 breaks the lines of usages elsewhere.
    usage, _, rest = text.strip().partition("\n\n")
    return [" ".join(words.split()) for words in (usage, *rest.splitlines())]


def text_of(node: ast.AST) -> str:
    """A string of the code; what is filled in is a star."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        node = node.func.value  # such as "…".rstrip()
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def messages() -> Iterator[str]:
    """Every string of the code."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            yield text_of(node)


# What is filled in is three dots there.
TROUBLES = [row[0].replace("…", "*") for row in rows_of_table("Troubleshooting")[1:]]


@pytest.mark.parametrize("message", TROUBLES)
def test_every_message_is_one_of_the_code(message: str) -> None:
    assert any(message in known for known in messages())


def errors_told() -> Dict[str, List[str]]:
    """The texts of the errors that a user meets, by class: those of the class itself and those of each raise."""
    classes = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, ERRORS)}
    told: Dict[str, List[str]] = {name: [] for name in classes - {"CowStorageError", "Unusable"}}
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name in told:
                inits = [call for call in ast.walk(node) if isinstance(call, ast.Call) and called(call) == "__init__"]
                told[node.name] += [text_of(argument) for call in inits for argument in call.args]
            elif isinstance(node, ast.Call) and called(node) in classes:
                told.setdefault(called(node), []).extend(filter(None, map(text_of, node.args[-1:])))
    return told


def called(call: ast.Call) -> str:
    """The name of what is called."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


ERRORS = (errors.CowStorageError, errors.Interrupted)
# Words that tell the reader what to do.
CURE = re.compile(
    r"\b(Run|run|Set|Install|Use|use|Choose|Make|make|Look|Try|Log in|Unmount|Stop|Wait|Remove|Keep|Say which|"
    r"Write|write|End it|move it away|convert|fetches it anew|Each needs)\b|"
    r"Did you mean|such as|Known|there: |--yes|shows those"
)


def test_every_kind_of_error_is_explained() -> None:
    named = {kind: [row for row in TROUBLES for text in told if row in text] for kind, told in errors_told().items()}
    assert [kind for kind, rows in named.items() if not rows] == []


def test_every_error_says_what_to_do_or_has_a_row() -> None:
    told = [text for kind, texts in errors_told().items() if kind != "SettingsError" for text in texts]
    unexplained = [text for text in told if text.replace("*", "").strip(": \n()") and not CURE.search(text)]
    assert [text for text in unexplained if not any(row in text for row in TROUBLES)] == []


def examples(language: str) -> List[str]:
    """The bodies of the code blocks of a language, without their indentation."""
    blocks = re.findall(rf"^( *)\.\. code-block:: {language}\n\n((?:\1    .*\n|\n)+)", README, re.MULTILINE)
    return ["\n".join(line[len(indent) + 4 :] for line in body.splitlines()) for indent, body in blocks]


def parts_in_examples() -> List[Any]:
    found = []
    for number, text in enumerate(examples("ini")):
        parser = configparser.RawConfigParser(delimiters=("=", "+="), strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(text)
        for section in parser.sections():
            if parser.get(section, "recipe", fallback="") == "cowstorage":
                found.append(pytest.param(section, dict(parser.items(section)), id=f"{number}-{section}"))
    return found


@pytest.mark.parametrize("part, options", parts_in_examples())
def test_every_part_in_it_is_valid(part: str, options: Dict[str, str]) -> None:
    paths = {"file-storage": "var/filestorage", "blob-storage": "var/blobstorage"}
    made = from_options({**paths, **options}, part, "/srv/buildout")
    assert made.remote == options["remote"]


def table_of_pins() -> List[List[str]]:
    """The rows of the table in the section Pins."""
    section = section_text("Pins")
    return [re.split("  +", row.strip()) for row in section.split("=\n")[2].splitlines()[:-1]]


def pins_of_plone() -> List[List[str]]:
    """The same from the matrix of strict buildouts: a line of zc.buildout for each Plone, and the pins used with it."""
    from buildout import test_buildout_lines as matrix

    result = []
    for plone, buildout in (("5.2", "3.0.1"), ("6.0", "3.4"), ("6.1", "4.2.0"), ("6.2", "5.2.0"), ("next", "6.0.1")):
        line = matrix.LINES[buildout]
        if plone == "5.2":
            pythons, pins = "3.8", matrix.pins(buildout, "3.8")
        else:
            usual = [python for python in line.pythons if (buildout, python) not in matrix.EXCEPTIONS]
            pythons, pins = f"{usual[0]} to {usual[-1]}", line.pins
        versions = [pins[name] for name in ("zc.recipe.egg", "ZODB", "sh")]
        result.append([plone, buildout, pythons, line.tools["setuptools"], *versions])
    return result


def test_pins_are_those_of_the_matrix() -> None:
    assert table_of_pins() == pins_of_plone()
    assert dict(row[::6] for row in pins_of_plone())["6.2"] == re.findall(r"^    sh = (\S+)$", README, re.MULTILINE)[0]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.stem))
def test_a_script_prints_each_page_and_the_readme_lists_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {"remote": "host:/srv/plone", "file-storage": "var/filestorage", "blob-storage": "var/blobstorage"}
    options = to_script(from_options(parts, "cow-storage", "/srv/buildout"))
    assert cli.main("status", options, ["--page", path.stem]) == 0
    assert capsys.readouterr().out == path.read_text(encoding="utf-8")
    assert cli.main("status", options, ["--page", f"../{path.stem}"]) == 2
    assert path.stem in capsys.readouterr().err
    assert re.search(rf"^{path.stem} +\S", section_text("Scripts"), re.MULTILINE)
