"""What it means when the system lets nobody mount: a container without the right, no FUSE, AppArmor."""

from __future__ import annotations

from typing import Optional

from cowstorage.errors import CommandFailed, CowStorageError

# What docker(1) and podman(1) give a container that may mount; seccomp's and AppArmor's own profiles refuse it.
CONTAINER_FLAGS = "--cap-add SYS_ADMIN --device /dev/fuse --security-opt apparmor=unconfined"

NO_FUSE = (
    f"/dev/fuse can't be opened by you. Run modprobe fuse as root; a container has to be started with {CONTAINER_FLAGS}"
)

NOT_ALLOWED = (
    "This machine or container doesn't let you mount. A container of docker or podman has to be started with "
    f"{CONTAINER_FLAGS}"
)

APPARMOR = (
    "AppArmor doesn't let fusermount3 mount here: on Ubuntu, from 25.04 on, only below home directories, /mnt, /media "
    "and /tmp. Move the buildout there, or allow it, as README has it under AppArmor; in a container the flag "
    "--security-opt apparmor=unconfined is missing"
)

# Words of fusermount(1) and fusermount3(1), which show the error of mount(2); EACCES is AppArmor's, EPERM a missing
# capability's.
FUSE_WORDS = (
    ("fusermount3: mount failed: Operation not permitted", NOT_ALLOWED),
    ("fusermount: mount failed: Operation not permitted", NOT_ALLOWED),
    ("fusermount3: mount failed: Permission denied", APPARMOR),
    ("fusermount: mount failed: Permission denied", APPARMOR),
    ("fuse: device not found", NO_FUSE),
)

# What mount(8) says for EPERM: to root, and to others, util-linux 2.38 and 2.41.
MOUNT_WORDS = ("permission denied", "must be superuser")

# The bit of CAP_SYS_ADMIN, capabilities(7), linux/capability.h.
SYS_ADMIN = 21


def explained(error: CommandFailed) -> Optional[CowStorageError]:
    """Return what a failed mount command says about this system; ``None`` when the reason is another one.

    Not pure: asks /proc for the rights of root here.
    """
    for words, meaning in FUSE_WORDS:
        if words in error.output:
            return CowStorageError(meaning)
    if any(words in error.output for words in MOUNT_WORDS) and not root_may_mount():
        return CowStorageError(NOT_ALLOWED)
    return None


def root_may_mount() -> bool:
    """Tell whether root has CAP_SYS_ADMIN in this container, by our own bounding set, proc_pid_status(5)."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapBnd:"):
                return bool(int(line.split()[1], 16) >> SYS_ADMIN & 1)
    return True
