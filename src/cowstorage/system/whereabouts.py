"""Where a process is: on which machine, since which boot, in which mount namespace; and whether others may be there."""

from __future__ import annotations

import os
from typing import Dict, Optional

# proc_ns.h: the inode of the first pid namespace, in which all processes of a machine are seen.
FIRST_PID_NAMESPACE = "pid:[4026531836]"


def here() -> Dict[str, str]:
    """Return machine, boot and mount namespace of this process; an empty text for what can't be told."""
    return {
        "machine": _text("/etc/machine-id"),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "namespace": _link("/proc/self/ns/mnt"),
    }


def others_in(noted: Dict[str, str]) -> Optional[str]:
    """Return what may be at work in another place that was noted; ``None`` when it is this one, or surely gone.

    :param noted: what ``here`` returned there.
    """
    now = here()
    if noted.get("boot") != now["boot"]:
        # The same machine since another boot: what was mounted then has gone with it.
        same = bool(now["machine"]) and noted.get("machine") == now["machine"]
        return None if same else "another machine, or a virtual one"
    if noted.get("namespace") == now["namespace"]:
        return None
    namespaces, sees_all = _namespaces()
    if noted.get("namespace") not in namespaces and sees_all:
        return None
    pid = namespaces.get(noted.get("namespace", ""))
    return "another mount namespace of this machine, such as a container's" + (f" (pid {pid})" if pid else "")


def _namespaces() -> tuple[Dict[str, int], bool]:
    """Return a process of each mount namespace, and whether every process of the machine was seen."""
    found: Dict[str, int] = {}
    sees_all = _link("/proc/self/ns/pid") == FIRST_PID_NAMESPACE
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            found.setdefault(os.readlink(f"/proc/{pid}/ns/mnt"), int(pid))
        except FileNotFoundError:
            continue
        except OSError:
            sees_all = False
    return found, sees_all


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(100).strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
