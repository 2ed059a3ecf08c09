"""Tell how far production is ahead of what was fetched, asked through its mount, and said in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

from cowstorage.actions import survey
from cowstorage.actions.context import Context
from cowstorage.actions.survey import Survey
from cowstorage.errors import CowStorageError
from cowstorage.system.files import fresh_stat
from cowstorage.system.output import human_size, human_span

if TYPE_CHECKING:
    from cowstorage.actions.compare import Finding
    from cowstorage.production.look import Production


def look_at_production(context: Context, seen: Survey) -> Tuple[Optional[Production], Optional[str]]:
    """Return what production holds, where it is mounted, and why it can't be what lies below the unions."""
    if seen.state != survey.MOUNTED or seen.offline:
        return None, None
    from cowstorage.production.look import look  # start-up

    filesystem = context.filesystem_of(seen.made_with)
    try:
        return look(filesystem, filesystem.root, sample=False), None
    except CowStorageError as error:
        return None, str(error)


def of(context: Context, seen: Optional[Production]) -> Optional[Dict[str, Any]]:
    """Return how far production is ahead; ``None`` when it isn't mounted, or nothing was fetched yet.

    :returns: for each FileStorage ``state``, ``size`` in bytes, ``time`` in seconds, ``remark``, and ``gone`` BLOBs; or
        the ``problem``.
    """
    if seen is None or not context.journal.bases:
        return None
    from cowstorage.actions import compare  # start-up
    from cowstorage.production.look import LOOK_SECONDS  # start-up
    from cowstorage.system.time_limits import within  # start-up

    try:
        names = [name for name in sorted(context.journal.bases) if name in seen.storages]
        remotes = {name: context.paths(name).remote for name in names}
        now = within(
            LOOK_SECONDS,
            "reading sizes and times of production's FileStorages",
            lambda: {name: fresh_stat(path) for name, path in remotes.items()},
        )
        sizes = {name: facts.size for name, facts in now.items()}
        findings = compare.find(context, names, seen._replace(storages=sizes))
    except (CowStorageError, OSError) as error:
        return {"problem": str(error)}
    result = describe(context, findings, {name: facts.modified for name, facts in now.items()})
    for ahead in result.values():
        if ahead["state"] in (compare.PACKED, compare.REPLACED):
            ahead["gone"] = gone_blobs(context)
    return result


def describe(context: Context, findings: Sequence[Finding], modified: Mapping[str, float]) -> Dict[str, Any]:
    """Return the lead that findings tell, as ``of`` returns it, without the BLOBs that are gone.

    :param modified: Unix seconds at which production's FileStorages were written last; where one is missing its time
        is told as 0.
    """
    result: Dict[str, Any] = {}
    for finding in findings:
        base = context.journal.base_of(finding.name)
        ahead = finding.remote_size - base.size if base else 0
        since = modified.get(finding.name, 0.0) - (context.journal.synced or modified.get(finding.name, 0.0))
        result[finding.name] = {
            "state": finding.state,
            "size": max(0, ahead),
            "time": max(0.0, since),
            "remark": finding.remark,
            "converted": finding.converted,
        }
    return result


def gone_blobs(context: Context) -> Optional[Dict[str, int]]:
    """Return how many BLOBs of the local database are gone with a pack of production's; ``None``: not known."""
    from cowstorage.actions import absent_blobs  # start-up

    found = absent_blobs.count(context)
    return found._asdict() if found else None


def lead_text(ahead: Dict[str, Any]) -> str:
    """Return one FileStorage's lead as the rest of a sentence that begins with ``Production``."""
    if ahead["converted"]:
        return f"was converted since, and is {human_size(ahead['size'])} ahead: the next sync takes that over"
    if ahead["state"] == "current":
        return "has not changed since the last sync"
    if ahead["state"] == "grown":
        span = f"{human_span(ahead['time'])} and " if ahead["time"] >= 1 else ""
        return f"is {span}{human_size(ahead['size'])} ahead"
    if ahead["state"] == "packed":
        return "was packed since: the next sync fetches all of it"
    if ahead["state"] == "missing":
        return "is untouched, but the local file is gone: the next sync fetches all of it"
    return f"is not what was fetched before: {ahead['remark']}. The next sync asks about it"


def texts(lead: Dict[str, Any]) -> Dict[str, str]:
    """Return the lead of each FileStorage as ``lead_text`` has it; one text where all have the same."""
    found = {name: lead_text(ahead) for name, ahead in lead.items()}
    return {"": next(iter(found.values()))} if len(set(found.values())) == 1 else found


def rows(lead: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Return the lead as rows of a table for people; one where all FileStorages have the same."""
    return [("production", f"{name} {text}".strip()) for name, text in texts(lead).items()]


def sentences(lead: Optional[Dict[str, Any]]) -> List[str]:
    """Return the lead as sentences about production, or about its single FileStorages; none where it isn't known."""
    if not lead or "problem" in lead:
        return []
    return [f"{_subject(name)} {text}." for name, text in texts(lead).items()]


def _subject(name: str) -> str:
    return f"Production's {name}" if name else "Production"


def gone_text(gone: Optional[Dict[str, int]]) -> str:
    """Return what a pack of production's means here, while its BLOBs are mounted."""
    from cowstorage.actions.absent_blobs import Gone  # start-up

    if gone and not gone["gone"] and gone["looked_at"] == gone["needed"]:
        return "none: all that the local database refers to is there still"
    what = str(Gone(**gone)) if gone else "what was deleted there is gone here, too"
    return f"{what}: Plone says FileNotFoundError or POSKeyError. The next sync mends it; what is prefetched stays"
