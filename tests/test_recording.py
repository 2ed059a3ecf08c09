"""The recording that README shows is what the demonstration prints."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from recording import recorded, text_of, without_chance

README = (Path(__file__).parent.parent / "README.rst").read_text(encoding="utf-8")
PAGES = Path(__file__).parent.parent / "src" / "cowstorage" / "pages"
CAST = (PAGES / "recording.cast").read_text(encoding="utf-8")
SVG = PAGES / "recording.svg"


@pytest.mark.root
def test_a_fresh_run_prints_what_is_recorded() -> None:
    assert without_chance(recorded()) == without_chance(text_of(CAST))


def test_what_readme_shows_of_the_four_commands_is_what_they_say() -> None:
    block = README.partition("Four commands:")[2].partition("    $ bin/cow-mount")[2].partition("\n\n")[0]
    block = block.replace("plone@www.example.com:/srv/plone", "/var/tmp/cow-demo/production")
    lines = [line for line in block.replace("before-content", "before-upgrade").splitlines() if "$" not in line]
    said = {line.strip() for line in without_chance(text_of(CAST))}
    assert len(lines) > 5
    assert [line for line in without_chance(lines) if line.strip() not in said] == []


def test_the_picture_shows_every_line_of_the_recording() -> None:
    texts = [element for element in ElementTree.parse(SVG).iter() if element.tag == "{http://www.w3.org/2000/svg}text"]
    shown = {"".join("".join(element.itertext()).split()) for element in texts}
    assert {"".join(line.split()) for line in text_of(CAST)} - {""} <= shown


def test_the_picture_is_small() -> None:
    assert SVG.stat().st_size < 100_000
