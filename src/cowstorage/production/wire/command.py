"""The command line of the wire, which sshfs runs in the place of ssh."""

from __future__ import annotations

import os
import sys
from typing import Tuple

from cowstorage.part.blob_cache import cache_directory
from cowstorage.part.host import Host
from cowstorage.part.settings import Settings
from cowstorage.production.wire.names import directory_in_requests

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")


def wire(settings: Settings, host: Host, remote_path: str, ssh: Tuple[str, ...]) -> Tuple[str, ...]:
    """Return the argv of the program that starts ssh and reads through into the BLOB cache.

    :param remote_path: production's buildout directory, as the part's ``remote`` has it behind the colon.
    :param ssh: ssh's argv.
    """
    limit = () if settings.cache_size is None else ("--limit", str(settings.cache_size))
    user = ("--user", f"{host.uid}:{host.gid}") if host.for_another else ()
    return (
        *(sys.executable, "-I", "-S", "-X", "utf8", PROGRAM),
        *("--blobs", directory_in_requests(remote_path, settings.remote_blob_storage)),
        *("--cache", cache_directory(settings)),
        *limit,
        *user,
        "--",
        *ssh,
    )
