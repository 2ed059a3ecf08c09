"""The survey: what is mounted of a part, looked at once at the beginning of a command."""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from cowstorage.actions.context import Context
from cowstorage.actions.layers import layer_of_part
from cowstorage.errors import CowStorageError
from cowstorage.part.settings import Settings, mounted_alike
from cowstorage.system import mounts
from cowstorage.system.mounts import Mount
from cowstorage.union import kinds
from cowstorage.union.base import merged_path, merged_storages

MOUNTED, NOT_MOUNTED, BROKEN = "mounted", "not mounted", "broken"

# Production is mounted without unions: nothing of it lies below an instance.
ALONE = "production only"

NETWORK = "network"


class PartMount(NamedTuple):
    """One of the mounts that a part has when it is mounted.

    :param name: ``network``, ``filestorage`` or ``blobstorage``.
    :param target: the mount point.
    :param mount: what the kernel shows there; ``None`` for nothing of ours.
    :param state: ``mounted``, ``not mounted`` or ``broken``.
    :param problem: why it is broken.
    """

    name: str
    target: str
    mount: Optional[Mount]
    state: str
    problem: str = ""


class Survey(NamedTuple):
    """What is mounted of a part.

    :param mounts: in the order of mounting.
    :param made_with: the settings that the mounts were made with; without mounts, the part's.
    :param as_configured: the mounts were made with settings that make the same mounts as the part's.
    :param offline: they were made without production.
    :param alone: they are production's, without unions.
    """

    mounts: Tuple[PartMount, ...]
    made_with: Settings
    as_configured: bool
    offline: bool
    alone: bool = False

    @property
    def state(self) -> str:
        """The state of the whole: ``broken`` as soon as the mounts don't agree."""
        state = state_of(self.mounts)
        return ALONE if self.alone and state == MOUNTED else state

    @property
    def network(self) -> Tuple[PartMount, ...]:
        """Those of production."""
        return tuple(one for one in self.mounts if one.name == NETWORK)

    @property
    def unions(self) -> Tuple[PartMount, ...]:
        """Those that Plone sees."""
        return tuple(one for one in self.mounts if one.name != NETWORK)

    @property
    def has_network(self) -> bool:
        """Whether anything of production's is mounted."""
        return any(one.mount for one in self.network)

    @property
    def has_unions(self) -> bool:
        """Whether any union is mounted."""
        return any(one.mount for one in self.unions)

    @property
    def network_is_sound(self) -> bool:
        """Whether all of production's mounts are there and answer."""
        return all(one.state == MOUNTED for one in self.network)


def state_of(found: Sequence[PartMount]) -> str:
    """Return the state that several mounts have together."""
    states = {one.state for one in found}
    if states == {MOUNTED}:
        return MOUNTED
    return NOT_MOUNTED if states <= {NOT_MOUNTED} else BROKEN


def union_targets(settings: Settings) -> List[Tuple[str, str]]:
    """Return storage and mount point of each union, in the order of mounting."""
    return [(storage, mounts.resolve(merged_path(settings, storage))) for storage in merged_storages(settings)]


def take(context: Context, probe: bool = True) -> Survey:
    """Look at what is mounted of a part, and whether it answers.

    :param probe: use the mounts, within a time limit; else only look at mountinfo.
    """
    made_with, offline, alone = context.made_with, context.journal.is_offline, context.journal.is_alone
    as_configured = context.journal.mounted is not None and mounted_alike(made_with, context.settings)
    now = mounts.read()
    targets = () if offline else context.filesystem_of(made_with).targets
    seen = [(NETWORK, target, mounts.top(now, mounts.resolve(target, now))) for target in targets]
    for storage, target in union_targets(made_with):
        mount = mounts.top(now, target)
        if kinds.ours(mount) or not alone:
            seen.append((storage, target, mount if kinds.ours(mount) else None))
    problems = _problems(context, seen) if probe else {}
    found = (_part_mount(name, target, mount, problems.get(target, "")) for name, target, mount in seen)
    return Survey(tuple(found), made_with, as_configured, offline, alone)


def _problems(context: Context, seen: List[Tuple[str, str, Optional[Mount]]]) -> Dict[str, str]:
    """Return what is wrong, by mount point; the unions are looked into when all mounts answer."""
    there = [target for _, target, mount in seen if mount]
    problems = mounts.problems(there, context.developer)
    if len(there) == len(seen) and not any(problems.values()):
        problems = {target: _union_problem(context, name, target) for name, target, _ in seen if name != NETWORK}
    return problems


def _union_problem(context: Context, storage: str, target: str) -> str:
    """Return why an instance couldn't work with a union that answers: a copy cut short, or no right to write."""
    union = kinds.UNIONS.get(context.journal.union)
    if not union:
        return ""
    from cowstorage.union import copy_up, trial  # start-up

    found = ""
    if storage == "blobstorage":
        layer = layer_of_part(context, storage, union)
        found = copy_up.problem(union, layer, context.journal.bases, context.developer)
    try:
        use = trial.use_of(storage, context.journal.sample, context.journal.bases)
        return found or trial.problem(target, use, context.developer)
    except (CowStorageError, OSError) as error:
        return str(error)


def _part_mount(name: str, target: str, mount: Optional[Mount], problem: str) -> PartMount:
    if mount is None:
        return PartMount(name, target, None, NOT_MOUNTED)
    if name == NETWORK and not problem and not mounts.is_read_only(mount):
        problem = "is mounted writable"
    return PartMount(name, target, mount, BROKEN if problem else MOUNTED, problem)
