"""The table of a part's scripts: each is one module of ``cowstorage.commands`` and one entry point in ``cli``.

To add one, write its module, its line in ``SCRIPTS`` and its entry point; the recipe generates what the table has.
"""

from typing import NamedTuple


class Script(NamedTuple):
    """One script of a part.

    :param summary: the first line of the script's help.
    :param example: arguments for the example in the script's help; may be empty.
    :param changes: whether the script changes anything, and so takes the lock and has ``--dry-run`` and ``--yes``.
    """

    summary: str
    example: str
    changes: bool = True


SCRIPTS = {
    "mount": Script("Mount production read-only and lay the copy-on-write unions over it.", "--dry-run"),
    "sync": Script("Bring the database to production's latest state and drop local changes.", "--yes"),
    "umount": Script("Take the unions and the network mount away; local changes stay for the next mount.", ""),
    "status": Script("Show what is mounted, from where, and what has changed locally.", "--json", changes=False),
    "log": Script("Show the local transactions since the last sync, newest first.", "-n 5", changes=False),
    "savepoint": Script("Name the present state of the database, to come back to.", "before-upgrade"),
    "rollback": Script("Go back to the last sync, or to a savepoint or transaction.", "before-upgrade"),
    "prefetch": Script("Fetch the BLOBs that the local database refers to.", "--max-size 1M"),
}
