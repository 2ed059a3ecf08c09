"""Random sequences of what can happen, on a model and with the real commands, compared after each step.

Takes some two minutes; ``COWSTORAGE_MODEL_EXAMPLES=200`` takes two hours.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import Dict, List, NamedTuple, Type

import pytest
import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cowstorage import cli
from cowstorage.buildout.options import from_options
from cowstorage.database import filestorage
from cowstorage.part.settings import to_script
from harness import cleanup, database, python2, zodbupdate
from harness.production import Production
from harness.workspace import Workspace

EXAMPLES = int(os.environ.get("COWSTORAGE_MODEL_EXAMPLES", "4"))
STEPS = 25
SIZES = [100, 5_000]


class State(NamedTuple):
    """What Data.fs holds, byte for byte, what a reader sees, and whether its last conversion was cut off."""

    content: bytes
    documents: database.Documents
    half_converted: bool = False

    def is_after(self, other: State) -> bool:
        """Whether it is a later one; a conversion that was cut off has changed the magic alone."""
        return (len(self.content), self.content[:4]) > (len(other.content), other.content[:4])


class TimeTravel(RuleBasedStateMachine):
    """Reality is a buildout over a local production; the model is the states that it can be brought back to."""

    template: Production
    directory: Path

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(dir=str(self.directory)))
        self.production = self.template.copy(self.path / "production")
        self.here = self.path / "here"
        for name in ("filestorage", "blobstorage"):
            (self.here / "var" / name).mkdir(parents=True)
        os.chmod(self.here / "var" / "blobstorage", 0o700)
        self.data_fs = str(self.here / "var" / "filestorage" / "Data.fs")
        self.blobs = str(self.here / "var" / "blobstorage")
        options = {
            "remote": str(self.production.path),
            "filesystem": "directory",
            "union": "overlay",
            "file-storage": "var/filestorage",
            "blob-storage": "var/blobstorage",
        }
        self.options = to_script(from_options(options, "cow-storage", str(self.here)))
        # The model
        self.documents: database.Documents = {}
        self.base = State(b"", {})
        self.savepoints: Dict[str, State] = {}
        self.transactions: Dict[str, State] = {}
        self.useless: List[str] = []
        self.packed = False
        self.half_converted = False
        # Since the last sync
        self.production_packed = self.production_went_on = False

    @initialize()
    def mount(self) -> None:
        self.command("mount")
        self.synced()

    # Local

    @rule(new=st.integers(0, 2), changed=st.integers(0, 2))
    def commit(self, new: int, changed: int) -> None:
        written = database.commit(self.data_fs, self.blobs, new=new, changed=changed, sizes=SIZES)
        self.documents.update(written)
        self.half_converted = self.half_converted and not written
        self.committed()

    @precondition(lambda self: len(self.documents) > 1)
    @rule()
    def delete(self) -> None:
        for name in database.delete(self.data_fs, self.blobs):
            del self.documents[name]
        self.half_converted = False
        self.committed()

    # An undo writes no text that would tell of which Python it is.
    @precondition(lambda self: self.has_local_transactions and not self.packed and not self.half_converted)
    @rule()
    def undo(self) -> None:
        """Take back what the last transaction did, by one more."""
        with database.opened(self.data_fs, self.blobs) as db:
            db.undo(db.undoLog(0, 1)[0]["id"])
            transaction.commit()
        self.documents = database.read(self.data_fs, self.blobs)
        self.committed()

    @rule()
    def pack(self) -> None:
        inode = self.local.stat().st_ino
        # A directory of BLOBs that production's pack has removed may still be shown, and ZODB can't remove it; that is
        # the last thing it does, and Data.fs is packed by then.
        gone = [FileNotFoundError] if self.production_packed else []
        with contextlib.suppress(*gone):
            database.pack(self.data_fs, self.blobs)
        if self.local.stat().st_ino != inode:
            self.packed = True
            self.useless += self.savepoints
            self.savepoints, self.transactions = {}, {}

    # Production

    @rule(new=st.integers(0, 2), changed=st.integers(0, 2))
    def production_commit(self, new: int, changed: int) -> None:
        self.production.commit(new=new, changed=changed, sizes=SIZES)
        self.production_went_on = True

    @precondition(lambda self: not self.production_went_on)
    @rule()
    def production_pack(self) -> None:
        """It takes away what nothing here refers to."""
        self.production.pack()
        self.production_packed = True

    @rule()
    def production_pack_and_sync(self) -> None:
        """It takes away BLOBs that the base refers to, which only a sync can mend."""
        self.production.pack()
        self.sync()

    # Commands

    @rule()
    def sync(self) -> None:
        self.command("sync", "--yes")
        self.synced()

    @rule(name=st.sampled_from(["one", "two"]))
    def savepoint(self, name: str) -> None:
        self.command("savepoint", "--force", name)
        self.savepoints[name] = self.present()
        self.useless = [other for other in self.useless if other != name]

    @rule()
    def rollback_to_the_base(self) -> None:
        self.command("rollback", "--yes")
        self.went_back(self.base)
        self.packed, self.useless = False, []

    @precondition(lambda self: self.savepoints)
    @rule(data=st.data())
    def rollback_to_a_savepoint(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.savepoints)))
        there = self.savepoints[name]
        self.command("rollback", "--yes", name)
        self.went_back(there)

    @precondition(lambda self: self.transactions)
    @rule(data=st.data())
    def rollback_to_a_transaction(self, data: st.DataObject) -> None:
        tid = data.draw(st.sampled_from(sorted(self.transactions)))
        there = self.transactions[tid]
        self.command("rollback", "--yes", tid)
        self.went_back(there)

    @precondition(lambda self: self.useless)
    @rule(data=st.data())
    def rollback_to_what_a_pack_took_away(self, data: st.DataObject) -> None:
        before = self.present()
        self.command("rollback", "--yes", data.draw(st.sampled_from(self.useless)), code=1)
        assert self.present() == before

    # What always holds

    @invariant()
    def every_object_loads(self) -> None:
        if self.base.content:
            assert database.read(self.data_fs, self.blobs) == self.documents

    @invariant()
    def production_is_untouched(self) -> None:
        self.production.assert_unchanged()

    @property
    def local(self) -> Path:
        """Data.fs beneath the union."""
        return self.here / "var" / "filestorage.prod" / "Data.fs"

    @property
    def has_local_transactions(self) -> bool:
        return bool(self.base.content) and self.local.stat().st_size > len(self.base.content)

    def synced(self) -> None:
        self.half_converted = False
        self.base = State(self.production.data_fs.read_bytes(), self.production.expected())
        assert self.present() == self.base
        self.documents = dict(self.base.documents)
        self.savepoints, self.transactions, self.useless, self.packed = {}, {}, [], False
        self.production_packed = self.production_went_on = False

    def committed(self) -> None:
        """Note the present state by its last transaction, unless there is no local one that can be gone back to."""
        if not self.packed and self.has_local_transactions:
            self.transactions.setdefault(filestorage.complete_end(str(self.local)).tid, self.present())

    def went_back(self, there: State) -> None:
        self.half_converted = there.half_converted
        assert self.present() == there
        self.documents = dict(there.documents)
        self.savepoints = {name: one for name, one in self.savepoints.items() if not one.is_after(there)}
        self.transactions = {tid: one for tid, one in self.transactions.items() if not one.is_after(there)}

    def present(self) -> State:
        return State(self.local.read_bytes(), database.read(self.data_fs, self.blobs), self.half_converted)

    def command(self, name: str, *arguments: str, code: int = 0) -> None:
        """Run a script in this process; it can't be interrupted, and prints nothing."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            result = cli.main(name, self.options, arguments)
        assert result == code, said.getvalue()

    def teardown(self) -> None:
        self.command("umount")
        cleanup.assert_nothing_mounted(self.path)
        shutil.rmtree(self.path)


