"""The part's options, validated and made into the ``Settings`` that buildout writes into the scripts.

Pure: nothing in this module reads the file system or runs a program.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from typing import Dict, Mapping, NamedTuple, Optional, Tuple

from cowstorage.errors import SettingsError
from cowstorage.part.settings import Settings, check_separate, local_paths
from cowstorage.production import filesystems
from cowstorage.production.filesystems.base import PASSWORD_BEFORE_HOST, PASSWORD_IN_URL, refuse_password_in
from cowstorage.system.files import is_inside
from cowstorage.system.output import parse_size
from cowstorage.union import kinds

# Values of the option ``union``.
UNIONS = ("auto", *kinds.UNIONS)


class Option(NamedTuple):
    """One option of the part.

    :param default: the default, as README.rst words it.
    :param meaning: what the option means, as README.rst words it.
    """

    name: str
    default: str
    meaning: str


OPTIONS = (
    Option(
        "remote",
        "required",
        "what to mount, in the network file system's own notation; names the production buildout directory",
    ),
    Option(
        "filesystem",
        "``sshfs`` for ``host:/path``, ``cifs`` for ``//host/share``, ``directory`` for ``/path``",
        "how production is mounted: one of these, ``nfs``, ``rclone``, or any other type that ``mount -t`` knows",
    ),
    Option(
        "mount-options",
        "none",
        "added to the safe defaults of that file system; what would make it writable or less safe is refused",
    ),
    Option("remote-file-storage", "``var/filestorage``", "production's FileStorage directory, below ``remote``"),
    Option("remote-blob-storage", "``var/blobstorage``", "production's BLOB directory, below ``remote``"),
    Option(
        "rsync-remote",
        "told from ``remote`` for sshfs; else the mounted directory",
        "where rsync reads Data.fs from, as rsync writes it; names the production buildout directory",
    ),
    Option("rsync-options", "``-z`` over a network, none from a mounted directory", "added to the safe ones"),
    Option("ssh-options", "none", "given to ssh for sshfs and rsync alike, such as ``-p 2222 -i key``"),
    Option(
        "union",
        "``auto``",
        "the copy-on-write file system: ``overlay`` (the kernel's), ``fuse-overlayfs``, ``unionfs-fuse``, ``aufs``; "
        "``auto``: the first that really works here",
    ),
    Option(
        "sudo",
        "``auto``",
        "``auto``: sudo only for the commands that need root; ``no``: never; or the program to use",
    ),
    Option(
        "file-storage",
        "from the buildout's zeoserver or instance part; without any ``var/filestorage``",
        "the directory of Data.fs, to lie over",
    ),
    Option(
        "blob-storage",
        "from the buildout's zeoserver or instance part; without any ``var/blobstorage``",
        "the BLOB directory, to lie over",
    ),
    Option("instance", "the zeoserver part, else the standalone instance", "the part to take the two paths from"),
    Option(
        "storages",
        "every ``*.fs`` of production",
        "which FileStorages are fetched, such as ``Data.fs catalog.fs``",
    ),
    Option("mount-point", "``var/prod``", "where production is mounted"),
    Option(
        "location",
        "``var/cow-storage``, named after the part",
        "the part's own state: lock, journal, work directories, savepoints, BLOB cache",
    ),
    Option("cache-size", "no limit", "how much the BLOB cache may hold, such as ``20G``; what was read last stays"),
    Option(
        "read-through",
        "``yes``",
        "``yes``: BLOBs that are read over sshfs are kept in the BLOB cache, and read there from then on; ``no``: only "
        "those that cow-prefetch fetches",
    ),
    Option("script-prefix", "from the part's name", "what the scripts' names begin with"),
    Option(
        "prepare",
        "none",
        "commands, one a line, run on each fresh copy before it is handed over; what they leave is the savepoint "
        "``prepared``",
    ),
)

OPTION_NAMES = tuple(option.name for option in OPTIONS)

# Set by buildout itself or read by zc.recipe.egg: neither ours nor a user's typing error.
FOREIGN_OPTIONS = frozenset(
    "recipe eggs entry-points scripts arguments initialization extra-paths interpreter find-links index "
    "python executable dependent-scripts relative-paths bin-directory eggs-directory develop-eggs-directory "
    "__buildout_installed__ __buildout_signature__".split()
)

# Refused are options that let rsync remove a file of production's or write to one of its modules; only these pass.
HARMLESS_RSYNC_OPTIONS = re.compile(
    r"-[46hqvzW]+|--(compress|verbose|quiet|stats|ipv4|ipv6|whole-file|no-whole-file|human-readable|no-motd|"
    r"(compress-choice|zc|compress-level|zl|skip-compress|bwlimit|timeout|contimeout|checksum-choice|cc|"
    r"block-size|password-file|port|sockopts|info|address)=.*|"
    # The server's shell runs it, rsync(1): --rsync-path='echo x > file; rsync' wrote a file there.
    r"rsync-path=(sudo (-n )?)?[A-Za-z0-9_./~+][A-Za-z0-9_./~+-]*)"
)

# What rsync takes for a host, and hands to ssh: all before a colon or, in a URL, a slash, but for the user.
RSYNC_HOST = r"(?:rsync://)?(?=[^/]*:|(?<=//))(?:[^/]*@)?(\[[^/\]]*\]|[^/:]*).*"
TRUE_HOST = r"\[[0-9A-Fa-f:.]+(%\w+)?\]|[\w.][\w.-]*"

# Flags of ssh that take a value, in the same word or in the next, ssh(1).
SSH_VALUES = "BbcDEeFIiJLlmOoPpQRSWw"

# What one would write between two commands for a shell.
SHELL_WORDS = ("&&", "||", "|", "&", ";", "<", ">", ">>", "2>&1")

# Canonical option name → value, without surrounding white space.
Values = Mapping[str, str]


def script_prefix(part: str) -> str:
    """Return the default of ``script-prefix``: ``cow`` for the part ``cow-storage``, ``x`` for the part ``x``."""
    for suffix in ("-storage", "_storage"):
        if part.endswith(suffix) and len(part) > len(suffix):
            return part[: -len(suffix)]
    return part


def canonical(options: Mapping[str, str]) -> Dict[str, str]:
    """Return the part's own options with hyphens in their names, where the user may write underscores.

    :raises SettingsError: for an unknown name, with a suggestion, and for two spellings with different values.
    """
    result: Dict[str, str] = {}
    for name, value in options.items():
        if name in FOREIGN_OPTIONS or name.startswith("_"):
            continue
        hyphenated = name.replace("_", "-")
        if hyphenated not in OPTION_NAMES:
            close = difflib.get_close_matches(hyphenated, OPTION_NAMES, 1, 0.6)
            hint = f" Did you mean {close[0]}?" if close else f" Known are: {', '.join(OPTION_NAMES)}."
            raise SettingsError(name, f"there is no such option.{hint}")
        value = value.strip()
        if result.get(hyphenated, value) != value:
            raise SettingsError(hyphenated, "is also written with underscores, with another value. Keep one of them.")
        result[hyphenated] = value
    return result


def words(option: str, value: str) -> Tuple[str, ...]:
    """Return the words of an option's value, split as a shell splits them, quotes included.

    :raises SettingsError: for an unclosed quote.
    """
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise SettingsError(option, f"{error} in {value!r}.") from None


def from_options(options: Mapping[str, str], part: str, directory: str, found: str = "") -> Settings:
    """Return the validated settings of a part.

    :param options: the raw options; ``file-storage`` and ``blob-storage`` already filled in by ``wiring``.
    :param directory: the buildout directory, absolute; relative paths are below it.
    :param found: where the two storage paths were found, for people.
    :raises SettingsError: for the first option that can't be used.
    """
    values = canonical(options)
    remote, filesystem = _checked_remote(values, directory)
    union = _checked_union(values)
    prefix = _checked_prefix(values, part)
    _refuse_missing_blob_storage(values)
    return Settings(
        part=part,
        prefix=prefix,
        directory=directory,
        found=found,
        remote=remote,
        filesystem=filesystem,
        union=union,
        file_storage=_checked_file_storage(values, directory),
        rsync_remote=_checked_rsync_remote(values),
        sudo=_checked_sudo(values),
        mount_options=filesystems.mount_options(filesystem, values.get("mount-options", "")),
        remote_file_storage=_checked_remote_path(values, "remote-file-storage", "var/filestorage"),
        remote_blob_storage=_checked_remote_path(values, "remote-blob-storage", "var/blobstorage"),
        rsync_options=_checked_rsync_options(values),
        ssh_options=_checked_ssh_options(values),
        blob_storage=_checked_path(values, "blob-storage", "", directory),
        storages=_checked_storages(values),
        mount_point=_checked_path(values, "mount-point", _default_mount_point(prefix), directory),
        location=_checked_path(values, "location", _default_location(prefix), directory),
        cache_size=parse_size("cache-size", values["cache-size"]) if values.get("cache-size") else None,
        read_through=_checked_read_through(values, filesystem),
        prepare=_checked_prepare(values),
    )


def _refuse_dash(option: str, value: str) -> None:
    """Refuse a value that a program would take for one of its options."""
    if value.startswith("-"):
        raise SettingsError(option, f"{value!r} starts with a dash and would be taken for an option.")


def _refuse_control_characters(option: str, value: str) -> None:
    """Refuse a value with a control character, line breaks and tabs included."""
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise SettingsError(option, f"{value!r} has a control character or a line break in it.")


def _checked_remote(values: Values, directory: str) -> Tuple[str, str]:
    """Return the remote, without a slash at its end, and the network file system that mounts the remote."""
    remote = values.get("remote", "")
    if not remote:
        raise SettingsError("remote", "is required: what to mount, such as plone@www.example.com:/srv/plone.")
    filesystems.refuse_password(remote, values.get("filesystem", ""))
    _refuse_dash("remote", remote)
    _refuse_control_characters("remote", remote)
    filesystem = values.get("filesystem") or filesystems.told_filesystem(remote) or ""
    if not filesystem:
        raise SettingsError(
            "filesystem",
            f"can't be told from remote = {remote}. Set it to one of: {', '.join(filesystems.FILESYSTEMS)}; or to any "
            "type that mount -t takes.",
        )
    filesystems.check_filesystem(filesystem)
    filesystems.check_remote(filesystem, remote)
    if filesystem == "directory":
        remote = os.path.normpath(os.path.join(directory, os.path.expanduser(remote)))
    # A slash after a colon is the root directory.
    return re.sub(r"(?<=[^:/])/+$", "", remote), filesystem


def _checked_remote_path(values: Values, option: str, default: str) -> str:
    """Return a path below the remote, relative to the remote."""
    value = values.get(option) or default
    path = os.path.normpath(value)
    if os.path.isabs(path) or path.startswith(".."):
        raise SettingsError(option, f"{value!r} must be relative to remote and below it.")
    return path


def _checked_union(values: Values) -> str:
    """Return the name of a union, or ``auto``."""
    union = values.get("union") or "auto"
    if union not in UNIONS:
        raise SettingsError("union", f"{union} is not supported. Known are: {', '.join(UNIONS)}.")
    return union


def _checked_sudo(values: Values) -> str:
    """Return ``auto``, ``no``, or the program to become root with."""
    sudo = values.get("sudo") or "auto"
    if sudo.lower() in ("false", "off", "0", "never"):
        raise SettingsError("sudo", f"{sudo!r} is not known: write auto, no, or the program to use.")
    return sudo


def _checked_rsync_remote(values: Values) -> Optional[str]:
    """Return the directory that rsync reads from, without a slash at its end; ``None`` where the remote tells it."""
    remote = values.get("rsync-remote")
    if not remote:
        return None
    refuse_password_in("rsync-remote", remote, (PASSWORD_IN_URL, PASSWORD_BEFORE_HOST))
    _refuse_dash("rsync-remote", remote)
    _refuse_control_characters("rsync-remote", remote)
    host = re.fullmatch(RSYNC_HOST, remote)
    if host and not re.fullmatch(TRUE_HOST, host.group(1)):
        raise SettingsError("rsync-remote", f"{host.group(1)!r} is no host, and ssh might take it for an option.")
    return remote.rstrip("/")


def _checked_rsync_options(values: Values) -> Optional[Tuple[str, ...]]:
    """Return the user's options of rsync; ``None`` where the user left the choice to us."""
    if "rsync-options" not in values:
        return None
    options = words("rsync-options", values["rsync-options"])
    for option in options:
        if not HARMLESS_RSYNC_OPTIONS.fullmatch(option):
            raise SettingsError(
                "rsync-options",
                f"{option} is refused: only options that can't write to production pass, "
                "such as -z, --bwlimit=2m, --timeout=60, --rsync-path=/usr/local/bin/rsync or "
                "'--rsync-path=sudo -n rsync'. Options of ssh belong into ssh-options.",
            )
    return options


