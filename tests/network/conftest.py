"""Real servers of NFS, SMB and SFTP; what the kernel at hand may lack runs in a machine that has it."""

from __future__ import annotations

import os

import pytest

from machine import relay


def pytest_configure(config: pytest.Config) -> None:
    """The plugin that runs the marked tests elsewhere."""
    if relay.INSIDE not in os.environ:
        config.pluginmanager.register(relay.Outer(), "cowstorage-machine")
