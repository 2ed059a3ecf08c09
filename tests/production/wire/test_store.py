"""The cache as the wire reads and writes it, while other threads work on it."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Optional

import pytest

from cowstorage.production.wire import store
from cowstorage.production.wire.packets import Attributes
from cowstorage.production.wire.store import Cached, Store
from harness.polling import until
from production.wire.base import CONTENT, relative_of

FILE = relative_of(5)


def test_a_file_that_gets_its_name_meanwhile_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has one name or the other at any time: what a thread does between two looks hides it from neither."""
    made = Store(str(tmp_path))
    adopt: Callable[[str, str], None] = made._adopt
    monkeypatch.setattr(made, "_adopt", lambda relative, path: None)
    coming = made.begin(FILE, Attributes(len(CONTENT), 1, regular=True))
    assert coming
    coming.add(0, CONTENT)
    made.keep(coming)
    until(lambda: FILE in made._unsettled, "it is written")
    path, opened = made._unsettled[FILE], store._opened

    def opened_before_it_is_renamed(name: str) -> Optional[Cached]:
        found = opened(name)
        adopt(FILE, path)
        return found

    monkeypatch.setattr(store, "_opened", opened_before_it_is_renamed)
    assert made.find(FILE)
    monkeypatch.setattr(store, "_opened", opened)
    assert made.find(FILE)
    assert (tmp_path / "blobstorage" / FILE).read_bytes() == CONTENT
