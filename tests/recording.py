"""Record the demonstration: its output as it is, at times that are set here, as README shows it.

As root: python tests/recording.py src/cowstorage/pages/recording.cast
Then, with termtosvg 1.1.0 of PyPI:
    termtosvg render src/cowstorage/pages/recording.cast src/cowstorage/pages/recording.svg --template window_frame \\
        --loop-delay 5000
The same recording gives the same bytes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List

COLUMNS, ROWS = 94, 26

# Seconds: to read a heading, a command, a line of what a command says.
HEADING, COMMAND, LINE = 1.2, 0.8, 0.25


def recorded() -> List[str]:
    """Run the demonstration, and return the lines that it prints."""
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "PYTHONWARNINGS": "ignore"}
    command = (sys.executable, "-m", "cowstorage.demo", "--union", "overlay")
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return result.stdout.strip().splitlines()


def cast(lines: List[str]) -> Iterator[str]:
    """Yield a recording in the format asciicast 2, a line of JSON each: what is in it, and when which text comes."""
    yield json.dumps({"version": 2, "width": COLUMNS, "height": ROWS, "title": "cowstorage"})
    now = 0.0
    for line in lines:
        is_command = line.lstrip().startswith("$ ")
        now += COMMAND if is_command else HEADING if re.match(r"\d\. ", line) else LINE if line else 0.0
        yield json.dumps([round(now, 2), "o", line + "\r\n"], ensure_ascii=False)
        now += COMMAND if is_command else 0.0
    # A player may end as the last text comes: a prompt.
    yield json.dumps([round(now + LINE, 2), "o", "$ "])


def text_of(recording: str) -> List[str]:
    """Return the lines of a recording."""
    events = [json.loads(line) for line in recording.splitlines()[1:]]
    return "".join(text for _, _, text in events).split("\r\n")[:-1]


def without_chance(lines: List[str]) -> List[str]:
    """Return lines without what differs from run to run: scratch names, transactions, sizes, times and their rules."""
    text = re.sub(r"cow-demo-\w+", "cow-demo", "\n".join(lines))
    text = re.sub(r"\b[0-9a-f]{16}\b", "TID", text)
    text = re.sub(r"\bN (bytes|[kMG]B)\b", "N bytes", re.sub(r"\d[\d,.:-]*", "N", text))
    return re.sub(r" {2,}|-{3,}", " ", text).splitlines()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("\n".join(cast(recorded())) + "\n", encoding="utf-8")
