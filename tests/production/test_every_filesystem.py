"""Every network file system: what is refused, what is missing, and what a failure means; nothing is run."""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awkward import VALUES
from cowstorage.errors import CommandFailed, SettingsError
from cowstorage.part.host import Host
from cowstorage.production import filesystems
from cowstorage.production.filesystems.base import overridden
from cowstorage.system.programs import shell_line
from production.parts import (
    ALONE,
    CIFS,
    DEVELOPER,
    NFS,
    OTHER,
    RCLONE,
    filesystem_of,
    made_of,
    mounting,
    options_of,
    part,
)

# The commands


@pytest.mark.parametrize("options", [NFS, CIFS, RCLONE, {**OTHER, "remote": "tag"}], ids=str)
def test_every_command_survives_a_shell(options: Dict[str, str]) -> None:
    import shlex

    command = mounting(options)
    words = shlex.split(shell_line(command, "/usr/bin/sudo", 1000))
    assert tuple(words[1:] if command.root else words) == command.argv


@given(
    st.sampled_from([NFS, CIFS, RCLONE, {**OTHER, "remote": "tag"}]),
    st.lists(st.sampled_from("ro hard soft exec vers=3 timeout=1h rw use-mmap allow-other read-only=false".split())),
)
def test_what_is_accepted_ends_read_only(options: Dict[str, str], more: List[str]) -> None:
    given_options = ",".join([*filter(None, [options.get("mount-options", "")]), *more])
    try:
        command = mounting(options, mount_options=given_options)
    except SettingsError:
        return
    if command.argv[0] == "rclone":
        assert command.argv[-4:-2] == ("--read-only", "--")
        assert not {"--read-only=false", "--allow-other=true"} & set(command.argv)
    else:
        assert options_of(command)[-1] == "ro"
        assert "rw" not in options_of(command)


# Mount options of the user in place of ours


@pytest.mark.parametrize(
    "given_options, result",
    [
        ((), ("soft", "timeo=50", "nosuid", "ro")),
        (("hard",), ("timeo=50", "hard", "nosuid", "ro")),
        (("suid", "nosuid=0", "timeo=7"), ("soft", "timeo=7", "nosuid", "ro")),
        (("ro", "vers=3"), ("soft", "timeo=50", "vers=3", "nosuid", "ro")),
    ],
)
def test_mount_options_of_the_user_stand_in_place_of_ours(
    given_options: Tuple[str, ...], result: Tuple[str, ...]
) -> None:
    assert overridden(("soft", "timeo=50", "nosuid"), given_options) == result


# What is refused


