"""The buildout recipe: validates the part when buildout runs, and generates the part's scripts.

The only module that imports ``zc.*``; the scripts run without buildout.
"""

from __future__ import annotations

import logging
import os
import weakref
from typing import Any, Dict, List, Mapping, Optional, Tuple

import zc.recipe.egg

from cowstorage.buildout import wiring
from cowstorage.buildout.options import canonical, check_apart, check_paths, from_options
from cowstorage.errors import SettingsError
from cowstorage.part.scripts import SCRIPTS
from cowstorage.part.settings import Settings, to_script
from cowstorage.system import mounts
from cowstorage.union import kinds

# Options that zc.recipe.egg reads; with a user's values the scripts would not be ours.
RESERVED = ("arguments", "dependent-scripts", "entry-points", "scripts")


class _Run:
    """The parts of this recipe that one run of buildout has initialised.

    buildout gives the uninstall hook the old options only.  buildout initialises every part before it uninstalls any,
    so a part without settings in here when the hook is called is being removed, zc.buildout.buildout.Buildout.install.
    """

    def __init__(self) -> None:
        self._buildout: Optional[weakref.ref[Any]] = None
        self._parts: Dict[str, Settings] = {}

    def add(self, buildout: Any, settings: Settings) -> None:
        """Add the settings of a part; those of another run of buildout are dropped.

        :raises SettingsError: when the part is in conflict with one that was added before.
        """
        if self._buildout is None or self._buildout() is not buildout:
            self._buildout, self._parts = weakref.ref(buildout), {}
        for other in self._parts.values():
            check_apart(settings, other)
        self._parts[settings.part] = settings

    def get(self, part: str) -> Optional[Settings]:
        """Return the new settings of a part; ``None`` when the part is no longer in the configuration."""
        return self._parts.get(part)


_run = _Run()


class CowStorage:
    """The recipe that ``recipe = cowstorage`` names.

    :param buildout: the ``zc.buildout.buildout.Buildout``, a mapping of sections.
    :param name: the name of the part.
    :param options: the ``zc.buildout.buildout.Options`` of the part, into which derived options are written.
    """

    def __init__(self, buildout: Any, name: str, options: Any):
        self.name = name
        self.logger = logging.getLogger(name)
        try:
            wired, found, warnings = _wired(buildout, _own_options(options))
            self.warnings = warnings + _extra_storages(buildout)
            directory = os.path.abspath(buildout["buildout"]["directory"])
            self.settings = from_options(wired, name, directory, found)
            check_paths(self.settings)
            _run.add(buildout, self.settings)
        except SettingsError as error:
            raise zc.buildout.UserError(f"[{name}] {error}") from None
        self._publish(options, relative=_relative_paths(buildout, name, options))
        self.scripts = zc.recipe.egg.Scripts(buildout, name, options)

    def _publish(self, options: Any, relative: bool) -> None:
        """Write what was derived into the part's options, which buildout compares to find out what has changed.

        :param relative: whether the scripts have relative paths, zc.recipe.egg's ``relative-paths``.
        """
        settings = self.settings
        options["file-storage"] = settings.file_storage or ""
        for name in ("blob-storage", "mount-point", "location"):
            options[name] = getattr(settings, name.replace("-", "_"))
        options["script-prefix"] = settings.prefix
        names = {script: f"{settings.prefix}-{script}" for script in SCRIPTS}
        options["entry-points"] = "\n".join(f"{name}=cowstorage.cli:{script}" for script, name in names.items())
        # Without this the scripts of the user's own eggs would be generated too, with our arguments.
        options["scripts"] = "\n".join(names.values())
        options["eggs"] = "\n".join(["cowstorage", *options.get("eggs", "").split("\n")]).strip()
        options["arguments"] = script_arguments(settings, relative)

    def install(self) -> List[str]:
        """Generate the scripts and return their paths.

        No directory is returned: buildout would delete it at uninstallation, and what is mounted there with it.
        """
        self._tell()
        scripts: List[str] = self.scripts.install()
        return scripts

    def update(self) -> None:
        """Generate the scripts again where they have changed, such as by the version of an egg.

        zc.buildout.easy_install leaves a script alone whose text stays the same.
        """
        self._tell()
        self.scripts.install()

    def _tell(self) -> None:
        """Log what is mounted over which paths, and the warnings."""
        settings = self.settings
        paths = [path for path in (settings.file_storage, settings.blob_storage) if path is not None]
        self.logger.info("%s over %s. %s", settings.remote, " and ".join(paths), settings.found)
        for warning in self.warnings:
            self.logger.warning("%s", warning)


def _own_options(options: Any) -> Dict[str, str]:
    """Return all options of the part, substituted.

    :raises SettingsError: for an option that only this recipe may set.
    """
    own = dict(options)
    for name in RESERVED:
        if name in own:
            raise SettingsError(name, "is set by this recipe. Remove it.")
    return own


