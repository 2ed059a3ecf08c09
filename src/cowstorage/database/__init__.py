"""The formats of ZODB's files: FileStorage, its index, and the references to BLOB files.

Modules of this room import only ``cowstorage.system``, ``cowstorage.errors`` and each other, and ZODB inside functions.
They know no mounts and no settings.  Begin with ``format`` (``Position``), then ``filestorage``, then ``blobs``.
"""