def _checked_ssh_options(values: Values) -> Tuple[str, ...]:
    """Return the user's options of ssh, and nothing that ssh would take for a host or a command to run there."""
    options = words("ssh-options", values.get("ssh-options", ""))
    flag = ""
    for word in options:
        if flag:
            flag = ""
        elif not re.fullmatch(rf"-(?:[^{SSH_VALUES}\W_]*[{SSH_VALUES}].*|[^{SSH_VALUES}\W_]+)", word, re.DOTALL):
            raise SettingsError(
                "ssh-options",
                f"{word!r} is no option of ssh: it would be the host, and what follows a command to run there. "
                "Write such as -p 22 -i key -o Option=value, a value with blanks in quotes.",
            )
        elif re.fullmatch(rf"-[^{SSH_VALUES}]*[{SSH_VALUES}]", word):
            flag = word
    if flag:
        raise SettingsError("ssh-options", f"{flag} is the last word, and its value is missing. Write it behind it.")
    return options


def _checked_prefix(values: Values, part: str) -> str:
    """Return what the names of the scripts begin with."""
    prefix = values.get("script-prefix") or script_prefix(part)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", prefix):
        raise SettingsError("script-prefix", f"{prefix!r} can't be the beginning of a script's name.")
    return prefix


def _default_mount_point(prefix: str) -> str:
    """Return the default of ``mount-point``, a directory for each prefix."""
    return "var/prod" if prefix == "cow" else f"var/prod-{prefix}"


