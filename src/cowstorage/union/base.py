"""The base class of the unions, the directories that a union merges, and the commands that make the directories."""

import os
from typing import ClassVar, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from cowstorage.part.host import Host
from cowstorage.part.settings import UPPER_SUFFIX, Settings
from cowstorage.system import mounts
from cowstorage.system.mounts import Mount
from cowstorage.system.programs import Command
from cowstorage.system.refusals import NO_FUSE

# The source that mountinfo shows for our mounts, wherever the union's program lets us set it.
MARK = "cowstorage"

# Options of every union: through fuse-overlayfs of root's, which has neither by itself, a setuid file of production's
# ran as root, measured.
SAFE_OPTIONS = ("nosuid", "nodev")


class Layer(NamedTuple):
    """The directories of one union, absolute.

    :param storage: ``filestorage`` or ``blobstorage``.
    :param merged: the directory that the union is mounted on, and that Plone reads and writes.
    :param upper: the directory that takes the writes.
    :param work: overlayfs's scratch directory, on the same file system as ``upper``.
    :param links: a directory with symbolic links ``lower0``…, ``upper`` and ``work`` to the other directories.  A union
        that is mounted with ``links`` as working directory and these names copes with true paths of any characters and
        any length.
    :param lowers: the directories that are only read, topmost first; production's is the last.
    """

    storage: str
    merged: str
    upper: str
    work: str
    links: str
    lowers: Tuple[str, ...]

    @property
    def lower_names(self) -> Tuple[str, ...]:
        """The names of the links to the lowers, topmost first."""
        return tuple(f"lower{number}" for number in range(len(self.lowers)))


class Union:
    """One union file system; every method is pure unless its docstring says otherwise."""

    #: Name of the union: the value of the option ``union``.
    name: ClassVar[str] = ""
    #: Program that the union needs → the Debian package that has the program.
    programs: ClassVar[Mapping[str, str]] = {}
    #: Whether root mounts the union, for all users; else the developer does, with FUSE.
    needs_root: ClassVar[bool] = False
    #: Programs that serve a mount, where FUSE does.
    daemons: ClassVar[Tuple[str, ...]] = ()
    #: File system types that mountinfo shows.
    types: ClassVar[Tuple[str, ...]] = ()
    #: Whether the union needs a work directory on the file system of the upper.
    uses_work: ClassVar[bool] = True
    #: Whether the kernel writes out the upper's whole file system when the union is unmounted.
    writes_out: ClassVar[bool] = False
    #: Whether a copy-up that fails in the middle leaves a shorter copy in the place of production's file.
    cuts_copies_short: ClassVar[bool] = False
    #: Words that the union's program prints when a mount fails → what the words mean, with what to do.
    meanings: ClassVar[Mapping[str, str]] = {}

    def problem(self, settings: Settings, host: Host) -> Optional[str]:
        """Return why the union can't be used here, with what to install or change; ``None`` when it may work."""
        for program, package in self.programs.items():
            if program not in host.programs:
                return f"not installed: {program}. apt install {package}"
        if self.needs_root and not host.can_be_root:
            return "needs root, and there is no sudo" if settings.sudo != "no" else "needs root, and sudo = no"
        if not self.needs_root and not host.fuse:
            return NO_FUSE
        return None

    def unsuited(self, layer: Layer) -> Optional[str]:
        """Return why the union can't merge the directories of a layer; ``None`` when the union can."""
        return None

    def mount(self, layer: Layer, host: Host) -> Command:
        """Return the command that mounts the union of a layer."""
        raise NotImplementedError

    def adoption(self, layer: Layer, host: Host) -> Tuple[Command, ...]:
        """Return the commands that make an upper of another release of the same program readable for this release.

        Not pure: reads the upper.

        :raises PathUnusable: when the upper can't be made readable.
        """
        return ()

    def owns(self, mount: Mount) -> bool:
        """Tell whether a mount was made by this union for us."""
        return mount.type in self.types and mount.source == MARK


def merged_path(settings: Settings, storage: str) -> str:
    """Return the directory that a union is mounted on, as the settings have it."""
    return settings.blob_storage if storage == "blobstorage" else str(settings.file_storage)


def layer_of(settings: Settings, storage: str, lowers: Sequence[str], union: str) -> Layer:
    """Return the directories of a part's union.

    :param storage: ``filestorage`` or ``blobstorage``.
    :param lowers: the lower directories, topmost first.
    :param union: the union's name, which keeps the work directories of different unions apart.
    """
    merged = merged_path(settings, storage)
    return Layer(
        storage=storage,
        merged=mounts.resolve(merged),
        upper=merged + UPPER_SUFFIX,
        work=os.path.join(settings.location, "work", union, storage),
        links=os.path.join(settings.location, "layers", storage),
        lowers=tuple(lowers),
    )


def merged_storages(settings: Settings) -> Tuple[str, ...]:
    """Return the storages that a part mounts a union for, in the order of mounting.

    The union of the FileStorages is mounted last and unmounted first, so that Data.fs is never visible without the
    BLOBs that it refers to.
    """
    return ("blobstorage", "filestorage") if settings.file_storage else ("blobstorage",)


def without_links(layer: Layer) -> Command:
    """Return the command that has the kernel follow no symbolic link below a union, mount(8), nosymfollow.

    A link of production's, at whatever depth, would lead out of the union.  The option needs Linux 5.10 and util-linux
    2.38; without them only the links that a look at production finds are refused.
    """
    argv = ("mount", "-o", "remount,bind,nosymfollow,nosuid,nodev", "--", layer.merged)
    return Command(argv, root=True, fallback=("true",))


def preparation(layer: Layer, uses_work: bool) -> Tuple[Command, ...]:
    """Return the commands that make the directories and links which a mount needs; running them again is harmless."""
    directories, links = _prepared(layer, uses_work)
    return (
        Command(("mkdir", "-p", "-m", "0700", "--", *directories)),
        *(Command(("ln", "-sfn", "--", path, os.path.join(layer.links, name))) for name, path in links),
    )


def is_prepared(layer: Layer, uses_work: bool) -> bool:
    """Tell whether the directories and links of ``preparation`` are there; not pure: looks."""
    directories, links = _prepared(layer, uses_work)
    try:
        right = all(os.readlink(os.path.join(layer.links, name)) == path for name, path in links)
    except OSError:
        return False
    return right and all(os.path.isdir(directory) for directory in directories)


def _prepared(layer: Layer, uses_work: bool) -> Tuple[List[str], List[Tuple[str, str]]]:
    """Return the directories, and the links as name and path."""
    directories = [layer.upper, layer.links, layer.merged]
    links = [("upper", layer.upper), *zip(layer.lower_names, layer.lowers)]
    if uses_work:
        directories.append(layer.work)
        links.append(("work", layer.work))
    return directories, links
