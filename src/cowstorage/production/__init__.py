"""Production's side: how it is mounted, looked at, and fetched from; nothing here can write to it.

Imports ``system``, ``database`` and ``part``; knows no union, no action and no command.
Begin with ``filesystems`` (how production is mounted), then ``look`` (what a mount shows), ``rsync`` (the commands that
fetch) and ``blob_source`` (production's BLOB directory); ``ssh`` is the connection, ``wire`` what sshfs has on it.
"""