def _wired(buildout: Any, own: Dict[str, str]) -> Tuple[Dict[str, str], str, Tuple[str, ...]]:
    """Return the part's options, a sentence about where the two storage paths come from, and warnings.

    The two paths are filled in from the buildout's other parts where the user has not set both.  An empty
    ``file-storage`` counts as set (BLOBs only), an empty ``blob-storage`` does not.

    :param own: the part's options as the user wrote them.
    :raises SettingsError: when the paths can't be found, or ``instance`` is set beside both of them.
    """
    values = canonical(own)
    if not values.get("blob-storage"):
        values.pop("blob-storage", None)
    set_paths = [option for option in ("file-storage", "blob-storage") if option in values]
    if len(set_paths) == 2:
        if values.get("instance"):
            raise SettingsError("instance", "has no use where file-storage and blob-storage are set. Remove it.")
        return values, "The paths are set in the part itself.", ()
    directory = os.path.abspath(buildout["buildout"]["directory"])
    found = wiring.find(_storage_parts(buildout, values.get("instance", "")), directory, values.get("instance"))
    paths = {"file-storage": found.file_storage or "", "blob-storage": found.blob_storage}
    source = " ".join([found.found] + [f"But {option} is set in the part itself." for option in set_paths])
    return {**paths, **values}, source, found.warnings


def _storage_parts(buildout: Any, instance: str) -> Dict[str, Mapping[str, str]]:
    """Return the options of the buildout's parts that keep data, by the names of the parts.

    Reading a section initialises its recipe and puts the section before ours in the order of installation,
    zc.buildout.buildout.Buildout.__getitem__.  That is right for a part that the paths are taken from, since its recipe
    may derive options; it would be wrong for any other part, which may run our scripts.  So the name of the recipe is
    read from the raw configuration first.

    :param instance: the part named by the option ``instance``, whatever its recipe; empty: none.
    """
    parts = buildout["buildout"].get("parts", "").split()
    return {
        part: buildout[part] for part in parts if part == instance or wiring.is_storage(_raw_recipe(buildout, part))
    }


def _extra_storages(buildout: Any) -> Tuple[str, ...]:
    """Return a warning for each part that adds FileStorages which are not fetched."""
    parts = buildout["buildout"].get("parts", "").split()
    return tuple(
        wiring.extra_storages_warning(part)
        for part in parts
        if wiring.recipe_name(_raw_recipe(buildout, part)) == wiring.FILESTORAGE
    )


def _raw_recipe(buildout: Any, section: str) -> str:
    """Return a section's ``recipe`` option, from the section or from those that the section extends with ``<=``.

    :returns: empty where none of them has the option.
    """
    raw: Mapping[str, str] = buildout._raw.get(section, {})
    if "recipe" in raw:
        return raw["recipe"]
    # Of several extended sections the later overrides the earlier, zc.buildout.buildout.Options._do_extend_raw.
    recipes = (_raw_recipe(buildout, base.strip()) for base in reversed(raw.get("<", "").split("\n")) if base.strip())
    return next((recipe for recipe in recipes if recipe), "")


def _relative_paths(buildout: Any, name: str, options: Any) -> bool:
    """Tell whether the scripts have relative paths, by the rule of zc.recipe.egg.Scripts.

    :raises zc.buildout.UserError: for another value than ``true`` and ``false``, where zc.recipe.egg has an assertion.
    """
    value = options.get("relative-paths", buildout["buildout"].get("relative-paths", "false"))
    if value not in ("true", "false"):
        raise zc.buildout.UserError(f"[{name}] relative-paths: {value!r} must be true or false.")
    return bool(value == "true")


def script_arguments(settings: Settings, relative: bool) -> str:
    """Return the Python source of the argument in a generated script's call: a dictionary, one option on a line.

    The source is ASCII, since buildout writes scripts in the encoding of the locale.

    :param relative: whether the script computes ``base``, the buildout directory, from the script's own path.
    """
    lines = ["{"]
    for name, value in to_script(settings).items():
        source = "base" if relative and name == "directory" else ascii(_in_utf8(value))
        lines.append(f"    {name!r}: {source},")
    return "\n".join([*lines, "}"])


def _in_utf8(value: Any) -> Any:
    """Return a value with the bytes of its texts read as UTF-8, as the scripts read theirs, whatever the locale is."""
    if isinstance(value, tuple):
        return tuple(map(_in_utf8, value))
    return os.fsencode(value).decode("utf-8", "surrogateescape") if isinstance(value, str) else value


def uninstall(name: str, options: Mapping[str, str]) -> None:
    """Refuse that buildout deletes the scripts of a part while the scripts are needed to unmount.

    buildout calls this hook for a removed part, for a part with a changed option, and after an upgrade of pip or
    setuptools.  Nothing is refused for a part that stays with the same ``location``: the part's new ``umount`` finds
    the journal in there, which says how the present mounts were made.

    :param options: the options that the part was installed with.
    :raises zc.buildout.UserError: naming the mounts and the script that unmounts them.
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
    """Return which of the part's paths are mounted now, according to mountinfo, proc(5).

    Of the two storage paths only those with a union of ours count: a user may mount a disk there.
    """
    present = mounts.read()
    result = []
    for option in ("file-storage", "blob-storage", "mount-point"):
        if not options[option]:
            continue
        # Only the parent is resolved: lstat(2) of the mount itself could block on a dead network.
        parent, name = os.path.split(options[option])
        path = os.path.join(os.path.realpath(parent), name)
        mount = mounts.top(present, path)
        if mount is not None and (option == "mount-point" or kinds.ours(mount)):
            result.append(path)
    return result
