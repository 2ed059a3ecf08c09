"""The errors: whichever a child process raises, its parent gets the same one."""

from __future__ import annotations

import os
from typing import List

import pytest

from cowstorage import errors
from cowstorage.system.time_limits import within

EXAMPLES: List[errors.CowStorageError] = [
    errors.CowStorageError("a text"),
    errors.SettingsError("remote", "has no colon."),
    errors.PathUnusable("/srv", "is a link."),
    errors.JournalUnusable("/srv/journal", "is no JSON."),
    errors.RemoteUnusable("www:/srv", "has no Data.fs."),
    errors.CommandFailed("mount", 32, "no such device"),
    errors.PreparationFailed("bin/instance run prepare.py", 1, ["KeyError: 1"], "bin/cow-rollback"),
    errors.ProgramMissing("sshfs", "sshfs"),
    errors.TimeLimit("looking", 3.0),
    errors.Refused("Nobody agreed."),
    errors.InUse(["/srv"], ["pid 1"]),
    errors.NotReadOnly("/srv", None),
    errors.UnionUnusable([("overlay", "needs root")]),
    errors.DamagedDatabase("/srv/Data.fs", 4, "torn"),
    errors.Locked("cow-sync, pid 1"),
    errors.MountedElsewhere("www:/srv", "a container", "bin/cow-umount"),
    errors.Unfinished("cow-sync", "Run it again."),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_in_a_child_process_arrives_as_it_was_raised(error: errors.CowStorageError) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(errors.CowStorageError) as caught:
        within(10, "failing", fail, (os.geteuid(), os.getegid()))
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    assert vars(caught.value) == vars(error)


def test_every_error_is_tried() -> None:
    defined = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    bases = {errors.Unusable}
    assert {kind for kind in defined if issubclass(kind, errors.CowStorageError)} - bases == set(map(type, EXAMPLES))
