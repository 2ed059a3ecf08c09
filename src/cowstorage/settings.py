"""The part's options, validated and frozen: what buildout hands to the scripts.

Pure: nothing here looks at the file system or runs anything.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from cowstorage import remotes
from cowstorage.errors import SettingsError

UNIONS = ("auto", "overlay", "fuse-overlayfs", "unionfs-fuse", "aufs")


class Option(NamedTuple):
    """One option of the part: its name, its default as README.rst words it, and what it means."""

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
        "added to the safe defaults of that file system; anything that would make it writable is refused",
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
    Option("file-storage", "from the buildout's zeoserver or instance part", "the directory of Data.fs, to lie over"),
    Option("blob-storage", "from the buildout's zeoserver or instance part", "the BLOB directory, to lie over"),
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
    Option("cache-size", "no limit", "how much the BLOB cache may hold, such as ``20G``; the newest BLOBs stay"),
    Option("script-prefix", "from the part's name", "what the scripts' names begin with"),
)

OPTION_NAMES = tuple(option.name for option in OPTIONS)

# Set by buildout itself or read by zc.recipe.egg: neither ours nor a typing error.
FOREIGN_OPTIONS = frozenset(
    "recipe eggs entry-points scripts arguments initialization extra-paths interpreter find-links index "
    "python executable dependent-scripts relative-paths bin-directory eggs-directory develop-eggs-directory "
    "__buildout_installed__ __buildout_signature__".split()
)

# A file that rsync may be told to remove, or a module it may write, is production's: only these pass.
# Compiled where it is used: no script uses it, and each would wait for it.
HARMLESS_RSYNC_OPTIONS = (
    r"-[46hqvzW]+|--(compress|verbose|quiet|stats|ipv4|ipv6|whole-file|no-whole-file|human-readable|no-motd|"
    r"(compress-choice|zc|compress-level|zl|skip-compress|bwlimit|timeout|contimeout|rsync-path|checksum-choice|cc|"
    r"block-size|password-file|port|sockopts|info|address)=.*)"
)


class Settings(NamedTuple):
    """Everything the scripts need to know about their part.

    Paths are absolute; ``remote_*`` are relative to the remote.  ``file_storage`` is ``None`` where the
    buildout keeps its objects elsewhere (RelStorage): then only BLOBs are served.
    ``rsync_options`` is ``None`` where the user left the choice to us.
    """

    part: str
    prefix: str
    directory: str
    remote: str
    filesystem: str
    mount_options: Tuple[str, ...]
    remote_file_storage: str
    remote_blob_storage: str
    rsync_remote: Optional[str]
    rsync_options: Optional[Tuple[str, ...]]
    ssh_options: Tuple[str, ...]
    union: str
    sudo: str
    file_storage: Optional[str]
    blob_storage: str
    storages: Tuple[str, ...]
    mount_point: str
    location: str
    found: str
    cache_size: Optional[int] = None


LOCAL_PATHS = ("directory", "file_storage", "blob_storage", "mount_point", "location")


def script_prefix(part: str) -> str:
    """What the scripts of a part are called: ``cow-storage`` gives ``cow``, ``x`` gives ``x``."""
    for suffix in ("-storage", "_storage"):
        if part.endswith(suffix) and len(part) > len(suffix):
            return part[: -len(suffix)]
    return part


def canonical(options: Mapping[str, str]) -> Dict[str, str]:
    """Option names with hyphens; underscores are accepted.

    :raises SettingsError: for an unknown name, with a suggestion, and for two spellings with different values.
    """
    result: Dict[str, str] = {}
    for name, value in options.items():
        if name in FOREIGN_OPTIONS or name.startswith("_"):
            continue
        hyphenated = name.replace("_", "-")
        if hyphenated not in OPTION_NAMES:
            import difflib

            close = difflib.get_close_matches(hyphenated, OPTION_NAMES, 1, 0.6)
            hint = f" Did you mean {close[0]}?" if close else f" Known are: {', '.join(OPTION_NAMES)}."
            raise SettingsError(name, f"there is no such option.{hint}")
        value = value.strip()
        if result.get(hyphenated, value) != value:
            raise SettingsError(hyphenated, "is also written with underscores, with another value. Keep one of them.")
        result[hyphenated] = value
    return result


def words(option: str, value: str) -> Tuple[str, ...]:
    """Split as a shell would, quotes included.

    :raises SettingsError: for an unclosed quote.
    """
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise SettingsError(option, f"{error} in {value!r}.") from None


def parse_size(option: str, value: str) -> int:
    """Bytes from ``20G``, ``1.5 MB``, ``800k`` or a plain number; units of 1000, as everywhere here.

    :raises SettingsError: for anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)B?", value.strip())
    if not match:
        raise SettingsError(option, f"{value!r} is no size such as 20G, 500M or 800k.")
    return int(float(match.group(1)) * 1000 ** " kMGT".index(match.group(2).replace("K", "k") or " "))


