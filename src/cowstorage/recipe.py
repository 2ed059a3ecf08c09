"""The buildout recipe: validates the part at build time and generates its scripts.

The only module that imports ``zc.*``; the scripts run without buildout.
"""

from __future__ import annotations

import logging
import os
import weakref
from typing import Any, Dict, List, Mapping, Optional, Tuple

import zc.buildout
import zc.recipe.egg

from cowstorage import settings as options_of_part
from cowstorage import wiring
from cowstorage.errors import SettingsError
from cowstorage.settings import Settings

COMMANDS = ("mount", "sync", "umount", "status", "log", "savepoint", "rollback", "prefetch")

# zc.recipe.egg reads these; with a user's values the scripts would not be ours.
RESERVED = ("arguments", "dependent-scripts", "entry-points", "scripts")


class _Run:
    """The parts of this recipe that one run of buildout has initialised.

    buildout gives the uninstall hook the old options only.  As it initialises every part before it uninstalls any,
    a part that is not in here when the hook is called is on its way out.
    """

    def __init__(self) -> None:
        self._buildout: Optional[weakref.ref[Any]] = None
        self._parts: Dict[str, Settings] = {}

    def add(self, buildout: Any, settings: Settings) -> None:
        """:raises SettingsError: when the part is in conflict with one that is there already."""
        if self._buildout is None or self._buildout() is not buildout:
            self._buildout, self._parts = weakref.ref(buildout), {}
        for other in self._parts.values():
            options_of_part.check_apart(settings, other)
        self._parts[settings.part] = settings

    def get(self, part: str) -> Optional[Settings]:
        """The part's new settings, or ``None`` when it is no longer in the configuration."""
        return self._parts.get(part)


_run = _Run()


class CowStorage:
    """The recipe that ``recipe = cowstorage`` names."""

    def __init__(self, buildout: Any, name: str, options: Any):
        self.name = name
        self.logger = logging.getLogger(name)
        try:
            given, found, warnings = _wired(buildout, _own_options(options))
            self.warnings = warnings + _extra_storages(buildout)
            directory = os.path.abspath(buildout["buildout"]["directory"])
            self.settings = options_of_part.from_options(given, name, directory, found)
            options_of_part.check_paths(self.settings)
            _run.add(buildout, self.settings)
        except SettingsError as error:
            raise zc.buildout.UserError(f"[{name}] {error}") from None
        self._publish(options, relative=_relative_paths(buildout, name, options))
        self.scripts = zc.recipe.egg.Scripts(buildout, name, options)

    def _publish(self, options: Any, relative: bool) -> None:
        """Put all that was derived into our options: buildout compares these to find out what has changed."""
        settings = self.settings
        options["file-storage"] = settings.file_storage or ""
        for name in ("blob-storage", "mount-point", "location"):
            options[name] = getattr(settings, name.replace("-", "_"))
        options["script-prefix"] = settings.prefix
        names = {command: f"{settings.prefix}-{command}" for command in COMMANDS}
        options["entry-points"] = "\n".join(f"{names[command]}=cowstorage.cli:{command}" for command in COMMANDS)
        # Without this the scripts of the user's own eggs would be generated too, with our arguments.
        options["scripts"] = "\n".join(names.values())
        options["eggs"] = "\n".join(["cowstorage", *options.get("eggs", "").split("\n")]).strip()
        options["arguments"] = script_arguments(settings, relative)

    def install(self) -> List[str]:
        """Generate the scripts; only they are reported, as buildout deletes recorded directories through mounts."""
        self._tell()
        scripts: List[str] = self.scripts.install()
        return scripts

    def update(self) -> None:
        """Generate again what has changed, such as the version of an egg; files that stay the same are not written."""
        self._tell()
        self.scripts.install()

    def _tell(self) -> None:
        settings = self.settings
        places = [path for path in (settings.file_storage, settings.blob_storage) if path is not None]
        self.logger.info("%s over %s. %s", settings.remote, " and ".join(places), settings.found)
        for warning in self.warnings:
            self.logger.warning("%s", warning)


def _own_options(options: Any) -> Dict[str, str]:
    """All options of the part, substituted.

    :raises SettingsError: for those that only this recipe may set.
    """
    given = dict(options)
    for name in RESERVED:
        if name in given:
            raise SettingsError(name, "is set by this recipe. Remove it.")
    return given


