"""Options that would have production written, or root run something, are refused with the reason."""

from __future__ import annotations

from typing import Dict

import pytest

from cowstorage.errors import SettingsError
from cowstorage.part.settings import Settings
from part.parts import made

RSYNC_PATHS = ["rsync", "/usr/local/bin/rsync", "~/bin/rsync-3.2", "sudo rsync", "sudo -n /usr/bin/rsync"]


@pytest.mark.parametrize("path", RSYNC_PATHS)
def test_a_path_of_rsync_is_accepted(path: str) -> None:
    assert made(rsync_options=f"-z '--rsync-path={path}'").rsync_options == ("-z", f"--rsync-path={path}")


@pytest.mark.parametrize(
    "path",
    [
        "echo x > /srv/plone/x; rsync",
        "echo x>/srv/plone/x;rsync",
        "$(touch${IFS}x)",
        "`touch x`",
        "touch x && rsync",
        "touch x\nrsync",
        "rsync\n",
        "rsync|tee",
        "sudo -u plone rsync",
        "sudo sh -c rsync",
        "rsync --remove-source-files",
        "env X=1 rsync",
        "sudo -n",
        "-n",
        "",
    ],
)
def test_what_the_servers_shell_would_run_else_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match="rsync-path=") as caught:
        made(rsync_options="'--rsync-path=" + path + "'")
    assert caught.value.subject == "rsync-options"


# mount-options

SSHFS: Dict[str, str] = {"remote": "plone@www:/srv/plone"}
NFS = {"filesystem": "nfs", "remote": "server:/export"}
CIFS = {"remote": "//server/share", "mount-options": "guest"}
DIRECTORY = {"remote": "/mnt/backup"}
OTHER = {"filesystem": "davfs", "remote": "https://server/plone"}
RCLONE = {"filesystem": "rclone", "remote": "backup:plone"}
EVERY = [SSHFS, NFS, CIFS, DIRECTORY, OTHER, RCLONE]


def part(options: Dict[str, str], mount_options: str) -> Settings:
    """Make the settings of a part with more mount options."""
    more = ",".join(filter(None, (options.get("mount-options"), mount_options)))
    return made(**{**options, "mount-options": more})


@pytest.mark.parametrize("options", EVERY, ids=str)
@pytest.mark.parametrize(
    "option",
    "suid dev exec SUID suid= nosuid=0 nodev=x noexec=0 owner group user_id=0 group_id=0 rootmode=40000 fd=3 "
    "allow_root allow_other umask=0 umask=022 umask=077x umask= fmask=0133 dmask=022 file_mode=0644 dir_mode=0711 "
    'dir_mode=755 mode=0777 file_mode=u noperm ro=0 context="x ro\\'.split(),
)
def test_what_makes_a_mount_less_safe_is_refused(options: Dict[str, str], option: str) -> None:
    with pytest.raises(SettingsError) as caught:
        part(options, option)
    assert caught.value.subject == "mount-options"


@pytest.mark.parametrize(
    "options, option",
    [
        (SSHFS, "umask=077"),
        (SSHFS, "umask=0177"),
        (SSHFS, "max_conns=4,nosuid,nodev,ro"),
        (NFS, "vers=3,noexec,hard"),
        (CIFS, "file_mode=0400,dir_mode=0500"),
        (DIRECTORY, "noatime,noexec"),
        (OTHER, 'uid=1000,context="a:b:c"'),
        (OTHER, "allow_other,default_permissions"),
    ],
)
def test_what_leaves_a_mount_as_safe_is_accepted(options: Dict[str, str], option: str) -> None:
    assert part(options, option).mount_options[-1] == option.rpartition(",")[2]


@pytest.mark.parametrize("server", ["touch${IFS}x;sftp-server", "$(id)", "a|b", "x>y", "'x"])
def test_a_subsystem_that_the_servers_shell_would_run_else_is_refused(server: str) -> None:
    with pytest.raises(SettingsError, match="sftp_server="):
        part(SSHFS, f"sftp_server={server}")
    assert part(SSHFS, "sftp_server=/usr/lib/sftp-server").mount_options


@pytest.mark.parametrize("filesystem", ["fuse", "fuse3", "fuse.sshfs", "fuse.sh", "fuse3.x", "fuseblk", "fuseblk.ntfs"])
def test_a_type_that_has_root_run_what_remote_names_is_refused(filesystem: str) -> None:
    with pytest.raises(SettingsError, match="root would run") as caught:
        made(filesystem=filesystem, remote="touch#x")
    assert caught.value.subject == "filesystem"


# Hosts and passwords


@pytest.mark.parametrize("option", ["remote", "rsync_remote"])
@pytest.mark.parametrize("host", ["[-oProxyCommand=touch]", "-oX", "user@-oX", "user@[-oX]", "a@b@-oX", "[-4]", "[]"])
@pytest.mark.parametrize("path", [":x", ":/p", "::module/p"])
def test_a_host_that_ssh_would_take_for_an_option_is_refused(option: str, host: str, path: str) -> None:
    with pytest.raises(SettingsError) as caught:
        made(**{"filesystem": "sshfs", option: host + path})
    assert caught.value.subject == option.replace("_", "-")


@pytest.mark.parametrize("remote", ["rsync://-oX/p", "rsync://user@-oX/p", "rsync://[-oX]/p", "h:/p\nx", "h:/p\x7f"])
def test_an_rsync_remote_with_no_true_host_is_refused(remote: str) -> None:
    with pytest.raises(SettingsError, match=r"^rsync-remote: "):
        made(rsync_remote=remote)


@pytest.mark.parametrize(
    "remote",
    [
        "host:/p",
        "u@host:p-x",
        "[fe80::1%eth0]:/p",
        "rsync://u@host:873/m/p@x",
        "u@host::m/p",
        "host:/p/a@b:c",
        "~/backup",
    ],
)
def test_an_rsync_remote_as_rsync_writes_it_is_accepted(remote: str) -> None:
    assert made(rsync_remote=remote).rsync_remote == remote


@pytest.mark.parametrize(
    "options",
    [
        {"rsync_remote": "rsync://user:geheim@host/plone"},
        {"rsync_remote": "rsync://user:geheim@@host/plone"},
        {"rsync_remote": "user:geheim@host:/plone"},
        {"rsync_remote": "user:geheim@host::plone"},
        {"rsync_remote": "user:gehe@geheim@host:/plone"},
        {"remote": "user:geheim@host:/plone"},
        {"remote": "user:geheim@host:/plone", "filesystem": "nfs"},
        {"remote": "git+ssh://user:geheim@host/plone"},
        {"remote": "https://user:geheim@@host/plone", "filesystem": "davfs"},
        {"mount_options": 'password="geheim', "filesystem": "ceph"},
        {"mount_options": "secret=geheim\\", "filesystem": "ceph"},
    ],
)
def test_a_password_is_refused_and_not_repeated(options: Dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        made(**options)
    assert "geheim" not in str(caught.value)
    assert "password" in str(caught.value) or "is not complete" in str(caught.value)
