"""Windows shares: their command, and who logs in."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowstorage.production.filesystems.cifs import unsafe
from production.parts import CIFS, DEVELOPER, DIRECTORY, filesystem_of, mounting, options_of, part


def test_cifs_gives_the_files_to_the_developer_and_takes_a_password_from_a_file_only() -> None:
    command = mounting(CIFS, mount_options="credentials=secret/smb,vers=3")
    assert command.root
    assert options_of(command)[:2] == ("uid=1000", "gid=100")
    assert {"file_mode=0600", "dir_mode=0700", "soft"} <= set(options_of(command))
    # The comma is the directory's, and mount.cifs would take it for the next option: see the test of problems.
    assert f"credentials={DIRECTORY}/secret/smb" in command.argv[4]
    assert command.argv[-3:] == ("--", "//server/share/plo ne", f"{DIRECTORY}/var/prod")


@pytest.mark.parametrize("login", ["guest", "sec=krb5", "sec=krb5i", "cred=x"])
def test_an_smb_server_is_logged_in_to_in_other_ways(login: str) -> None:
    assert login.split("=")[0] in ",".join(part(remote="//server/share", mount_options=login).mount_options)


def test_a_credentials_file_is_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "smb"
    host = DEVELOPER._replace(euid=path.parent.stat().st_uid)
    assert "No such file" in str(unsafe(str(path), host))
    assert "is not a file" in str(unsafe(str(tmp_path), host))
    path.touch()
    for mode in (0o644, 0o640, 0o604):
        path.chmod(mode)
        assert f"chmod 600 {path}" in str(unsafe(str(path), host))
    path.chmod(0o600)
    assert unsafe(str(path), host) is None


def test_a_path_of_credentials_that_mount_would_cut_is_refused() -> None:
    made = part(remote="//server/share", mount_options="credentials=smb")
    assert "comma" in str(filesystem_of(made).problem())


def test_nocase_speaks_against_the_kernels_overlay() -> None:
    made = part(remote="//server/share", mount_options="guest,nocase")
    assert "nocase" in str(filesystem_of(made).root_may_look())
    assert filesystem_of(part(remote="//server/share", mount_options="guest")).root_may_look() is None
