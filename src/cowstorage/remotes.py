"""What each network file system takes as ``remote`` and as ``mount-options``: refused at build time if it can't work.

Pure, and the only place where the two are judged; ``settings`` calls it.
"""

from __future__ import annotations

import re
from typing import Callable, Dict, Optional, Tuple

from cowstorage.errors import SettingsError

#: Those with a back end of their own; any other file system type is handed to ``mount -t``.
FILESYSTEMS = ("sshfs", "nfs", "cifs", "rclone", "directory")

# Other names of ours, mount(8): these would miss the defaults that are made for the file system.
OTHER_NAMES = {
    "nfs3": "nfs, with mount-options = vers=3",
    "nfs4": "nfs, with mount-options = vers=4",
    "smb": "cifs",
    "smb3": "cifs, with mount-options = vers=3",
    "smbfs": "cifs",
    "ssh": "sshfs",
    "sftp": "sshfs",
    "bind": "directory",
    "none": "directory",
}

WRITING_MOUNT_OPTIONS = frozenset(("rw", "remount", "defaults", "bind", "rbind", "user", "users", "writable"))

# mount.cifs(8), mount.ceph(8); what a command line or /proc/PID/cmdline shows is no secret.
PASSWORD_OPTIONS = frozenset(("password", "pass", "password2", "passwd", "passphrase", "secret"))
CREDENTIALS = ("credentials", "cred")

# Those of rclone's flags that tune caching, patience and bandwidth; none of them can make the mount writable,
# visible to others, or run a program.
RCLONE_OPTIONS = frozenset(
    "attr-timeout buffer-size bwlimit ca-cert checkers config contimeout dir-cache-time low-level-retries "
    "max-read-ahead no-checksum no-modtime poll-interval retries timeout tpslimit "
    "tpslimit-burst transfers use-mmap vfs-cache-max-age vfs-cache-max-size vfs-cache-min-free-space "
    "vfs-cache-poll-interval vfs-fast-fingerprint vfs-read-ahead vfs-read-chunk-size vfs-read-chunk-size-limit "
    "vfs-read-chunk-streams vfs-read-wait".split()
)


def told_filesystem(remote: str) -> Optional[str]:
    """The network file system that a remote's form tells, or ``None`` where it is ambiguous."""
    if remote.startswith("//"):
        return "cifs"
    if remote.startswith("/"):
        return "directory"
    if re.match(r"(?:[^@/:\s]+@)?(?:\[[0-9A-Fa-f:.%\w]+\]|[^@/:\s]+):(?=[/~]|\w|$)", remote):
        return "sshfs"
    return None


def check_filesystem(filesystem: str) -> None:
    """Whether it can be the name of a file system type.

    :raises SettingsError: with what was probably meant.
    """
    if filesystem in FILESYSTEMS:
        return
    known = f"Known are: {', '.join(FILESYSTEMS)}, and any type that mount -t takes."
    if filesystem in OTHER_NAMES:
        raise SettingsError("filesystem", f"write {OTHER_NAMES[filesystem]}, instead of {filesystem}.")
    import difflib

    close = difflib.get_close_matches(filesystem.lower(), FILESYSTEMS, 1, 0.8)
    if close:
        raise SettingsError("filesystem", f"{filesystem} is not known. Did you mean {close[0]}?")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", filesystem):
        raise SettingsError("filesystem", f"{filesystem} is not the name of a file system type. {known}")


def check_remote(filesystem: str, remote: str) -> None:
    """Whether a remote has the form that its file system wants.

    :raises SettingsError: with the right form.
    """
    if re.match(r"\w+://[^/@]*:[^/]*@", remote):
        raise SettingsError("remote", "leave the password out of it: every user of this machine sees it.")
    check = _REMOTES.get(filesystem)
    if check:
        check(remote)


def _check_sshfs(remote: str) -> None:
    if told_filesystem(remote) != "sshfs":
        raise SettingsError("remote", f"{remote!r} is no [user@]host:path, which filesystem = sshfs needs.")
    if remote.split("@", 1)[-1].startswith("-"):
        raise SettingsError("remote", f"the host of {remote!r} starts with a dash and would be taken for an option.")


