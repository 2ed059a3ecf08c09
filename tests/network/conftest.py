"""Real servers of NFS, SMB and SFTP; what this machine's kernel lacks runs in a machine that has it."""

from __future__ import annotations

import os

import pytest

from machine import relay


def pytest_configure(config: pytest.Config) -> None:
    """Known to --strict-markers; and the plugin that runs the marked tests elsewhere."""
    config.addinivalue_line(
        "markers", "machine(*types): needs a kernel with these file systems; runs in a QEMU machine where there is none"
    )
    if relay.INSIDE not in os.environ:
        config.pluginmanager.register(relay.Outer(), "cowstorage-machine")
