"""aufs, which no current kernel has: what mount(8) is asked for, by the grammar of aufs(5)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Callable

from harness import cleanup
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production

PROGRAM = """#!/bin/sh
case " $* " in
    *" -t aufs "*) ;;
    *) exec /bin/mount "$@" ;;
esac
for word in "$@"; do echo "$word"; done >'{directory}/words'
readlink -f upper lower0 >'{directory}/branches'
echo "mount: unknown filesystem type 'aufs'." >&2
exit 32
"""
BRANCH = r"[^,:=]+=(rw|ro)"


def test_what_mount_is_asked_for(
    scratch: Path, production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    (scratch / "mount").write_text(PROGRAM.format(directory=scratch))
    (scratch / "mount").chmod(0o755)
    buildout = make_buildout(developers.root, {"remote": str(production.path), "union": "aufs"})
    refused = buildout.run("mount", env={"PATH": f"{scratch}:{os.environ['PATH']}"})
    assert refused.returncode == 1
    assert "unknown filesystem type 'aufs'" in refused.stderr
    cleanup.assert_nothing_mounted(buildout.path)

    kind, aufs, o, options, end, _, target = (scratch / "words").read_text().splitlines()
    assert (kind, aufs, o, end) == ("-t", "aufs", "-o", "--")
    assert re.fullmatch(rf"br:{BRANCH}(:{BRANCH})*(,[a-z]+)*", options)
    assert re.findall("=(..)", options) == ["rw", "ro"]
    assert Path(target).is_relative_to(buildout.path)
    upper, lower = (scratch / "branches").read_text().splitlines()
    assert Path(upper).is_relative_to(buildout.path)
    # The directory's read-only mount.
    assert lower == f"{buildout.settings.mount_point}/var/blobstorage"
