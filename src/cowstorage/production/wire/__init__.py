"""The wire: a program between sshfs and ssh, which keeps the BLOB files that are read in the BLOB cache.

sshfs starts it in the place of ssh; it starts ssh, and passes on what is not about BLOB files.  ``__main__`` is the
program, ``command`` its command line.  Begin with ``session`` (what becomes of a request and its answer); ``packets``
and ``framing`` are SFTP, ``store`` and ``partial`` the cache, ``ahead``, ``following`` and ``filling`` what is asked
for before sshfs asks for it, ``beside`` what is no BLOB file, ``relay`` and ``threads`` what moves bytes and waits.
"""