def _default_location(prefix: str) -> str:
    """Return the default of ``location``, a directory for each prefix."""
    return "var/cow-storage" if prefix == "cow" else f"var/{prefix}-cow-storage"


def _checked_path(values: Values, option: str, default: str, directory: str) -> str:
    """Return a local path, absolute and normalized; relative ones are below the buildout directory."""
    value = values.get(option) or default
    _refuse_control_characters(option, value)
    return os.path.normpath(os.path.join(directory, os.path.expanduser(value)))


def _refuse_missing_blob_storage(values: Values) -> None:
    """Refuse a part without a BLOB directory: neither the user nor ``wiring`` has set one."""
    if not values.get("blob-storage"):
        raise SettingsError(
            "blob-storage",
            "no zeoserver or instance part was found to take it from. Set it, and file-storage, to the two paths "
            "to lie over, such as var/blobstorage and var/filestorage.",
        )


def _checked_file_storage(values: Values, directory: str) -> Optional[str]:
    """Return the directory of Data.fs, whose own path is accepted, too; ``None``: BLOBs only."""
    if not values.get("file-storage"):
        return None
    path = _checked_path(values, "file-storage", "", directory)
    return os.path.dirname(path) if path.endswith(".fs") else path


def _checked_read_through(values: Values, filesystem: str) -> bool:
    """Tell whether what is read is kept in the BLOB cache."""
    value = values.get("read-through") or "yes"
    if value not in ("yes", "no"):
        raise SettingsError("read-through", f"{value!r} is not known: write yes or no.")
    if values.get("read-through") and filesystem != "sshfs":
        raise SettingsError("read-through", f"is sshfs's only, and this is {filesystem}. Remove it.")
    return value == "yes"