def _checked_remote(value: str, directory: str, filesystem: str) -> Tuple[str, str]:
    if not value:
        raise SettingsError("remote", "is required: what to mount, such as plone@www.example.com:/srv/plone.")
    if value.startswith("-"):
        raise SettingsError("remote", f"{value!r} starts with a dash and would be taken for an option.")
    if any(ord(character) < 32 for character in value):
        raise SettingsError("remote", f"{value!r} has a control character or a line break in it.")
    filesystem = filesystem or remotes.told_filesystem(value) or ""
    if not filesystem:
        raise SettingsError(
            "filesystem",
            f"can't be told from remote = {value}. Set it to one of: {', '.join(remotes.FILESYSTEMS)}; or to any "
            "type that mount -t takes.",
        )
    remotes.check_filesystem(filesystem)
    remotes.check_remote(filesystem, value)
    if filesystem == "directory":
        value = os.path.normpath(os.path.join(directory, os.path.expanduser(value)))
    # A slash after a colon is the root directory.
    return re.sub(r"(?<=[^:/])/+$", "", value), filesystem


def _checked_rsync_options(value: Optional[str]) -> Optional[Tuple[str, ...]]:
    if value is None:
        return None
    options = words("rsync-options", value)
    for option in options:
        if not re.fullmatch(HARMLESS_RSYNC_OPTIONS, option):
            raise SettingsError(
                "rsync-options",
                f"{option} is refused: only options that can't write to production pass, "
                "such as -z, --bwlimit=2m, --timeout=60, --rsync-path=. Options of ssh belong into ssh-options.",
            )
    return options


def _relative_remote(option: str, value: str) -> str:
    path = os.path.normpath(value)
    if os.path.isabs(path) or path.startswith(".."):
        raise SettingsError(option, f"{value!r} must be relative to remote and below it.")
    return path


def _checked_storages(value: str) -> Tuple[str, ...]:
    storages = tuple(value.split())
    for storage in storages:
        if "/" in storage or not storage.endswith(".fs") or storage.startswith((".", "-")):
            raise SettingsError("storages", f"{storage!r} is no file name such as Data.fs.")
    return storages


def from_options(options: Mapping[str, str], part: str, directory: str, found: str = "") -> Settings:
    """Validated settings from a part's options, as strings.

    :param options: the raw options; ``file-storage`` and ``blob-storage`` already filled in by ``wiring``.
    :param directory: the buildout directory, absolute; relative paths are below it.
    :param found: where the two storage paths were found, for people.
    :raises SettingsError: for the first option that can't be used.
    """
    given = canonical(options)

    def path(option: str, default: str) -> str:
        value = given.get(option) or default
        if any(ord(character) < 32 for character in value):
            raise SettingsError(option, f"{value!r} has a control character or a line break in it.")
        return os.path.normpath(os.path.join(directory, os.path.expanduser(value)))

    remote, filesystem = _checked_remote(given.get("remote", ""), directory, given.get("filesystem", ""))
    union = given.get("union") or "auto"
    if union not in UNIONS:
        raise SettingsError("union", f"{union} is not supported. Known are: {', '.join(UNIONS)}.")
    prefix = given.get("script-prefix") or script_prefix(part)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", prefix):
        raise SettingsError("script-prefix", f"{prefix!r} can't be the beginning of a script's name.")
    if not given.get("blob-storage"):
        raise SettingsError(
            "blob-storage",
            "no zeoserver or instance part was found to take it from. Set it, and file-storage, to the two paths "
            "to lie over, such as var/blobstorage and var/filestorage.",
        )
    file_storage: Optional[str] = given.get("file-storage") or None
    if file_storage is not None:
        file_storage = path("file-storage", "")
        if file_storage.endswith(".fs"):
            file_storage = os.path.dirname(file_storage)
    rsync_remote = given.get("rsync-remote") or None
    if rsync_remote and rsync_remote.startswith("-"):
        raise SettingsError("rsync-remote", f"{rsync_remote!r} starts with a dash and would be taken for an option.")
    sudo = given.get("sudo") or "auto"
    if sudo.lower() in ("false", "off", "0", "never"):
        raise SettingsError("sudo", f"{sudo!r} is not known: write auto, no, or the program to use.")
    return Settings(
        part=part,
        prefix=prefix,
        directory=directory,
        remote=remote,
        filesystem=filesystem,
        mount_options=remotes.mount_options(filesystem, given.get("mount-options", "")),
        remote_file_storage=_relative_remote(
            "remote-file-storage", given.get("remote-file-storage") or "var/filestorage"
        ),
        remote_blob_storage=_relative_remote(
            "remote-blob-storage", given.get("remote-blob-storage") or "var/blobstorage"
        ),
        rsync_remote=rsync_remote.rstrip("/") if rsync_remote else None,
        rsync_options=_checked_rsync_options(given.get("rsync-options")),
        ssh_options=words("ssh-options", given.get("ssh-options", "")),
        union=union,
        sudo=sudo,
        file_storage=file_storage,
        blob_storage=path("blob-storage", ""),
        storages=_checked_storages(given.get("storages", "")),
        mount_point=path("mount-point", "var/prod" if prefix == "cow" else f"var/prod-{prefix}"),
        location=path("location", "var/cow-storage" if prefix == "cow" else f"var/{prefix}-cow-storage"),
        found=found,
        cache_size=parse_size("cache-size", given["cache-size"]) if given.get("cache-size") else None,
    )


