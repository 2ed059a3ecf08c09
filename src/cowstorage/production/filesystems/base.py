"""What a network file system is: the class that each derives from, and the pieces that several share."""

import os
import re
from typing import TYPE_CHECKING, ClassVar, Mapping, NamedTuple, Optional, Tuple

from cowstorage.errors import CommandFailed, CowStorageError, RemoteUnusable, SettingsError
from cowstorage.part.host import Host
from cowstorage.part.settings import Settings
from cowstorage.production.ssh import ssh_options
from cowstorage.system.files import is_inside
from cowstorage.system.programs import Command
from cowstorage.system.refusals import NO_FUSE

if TYPE_CHECKING:
    from cowstorage.production.rsync import Source

# [user@]host:path, where nothing but ssh writes it so; an IPv6 address stands in brackets.
SSH_REMOTE = r"(?:[^@/:\s]+@)?(?:\[[0-9A-Fa-f:.%\w]+\]|[^@/:\s\[\]]+):(?=[/~]|\w|$)"

# A password in a remote: scheme://user:password@host, and user:password@host:path, which nothing but people write.
PASSWORD_IN_URL = r"[\w+.-]+://[^/]*:[^/]*@"
PASSWORD_BEFORE_HOST = r"[^/@:\s\[]+:[^/]*@[^/:]*:"

# mount.cifs(8), mount.ceph(8); what a command line or /proc/PID/cmdline shows is no secret.
PASSWORD_OPTIONS = frozenset(("password", "pass", "password2", "passwd", "passphrase", "secret"))

# Whatever the user's options are, a mount has these: a setuid file or a device of production's is none here.
SAFE_OPTIONS = ("nosuid", "nodev", "noexec", "ro")

# Options that take the above away, let others in or unmount, or tell the kernel who the user is, mount(8), fuse(4).
UNSAFE_OPTIONS = frozenset(
    "suid dev exec owner group allow_other allow_root user_id group_id rootmode fd noperm".split()
)

# Options with the bits of a mode that files do not get, and that they get; mount.cifs(8), mount.fuse3(8).
MASKS = frozenset(("umask", "fmask", "dmask"))
MODES = frozenset(("file_mode", "dir_mode", "fmode", "dmode", "mode"))

# The bits of group and others.
NOT_THE_OWNER = 0o077

# The meanings that several tables of failures share.
NO_ANSWER = "no answer from the server. Look at your network, VPN or firewall."
NO_WAY = "no way to the server. Look at your network, VPN or firewall."
NO_HOST = "there is no host of that name. Look at remote, or at your network."

Meanings = Tuple[Tuple[str, str], ...]


class ProductionMount(NamedTuple):
    """One mount of production.

    :param target: the mount point, absolute.
    :param commands: run in order, they mount it read-only.
    """

    target: str
    commands: Tuple[Command, ...]