@pytest.mark.parametrize(
    "options, option, words",
    [
        ({**NFS, "remote": "user@server:/srv"}, "remote", "no host:/path"),
        ({**NFS, "remote": "server:srv"}, "remote", "no host:/path"),
        ({**CIFS, "remote": "//server"}, "remote", "no //host/share"),
        ({**CIFS, "remote": "//me%secret@server/share"}, "remote", "leave user and password out"),
        ({**CIFS, "mount-options": "username=me,password=secret"}, "mount-options", "does not belong into password="),
        ({**CIFS, "mount-options": "credentials=x,pass=secret"}, "mount-options", "does not belong into pass="),
        ({**CIFS, "mount-options": "credentials=x,PASSWORD=secret"}, "mount-options", "does not belong into password="),
        ({**CIFS, "mount-options": "username=me%secret"}, "mount-options", "does not belong into username="),
        ({**CIFS, "mount-options": "username=me"}, "mount-options", "who logs in"),
        ({**RCLONE, "remote": ":sftp,host=x:path"}, "remote", "name a remote of rclone's configuration"),
        ({**RCLONE, "remote": "x,pass=secret:path"}, "remote", "name a remote of rclone's configuration"),
        ({**RCLONE, "remote": "/srv/plone"}, "remote", "no name:path"),
        ({**RCLONE, "mount-options": "allow-other"}, "mount-options", "none of the flags"),
        ({**RCLONE, "mount-options": "vfs-cache-mode=off"}, "mount-options", "Did you mean"),
        ({**RCLONE, "mount-options": "read-only=false"}, "mount-options", "none of the flags"),
        ({**RCLONE, "mount-options": "sftp-ssh=/tmp/x"}, "mount-options", "none of the flags"),
        ({**OTHER, "remote": "x", "filesystem": "NFS"}, "filesystem", "Did you mean nfs?"),
        ({**OTHER, "remote": "x", "filesystem": "nfs4"}, "filesystem", "mount-options = vers=4"),
        ({**OTHER, "remote": "x", "filesystem": "a type"}, "filesystem", "not the name of a file system type"),
        ({**OTHER, "remote": "x", "filesystem": "-t"}, "filesystem", "not the name of a file system type"),
        (OTHER, "remote", "starts with a dash"),
    ],
)
def test_what_can_not_work_is_refused_and_no_password_is_repeated(
    options: Dict[str, str], option: str, words: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        made_of(options)
    assert caught.value.subject == option
    assert words in caught.value.problem
    assert "secret" not in caught.value.problem


# What is missing here


@pytest.mark.parametrize(
    "options, host, words",
    [
        (NFS, DEVELOPER._replace(programs=frozenset(("mount",))), "apt install nfs-common"),
        (NFS, ALONE, "only root can mount it"),
        (CIFS, DEVELOPER._replace(programs=frozenset(("mount",))), "apt install cifs-utils"),
        (RCLONE, DEVELOPER._replace(programs=frozenset(("fusermount3",))), "apt install rclone"),
        (RCLONE, DEVELOPER._replace(fuse=False), "/dev/fuse"),
        ({**OTHER, "remote": "x"}, ALONE, "only root can mount it"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(options: Dict[str, str], host: Host, words: str) -> None:
    made = made_of(options)
    assert words in str(filesystem_of(made, host).problem())


# What a failure means


@pytest.mark.parametrize(
    "options, output, meaning",
    [
        (NFS, "mount.nfs: access denied by server while mounting", "exportfs -ra"),
        (NFS, "mount.nfs: Connection refused", "2049"),
        (CIFS, "mount error(13): Permission denied", "rejected user or password"),
        (CIFS, "mount error(2): No such file or directory", "smbclient -L //server"),
        (OTHER, "mount: /x: unknown filesystem type '9p'.", "mount.9p"),
        (OTHER, "mount: /x: special device tag does not exist.", "no such file or device here"),
        (OTHER, "mount: /x: fsconfig() failed: tag: Can't lookup blockdev.", "no such file or device here"),
        (OTHER, "mount: /x: fsconfig() failed: 9p: Unknown parameter 'x'.", "9p has no such option"),
        (NFS, "something new", "something new"),
    ],
)
def test_a_failure_is_explained_by_what_it_means(options: Dict[str, str], output: str, meaning: str) -> None:
    made = part(
        **{
            name.replace("-", "_"): value
            for name, value in {**options, "remote": options["remote"].lstrip("-")}.items()
        }
    )
    # What mount(8) of util-linux says last helps nobody.
    advice = "       dmesg(1) may have more information after failed mount system call."
    error = filesystem_of(made).explain(CommandFailed("mount", 32, f"{output}\n{advice}\n"))
    assert meaning in str(error)
    assert output in str(error)


# What an option may be


def test_every_file_system_of_the_table_can_be_an_option() -> None:
    assert all(filesystems.backend(name).name == name for name in filesystems.FILESYSTEMS)


@pytest.mark.parametrize(
    "remote, filesystem",
    [
        ("plone@www.example.com:/srv/plone", "sshfs"),
        ("www.example.com:/srv/plone", "sshfs"),
        ("prod:", "sshfs"),
        ("prod:~/plone", "sshfs"),
        ("plone@[2001:db8::1]:/srv/plone", "sshfs"),
        ("//server/share", "cifs"),
        ("/mnt/backup", "directory"),
        ("srv/plone", None),
        ("", None),
    ],
)
def test_a_remote_tells_its_file_system(remote: str, filesystem: Optional[str]) -> None:
    assert filesystems.told_filesystem(remote) == filesystem


@given(st.sampled_from([*filesystems.FILESYSTEMS, "glusterfs"]), VALUES)
def test_mount_options_that_are_accepted_never_write(filesystem: str, value: str) -> None:
    try:
        found = filesystems.mount_options(filesystem, value)
    except SettingsError:
        return
    names = {option.partition("=")[0].lower() for option in found}
    assert not names & {"rw", "remount", "bind"}
    assert filesystem != "cifs" or not names & {"password", "pass"}
