"""The steps of mount, sync, rollback and umount, as tables: what is there, and what is done.  Nothing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional

import pytest

from commands.plans import (
    BASE,
    DIRECTORY,
    LATER,
    NFS,
    SSHFS,
    GivenFacts,
    context,
    mounts_of,
    programs,
    survey,
    synced,
    titles,
)
from cowstorage.actions import compare
from cowstorage.actions.compare import Finding
from cowstorage.actions.context import Context
from cowstorage.actions.facts import AssumedFacts
from cowstorage.actions.plan import Execution, Step
from cowstorage.actions.savepoints import Target
from cowstorage.actions.survey import MOUNTED, NOT_MOUNTED
from cowstorage.commands import mount, rollback, sync, umount
from cowstorage.errors import PathUnusable, RemoteUnusable
from cowstorage.system import mounts
from cowstorage.system.mounts import Mount

Mountinfo = Callable[[List[Mount]], None]

MOUNT_NETWORK = "Mount plone@www:/srv/plone read-only on var/prod"
MOUNT_UNIONS = [
    "Look at var/blobstorage.prod",
    "Lay overlay over var/blobstorage",
    "Lay overlay over var/filestorage",
    "Hide FileStorages that were not fetched",
]
UNMOUNT_UNIONS = ["Unmount var/filestorage", "Unmount var/blobstorage"]
UNMOUNT_NETWORK = ["Unmount var/prod", "Wait for sshfs to end"]
NOTE = "Note how the mounts are made"
FETCH_WHOLE = [
    "Make room for what is fetched",
    "Fetch Data.fs.index",
    "Fetch Data.fs, 2.0 kB",
    "Keep Data.fs as the base",
    "Put Data.fs into place, its index first",
]
SYNCED = "Remember when, and from where"
WHOLE = Finding("Data.fs", compare.MISSING, None, 2000)
GROWN = Finding("Data.fs", compare.GROWN, BASE, 2000)
CURRENT = Finding("Data.fs", compare.CURRENT, BASE, 1000)
PACKED = Finding("Data.fs", compare.PACKED, BASE, 900)
REPLACED = Finding("Data.fs", compare.REPLACED, BASE, 900, "another database")


@pytest.fixture
def mountinfo(monkeypatch: pytest.MonkeyPatch) -> Mountinfo:
    """Show these mounts to whoever reads mountinfo; none at first."""

    def show(found: List[Mount]) -> None:
        monkeypatch.setattr(mounts, "read", lambda: tuple(found))

    show([])
    return show


# cow-mount


def mounting(made: Context, todo: mount.Todo, findings: Optional[List[Finding]] = None, **states: Any) -> List[str]:
    """Return the steps of a mount, shortened."""
    facts = GivenFacts(made, findings or [])
    return titles(mount.plan(made, survey(made, **states), todo, facts), Path(made.settings.directory))


def test_the_first_mount_fetches_between_production_and_the_unions(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = context(tmp_path, "mount")
    assert mounting(made, mount.Todo(True), [WHOLE], network=NOT_MOUNTED, unions=NOT_MOUNTED) == [
        *(NOTE, MOUNT_NETWORK),
        *FETCH_WHOLE,
        *(SYNCED, NOTE),
        *MOUNT_UNIONS,
    ]


def test_a_later_mount_fetches_nothing(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = synced(context(tmp_path, "mount"))
    (tmp_path / "var/filestorage.prod").mkdir(parents=True)
    (tmp_path / "var/filestorage.prod/Data.fs").touch()
    steps = mounting(made, mount.Todo(True), [GROWN], network=NOT_MOUNTED, unions=NOT_MOUNTED)
    make_opened = "Make what ZODB opens beside Data.fs"
    assert steps == [NOTE, MOUNT_NETWORK, NOTE, *MOUNT_UNIONS[:2], make_opened, *MOUNT_UNIONS[2:]]
    for name in ("Data.fs.lock", "Data.fs.tmp"):
        (tmp_path / "var/filestorage.prod" / name).touch()
    steps = mounting(made, mount.Todo(True), [GROWN], network=NOT_MOUNTED, unions=NOT_MOUNTED)
    assert steps == [NOTE, MOUNT_NETWORK, NOTE, *MOUNT_UNIONS]


def test_a_database_of_the_developers_own_in_the_upper_is_not_overwritten(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = context(tmp_path, "mount")
    (tmp_path / "var/filestorage.prod").mkdir(parents=True)
    (tmp_path / "var/filestorage.prod/Data.fs").touch()
    steps = mounting(made, mount.Todo(True), [WHOLE], network=NOT_MOUNTED, unions=NOT_MOUNTED)
    assert not [step for step in steps if "Fetch" in step]


def test_offline_nothing_of_production_is_mounted_or_asked(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = synced(context(tmp_path, "mount", offline=True))
    facts = GivenFacts(made)
    plan = mount.plan(made, survey(made, NOT_MOUNTED, NOT_MOUNTED), mount.Todo(True), facts)
    assert titles(plan, tmp_path) == [NOTE, NOTE, *MOUNT_UNIONS]
    assert facts.asked == ["union"]


def test_what_is_not_as_it_should_be_is_unmounted_first_and_for_good(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = synced(context(tmp_path, "mount"))
    mountinfo(mounts_of(made))
    steps = list(mount.plan(made, survey(made), mount.Todo(True, "is broken"), GivenFacts(made, [GROWN])))
    assert titles(steps, tmp_path)[:6] == [*UNMOUNT_UNIONS, *UNMOUNT_NETWORK, NOTE, MOUNT_NETWORK]
    assert [step.undo for step in steps[:4]] == [()] * 4


def test_a_dry_run_tells_no_size_that_it_does_not_know(tmp_path: Path, mountinfo: Mountinfo) -> None:
    first = context(tmp_path, "mount", {**SSHFS, "union": "overlay"}, dry_run=True)
    seen = survey(first, NOT_MOUNTED, NOT_MOUNTED)
    assert "Fetch Data.fs" in titles(mount.plan(first, seen, mount.Todo(True), AssumedFacts(first)), tmp_path)
    later = synced(context(tmp_path, "sync", DIRECTORY, dry_run=True))
    todo = sync.decide(survey(later), later.journal, caches_attributes=False)
    steps = titles(sync.plan(later, survey(later), todo, AssumedFacts(later), []), tmp_path)
    assert "Fetch what was added to Data.fs" in steps


@pytest.mark.parametrize("options", [SSHFS, DIRECTORY], ids=["sshfs", "directory"])
def test_what_a_dry_mount_shows_is_the_plan_itself(
    options: Dict[str, str], tmp_path: Path, mountinfo: Mountinfo
) -> None:
    shown = context(tmp_path, "mount", {**options, "union": "overlay"}, dry_run=True)
    run = context(tmp_path, "mount", {**options, "union": "overlay"})
    nothing = Finding("Data.fs", compare.MISSING, None, 0)
    seen = survey(run, NOT_MOUNTED, NOT_MOUNTED)
    assumed = mount.plan(shown, seen, mount.Todo(True), AssumedFacts(shown))
    found = mount.plan(run, seen, mount.Todo(True), GivenFacts(run, [nothing]))
    assert [step.commands for step in assumed if step.commands] == [step.commands for step in found if step.commands]


def test_mounts_are_undone_by_whoever_can(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = context(tmp_path, "mount")
    steps = mount.plan(made, survey(made, NOT_MOUNTED, NOT_MOUNTED), mount.Todo(True), GivenFacts(made, [WHOLE]))
    undo = {command.argv[0]: command.root for step in steps for command in step.undo}
    assert undo == {"fusermount3": False, "umount": True}


# cow-sync


def syncing(made: Context, findings: List[Finding], **states: Any) -> List[str]:
    """Return the steps of a sync, shortened."""
    seen = survey(made, **states)
    todo = sync.decide(seen, made.journal, made.filesystem.caches_attributes)
    return titles(sync.plan(made, seen, todo, GivenFacts(made, findings), []), Path(made.settings.directory))


BEGIN = "Give up the old state"
DROP = ["Forget savepoints", "Forget which union wrote it", "Forget which union wrote it"]
FORGET = "Forget FileStorages that are no longer fetched"
FINISH = "Note that the new state is whole"


@pytest.mark.parametrize(
    "finding, steps",
    [
        (CURRENT, ["Make room for what is fetched", "Cut Data.fs back to 1000 bytes"]),
        (
            GROWN,
            [
                "Make room for what is fetched",
                "Cut Data.fs back to 1000 bytes",
                "Fetch what was added to Data.fs, 1.0 kB",
                "Keep Data.fs as the base",
            ],
        ),
        (PACKED, [step.replace("2.0 kB", "900 bytes") for step in FETCH_WHOLE]),
        (WHOLE, FETCH_WHOLE),
    ],
    ids=lambda value: value.state if isinstance(value, Finding) else "",
)
def test_sync_fetches_what_production_has_more(
    finding: Finding, steps: List[str], tmp_path: Path, mountinfo: Mountinfo
) -> None:
    made = synced(context(tmp_path, "sync", DIRECTORY))
    mountinfo(mounts_of(made))
    assert syncing(made, [finding]) == [
        BEGIN,
        *UNMOUNT_UNIONS,
        *DROP,
        *steps,
        *(FORGET, SYNCED, FINISH, NOTE),
        *MOUNT_UNIONS,
    ]


def test_sync_over_sshfs_leaves_production_mounted(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = synced(context(tmp_path, "sync"))
    mountinfo(mounts_of(made))
    steps = syncing(made, [CURRENT])
    assert steps[:3] == [BEGIN, *UNMOUNT_UNIONS]
    assert not {*UNMOUNT_NETWORK, MOUNT_NETWORK} & set(steps)
    assert steps[-4:] == MOUNT_UNIONS


@pytest.mark.parametrize("option", ["dcache_timeout=60", "kernel_cache", "attr_timeout=60"])
def test_sync_over_sshfs_that_remembers_mounts_production_anew_before_it_looks(
    option: str, tmp_path: Path, mountinfo: Mountinfo
) -> None:
    made = synced(context(tmp_path, "sync", {**SSHFS, "mount-options": option}))
    mountinfo(mounts_of(made))
    steps = syncing(made, [CURRENT])
    assert steps[:6] == [*UNMOUNT_UNIONS, *UNMOUNT_NETWORK, MOUNT_NETWORK, BEGIN]
    assert steps[-4:] == MOUNT_UNIONS


@pytest.mark.parametrize("finding", [PACKED, REPLACED], ids=lambda finding: str(finding.state))
def test_sync_mounts_sshfs_anew_where_production_has_removed_something(
    finding: Finding, tmp_path: Path, mountinfo: Mountinfo
) -> None:
    made = synced(context(tmp_path, "sync"))
    mountinfo(mounts_of(made))
    steps = syncing(made, [finding])
    begun = steps.index(BEGIN)
    assert steps[begun + 1 : begun + 6] == [*UNMOUNT_UNIONS, *UNMOUNT_NETWORK, MOUNT_NETWORK]
    assert MOUNT_NETWORK not in syncing(synced(context(tmp_path, "sync", DIRECTORY)), [finding])


@pytest.mark.parametrize("command", ["mount", "sync"])
def test_a_lost_production_is_mounted_before_the_unions_are_unmounted(
    command: str, tmp_path: Path, mountinfo: Mountinfo
) -> None:
    made = synced(context(tmp_path, command))
    mountinfo(mounts_of(made, network=False))
    seen = survey(made, NOT_MOUNTED)
    if command == "mount":
        steps = list(mount.plan(made, seen, mount.Todo(True, "is broken"), GivenFacts(made, [GROWN])))
    else:
        todo = sync.decide(seen, made.journal, caches_attributes=True)
        steps = list(sync.plan(made, seen, todo, GivenFacts(made, [GROWN]), []))
    assert titles(steps, tmp_path)[:3] == [MOUNT_NETWORK, *UNMOUNT_UNIONS]
    assert [step.keeps for step in steps[:3]] == [True, False, False]
    assert [bool(step.undo) for step in steps[:3]] == [True] * 3


def test_sync_of_what_is_not_mounted_leaves_nothing_mounted(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = synced(context(tmp_path, "sync"))
    seen = survey(made, NOT_MOUNTED, NOT_MOUNTED)
    todo = sync.decide(seen, made.journal, made.filesystem.caches_attributes)
    steps = []
    for step in sync.plan(made, seen, todo, GivenFacts(made, [GROWN]), []):
        steps.append(step.title.replace(f"{tmp_path}/", ""))
        if step.title.startswith("Mount "):
            mountinfo(mounts_of(made, unions=False))
    assert steps[:2] == [NOTE, MOUNT_NETWORK]
    assert steps[-3:] == [*UNMOUNT_NETWORK, "Note that nothing is mounted"]
    assert not [step for step in steps if step.startswith("Lay")]


def test_sync_asks_about_another_database_before_anything_is_given_up(tmp_path: Path, mountinfo: Mountinfo) -> None:
    steps = syncing(synced(context(tmp_path, "sync", DIRECTORY)), [REPLACED])
    assert steps.index("Ask about another database") < steps.index(BEGIN)


def test_sync_undoes_nothing_after_the_old_state_is_given_up(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = synced(context(tmp_path, "sync", DIRECTORY))
    mountinfo(mounts_of(made))
    seen = survey(made)
    todo = sync.decide(seen, made.journal, caches_attributes=False)
    steps = list(sync.plan(made, seen, todo, GivenFacts(made, [GROWN]), []))
    names = [step.title for step in steps]
    begun, finished = names.index(BEGIN), names.index(FINISH)
    assert steps[begun].keeps
    assert not [step.title for step in steps[begun:finished] if step.undo]
    assert [step.title for step in steps[finished:] if step.undo]


def test_sync_without_room_gives_nothing_up(
    tmp_path: Path, mountinfo: Mountinfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cowstorage.actions.fetch.free_bytes", lambda path: 1999)
    made = synced(context(tmp_path, "sync", DIRECTORY))
    seen = survey(made)
    todo = sync.decide(seen, made.journal, caches_attributes=False)
    done = []
    with pytest.raises(PathUnusable, match="no room"):
        done += (step.title for step in sync.plan(made, seen, todo, GivenFacts(made, [WHOLE]), []))
    assert BEGIN not in done


@pytest.mark.parametrize("options", [SSHFS, DIRECTORY], ids=["sshfs", "directory"])
@pytest.mark.parametrize("state", [MOUNTED, NOT_MOUNTED])
def test_what_a_dry_sync_shows_is_the_plan_itself(
    options: Dict[str, str], state: str, tmp_path: Path, mountinfo: Mountinfo
) -> None:
    shown = synced(context(tmp_path, "sync", {**options, "union": "overlay"}, dry_run=True))
    run = synced(context(tmp_path, "sync", {**options, "union": "overlay"}))
    seen = survey(run, state, state)
    if state == MOUNTED:
        mountinfo(mounts_of(run))
    todo = sync.decide(seen, run.journal, run.filesystem.caches_attributes)
    nothing_added = Finding("Data.fs", compare.GROWN, BASE, BASE.size)
    assumed = sync.plan(shown, seen, todo, AssumedFacts(shown), [])
    found = sync.plan(run, seen, todo, GivenFacts(run, [nothing_added]), [])
    assert [step.commands for step in assumed if step.commands] == [step.commands for step in found if step.commands]


def ends_in_its_own_time(plan: Iterable[Step]) -> Dict[str, bool]:
    """Return which mounts a plan takes away, and whether it leaves them to end by themselves."""
    found = (command for step in plan for command in step.commands if command.argv[0] in ("umount", "fusermount3"))
    return {Path(command.argv[-1]).name: command.done is not None for command in found}


def test_nobody_waits_for_the_disk_of_a_union_below_which_production_stays(
    tmp_path: Path, mountinfo: Mountinfo
) -> None:
    """The kernel writes out all of it; where production is mounted anew its old mount has to be gone before."""
    for command, options, leaves in (("sync", SSHFS, True), ("sync", NFS, False)):
        made = synced(context(tmp_path, command, {**options, "union": "overlay"}))
        mountinfo(mounts_of(made))
        seen = survey(made)
        todo = sync.decide(seen, made.journal, made.filesystem.caches_attributes)
        unmounted = ends_in_its_own_time(sync.plan(made, seen, todo, GivenFacts(made, [CURRENT]), []))
        assert unmounted == {"filestorage": leaves, "blobstorage": leaves, **({} if leaves else {"prod": False})}
    made = synced(context(tmp_path, "rollback"))
    mountinfo(mounts_of(made))
    unmounted = ends_in_its_own_time(rollback.plan(made, survey(made), AT_BASE))
    assert unmounted == {"filestorage": True, "blobstorage": True}
    made = synced(context(tmp_path, "umount"))
    assert set(ends_in_its_own_time(umount.plan(made, survey(made))).values()) == {False}


def test_unions_of_fuse_are_waited_for(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = synced(context(tmp_path, "rollback"), union="fuse-overlayfs")
    kind, owner = "fuse.fuse-overlayfs", ("rw", "user_id=1000")
    unions = mounts_of(made, network=False)
    mountinfo([one._replace(type=kind, source="fuse-overlayfs", super_options=owner) for one in unions])
    unmounted = ends_in_its_own_time(rollback.plan(made, survey(made), AT_BASE))
    assert unmounted == {"filestorage": False, "blobstorage": False}


# cow-rollback

AT_BASE = Target("production's state as last synced", {"Data.fs": BASE}, True)
AT_SAVEPOINT = Target("savepoint s", {"Data.fs": LATER}, False)


@pytest.mark.parametrize(
    "target, steps",
    [
        (
            AT_BASE,
            ["Drop local BLOB changes in var/blobstorage.prod", *DROP[1:], "Cut Data.fs back to 1000 bytes"],
        ),
        (
            AT_SAVEPOINT,
            [
                "Remove BLOB files of later transactions from var/blobstorage.prod",
                "Cut Data.fs back to 2000 bytes",
            ],
        ),
    ],
    ids=["base", "savepoint"],
)
@pytest.mark.parametrize("mounted", [True, False])
def test_rollback_drops_cuts_and_mounts_again_what_was_mounted(
    target: Target, steps: List[str], mounted: bool, tmp_path: Path, mountinfo: Mountinfo
) -> None:
    made = synced(context(tmp_path, "rollback"))
    (tmp_path / "var/blobstorage.prod").mkdir(parents=True)
    (tmp_path / "var/blobstorage.prod/new").touch()
    state = MOUNTED if mounted else NOT_MOUNTED
    mountinfo(mounts_of(made) if mounted else [])
    assert titles(rollback.plan(made, survey(made, state, state), target), tmp_path) == [
        "Give up the present state",
        *(UNMOUNT_UNIONS if mounted else []),
        *steps,
        "Note that the database is whole",
        *(MOUNT_UNIONS if mounted else []),
    ]


def test_rollback_runs_nothing_of_the_networks(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = synced(context(tmp_path, "rollback"))
    mountinfo(mounts_of(made))
    ran = programs(rollback.plan(made, survey(made), AT_BASE))
    assert not {"sshfs", "ssh", "rsync", "fusermount3"} & set(ran)


def test_rollback_takes_a_local_pack_back(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = synced(context(tmp_path, "rollback"))
    for name in ("var/filestorage.prod/Data.fs", "var/cow-storage/base/Data.fs"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    steps = titles(rollback.plan(made, survey(made, NOT_MOUNTED, NOT_MOUNTED), AT_BASE), tmp_path)
    assert steps.index("Take back the local pack of Data.fs") < steps.index("Cut Data.fs back to 1000 bytes")


def test_rollback_forgets_the_savepoints_after_the_target(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = synced(context(tmp_path, "rollback"))
    made.journal.savepoints = {"s": {"time": 1.0, "positions": {"Data.fs": list(LATER)}}}
    nothing = survey(made, NOT_MOUNTED, NOT_MOUNTED)
    assert "Forget later savepoints" in titles(rollback.plan(made, nothing, AT_BASE), tmp_path)
    assert "Forget later savepoints" not in titles(rollback.plan(made, nothing, AT_SAVEPOINT), tmp_path)


def test_an_interrupted_rollback_is_finished_with_the_unions_mounted(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = synced(context(tmp_path, "rollback"))
    nothing = survey(made, NOT_MOUNTED, NOT_MOUNTED)
    assert not rollback.must_mount(made, nothing)
    made.journal.unfinished = {"command": "cow-rollback", "again": "bin/cow-rollback", "mounted": True}
    assert rollback.must_mount(made, nothing)


# cow-umount


@pytest.mark.parametrize(
    "network, unions, steps",
    [
        (True, True, [*UNMOUNT_UNIONS, *UNMOUNT_NETWORK]),
        (True, False, UNMOUNT_NETWORK),
        (False, True, [*UNMOUNT_UNIONS, "Wait for sshfs to end"]),
        (False, False, ["Wait for sshfs to end"]),
    ],
)
def test_umount_takes_the_unions_first(
    network: bool, unions: bool, steps: List[str], tmp_path: Path, mountinfo: Mountinfo
) -> None:
    made = synced(context(tmp_path, "umount"))
    mountinfo(mounts_of(made, network, unions))
    assert titles(umount.plan(made, survey(made)), tmp_path) == [*steps, "Note that nothing is mounted"]


def test_umount_leaves_what_others_mounted_there(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = synced(context(tmp_path, "umount"))
    mountinfo([one._replace(source="somebody", type="ext4") for one in mounts_of(made, network=False)])
    assert programs(umount.plan(made, survey(made))) == []


def test_umount_mounts_the_unions_again_when_a_later_one_is_busy_but_never_production(
    tmp_path: Path, mountinfo: Mountinfo
) -> None:
    made = synced(context(tmp_path, "umount"))
    mountinfo(mounts_of(made))
    undo = {step.title.rpartition("/")[2]: bool(step.undo) for step in umount.plan(made, survey(made)) if step.commands}
    assert undo == {"filestorage": True, "blobstorage": True, "prod": False}


def test_a_lazy_umount_waits_for_nothing(tmp_path: Path, mountinfo: Mountinfo) -> None:
    made = synced(context(tmp_path, "umount", lazy=True))
    mountinfo(mounts_of(made))
    plan = list(umount.plan(made, survey(made)))
    assert [command.argv[1] for step in plan for command in step.commands] == ["-l", "-l", "-l"]
    assert "Wait for sshfs to end" not in titles(plan, tmp_path)


# Any plan


def test_what_fails_is_undone_up_to_the_step_that_keeps(tmp_path: Path) -> None:
    from cowstorage.actions.plan import Step
    from cowstorage.system.programs import Command

    class Recorder:
        """Runs nothing, fails at ``false``."""

        def __init__(self) -> None:
            self.ran: List[str] = []

        def run(self, command: Command) -> str:
            if command.argv == ("false",):
                raise RemoteUnusable("x", "fails")
            self.ran.append(command.argv[0])
            return ""

    def step(name: str, **more: Any) -> Step:
        return Step(name, (Command((name,)),), undo=(Command((f"un{name}",)),), **more)

    runner = Recorder()
    execution = Execution(runner, context(tmp_path, "mount").output, lambda title: None)  # type: ignore[arg-type]
    with pytest.raises(RemoteUnusable), execution:
        execution.run([step("a"), step("b", keeps=True), step("c"), step("d"), step("false")])
    assert runner.ran == ["a", "b", "c", "d", "unfalse", "und", "unc"]
