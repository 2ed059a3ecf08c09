"""The settings of a part: what buildout writes into the scripts, and what the journal keeps of them."""

import os
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from cowstorage.errors import SettingsError
from cowstorage.system.files import is_inside

# Merged directory + suffix = upper directory.  The suffix was published with the idea, and is in users' backups.
UPPER_SUFFIX = ".prod"


class Settings(NamedTuple):
    """The settings of a part, checked: the options of README.rst, and what was derived from them.

    Paths are absolute, but for ``remote_file_storage`` and ``remote_blob_storage``, which are relative to ``remote``.

    :param part: the name of the part in buildout.
    :param prefix: what the names of the scripts begin with.
    :param directory: the buildout directory.
    :param rsync_remote: ``None`` where rsync's source is told from ``remote``.
    :param rsync_options: ``None`` where the user left the choice to us.
    :param file_storage: ``None`` where the buildout keeps its objects elsewhere (RelStorage): BLOBs only.
    :param storages: file names of the FileStorages to fetch; ``()``: all of production's.
    :param found: where the two storage paths were found, one sentence for people.
    :param cache_size: the limit of the BLOB cache in bytes; ``None``: no limit.
    :param read_through: whether BLOBs that are read over sshfs are kept in the BLOB cache.
    :param prepare: commands that are run on each fresh copy, a line each.
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
    read_through: bool = True
    prepare: Tuple[str, ...] = ()

    @property
    def blob_upper(self) -> str:
        """The upper directory of the BLOB union."""
        return self.blob_storage + UPPER_SUFFIX

    @property
    def file_upper(self) -> str:
        """The upper directory of the FileStorage union; meaningless where ``file_storage`` is ``None``."""
        return str(self.file_storage) + UPPER_SUFFIX


LOCAL_PATHS = ("directory", "file_storage", "blob_storage", "mount_point", "location")


def local_paths(settings: Settings) -> Dict[str, str]:
    """Return the directories that a part uses on this machine, by their names in messages."""
    paths = {"blob-storage": settings.blob_storage, "blob-storage's upper directory": settings.blob_upper}
    if settings.file_storage is not None:
        paths["file-storage"] = settings.file_storage
        paths["file-storage's upper directory"] = settings.file_upper
    paths["mount-point"] = settings.mount_point
    paths["location"] = settings.location
    return paths


def check_separate(paths: Mapping[str, str]) -> None:
    """Refuse directories that lie in each other.

    :param paths: the directories of one part, by their names in messages.
    :raises SettingsError: for the first such pair.
    """
    for option, path in paths.items():
        for other, other_path in paths.items():
            if other == "file-storage" and option == "blob-storage" and is_inside(path, other_path):
                raise SettingsError(
                    option,
                    f"{path} lies in the file-storage {other_path}, and a union can't lie over both. Move Data.fs and "
                    f"what begins with Data.fs into {os.path.join(other_path, 'filestorage')}, and say so where its "
                    "path is set, such as zope.conf.",
                )
            if other != option and is_inside(path, other_path):
                # An upper is moved by moving the merged directory, so the merged directory's option is named.
                raise SettingsError(
                    option.partition("'")[0],
                    f"the {option} {path} lies in the {other} {other_path}. Each needs a directory of its own.",
                )


def mounted_alike(one: Optional[Settings], other: Settings) -> bool:
    """Tell whether two settings make the same mounts: all settings but those that only rsync or people read agree."""

    def bare(settings: Settings) -> Settings:
        ours = settings._replace(part="", prefix="", found="", cache_size=None, prepare=())
        return ours._replace(rsync_remote=None, rsync_options=None)

    return one is not None and bare(one) == bare(other)


def to_script(settings: Settings) -> Dict[str, Any]:
    """Return the settings as plain data for a generated script.

    Local paths below the buildout directory are relative to that directory: a buildout with ``relative-paths`` can be
    moved.
    """
    result: Dict[str, Any] = {}
    for name, value in settings._asdict().items():
        if name in LOCAL_PATHS and name != "directory" and value is not None:
            inside = os.path.relpath(value, settings.directory)
            value = value if inside.startswith("..") else inside
        result[name] = value
    return result


def from_script(data: Mapping[str, Any]) -> Settings:
    """Return the settings that ``to_script`` made into plain data, also when JSON has made lists of the tuples."""
    values: Dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    for name in LOCAL_PATHS:
        if values[name] is not None:
            values[name] = os.path.normpath(os.path.join(values["directory"], values[name]))
    return Settings(**values)
