"""The two storage paths in a zope.conf or zeo.conf, where no buildout says them.

Pure: takes texts.  ZConfig's grammar as far as it is needed: sections, keys in any case, ``%define`` and ``$NAME``.
"""

from __future__ import annotations

import os
import re
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from cowstorage.errors import SettingsError

# Where an instance or a server has its configuration, below the directory of a development, as patterns for glob.
PLACES = (
    "parts/*/etc/zeo.conf",
    "parts/*/etc/zope.conf",
    "etc/zeo.conf",
    "etc/zope.conf",
    "instance/etc/zope.conf",
    "*/etc/zeo.conf",
    "*/etc/zope.conf",
    "backend/instance/etc/zope.conf",
)

TRUE = ("yes", "true", "on", "1")


class Paths(NamedTuple):
    """What one configuration says.

    :param file_storage: the FileStorage's file, absolute; ``None``: the objects are in an SQL database.
    :param blob_storage: the BLOB directory, absolute; ``None``: not said.
    """

    file_storage: Optional[str]
    blob_storage: Optional[str]


def find(texts: Mapping[str, str], directory: str) -> Optional[Tuple[str, Paths]]:
    """Return the path of the configuration that says where the data is, and what it says; ``None`` without one.

    A ZEO client has no data: its server's configuration is asked, if it is there.

    :param texts: the path of each configuration → its text.
    :param directory: of the development; relative paths are below it.
    :raises SettingsError: when two of them differ.
    """
    said = {path: found for path, text in texts.items() for found in [parse(text, directory)] if found is not None}
    if len(set(said.values())) > 1:
        names = " and ".join(said)
        raise SettingsError("file-storage", f"{names} keep their data in different places. Set it, and blob-storage.")
    return next(iter(said.items()), None)


def parse(text: str, directory: str) -> Optional[Paths]:
    """Return the paths that a configuration says; ``None`` where it says none, as a ZEO client's."""
    names: Dict[str, str] = {}
    blob_dir = None
    for sections, key, value in _keys(text, names):
        kinds = [section.split()[0] for section in sections]
        # Other databases of an instance, such as a temporary one, are not production's.
        if "zodb_db" in kinds and "zodb_db main" not in sections:
            continue
        if key == "blob-dir" and kinds and kinds[-1] in ("blobstorage", "filestorage", "relstorage"):
            blob_dir = _path(directory, value)
            if kinds[-1] == "relstorage":
                return Paths(None, blob_dir) if _shares(text, names) else None
        if key == "path" and kinds and kinds[-1] == "filestorage":
            return Paths(_path(directory, value), blob_dir or _blob_dir_after(text, names, directory))
    return None


def _blob_dir_after(text: str, names: Dict[str, str], directory: str) -> Optional[str]:
    """Return the BLOB directory of a FileStorage that says it after its path."""
    for sections, key, value in _keys(text, names):
        kinds = [section.split()[0] for section in sections]
        if (
            key == "blob-dir"
            and kinds[-1:] == ["filestorage"]
            and not ("zodb_db" in kinds and "zodb_db main" not in sections)
        ):
            return _path(directory, value)
    return None


def _shares(text: str, names: Dict[str, str]) -> bool:
    """Tell whether a RelStorage keeps its BLOBs in a directory: the default was true in RelStorage 2, false since."""
    return any(key == "shared-blob-dir" and value.lower() in TRUE for _, key, value in _keys(text, names))


def _keys(text: str, names: Dict[str, str]) -> Iterator[Tuple[List[str], str, str]]:
    """Yield the sections that are open, outermost first, key and value of each line with a key.

    :param names: takes what is defined.
    """
    sections: List[str] = []
    for line in (line.strip() for line in text.splitlines()):
        define = re.match(r"%define\s+(\w+)\s*(.*)", line)
        begin = re.fullmatch(r"<([^/>\s][^>]*?)\s*(/?)>", line)
        if define:
            names[define.group(1).lower()] = _replaced(define.group(2), names)
        elif line.startswith("</"):
            del sections[-1:]
        elif begin:
            if not begin.group(2):
                sections.append(" ".join(begin.group(1).lower().split()))
        elif line and line[0] not in "#%":
            key, _, value = line.partition(" ")
            yield list(sections), key.lower(), _replaced(value.strip(), names)


def _replaced(value: str, names: Mapping[str, str]) -> str:
    """Return a value with what is defined in the place of ``$NAME`` and ``${NAME}``."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: names.get((match[1] or match[2]).lower(), match[0]), value)


def _path(directory: str, value: str) -> str:
    """Return a path, absolute and normalized."""
    return os.path.normpath(os.path.join(directory, value))