def _wired(buildout: Any, given: Dict[str, str]) -> Tuple[Dict[str, str], str, Tuple[str, ...]]:
    """The options with the two paths filled in from the buildout's other parts, where the user has not set both.

    An empty ``file-storage`` counts as set: BLOBs only.

    :return: the options, where the paths come from, and warnings.
    """
    mine = options_of_part.canonical(given)
    if not mine.get("blob-storage"):
        mine.pop("blob-storage", None)
    own = [option for option in ("file-storage", "blob-storage") if option in mine]
    if len(own) == 2:
        if mine.get("instance"):
            raise SettingsError("instance", "has no use where file-storage and blob-storage are set. Remove it.")
        return mine, "The paths are set in the part itself.", ()
    directory = os.path.abspath(buildout["buildout"]["directory"])
    found = wiring.find(_storage_parts(buildout, mine.get("instance", "")), directory, mine.get("instance"))
    paths = {"file-storage": found.file_storage or "", "blob-storage": found.blob_storage}
    source = " ".join([found.found] + [f"But {option} is set in the part itself." for option in own])
    return {**paths, **mine}, source, found.warnings


def _storage_parts(buildout: Any, instance: str) -> Dict[str, Mapping[str, str]]:
    """The buildout's parts that keep data, by name.

    Reading a section initialises its recipe and puts it before ours in the order of installation.  That is right for
    a part that we take paths from, and what its recipe makes of its options is what counts; it would be wrong for any
    other, which may well run our scripts.  So the recipe is read off the raw configuration first.
    """
    parts = buildout["buildout"].get("parts", "").split()
    return {
        part: buildout[part] for part in parts if part == instance or wiring.is_storage(_raw_recipe(buildout, part))
    }


def _extra_storages(buildout: Any) -> Tuple[str, ...]:
    """A warning for each part that adds FileStorages which we don't fetch."""
    parts = buildout["buildout"].get("parts", "").split()
    return tuple(
        wiring.extra_storages_warning(part)
        for part in parts
        if wiring.recipe_name(_raw_recipe(buildout, part)) == wiring.FILESTORAGE
    )


def _raw_recipe(buildout: Any, section: str) -> str:
    """A section's ``recipe`` option, from the section itself or from those it extends with ``<=``."""
    raw: Mapping[str, str] = buildout._raw.get(section, {})
    if "recipe" in raw:
        return raw["recipe"]
    # The later of several overrides the earlier, zc.buildout.buildout.Options._do_extend_raw.
    recipes = (_raw_recipe(buildout, base.strip()) for base in reversed(raw.get("<", "").split("\n")) if base.strip())
    return next((recipe for recipe in recipes if recipe), "")


def _relative_paths(buildout: Any, name: str, options: Any) -> bool:
    """zc.recipe.egg's own reading, which has an assertion where a user needs a message."""
    value = options.get("relative-paths", buildout["buildout"].get("relative-paths", "false"))
    if value not in ("true", "false"):
        raise zc.buildout.UserError(f"[{name}] relative-paths: {value!r} must be true or false.")
    return bool(value == "true")


def script_arguments(settings: Settings, relative: bool) -> str:
    """The Python source that a generated script calls its command with: a dictionary, one option on a line.

    ASCII, as buildout writes scripts in the locale's encoding.

    :param relative: whether the script defines ``base``, the buildout directory, from its own place.
    """
    lines = ["{"]
    for name, value in options_of_part.to_script(settings).items():
        source = "base" if relative and name == "directory" else ascii(value)
        lines.append(f"    {name!r}: {source},")
    return "\n".join([*lines, "}"])


def uninstall(name: str, options: Mapping[str, str]) -> None:
    """buildout's hook before it deletes the scripts: refuse while they are needed to unmount.

    buildout calls it for a removed part, a changed option, and after an upgrade of pip or setuptools.  A part that
    stays is let through, since its new ``umount`` finds in ``location`` how the present mounts were made; one with
    another ``location`` would not find it.

    :param options: those that the part was installed with.
    """
    new = _run.get(name)
    if new is not None and new.location == options.get("location"):
        return
    mounted = _mounted(options)
    if mounted:
        script = os.path.join(options["bin-directory"], f"{options['script-prefix']}-umount")
        raise zc.buildout.UserError(
            f"[{name}] is still mounted at {' and '.join(mounted)}. "
            f"Run {os.path.relpath(script)} first, then buildout again."
        )
    if new is None:
        logging.getLogger(name).info("Local changes stay beside the directories that were lain over, in *.prod.")


def _mounted(options: Mapping[str, str]) -> List[str]:
    """Which of the part's paths are mounted now, by the kernel's account.

    A disk of the user's own at one of the two storage paths is no union, and not ours.
    """
    # Only removal needs them, and building a part is quicker without.
    from cowstorage import mounts, union

    present = mounts.read()
    result = []
    for option in ("file-storage", "blob-storage", "mount-point"):
        if not options[option]:
            continue
        # Only the parents are resolved: to look at the mount itself could block on a dead network.
        parent, name = os.path.split(options[option])
        path = os.path.join(os.path.realpath(parent), name)
        mount = mounts.top(present, path)
        if mount is not None and (option == "mount-point" or union.ours(mount)):
            result.append(path)
    return result