class FileSystem:
    """The network file system of one part on this machine.

    Every method is pure unless its docstring says otherwise.

    :param read_by_root: a union that root mounts may lie over it.
    """

    #: Value of the option ``filesystem``.
    name: ClassVar[str] = ""
    #: File system types that mountinfo may show.
    types: ClassVar[Tuple[str, ...]] = ()
    #: Program that is needed → the Debian package that has it.
    programs: ClassVar[Mapping[str, str]] = {}
    #: Programs that serve a mount, where FUSE does.
    daemons: ClassVar[Tuple[str, ...]] = ()
    #: Whether a network lies in between: rsync compresses, and nothing may hang on it.
    is_remote: ClassVar[bool] = True
    #: Whether production's symbolic links are seen as such, and followed on this machine; else the server follows.
    shows_links: ClassVar[bool] = True
    #: Whether a mount may show for long what production has removed: cow-sync mounts anew when production was packed.
    shows_removed: ClassVar[bool] = False
    #: Whether a little is fetched through the mount sooner than by rsync.
    reads_little: ClassVar[bool] = False
    #: Mount options of the user that only this file system takes; see ``refuse_unsafe_options``.
    allowed_options: ClassVar[Tuple[str, ...]] = ()
    #: Union that ``union = auto`` takes on this file system only when no other works → why.
    passed_over: ClassVar[Mapping[str, str]] = {}

    def __init__(self, settings: Settings, host: Host, read_by_root: bool = False):
        self.settings = settings
        self.host = host
        self.read_by_root = read_by_root

    @classmethod
    def check_remote(cls, remote: str) -> None:
        """Refuse a remote that has not the form of this file system.

        :raises SettingsError: with the right form.
        """

    @classmethod
    def check_options(cls, options: Tuple[str, ...], filesystem: str) -> None:
        """Refuse mount options that tell a password or can't work.

        :param filesystem: the option of that name.
        :raises SettingsError: for the first such option.
        """
        told = sorted(PASSWORD_OPTIONS & {option.partition("=")[0].lower() for option in options})
        if told:
            raise SettingsError(
                "mount-options",
                f"a password does not belong into {told[0]}=: every user of this machine sees it in the list of "
                f"processes. Let mount read it from a file of mode 0600, as the manual of mount.{filesystem} says.",
            )

    def problem(self) -> Optional[str]:
        """Return why the file system can't be used here, with what to install or change; ``None`` when it can."""
        missing = [program for program in self.programs if program not in self.host.programs]
        if missing:
            packages = " ".join(self.programs[program] for program in missing)
            return f"not installed: {', '.join(missing)}. apt install {packages}"
        return None

    def mounts(self) -> Tuple[ProductionMount, ...]:
        """Return the mounts to make, in order."""
        raise NotImplementedError

    @property
    def targets(self) -> Tuple[str, ...]:
        """The mount points, in the order of mounting."""
        return tuple(mount.target for mount in self.mounts())

    @property
    def root(self) -> str:
        """The local directory that shows production's buildout directory."""
        return self.settings.mount_point

    @property
    def caches_attributes(self) -> bool:
        """Whether the mount keeps names and sizes that production had earlier: cow-sync then mounts production anew."""
        return True

    @property
    def keeps_blobs(self) -> bool:
        """Whether the mount shows BLOBs that were read once, whatever production has now."""
        return False

    @property
    def maps_owner(self) -> bool:
        """Whether the mount shows files as the developer's that are another user's where they lie."""
        return False

    def local_directories(self) -> Tuple[str, ...]:
        """Return production's directories by their paths on this machine; nothing where it is another one."""
        return ()

    def root_may_look(self) -> Optional[str]:
        """Return why root, and so a union of root's, can't look into the mount, with what to change; else ``None``."""
        return None

    def source(self, relative: str) -> "Source":
        """Return where rsync reads a path of production's; ``relative`` to its buildout directory."""
        from cowstorage.production.rsync import Source  # start-up

        if self.settings.rsync_remote:
            return Source(f"{self.settings.rsync_remote}/{relative}", remote=True)
        return Source(os.path.join(self.root, relative), remote=False)

    def remote_shell(self) -> Tuple[str, ...]:
        """Return the argv by which rsync reaches ``rsync-remote``."""
        return ("ssh", *ssh_options(self.settings))

    def unreadable(self) -> str:
        """Return what to change when the mount shows files that the developer can't read."""
        return "Log in as the user that Plone runs as on the server, or as one who may read its files."

    def after_unmount(self) -> None:
        """Wait for what outlives the mounts; not pure, can be done again."""

    def abandon(self) -> None:
        """End what serves the mounts when they were unmounted before anybody used them; not pure."""
        self.after_unmount()

    def disconnect(self) -> None:
        """End the connection that the part's programs share, where they do; not pure, can be done again."""

    def explain(self, error: CommandFailed) -> CowStorageError:
        """Return what a failed mount means; not pure: it may connect to find out."""
        return RemoteUnusable(self.settings.remote, str(error))


class DevelopersMount(FileSystem):
    """A file system that the developer mounts with FUSE, without root; hidden from root unless /etc/fuse.conf allows.

    mount.fuse3(8), allow_root and allow_other.
    """

    @property
    def lets_root_in(self) -> bool:
        """Whether the developer opens the mount to root, for a union that root mounts."""
        host = self.host
        return self.read_by_root and host.euid != 0 and host.can_be_root and host.user_allow_other

    def problem(self) -> Optional[str]:
        problem = super().problem()
        if problem is None and not self.host.fuse:
            return NO_FUSE
        return problem

    def root_may_look(self) -> Optional[str]:
        if self.host.euid == 0 or self.host.user_allow_other:
            return None
        return f"root can't look into your {self.name} mount. Add a line user_allow_other to /etc/fuse.conf"


class RootsMount(FileSystem):
    """A file system that root mounts, by mount(8)."""

    def problem(self) -> Optional[str]:
        problem = super().problem()
        if problem is None and not self.host.can_be_root:
            return "only root can mount it, and there is no sudo, or sudo = no"
        return problem

    def mount_by_root(self, options: Tuple[str, ...], limit: float) -> Tuple[ProductionMount, ...]:
        """Return the one mount of such a file system.

        :param options: for ``-o``.
        :param limit: seconds.
        """
        settings = self.settings
        # -- since a source may begin with a dash.
        argv = ("mount", "-t", settings.filesystem, "-o", ",".join(options), "--", settings.remote)
        mounted = Command((*argv, settings.mount_point), root=True, limit=limit)
        return (ProductionMount(settings.mount_point, (mount_point(settings.mount_point), mounted)),)


