"""What the operating system offers: programs, time limits, mountinfo, /proc, files, the terminal, refusals.

Modules of this room import only ``cowstorage.errors`` and each other.  They know no database, no part and no settings.
Begin with ``programs`` (``Command`` and ``Runner``) and ``mounts`` (``Mount`` and ``read``), then ``time_limits``.
"""