def local_paths(settings: Settings) -> Dict[str, str]:
    """The directories that a part uses on this machine, by what they are called in messages.

    The two uppers, which take the writes, lie beside the directories that are lain over, with ``.prod`` added.
    """
    paths = {"blob-storage": settings.blob_storage, "blob-storage's upper directory": settings.blob_storage + ".prod"}
    if settings.file_storage is not None:
        paths["file-storage"] = settings.file_storage
        paths["file-storage's upper directory"] = settings.file_storage + ".prod"
    paths["mount-point"] = settings.mount_point
    paths["location"] = settings.location
    return paths


def check_paths(settings: Settings) -> None:
    """Refuse directories of one part that lie in each other, and a production that is this very buildout.

    :raises SettingsError: for the first such pair.
    """
    paths = local_paths(settings)
    for option, path in paths.items():
        if _inside(settings.directory, path):
            raise SettingsError(option.partition("'")[0], f"{path} is or contains the buildout directory itself.")
    check_separate(paths)
    if settings.filesystem == "directory":
        _check_directory(settings, paths)


def check_separate(paths: Mapping[str, str]) -> None:
    """Refuse directories that lie in each other.

    :param paths: those of one part, by what they are called in messages.
    :raises SettingsError: for the first such pair.
    """
    for option, path in paths.items():
        for other, other_path in paths.items():
            if other != option and _inside(path, other_path):
                # An upper is moved by moving what it belongs to, so that is the option to name.
                raise SettingsError(
                    option.partition("'")[0],
                    f"the {option} {path} lies in the {other} {other_path}. Each needs a directory of its own.",
                )


def _check_directory(settings: Settings, paths: Mapping[str, str]) -> None:
    for below in (settings.remote_file_storage, settings.remote_blob_storage):
        production = os.path.normpath(os.path.join(settings.remote, below))
        for option, path in paths.items():
            if _inside(production, path) or _inside(path, production):
                raise SettingsError(
                    "remote", f"production's {production} and the local {option} {path} are not apart from each other."
                )


def check_apart(settings: Settings, other: Settings) -> None:
    """Refuse two parts of one buildout that would get in each other's way.

    :raises SettingsError: naming both parts.
    """
    if settings.prefix == other.prefix:
        raise SettingsError(
            "script-prefix", f"[{settings.part}] and [{other.part}] would both write scripts named {other.prefix}-..."
        )
    for option, path in local_paths(settings).items():
        for other_option, other_path in local_paths(other).items():
            if _inside(path, other_path) or _inside(other_path, path):
                raise SettingsError(
                    option.partition("'")[0],
                    f"the {option} {path} of [{settings.part}] and the {other_option} {other_path} of [{other.part}] "
                    "are in conflict. Each part needs directories of its own.",
                )


def _inside(path: str, directory: str) -> bool:
    """Whether ``path`` is ``directory`` or below it; both are absolute and normal."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def mounted_alike(one: Optional[Settings], other: Settings) -> bool:
    """Whether two settings make the same mounts; what only rsync or people read does not matter."""

    def bare(settings: Settings) -> Settings:
        return settings._replace(part="", prefix="", found="", rsync_remote=None, rsync_options=None, cache_size=None)

    return one is not None and bare(one) == bare(other)


def to_script(settings: Settings) -> Dict[str, Any]:
    """Plain data for a generated script; local paths below the buildout directory are relative to it."""
    result: Dict[str, Any] = {}
    for name, value in settings._asdict().items():
        if name in LOCAL_PATHS and name != "directory" and value is not None:
            inside = os.path.relpath(value, settings.directory)
            value = value if inside.startswith("..") else inside
        result[name] = value
    return result


def from_script(data: Mapping[str, Any]) -> Settings:
    """Settings from what ``to_script`` wrote, or from JSON of it (lists for tuples)."""
    values: Dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    for name in LOCAL_PATHS:
        if values[name] is not None:
            values[name] = os.path.normpath(os.path.join(values["directory"], values[name]))
    return Settings(**values)