def production_directories(settings: Settings, buildout: str) -> Tuple[str, ...]:
    """Return production's storage directories, and its buildout directory, unless the developer's is in there.

    A backup may have been restored around the developer's, such as at the root of a disk.
    """
    whole = () if is_inside(settings.directory, buildout) else (buildout,)
    below = (settings.remote_file_storage, settings.remote_blob_storage)
    return (*(os.path.normpath(os.path.join(buildout, path)) for path in below), *whole)


def is_this_machine(host: str) -> bool:
    """Tell whether a host name or address is surely this machine's; no name server is asked."""
    import socket  # start-up

    if host.rstrip(".") in ("localhost", "ip6-localhost", socket.gethostname(), socket.gethostname().partition(".")[0]):
        return True
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            # Only an address of this machine can be bound, ip(7); a name is none.
            socket.inet_pton(family, host)
            with socket.socket(family) as bound:
                bound.bind((host, 0))
            return True
        except OSError:
            continue
    return False


def mount_point(path: str) -> Command:
    """Return the command that makes the directory to mount on."""
    return Command(("mkdir", "-p", "-m", "0700", "--", path))


def refuse_password_in(option: str, remote: str, patterns: Tuple[str, ...]) -> None:
    """Refuse a remote that has a password in it, without repeating it.

    :raises SettingsError: for such a remote.
    """
    if any(re.match(pattern, remote) for pattern in patterns):
        raise SettingsError(
            option,
            "leave the password out of it: every user of this machine sees it. Use a key, or a file of mode 0600.",
        )


def refuse_unsafe_options(options: Tuple[str, ...], allowed: Tuple[str, ...] = ()) -> None:
    """Refuse mount options that take the safe ones away, or show production's data to others on this machine.

    :param allowed: names that are fine all the same.
    :raises SettingsError: for the first such option.
    """
    for option in options:
        name, equals, value = option.lower().partition("=")
        if name in allowed:
            continue
        if name in UNSAFE_OPTIONS or (equals and name in SAFE_OPTIONS):
            raise SettingsError(
                "mount-options", f"{name} would take away what keeps the mount safe, or let others in. Remove it."
            )
        if name in (*MASKS, *MODES) and not _for_the_owner_only(name, value):
            example = f"{name}=077" if name in MASKS else f"{name}=0700"
            raise SettingsError(
                "mount-options", f"{option} would show production's data to others here. Write {example}."
            )
        # A quote that is open, or a backslash at the end, would make one option of this one and those after it.
        if option.count('"') % 2 or option.endswith("\\"):
            raise SettingsError(
                "mount-options", f"the value of {name} is not complete. Write it without quotes and backslashes."
            )


def _for_the_owner_only(name: str, value: str) -> bool:
    if not re.fullmatch("[0-7]{1,5}", value):
        return False
    closed = int(value, 8) & NOT_THE_OWNER
    return closed == (NOT_THE_OWNER if name in MASKS else 0)


def overridden(defaults: Tuple[str, ...], given: Tuple[str, ...]) -> Tuple[str, ...]:
    """Return mount options, the user's in place of ours of the same name; the last one wins.

    Ours of ``SAFE_OPTIONS`` stay, and are last, whatever the user's are called.
    """
    safe = tuple(option for option in defaults if option in SAFE_OPTIONS)
    decided = {_subject(option) for option in given}
    ours = (option for option in defaults if option not in safe and _subject(option) not in decided)
    fixed = {_subject(option) for option in (*safe, "ro")}
    return (*ours, *(option for option in given if _subject(option) not in fixed), *safe, "ro")


def _subject(option: str) -> str:
    """Return what an option decides: ``noexec`` and ``exec``, ``soft`` and ``hard`` decide the same."""
    name = option.partition("=")[0]
    if name in ("hard", "softerr"):
        return "soft"
    return name[2:] if name.startswith("no") else name


def diagnosed(
    remote: str, meanings: Meanings, error: CommandFailed, otherwise: str = "{error}", **names: str
) -> RemoteUnusable:
    """Return what a failed mount's words mean.

    :param meanings: pairs of words that the program prints and what they mean; ``names`` are put into the meaning.
    :param otherwise: the text for other words; ``error`` is put into it.
    """
    for words, meaning in meanings:
        said = [line.strip() for line in error.output.splitlines() if words in line]
        if said:
            return RemoteUnusable(remote, f"{meaning.format(**names)}\n    {said[-1]}")
    return RemoteUnusable(remote, otherwise.format(error=error))