def _check_nfs(remote: str) -> None:
    # nfs(5): no user, an absolute path, an IPv6 address in brackets.
    if not re.fullmatch(r"(?:\[[0-9A-Fa-f:.%\w]+\]|[^@/:\s\[\]]+):/.*", remote):
        raise SettingsError("remote", f"{remote!r} is no host:/path, which filesystem = nfs needs.")


def _check_cifs(remote: str) -> None:
    host = remote[2:].partition("/")[0]
    if remote.startswith("//") and re.search("[@%]", host):
        raise SettingsError(
            "remote",
            "leave user and password out of it: they belong into a file of mode 0600, named by "
            "mount-options = credentials=FILE.",
        )
    if not re.fullmatch(r"//[^/\\:\s]+/[^/\\]+.*", remote):
        raise SettingsError("remote", f"{remote!r} is no //host/share[/path], which filesystem = cifs needs.")


def _check_rclone(remote: str) -> None:
    name, colon, _ = remote.partition(":")
    if colon and (not name or "," in name or "=" in name):
        raise SettingsError(
            "remote",
            "name a remote of rclone's configuration, name:path. What is written before the colon is seen by "
            "everybody on this machine; make the remote with: rclone config",
        )
    # rclone's own rule for the names of remotes, docs/content/docs.md.
    if not re.fullmatch(r"[\w.+@][\w.+@ -]*:.*", remote):
        raise SettingsError("remote", f"{remote!r} is no name:path of a remote that rclone config made.")


_REMOTES: Dict[str, Callable[[str], None]] = {
    "sshfs": _check_sshfs,
    "nfs": _check_nfs,
    "cifs": _check_cifs,
    "rclone": _check_rclone,
}


def mount_options(filesystem: str, value: str) -> Tuple[str, ...]:
    """The option ``mount-options``, split at commas and blanks.

    :raises SettingsError: for what would write to production, tell a password, or not work.
    """
    options = tuple(option for option in re.split(r"[,\s]+", value) if option)
    for option in options:
        name = option.partition("=")[0]
        if name.lower() in WRITING_MOUNT_OPTIONS:
            raise SettingsError(
                "mount-options", f"{name} would make production writable or change how it is mounted. Remove it."
            )
        if option.startswith("-"):
            raise SettingsError("mount-options", f"write what follows -o only, without {name}.")
    if filesystem == "cifs":
        _check_cifs_options(options)
    elif filesystem == "rclone":
        _check_rclone_options(options)
    else:
        told = sorted(PASSWORD_OPTIONS & {option.partition("=")[0].lower() for option in options})
        if told:
            raise SettingsError(
                "mount-options",
                f"a password does not belong into {told[0]}=: every user of this machine sees it in the list of "
                f"processes. Let mount read it from a file of mode 0600, as the manual of mount.{filesystem} says.",
            )
    return options


def _check_cifs_options(options: Tuple[str, ...]) -> None:
    names = {option.partition("=")[0].lower(): option.partition("=")[2] for option in options}
    told = sorted(PASSWORD_OPTIONS & set(names))
    if told or any("%" in names.get(name, "") for name in ("username", "user")):
        raise SettingsError(
            "mount-options",
            f"a password does not belong into {told[0] if told else 'username'}=: every user of this machine sees it "
            "in the list of processes, and it ends up in version control. Write it into a file of mode 0600, "
            "lines username=… and password=…, and set credentials=FILE.",
        )
    login = {*CREDENTIALS, "guest"} & set(names)
    if not login and not names.get("sec", "").startswith(("krb5", "none")):
        raise SettingsError(
            "mount-options",
            "who logs in to the server? Set credentials=FILE, a file of mode 0600 with the lines username=… and "
            "password=…; or sec=krb5; or guest.",
        )


def _check_rclone_options(options: Tuple[str, ...]) -> None:
    for option in options:
        name = option.partition("=")[0]
        if name not in RCLONE_OPTIONS:
            import difflib

            close = difflib.get_close_matches(name, RCLONE_OPTIONS, 1, 0.6)
            hint = f"Did you mean {close[0]}?" if close else f"These may be set: {', '.join(sorted(RCLONE_OPTIONS))}."
            raise SettingsError("mount-options", f"{name} is none of the flags of rclone that may be set. {hint}")
