"""Which directories are merged: the lowers of each union, production's or the BLOB cache's."""

from __future__ import annotations

import os
from typing import Tuple

from cowstorage.actions.context import Context
from cowstorage.union.base import Layer, Union, layer_of


def layer_of_part(context: Context, storage: str, union: Union) -> Layer:
    """Return the directories of one of the part's unions.

    :param storage: ``filestorage`` or ``blobstorage``.
    """
    return layer_of(context.settings, storage, lowers(context, storage), union.name)


def lowers(context: Context, storage: str) -> Tuple[str, ...]:
    """Return the read-only directories below a union, topmost first: the BLOB cache, then production's.

    Production is left out where the cache has everything.
    """
    from cowstorage.part import blob_cache  # start-up

    local, both, production = possible_lowers(context, storage)
    if blob_cache.suffices(context.settings, context.journal.bases):
        return local
    return both if blob_cache.exists(context.settings) else production


def possible_lowers(context: Context, storage: str) -> Tuple[Tuple[str, ...], ...]:
    """Return the lowers with a cache that has everything, with one that has not, and without one."""
    from cowstorage.part import blob_cache  # start-up

    settings, cache, root = context.settings, blob_cache.cache_paths(context.settings), context.filesystem.root
    if storage == "filestorage":
        production = (os.path.join(root, settings.remote_file_storage),)
        return (cache.nothing,), production, production
    production = (os.path.join(root, settings.remote_blob_storage),)
    return (cache.blobs,), (cache.blobs, *production), production
