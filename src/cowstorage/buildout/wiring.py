"""The search for the two local storage paths in the buildout's own parts.

Pure: reads options that buildout has substituted already, and no file.  The rules are those in the sources of
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

# What the recipes and ZConfig take for true, in lower case.
TRUE = ("yes", "true", "on", "1")

Options = Mapping[str, str]


class Wiring(NamedTuple):
    """The paths that the buildout keeps its data at, and the part whose options name them.

    :param file_storage: the directory of ``file_name``, absolute; ``None`` when the objects are in an SQL database.
    :param file_name: the FileStorage's file, such as ``Data.fs``.
    :param blob_storage: the BLOB directory, absolute.
    :param part: the part whose options name the paths.
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
    """A part whose data can't be served; the text completes "[part] ..."."""


def recipe_name(recipe: str) -> str:
    """Return the distribution in a ``recipe`` option, in lower case and with dots as separators.

    Extras, version and entry point are left out.

    >>> recipe_name("plone.recipe.zeoserver[zrs] >= 2:default")
    'plone.recipe.zeoserver'
    """
    match = re.match(r"\s*([A-Za-z0-9._-]+)", recipe)
    return re.sub(r"[-_.]+", ".", match.group(1)).lower() if match else ""


def is_storage(recipe: str) -> bool:
    """Tell whether the options of the recipe's parts name storage paths."""
    return recipe_name(recipe) in (ZEOSERVER, ZOPE2INSTANCE)


def extra_storages_warning(part: str) -> str:
    """Return the warning about a part of collective.recipe.filestorage.

    The default location of the recipe is ``var/filestorage/NAME/NAME.fs``.
    """
    return (
        f"[{part}] ({FILESTORAGE}) adds FileStorages in directories of their own, which are not fetched: only *.fs "
        "files directly in production's filestorage are. Below it, one is copied live and whole when it is first "
        "opened, and may then be damaged. Leave that part out here, or give it a location outside of file-storage."
    )


def find(parts: Mapping[str, Options], directory: str, instance: Optional[str] = None) -> Wiring:
    """Return the wiring of the buildout's zeoserver part, else of its standalone instance.

    :param parts: part name → options; parts of other recipes are passed over.
    :param directory: the buildout directory, absolute.
    :param instance: the part to take the paths from; ``None`` or empty: the one that there is.
    :raises SettingsError: when no part can be used, or several parts whose paths differ.
    """
    storages = {part: options for part, options in parts.items() if is_storage(options.get("recipe", ""))}
    wiring = _named(storages, directory, instance) if instance else _preferred(storages, directory)
    return wiring._replace(warnings=wiring.warnings + _strays(storages, directory, wiring))


def _named(storages: Mapping[str, Options], directory: str, instance: str) -> Wiring:
    """Return the wiring of the part that the user named."""
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
    """Return the wiring of the servers, else of the instances.

    A server opens the files, whatever the options of its clients say.
    """
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
    if not storages:
        return _default(directory)
    raise SettingsError(
        "blob-storage",
        f"can't be taken from a zeoserver or instance part: {'; '.join(passed_over)}. "
        "Set blob-storage and file-storage to the two directories to lie over, such as "
        "var/blobstorage and var/filestorage (an empty file-storage: BLOBs only).",
    )


def _default(directory: str) -> Wiring:
    """Return the wiring of a buildout that has no part which keeps data: the recipes' own defaults."""
    return Wiring(
        file_storage=os.path.join(directory, "var", "filestorage"),
        file_name=os.path.basename(DEFAULT_FILE),
        blob_storage=os.path.join(directory, "var", "blobstorage"),
        part="",
        found="There is no zeoserver or instance part to take the paths from: these are the defaults.",
        warnings=(),
    )


def _agreed(usable: List[Wiring]) -> Wiring:
    """Return the first of several wirings whose paths are the same.

    :raises SettingsError: when the paths differ.
    """
    paths = {(wiring.file_storage, wiring.file_name, wiring.blob_storage) for wiring in usable}
    if len(paths) > 1:
        names = " and ".join(f"[{wiring.part}]" for wiring in usable)
        raise SettingsError(
            "instance",
            f"{names} keep their data in different places. Say which is meant, such as instance = {usable[0].part}.",
        )
    return usable[0]


