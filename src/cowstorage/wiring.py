"""Finds the two local paths in the buildout's own parts.

Pure: reads options that buildout has substituted already, and looks at no file.  The rules are read off the sources of
plone.recipe.zeoserver 2.0.3 to 4.0.1 and plone.recipe.zope2instance 6.6.0 to 9.1.0, which agree with each other.
"""

from __future__ import annotations

import os
import re
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from cowstorage.errors import SettingsError

ZEOSERVER = "plone.recipe.zeoserver"
ZOPE2INSTANCE = "plone.recipe.zope2instance"
FILESTORAGE = "collective.recipe.filestorage"
DEFAULT_FILE = "filestorage/Data.fs"

# What the recipes and ZConfig take for true.
TRUE = ("yes", "true", "on", "1")

Options = Mapping[str, str]


class Wiring(NamedTuple):
    """Where the buildout keeps its data.

    :param file_storage: the directory of ``file_name``, absolute; ``None`` when the objects are in an SQL database.
    :param blob_storage: the BLOB directory, absolute.
    :param part: the part that says so.
    :param found: one sentence for people: which part, which recipe, which option or default.
    :param warnings: what in the buildout would go wrong on merged directories, each with its cure.
    """

    file_storage: Optional[str]
    file_name: str
    blob_storage: str
    part: str
    found: str
    warnings: Tuple[str, ...]


class _Unusable(Exception):
    """The part keeps no data that could be served; the text completes "[part] ..."."""


def recipe_name(recipe: str) -> str:
    """The distribution in a ``recipe`` option, without extras, version and entry point, with dots as separators.

    >>> recipe_name("plone.recipe.zeoserver[zrs] >= 2:default")
    'plone.recipe.zeoserver'
    """
    match = re.match(r"\s*([A-Za-z0-9._-]+)", recipe)
    return re.sub(r"[-_.]+", ".", match.group(1)).lower() if match else ""


def is_storage(recipe: str) -> bool:
    """Whether parts of this recipe can say where data is kept."""
    return recipe_name(recipe) in (ZEOSERVER, ZOPE2INSTANCE)


def extra_storages_warning(part: str) -> str:
    """What to say about a part of collective.recipe.filestorage, whose default is ``var/filestorage/NAME/NAME.fs``."""
    return (
        f"[{part}] ({FILESTORAGE}) adds FileStorages in directories of their own, which are not fetched: only *.fs "
        "files directly in production's filestorage are. Below it, one is copied live and whole when it is first "
        "opened, and may then be damaged. Leave that part out here, or give it a location outside of file-storage."
    )


def find(parts: Mapping[str, Options], directory: str, instance: Optional[str] = None) -> Wiring:
    """The paths that the buildout's zeoserver part uses, else its standalone instance.

    :param parts: part names and their options; parts of other recipes are passed over.
    :param directory: the buildout directory, absolute.
    :param instance: the part to take them from, where there are several.
    :raises SettingsError: when no part can be used, or several that differ.
    """
    storages = {part: options for part, options in parts.items() if is_storage(options.get("recipe", ""))}
    wiring = _named(storages, directory, instance) if instance else _preferred(storages, directory)
    return wiring._replace(warnings=wiring.warnings + _strays(storages, directory, wiring))


def _named(storages: Mapping[str, Options], directory: str, instance: str) -> Wiring:
    if instance not in storages:
        known = ", ".join(storages) or "there is none"
        raise SettingsError(
            "instance", f"{instance} is no part with {ZEOSERVER} or {ZOPE2INSTANCE}. Such parts are: {known}."
        )
    try:
        return _wiring(instance, storages[instance], directory)
    except _Unusable as reason:
        raise SettingsError("instance", f"[{instance}] {reason}.") from None


def _preferred(storages: Mapping[str, Options], directory: str) -> Wiring:
    """A server comes before an instance: it holds the files, whatever its clients' options say."""
    passed_over: List[str] = []
    for recipe in (ZEOSERVER, ZOPE2INSTANCE):
        usable: List[Wiring] = []
        for part, options in storages.items():
            if recipe_name(options["recipe"]) != recipe:
                continue
            try:
                usable.append(_wiring(part, options, directory))
            except _Unusable as reason:
                passed_over.append(f"[{part}] {reason}")
        if usable:
            return _agreed(usable)
    raise SettingsError(
        "blob-storage",
        f"can't be taken from a zeoserver or instance part: {'; '.join(passed_over) or 'there is none'}. "
        "Set blob-storage and file-storage to the two directories to lie over, such as "
        "var/blobstorage and var/filestorage (an empty file-storage: BLOBs only).",
    )


def _agreed(usable: List[Wiring]) -> Wiring:
    places = {(wiring.file_storage, wiring.file_name, wiring.blob_storage) for wiring in usable}
    if len(places) > 1:
        names = " and ".join(f"[{wiring.part}]" for wiring in usable)
        raise SettingsError(
            "instance",
            f"{names} keep their data in different places. Say which is meant, such as instance = {usable[0].part}.",
        )
    return usable[0]


def _wiring(part: str, options: Options, directory: str) -> Wiring:
    """:raises _Unusable: when the part's data can't be served."""
    rules: Dict[str, Callable[[str, Options, str], Wiring]] = {ZEOSERVER: _zeoserver, ZOPE2INSTANCE: _zope2instance}
    return rules[recipe_name(options["recipe"])](part, options, directory)


