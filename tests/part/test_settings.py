"""Settings, to the scripts and back."""

from __future__ import annotations

from cowstorage.part import settings
from part.parts import made


def test_what_a_script_holds_is_relocatable() -> None:
    data = settings.to_script(made(location="/var/lib/cow"))
    assert data["blob_storage"] == "var/blobstorage"
    assert data["location"] == "/var/lib/cow"
    moved = settings.from_script({**data, "directory": "/elsewhere"})
    assert moved.blob_storage == "/elsewhere/var/blobstorage"
    assert moved.location == "/var/lib/cow"
