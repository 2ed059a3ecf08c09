"""Real servers of NFS, SMB and SFTP; what the kernel at hand may lack runs in a machine that has it."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from harness.production import Production
from network.servers import NfsServer, SmbServer


@pytest.fixture(scope="session")
def running_nfs() -> Iterator[NfsServer]:
    """The kernel's own server, of which there is one."""
    server = NfsServer().start()
    yield server
    server.stop()


@pytest.fixture
def nfs_server(running_nfs: NfsServer, scratch: Path) -> Iterator[NfsServer]:
    """One that exports nothing, and forgets afterwards what it was told to."""
    yield running_nfs
    running_nfs.forget()


@pytest.fixture
def smb_server(scratch: Path, production: Production) -> Iterator[SmbServer]:
    """A samba that shares production."""
    server = SmbServer(scratch / "samba", production.path)
    server.serve()
    yield server
    server.refuse()
