"""The commands of each network file system, and what is refused: nothing is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowstorage import network, remotes, settings, union
from cowstorage.errors import CommandFailed, SettingsError
from cowstorage.host import Host, version_in
from cowstorage.network.cifs import unsafe
from cowstorage.network.rclone import serves
from cowstorage.system import Command, Runner, shell_line

DIRECTORY = "/srv/büild, out's"
DEVELOPER = Host(
    euid=1000,
    uid=1000,
    gid=100,
    sudo="/usr/bin/sudo",
    interactive=False,
    programs=frozenset(("mount", "mount.nfs", "mount.cifs", "rclone", "fusermount3")),
    user_allow_other=True,
    fuse=True,
    rclone=(1, 75),
)
ALONE = DEVELOPER._replace(sudo=None, user_allow_other=False)
ROOT = DEVELOPER._replace(euid=0, sudo=None)

NFS = {"filesystem": "nfs", "remote": "server:/export/plone"}
CIFS = {"remote": "//server/share/plo ne", "mount-options": "credentials=~/.smb"}
RCLONE = {"filesystem": "rclone", "remote": "my remote:srv/plo ne"}
OTHER = {"filesystem": "9p", "remote": "-tag"}


def part(**options: str) -> settings.Settings:
    return settings.from_options(
        {
            "file-storage": "var/filestorage",
            "blob-storage": "var/blobstorage",
            **{name.replace("_", "-"): value for name, value in options.items()},
        },
        "cow-storage",
        DIRECTORY,
    )


def made_of(options: Dict[str, str]) -> settings.Settings:
    """The settings of a part with these options, spelled as the user spells them."""
    return part(**{name.replace("-", "_"): value for name, value in options.items()})


def mounting(options: Dict[str, str], host: Host = DEVELOPER, **more: str) -> Command:
    """The command that mounts production."""
    made = made_of({**options, **{name.replace("_", "-"): value for name, value in more.items()}})
    (attachment,) = network.get(made.filesystem).attachments(made, host)
    assert attachment.target == f"{DIRECTORY}/var/prod"
    assert attachment.commands[0].argv == ("mkdir", "-p", "-m", "0700", "--", attachment.target)
    return attachment.commands[-1]


def options_of(command: Command) -> Tuple[str, ...]:
    return tuple(command.argv[command.argv.index("-o") + 1].split(","))


# The commands


def test_nfs_is_mounted_by_root_with_options_that_are_explained_in_its_module() -> None:
    command = mounting(NFS)
    assert command.root
    assert command.argv == (
        *("mount", "-t", "nfs", "-o"),
        "soft,timeo=50,retrans=2,acdirmin=3600,acdirmax=3600,acregmin=3600,acregmax=3600,nocto,"
        "lookupcache=positive,nolock,retry=0,nosuid,nodev,noexec,ro",
        *("--", "server:/export/plone", f"{DIRECTORY}/var/prod"),
    )


def test_nfs_caches_on_disk_where_cachefilesd_runs() -> None:
    assert "fsc" in options_of(mounting(NFS, DEVELOPER._replace(cachefilesd=True)))
    assert "fsc" not in options_of(mounting(NFS))
    given_options = options_of(mounting(NFS, DEVELOPER._replace(cachefilesd=True), mount_options="nofsc"))
    assert "fsc" not in given_options
    assert "nofsc" in given_options


def test_cifs_gives_the_files_to_the_developer_and_takes_a_password_from_a_file_only() -> None:
    command = mounting(CIFS, mount_options="credentials=secret/smb,vers=3")
    assert command.root
    assert options_of(command)[:2] == ("uid=1000", "gid=100")
    assert {"file_mode=0600", "dir_mode=0700", "soft"} <= set(options_of(command))
    # The comma is the directory's, and mount.cifs would take it for the next option: see the test of problems.
    assert f"credentials={DIRECTORY}/secret/smb" in command.argv[4]
    assert command.argv[-3:] == ("--", "//server/share/plo ne", f"{DIRECTORY}/var/prod")


def test_rclone_is_run_by_the_developer_read_only_and_keeps_what_it_read() -> None:
    command = mounting(RCLONE, ALONE)
    assert not command.root
    assert command.argv == (
        *("rclone", "mount", "--daemon", "--ask-password=false", "--sftp-ask-password=false"),
        f"--cache-dir={DIRECTORY}/var/cow-storage/cache/rclone",
        *("--umask=077", "--vfs-cache-mode=full", "--vfs-cache-max-age=8760h", "--dir-cache-time=1h"),
        *("--poll-interval=0", "--contimeout=10s", "--timeout=30s", "--low-level-retries=3", "--read-only"),
        *("--", "my remote:srv/plo ne", f"{DIRECTORY}/var/prod"),
    )


@pytest.mark.parametrize(
    "host, more, allowed",
    [
        (DEVELOPER, {}, True),
        (DEVELOPER, {"union": "overlay"}, True),
        (DEVELOPER, {"union": "unionfs-fuse"}, False),
        (DEVELOPER._replace(user_allow_other=False), {}, False),
        (ALONE, {}, False),
        (ROOT, {}, True),
    ],
)
def test_rclone_lets_root_look_in_only_for_the_kernels_overlay_and_others_never(
    host: Host, more: Dict[str, str], allowed: bool
) -> None:
    argv = mounting(RCLONE, host, **more).argv
    assert ("--allow-other" in argv) is allowed
    assert ("--default-permissions" in argv) is allowed


def test_rclone_run_by_root_gives_the_files_to_the_developer() -> None:
    assert {"--uid=1000", "--gid=100"} <= set(mounting(RCLONE, ROOT).argv)


@pytest.mark.parametrize("version, verb", [((1, 60), "mount2"), ((1, 61), "mount"), ((1, 75), "mount")])
def test_rclone_builds_that_fail_below_the_kernels_overlay_use_the_other_mount(
    version: Tuple[int, int], verb: str
) -> None:
    assert mounting(RCLONE, DEVELOPER._replace(rclone=version)).argv[1] == verb


def test_rclone_options_are_flags_and_the_users_win() -> None:
    argv = mounting(RCLONE, mount_options="vfs-cache-max-size=20G,vfs-cache-max-age=30m,config=rclone.conf").argv
    assert "--vfs-cache-max-size=20G" in argv
    assert [word for word in argv if "max-age" in word] == ["--vfs-cache-max-age=30m"]
    assert f"--config={DIRECTORY}/rclone.conf" in argv


def test_rclone_writes_no_log_since_its_daemon_would_keep_our_pipes() -> None:
    assert not [word for word in mounting(RCLONE).argv if "log" in word]


@pytest.mark.parametrize(
    "name, text, version",
    [
        ("rclone", "rclone v1.60.1-DEV\n- os/version: debian 12.1", (1, 60)),
        ("rclone", "rclone v1.75.2\n", (1, 75)),
        ("rclone", "", (0, 0)),
        ("unionfs-fuse", "FUSE library version: 2.9.9\nunionfs-fuse version: 1.0\n", (1, 0)),
        ("unionfs-fuse", "unionfs-fuse version: 3.7\nFUSE library version 3.16.2\n", (3, 7)),
    ],
)
def test_versions(name: str, text: str, version: Tuple[int, int]) -> None:
    assert version_in(text, name) == version


@pytest.mark.parametrize(
    "arguments, yes",
    [
        (("/usr/bin/rclone", "mount2", "--daemon", "--", "x:", "/srv/var/prod"), True),
        (("rclone", "mount", "x:", "/srv/var/prod"), True),
        (("rclone", "mount", "x:", "/srv/var/production"), False),
        (("rclone", "ls", "x:", "/srv/var/prod"), False),
        (("vim", "mount", "/srv/var/prod"), False),
        ((), False),
    ],
)
def test_the_process_of_a_mount_is_known_by_its_arguments(arguments: Tuple[str, ...], yes: bool) -> None:
    assert serves(arguments, "/srv/var/prod") is yes


def test_any_other_type_is_handed_to_mount() -> None:
    assert mounting(OTHER, remote="tag").argv == (
        *("mount", "-t", "9p", "-o", "nosuid,nodev,ro", "--", "tag", f"{DIRECTORY}/var/prod"),
    )
    assert network.get("9p").name == "other"


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
        (("hard",), ("timeo=50", "nosuid", "hard", "ro")),
        (("suid", "timeo=7"), ("soft", "suid", "timeo=7", "ro")),
        (("ro", "vers=3"), ("soft", "timeo=50", "nosuid", "vers=3", "ro")),
    ],
)
def test_overridden(given_options: Tuple[str, ...], result: Tuple[str, ...]) -> None:
    assert network.overridden(("soft", "timeo=50", "nosuid"), given_options) == result


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
def test_refusals_and_no_password_is_repeated(options: Dict[str, str], option: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        made_of(options)
    assert caught.value.option == option
    assert words in caught.value.problem
    assert "secret" not in caught.value.problem


@pytest.mark.parametrize("login", ["guest", "sec=krb5", "sec=krb5i", "cred=x"])
def test_other_ways_to_log_in_to_an_smb_server(login: str) -> None:
    assert login.split("=")[0] in ",".join(part(remote="//server/share", mount_options=login).mount_options)


@pytest.mark.parametrize(
    "remote, kept",
    [("server:/", "server:/"), ("server:/srv/", "server:/srv"), ("[2001:db8::1]:/srv", "[2001:db8::1]:/srv")],
)
def test_the_root_directory_of_a_server_stays_one(remote: str, kept: str) -> None:
    assert part(filesystem="nfs", remote=remote).remote == kept


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
def test_problems(options: Dict[str, str], host: Host, words: str) -> None:
    made = made_of(options)
    assert words in str(network.get(made.filesystem).problem(made, host))


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
    assert "comma" in str(network.get("cifs").problem(made, DEVELOPER))


def test_nocase_speaks_against_the_kernels_overlay() -> None:
    made = part(remote="//server/share", mount_options="guest,nocase")
    assert "nocase" in str(network.get("cifs").root_may_look(made, DEVELOPER))
    assert network.get("cifs").root_may_look(part(remote="//server/share", mount_options="guest"), DEVELOPER) is None


# What a failure means


@pytest.mark.parametrize(
    "options, output, meaning",
    [
        (NFS, "mount.nfs: access denied by server while mounting", "exportfs -ra"),
        (NFS, "mount.nfs: Connection refused", "2049"),
        (CIFS, "mount error(13): Permission denied", "rejected user or password"),
        (CIFS, "mount error(2): No such file or directory", "smbclient -L //server"),
        (OTHER, "mount: /x: unknown filesystem type '9p'.", "mount.9p"),
        (NFS, "something new", "something new"),
    ],
)
def test_explanations(options: Dict[str, str], output: str, meaning: str) -> None:
    made = part(
        **{
            name.replace("-", "_"): value
            for name, value in {**options, "remote": options["remote"].lstrip("-")}.items()
        }
    )
    runner: Any = Runner(None, interactive=False)
    error = network.get(made.filesystem).explain(made, DEVELOPER, runner, CommandFailed("mount", 32, output))
    assert meaning in str(error)


# aufs, which no test can mount: its command, by the grammar of aufs(5)

BRANCH = r"[^,:=]+(=(rw|ro|rr)(\+(wh|nolwh|unpin|coo_reg|coo_all|moo))*)?"


def aufs(lowers: Tuple[str, ...]) -> Command:
    layer = union.layer(part(remote="/srv/production"), "blobstorage", lowers, "aufs")
    return union.get("aufs").mount(layer, DEVELOPER)


def test_aufs_has_one_writable_branch_on_top() -> None:
    command = aufs(("/cache", "/srv/a:b,c=d"))
    assert command.root
    assert command.cwd == f"{DIRECTORY}/var/cow-storage/layers/blobstorage"
    options = command.argv[command.argv.index("-o") + 1]
    assert re.fullmatch(rf"br:{BRANCH}(:{BRANCH})*(,[a-z]+)*", options)
    assert options.startswith("br:upper=rw:lower0=ro:lower1=ro,")
    assert command.argv[:3] == ("mount", "-t", "aufs")


def test_aufs_is_tried_last() -> None:
    assert list(union.UNIONS)[-1] == "aufs"
    assert set(settings.UNIONS) == {"auto", *union.UNIONS}


def test_every_file_system_of_the_table_can_be_an_option() -> None:
    assert set(remotes.FILESYSTEMS) == set(network.NETWORKS)
