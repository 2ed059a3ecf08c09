"""rsync: what it is never asked for."""

from __future__ import annotations

import pytest

from cowstorage.production import rsync


def test_production_is_never_the_target_of_a_list() -> None:
    with pytest.raises(TypeError):
        rsync.fetch_listed(rsync.Source("h:/x/", True), rsync.Source("h:/y", True), (), (), "n", print, 0)  # type: ignore[arg-type]