class FromPython2(TimeTravel):
    """The same over a production of Python 2, which is converted here, and some day there."""

    @rule()
    def convert(self) -> None:
        zodbupdate.convert(self.data_fs)
        self.half_converted = False
        self.committed()

    @precondition(lambda self: python2.is_of_python_2(self.data_fs))
    @rule()
    def convert_and_be_cut_off(self) -> None:
        python2.begin_conversion(self.data_fs)
        self.half_converted = True

    @precondition(lambda self: python2.is_of_python_2(str(self.production.data_fs)))
    @rule()
    def production_convert(self) -> None:
        self.production.convert()
        self.production_went_on = True


@pytest.fixture(scope="session")
def production_of_python_2(workspace: Workspace) -> Production:
    return Production.create(workspace.path / "production-of-python-2-for-the-model", python=2)


@pytest.mark.hypothesis
@pytest.mark.root
@pytest.mark.parametrize("machine", [TimeTravel, FromPython2])
def test_any_sequence_of_commands_does_what_the_model_does(
    machine: Type[TimeTravel],
    workspace: Workspace,
    production_template: Production,
    production_of_python_2: Production,
) -> None:
    machine.template = production_of_python_2 if machine is FromPython2 else production_template
    machine.directory = workspace.scratch(f"model-{machine.__name__}")
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