def _wiring(part: str, options: Options, directory: str) -> Wiring:
    """Return the wiring of a part, by the rules of the part's recipe.

    :raises _Unusable: when the part's data can't be served.
    """
    rules: Dict[str, Callable[[str, Options, str], Wiring]] = {ZEOSERVER: _zeoserver, ZOPE2INSTANCE: _zope2instance}
    return rules[recipe_name(options["recipe"])](part, options, directory)


def _zeoserver(part: str, options: Options, directory: str) -> Wiring:
    """Return the wiring of a part of plone.recipe.zeoserver.

    The recipe joins both paths to ``var``; an empty ``blob-storage`` means no BLOBs.
    """
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
    """Return the wiring of a part of plone.recipe.zope2instance.

    The recipe joins ``file-storage`` to ``var``, but ``blob-storage`` to the buildout directory.
    """
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
    """Refuse an instance that opens no FileStorage by itself.

    :raises _Unusable: for a zope-conf of its own, a ZEO client and a DemoStorage.
    """
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
    """Return the wiring of an instance with RelStorage.

    plone.recipe.zope2instance gives RelStorage the lines of ``rel-storage`` and ignores ``blob-storage``.
    ``shared-blob-dir`` must be set: the default was true in RelStorage 2 and is false since 3.
    """
    pairs = [line.split(None, 1) for line in options["rel-storage"].splitlines()]
    relstorage = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
    if not relstorage.get("blob-dir") or relstorage.get("shared-blob-dir", "").lower() not in TRUE:
        raise _Unusable(
            "keeps its BLOBs in the SQL database: its rel-storage has no blob-dir with shared-blob-dir true"
        )
    return Wiring(
        file_storage=None,
        file_name=os.path.basename(DEFAULT_FILE),
        blob_storage=_path(directory, relstorage["blob-dir"]),
        part=part,
        found=f"BLOBs only, as [{part}] ({ZOPE2INSTANCE}) has its objects in an SQL database: "
        "blob-storage from blob-dir in its option rel-storage.",
        warnings=(),
    )


def _var(options: Options, directory: str) -> str:
    """Return the part's ``var`` directory, absolute."""
    # A relative var is relative to the working directory, which is the buildout directory while parts are installed.
    return _path(directory, options.get("var", "var"))


def _path(base: str, value: str) -> str:
    """Return a path, normalized; a relative one is below ``base``."""
    return os.path.normpath(os.path.join(base, value))


def _file(options: Options, var: str) -> Tuple[str, str]:
    """Return the directory, absolute, and the file name of the part's FileStorage.

    :raises _Unusable: when the file name does not end in ``.fs``.
    """
    value = options.get("file-storage", DEFAULT_FILE)
    if not value.endswith(".fs"):
        # Only *.fs files are fetched; any other would be copied up whole and live at its first opening.
        raise _Unusable(f"has file-storage = {value}, which is no file name that ends in .fs")
    directory, name = os.path.split(_path(var, value))
    return directory, name


def _found(part: str, options: Options) -> str:
    """Return the sentence for people about where the paths come from."""

    def source(option: str) -> str:
        return f"{option} {'from its option' if option in options else 'by default'}"

    recipe = recipe_name(options["recipe"])
    return f"Taken from [{part}] ({recipe}): {source('file-storage')}, {source('blob-storage')}."


def _is_client(options: Options) -> bool:
    """Tell whether an instance is a ZEO client."""
    return options.get("zeo-client", "").lower() in TRUE


def _shares_blobs(options: Options) -> bool:
    """Tell whether a ZEO client reads the BLOB files from the server's directory."""
    return options.get("shared-blob", "no").lower() in TRUE


def _pack_warning(part: str) -> str:
    """Return the warning about a server that keeps old BLOBs when it packs, ZODB.FileStorage's ``pack-keep-old``."""
    return (
        f"[{part}] has pack-keep-old on (the default): packing over the mounted BLOB directory will fail after "
        "Data.fs was swapped, because it links old BLOBs into another file system. Set pack-keep-old = false there."
    )


def _strays(storages: Mapping[str, Options], directory: str, wiring: Wiring) -> Tuple[str, ...]:
    """Return a warning for each ZEO client that would not see production's BLOBs.

    Such a client shares BLOBs and reads them from another directory than the one that the union is mounted over.
    """
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
