"""How production is mounted: one small class per network file system, and the table of them."""

from __future__ import annotations

import importlib
import os
from typing import ClassVar, Dict, Iterator, Mapping, NamedTuple, Optional, Tuple

from cowstorage.errors import CommandFailed, CowStorageError, RemoteUnusable
from cowstorage.host import Host
from cowstorage.rsync import Source
from cowstorage.settings import Settings
from cowstorage.system import Command, Runner, package_of

# Name of the file system → module and class; a new one is a file and a line here.
NETWORKS = {
    "sshfs": "cowstorage.network.sshfs:SSHFS",
    "nfs": "cowstorage.network.nfs:NFS",
    "cifs": "cowstorage.network.cifs:CIFS",
    "rclone": "cowstorage.network.rclone:Rclone",
    "directory": "cowstorage.network.directory:Directory",
}
# Whatever else ``mount -t`` takes.
OTHER = "cowstorage.network.other:Other"

# Flags of ssh that name a file, ssh(1).
SSH_FILES = ("-F", "-i")


class Attachment(NamedTuple):
    """One mount of production.

    :param target: the mount point, absolute.
    :param commands: run in order, they mount it read-only.
    """

    target: str
    commands: Tuple[Command, ...]


class Network:
    """A network file system.  Every method is pure unless it says so."""

    name = ""
    #: What mountinfo may call it.
    types: Tuple[str, ...] = ()
    programs: Tuple[str, ...] = ()
    #: Over a distance: rsync compresses, and nothing may hang on it.
    remote = True
    #: A mount that is up keeps old names and sizes to itself: a refresh mounts it anew.
    keeps_old_news = True
    #: Unions that ``auto`` passes over on this file system → why.
    passed_over: ClassVar[Mapping[str, str]] = {}

    def problem(self, settings: Settings, host: Host) -> Optional[str]:
        """Why it can't be used here, with what to install or change; ``None`` when it can."""
        missing = [program for program in self.programs if program not in host.programs]
        if missing:
            return f"not installed: {', '.join(missing)}. apt install {' '.join(map(package_of, missing))}"
        return None

    def attachments(self, settings: Settings, host: Host) -> Tuple[Attachment, ...]:
        """The mounts to make, in order."""
        raise NotImplementedError

    def root(self, settings: Settings, host: Host) -> str:
        """The local directory that shows production's buildout directory."""
        return settings.mount_point

    def root_may_look(self, settings: Settings, host: Host) -> Optional[str]:
        """Why root (kernel overlay) can't look into the mount, with what to change; ``None`` when it can."""
        return None

    def source(self, settings: Settings, host: Host, name: str) -> Source:
        """Where rsync reads the file ``name`` of production's filestorage."""
        relative = os.path.join(settings.remote_file_storage, name)
        if settings.rsync_remote:
            return Source(f"{settings.rsync_remote}/{relative}", remote=True)
        return Source(os.path.join(self.root(settings, host), relative), remote=False)

    def remote_shell(self, settings: Settings, host: Host) -> Tuple[str, ...]:
        """How rsync reaches ``rsync-remote``."""
        return ("ssh", *ssh_options(settings))

    def unreadable(self, settings: Settings) -> str:
        """What to change when the mount shows files that the developer can't read."""
        return "Log in as the user that Plone runs as on the server, or as one who may read its files."

    def after_unmount(self, settings: Settings) -> None:
        """What is left to do when the mounts are gone; not pure, can be done again."""

    def explain(self, settings: Settings, host: Host, runner: Runner, error: CommandFailed) -> CowStorageError:
        """What a failed mount means; may connect to find out."""
        return RemoteUnusable(settings.remote, str(error))


class DevelopersMount(Network):
    """One that the developer mounts with FUSE, without root, and that hides from root unless /etc/fuse.conf allows."""

    def problem(self, settings: Settings, host: Host) -> Optional[str]:
        problem = super().problem(settings, host)
        if problem is None and not host.fuse:
            return "/dev/fuse can't be opened by you"
        return problem

    def root_may_look(self, settings: Settings, host: Host) -> Optional[str]:
        if host.euid == 0 or host.user_allow_other:
            return None
        return f"root can't look into your {self.name} mount. Add a line user_allow_other to /etc/fuse.conf"


def ssh_options(settings: Settings) -> Tuple[str, ...]:
    """The part's, with the files of ``-F`` and ``-i`` as absolute paths.

    sshfs starts ssh in ``/``, and there is no shell to know what ``~`` is: they are taken as the part's other paths.
    """
    return tuple(_with_files_placed(settings.ssh_options, settings.directory))


def _with_files_placed(options: Tuple[str, ...], directory: str) -> Iterator[str]:
    flag = ""
    for option in options:
        joined = option[:2] if not flag and option[:2] in SSH_FILES else ""
        path = option[len(joined) :]
        if (flag or joined) and path and not path.startswith("%") and (flag or joined, path) != ("-F", "none"):
            path = os.path.join(directory, os.path.expanduser(path))
        yield joined + path
        flag = joined if not path else ""


def mount_command(kind: str, options: Tuple[str, ...], source: str, target: str, limit: float) -> Command:
    """mount(8) by root; ``--`` since a source may begin with a dash."""
    return Command(("mount", "-t", kind, "-o", ",".join(options), "--", source, target), root=True, limit=limit)


def mount_point(settings: Settings) -> Command:
    """Makes the directory to mount on."""
    return Command(("mkdir", "-p", "-m", "0700", "--", settings.mount_point))


def overridden(defaults: Tuple[str, ...], given: Tuple[str, ...]) -> Tuple[str, ...]:
    """Mount options with the user's in place of ours of the same name; ``ro`` is last, since the last one wins."""
    names = {_subject(option) for option in given}
    kept = (option for option in defaults if _subject(option) not in names)
    return (*kept, *(option for option in given if option != "ro"), "ro")


def _subject(option: str) -> str:
    """What an option decides: ``noexec`` and ``exec``, ``soft`` and ``hard`` decide the same."""
    name = option.partition("=")[0]
    if name in ("hard", "softerr"):
        return "soft"
    return name[2:] if name.startswith("no") else name


def needs_root(host: Host) -> Optional[str]:
    """Why ``mount`` can't be used, or ``None``."""
    return None if host.can_be_root else "only root can mount it, and there is no sudo, or sudo = no"


def diagnosed(
    settings: Settings, meanings: Tuple[Tuple[str, str], ...], error: CommandFailed, **names: str
) -> RemoteUnusable:
    """What a failed mount's words mean, by a table of words and meanings; ``names`` are put into the meaning."""
    for words, meaning in meanings:
        if words in error.output:
            tail = error.output.strip().splitlines()[-1]
            return RemoteUnusable(settings.remote, f"{meaning.format(**names)}\n    {tail}")
    return RemoteUnusable(settings.remote, str(error))


def get(name: str) -> Network:
    """The network file system of that name."""
    module, _, attribute = NETWORKS.get(name, OTHER).partition(":")
    cached = _instances.get(name)
    if cached is None:
        cached = _instances[name] = getattr(importlib.import_module(module), attribute)()
    return cached


_instances: Dict[str, Network] = {}
