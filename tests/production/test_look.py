"""A look at production: what is no fault of the part's options is not blamed on them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Optional, Set

import pytest

from cowstorage.errors import NotReadOnly, RemoteUnusable
from cowstorage.part.settings import Settings
from cowstorage.production import look as look_module
from cowstorage.production.look import look
from production.parts import ALONE, filesystem_of, part

US = ALONE._replace(euid=os.geteuid(), uid=os.geteuid(), gid=os.getegid())


def over(directory: Path, **options: str) -> Settings:
    """Make the settings of a part whose mount point is an empty directory that nothing is mounted on."""
    mount_point = directory / "prod"
    mount_point.mkdir()
    return part(remote="plone@www.example.com:/srv/plone", mount_point=str(mount_point), **options)


@pytest.mark.parametrize("sample", [True, False])
def test_a_connection_that_was_lost_is_not_taken_for_a_wrong_option(tmp_path: Path, sample: bool) -> None:
    """Without reconnect sshfs unmounts itself: what is looked at then is the empty directory below the mount."""
    settings = over(tmp_path)
    filesystem = filesystem_of(settings, US)
    (tmp_path / "prod" / "var").mkdir()
    with pytest.raises(NotReadOnly, match="is not mounted any more: was the connection lost"):
        look(filesystem, settings.mount_point, sample=sample)


def test_a_directory_that_is_looked_at_before_mounting_is_judged_by_what_it_has(tmp_path: Path) -> None:
    settings = over(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(RemoteUnusable, match=r"has no .*elsewhere/var/filestorage\. Look at remote-file-storage"):
        look(filesystem_of(settings, US), str(elsewhere))


@pytest.mark.parametrize(
    "remote, there, meant",
    [
        ("plone@www:/srv/plone/var", "filestorage", "plone@www:/srv/plone"),
        ("plone@www:/srv/plone/var/", "filestorage", "plone@www:/srv/plone"),
        ("plone@www:/srv/plone/var", "other", None),
        ("plone@www:/srv/plone", "filestorage", None),
    ],
)
def test_a_remote_that_is_one_level_too_deep_is_told_what_was_meant(
    tmp_path: Path, remote: str, there: str, meant: Optional[str]
) -> None:
    (tmp_path / there).mkdir()
    with pytest.raises(RemoteUnusable, match="remote-file-storage") as raised:
        look(filesystem_of(part(remote=remote), US), str(tmp_path))
    assert (f"Did you mean {meant}?" in str(raised.value)) == (meant is not None)
    assert (str(tmp_path) in str(raised.value)) == (meant is None)


def test_a_blob_that_the_mount_remembers_and_production_has_removed_is_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storages = tmp_path / "var" / "filestorage"
    storages.mkdir(parents=True)
    (storages / "Data.fs").write_bytes(b"FS30")
    for name in ("gone.blob", "there.blob"):
        (tmp_path / "var" / "blobstorage" / "0x00").mkdir(parents=True, exist_ok=True)
        (tmp_path / "var" / "blobstorage" / "0x00" / name).touch()
    real = look_module.open_unbuffered

    def opened(path: str) -> BinaryIO:
        if path.endswith("gone.blob"):
            # As sshfs answers when stat(2) was answered from memory.
            os.unlink(path)
        return real(path)

    monkeypatch.setattr(look_module, "open_unbuffered", opened)
    settings = part(remote="plone@www:/srv/plone")
    seen = look(filesystem_of(settings, US), str(tmp_path), known="0x00/gone.blob")
    assert seen.sample == "0x00/there.blob"
    assert seen.storages == {"Data.fs": 4}
    assert seen.magics == {"Data.fs": b"FS30"}


@pytest.mark.parametrize(
    "there, sample",
    [
        ({"0x00/0x00/0x00/0x00/0x00/0x00/0x4e/0x37/0x03.blob"}, "0x00/0x00/0x00/0x00/0x00/0x00/0x4e/0x37/0x03.blob"),
        ({"0x00/0x00/0x00/0x00/0x00/0x05/0x4e/0x37/0x03.blob"}, "0x00/0x00/0x00/0x00/0x00/0x05/0x4e/0x37/0x03.blob"),
        ({"0x00/0x00/0x00/0x00/0x00/0x00/x", "0x00/0x01/0x03.blob"}, "0x00/0x01/0x03.blob"),
        ({"0x05/0x03.blob"}, "0x05/0x03.blob"),
        ({"0x00/0x00/x"}, None),
    ],
    ids=["small oids", "large oids", "none among the first", "lawn", "no blob"],
)
def test_a_blob_is_found_wherever_the_first_ones_are(tmp_path: Path, there: Set[str], sample: Optional[str]) -> None:
    storages = tmp_path / "var" / "filestorage"
    storages.mkdir(parents=True)
    (storages / "Data.fs").write_bytes(b"FS30")
    for name in there:
        path = tmp_path / "var" / "blobstorage" / name
        path.parent.mkdir(parents=True)
        path.touch()
    assert look(filesystem_of(part(remote="plone@www:/srv/plone"), US), str(tmp_path)).sample == sample