def _zeoserver(part: str, options: Options, directory: str) -> Wiring:
    """plone.recipe.zeoserver joins both paths to ``var``; an empty ``blob-storage`` is none."""
    if "zeo-conf" in options:
        raise _Unusable("has a zeo-conf of its own, which says where its data is")
    var = _var(options, directory)
    blob_storage = options.get("blob-storage", "blobstorage")
    if not blob_storage:
        raise _Unusable("keeps no BLOBs: its blob-storage is empty")
    file_storage, file_name = _file(options, var)
    # The recipe writes pack-keep-old into zeo.conf only where it is "false"; ZODB's own default is true.
    keeps_old = options.get("pack-keep-old", "").lower() != "false"
    return Wiring(
        file_storage=file_storage,
        file_name=file_name,
        blob_storage=_path(var, blob_storage),
        part=part,
        found=_found(part, options),
        warnings=(_pack_warning(part),) if keeps_old else (),
    )


def _zope2instance(part: str, options: Options, directory: str) -> Wiring:
    """plone.recipe.zope2instance joins ``file-storage`` to ``var``, but ``blob-storage`` to the buildout directory."""
    _refuse_other_storages(options)
    if options.get("rel-storage"):
        return _relstorage(part, options, directory)
    var = _var(options, directory)
    blob_storage = options.get("blob-storage", os.path.join(var, "blobstorage"))
    if not blob_storage:
        raise _Unusable("keeps no BLOBs: its blob-storage is empty")
    file_storage, file_name = _file(options, var)
    return Wiring(
        file_storage=file_storage,
        file_name=file_name,
        blob_storage=_path(directory, blob_storage),
        part=part,
        found=_found(part, options),
        warnings=(),
    )


def _refuse_other_storages(options: Options) -> None:
    if "zope-conf" in options:
        raise _Unusable("has a zope-conf of its own, which says where its data is")
    if _is_client(options):
        if _shares_blobs(options):
            raise _Unusable("is a ZEO client: its server has the data, so name or add the server's part")
        raise _Unusable("is a ZEO client without shared BLOBs: it has a cache only, its server has the data")
    if options.get("demo-storage", "off") not in ("off", "disable", "false"):
        raise _Unusable(
            "has demo-storage on, which already keeps changes apart, in its own way: switch one of them off"
        )


def _relstorage(part: str, options: Options, directory: str) -> Wiring:
    """The recipe gives RelStorage the lines of ``rel-storage`` and ignores ``blob-storage``.

    ``shared-blob-dir`` must be set: its default was true in RelStorage 2 and is false since 3.
    """
    pairs = [line.split(None, 1) for line in options["rel-storage"].splitlines()]
    given = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
    if not given.get("blob-dir") or given.get("shared-blob-dir", "").lower() not in TRUE:
        raise _Unusable(
            "keeps its BLOBs in the SQL database: its rel-storage has no blob-dir with shared-blob-dir true"
        )
    return Wiring(
        file_storage=None,
        file_name=os.path.basename(DEFAULT_FILE),
        blob_storage=_path(directory, given["blob-dir"]),
        part=part,
        found=f"BLOBs only, as [{part}] ({ZOPE2INSTANCE}) has its objects in an SQL database: "
        "blob-storage from blob-dir in its option rel-storage.",
        warnings=(),
    )


def _var(options: Options, directory: str) -> str:
    # A relative var is relative to the working directory, where buildout installs parts: its own directory.
    return _path(directory, options.get("var", "var"))


def _path(base: str, value: str) -> str:
    return os.path.normpath(os.path.join(base, value))


def _file(options: Options, var: str) -> Tuple[str, str]:
    value = options.get("file-storage", DEFAULT_FILE)
    if not value.endswith(".fs"):
        # Only *.fs files are fetched; any other would be copied up whole and live at its first opening.
        raise _Unusable(f"has file-storage = {value}, which is no file name that ends in .fs")
    directory, name = os.path.split(_path(var, value))
    return directory, name


def _found(part: str, options: Options) -> str:
    def source(option: str) -> str:
        return f"{option} {'from its option' if option in options else 'by default'}"

    recipe = recipe_name(options["recipe"])
    return f"Taken from [{part}] ({recipe}): {source('file-storage')}, {source('blob-storage')}."


def _is_client(options: Options) -> bool:
    return options.get("zeo-client", "").lower() in TRUE


def _shares_blobs(options: Options) -> bool:
    return options.get("shared-blob", "no").lower() in TRUE


def _pack_warning(part: str) -> str:
    return (
        f"[{part}] has pack-keep-old on (the default): packing over the mounted BLOB directory will fail after "
        "Data.fs was swapped, because it links old BLOBs into another file system. Set pack-keep-old = false there."
    )


def _strays(storages: Mapping[str, Options], directory: str, wiring: Wiring) -> Tuple[str, ...]:
    """Clients that read BLOBs from another directory than the one that is lain over would not see production's."""
    strays = []
    for part, options in storages.items():
        if recipe_name(options["recipe"]) != ZOPE2INSTANCE or not (_is_client(options) and _shares_blobs(options)):
            continue
        default = os.path.join(_var(options, directory), "blobstorage")
        path = _path(directory, options.get("blob-storage", default))
        if path != wiring.blob_storage:
            strays.append(
                f"[{part}] has shared-blob on, but looks for BLOBs in {path} and not in {wiring.blob_storage}."
            )
    return tuple(strays)