def _checked_storages(values: Values) -> Tuple[str, ...]:
    """Return the file names of the FileStorages to fetch; ``()``: all of production's."""
    storages = tuple(values.get("storages", "").split())
    for storage in storages:
        if "/" in storage or not storage.endswith(".fs") or storage.startswith((".", "-")):
            raise SettingsError("storages", f"{storage!r} is no file name such as Data.fs.")
    return storages


def _checked_prepare(values: Values) -> Tuple[str, ...]:
    """Return the commands of the option ``prepare``, a line each."""
    lines = tuple(line.strip() for line in values.get("prepare", "").splitlines() if line.strip())
    for line in lines:
        _refuse_control_characters("prepare", line)
        for word in words("prepare", line):
            if word in SHELL_WORDS:
                raise SettingsError(
                    "prepare", f"{word!r} in {line!r} is for a shell, and there is none. Write one command a line."
                )
    return lines


def check_paths(settings: Settings) -> None:
    """Refuse directories of one part that lie in each other, and a production that is this very buildout.

    :raises SettingsError: for the first such pair.
    """
    paths = local_paths(settings)
    for option, path in paths.items():
        if is_inside(settings.directory, path):
            raise SettingsError(option.partition("'")[0], f"{path} is or contains the buildout directory itself.")
    check_separate(paths)
    if settings.filesystem == "directory":
        _check_production_directory(settings, paths)


def _check_production_directory(settings: Settings, paths: Mapping[str, str]) -> None:
    """Refuse a production on this machine whose storage directories overlap with the part's.

    :param paths: the part's directories, by their names in messages.
    """
    for below in (settings.remote_file_storage, settings.remote_blob_storage):
        production = os.path.normpath(os.path.join(settings.remote, below))
        for option, path in paths.items():
            if is_inside(production, path) or is_inside(path, production):
                raise SettingsError(
                    "remote", f"production's {production} and the local {option} {path} are not apart from each other."
                )


def check_apart(settings: Settings, other: Settings) -> None:
    """Refuse two parts of one buildout whose scripts or directories are in conflict.

    :raises SettingsError: naming both parts.
    """
    if settings.prefix == other.prefix:
        raise SettingsError(
            "script-prefix", f"[{settings.part}] and [{other.part}] would both write scripts named {other.prefix}-..."
        )
    for option, path in local_paths(settings).items():
        for other_option, other_path in local_paths(other).items():
            if is_inside(path, other_path) or is_inside(other_path, path):
                raise SettingsError(
                    option.partition("'")[0],
                    f"the {option} {path} of [{settings.part}] and the {other_option} {other_path} of [{other.part}] "
                    "are in conflict. Each part needs directories of its own.",
                )
