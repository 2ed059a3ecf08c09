"""cow-status: what is mounted, from where, how far production has moved on, what has changed locally."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from cowstorage.actions import survey
from cowstorage.actions.context import Context
from cowstorage.actions.survey import Survey
from cowstorage.database.format import PYTHON_2_MAGIC, PYTHONS
from cowstorage.errors import CowStorageError
from cowstorage.system import mounts
from cowstorage.system.files import fresh_stat
from cowstorage.system.output import counted, human_size, human_span, local_time, table
from cowstorage.system.time_limits import within

if TYPE_CHECKING:
    from cowstorage.production.look import Production

EXIT_CODES = {survey.MOUNTED: 0, survey.NOT_MOUNTED: 3, survey.ALONE: 3, survey.BROKEN: 4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what scripts and shells want."""
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.add_argument("--page", metavar="NAME", help="print a page of the documentation: messages, faults, …")
    parser.add_argument(
        "--completion", choices=("bash", "fish"), help="print what lets this shell complete the part's scripts"
    )
    parser.epilog = (
        f"{parser.epilog}. Exit codes: 0 mounted, 3 not mounted, 4 broken; "
        f"so that bin/{parser.prog} -q && bin/instance fg works."
    )


def run(context: Context) -> int:
    """Print the state; the exit code tells it, too."""
    seen = survey.take(context)
    production, problem = look_at_production(context, seen)
    state = survey.BROKEN if problem or context.journal.unfinished or is_unprepared(context, seen) else seen.state
    if context.output.quiet and not context.arguments.json:
        return EXIT_CODES[state]
    data = collect(context, seen, state)
    data["production"] = {"problem": problem} if problem else lead(context, production)
    if context.arguments.json:
        context.output.result(json.dumps(data, indent=1))
    else:
        for line in table(rows(context, data)):
            context.output.result(line)
    return EXIT_CODES[state]


def is_unprepared(context: Context, seen: Survey) -> bool:
    """Tell whether what is mounted is not to be used, since the part's preparation of it has not ended well."""
    if seen.state != survey.MOUNTED or not context.journal.prepare:
        return False
    from cowstorage.actions import preparation  # start-up

    return preparation.is_due(context)


def collect(context: Context, seen: Survey, state: str) -> Dict[str, Any]:
    """Return everything as plain data: sizes in bytes, times in unix seconds."""
    from cowstorage.actions import local_changes  # start-up
    from cowstorage.part import blob_cache  # start-up

    journal, settings = context.journal, context.settings
    made = journal.mounted or {}
    changes = local_changes.changes(context)
    upper = local_changes.changed_blobs(context)
    return {
        "part": settings.part,
        "state": state,
        "offline": seen.offline,
        "remote": made.get("settings", {}).get("remote", settings.remote),
        "filesystem": made.get("settings", {}).get("filesystem", settings.filesystem),
        "union": made.get("union") or None,
        "passed_over": made.get("tried", []),
        "mounts": [
            {
                "name": one.name,
                "target": one.target,
                "state": one.state,
                "problem": one.problem or None,
                "type": one.mount.type if one.mount else None,
                "read_only": mounts.is_read_only(one.mount) if one.mount else None,
            }
            for one in seen.mounts
        ],
        "settings_changed": journal.mounted is not None and not seen.as_configured,
        "unfinished": journal.unfinished,
        "unprepared": is_unprepared(context, seen),
        "synced": journal.synced,
        "base": {
            name: {"size": size, "tid": tid, "magic": journal.base_magic(name).decode("ascii")}
            for name, (size, tid) in journal.bases.items()
        },
        "local": {
            "storages": {
                change.name: {
                    "transactions": change.transactions,
                    "size": change.size,
                    "complete": change.complete,
                    "conversion": change.conversion or None,
                }
                for change in changes
            },
            "blobs": {
                "files": upper.files,
                "size": upper.size,
                "deleted": upper.deleted,
                "complete": upper.complete,
            },
        },
        "cache": blob_cache.held(settings, local_changes.COUNT_SECONDS)._asdict(),
        "savepoints": sorted(journal.savepoints),
        "hidden": made.get("hidden", []),
        "found": settings.found,
    }


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


def lead(context: Context, seen: Optional[Production]) -> Optional[Dict[str, Any]]:
    """Return how far production is ahead; ``None`` when it isn't mounted, or nothing was fetched yet.

    :returns: for each FileStorage ``state``, ``size`` in bytes, ``time`` in seconds, ``remark``; or the ``problem``.
    """
    if seen is None or not context.journal.bases:
        return None
    from cowstorage.actions import compare  # start-up
    from cowstorage.production.look import LOOK_SECONDS  # start-up

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
    result: Dict[str, Any] = {}
    for finding in findings:
        base = context.journal.base_of(finding.name)
        ahead = finding.remote_size - base.size if base else 0
        modified = now[finding.name].modified
        since = modified - (context.journal.synced or modified)
        result[finding.name] = {
            "state": finding.state,
            "size": max(0, ahead),
            "time": max(0.0, since),
            "remark": finding.remark,
            "converted": finding.converted,
        }
        if finding.state in (compare.PACKED, compare.REPLACED):
            result[finding.name]["gone"] = gone_blobs(context)
    return result


def gone_blobs(context: Context) -> Optional[Dict[str, int]]:
    """Return how many BLOBs of the local database are gone with a pack of production's; ``None``: not known."""
    from cowstorage.actions import absent_blobs  # start-up

    found = absent_blobs.count(context)
    return found._asdict() if found else None


def rows(context: Context, data: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Return the table for people."""
    state = data["state"]
    shown = f"{state}, offline" if data["offline"] else state
    lines: List[Tuple[str, str]] = [("state", shown), ("production", f"{data['remote']} ({data['filesystem']})")]
    for mount in data["mounts"]:
        what = mount["state"] + (f": {mount['problem']}" if mount["problem"] else "")
        if mount["name"] == "network" and mount["read_only"]:
            what += ", read-only"
        lines.append((mount["name"], f"{mount['target']} ({what})"))
    if data["union"]:
        lines.append(("union", data["union"]))
    if data["synced"]:
        lines.append(("last sync", local_time(data["synced"])))
    lines += [(f"base of {name}", base_text(base)) for name, base in data["base"].items()]
    lines += local_rows(data["local"])
    lines += production_rows(data["production"])
    lines += cache_rows(data["cache"])
    if data["savepoints"]:
        lines.append(("savepoints", ", ".join(data["savepoints"])))
    if data["hidden"]:
        lines.append(("hidden", f"{', '.join(data['hidden'])}: on production, not fetched"))
    lines += advice(context, data)
    if context.output.verbose:
        lines += [("passed over", f"{name}: {reason}") for name, reason in data["passed_over"]]
        lines.append(("paths", data["found"] or "as given in the part"))
    return lines


def base_text(base: Dict[str, Any]) -> str:
    """Return one FileStorage's base; that it is of Python 3 is not said."""
    of = f", of {PYTHONS[PYTHON_2_MAGIC]}" if base["magic"] == PYTHON_2_MAGIC.decode() else ""
    return f"{human_size(base['size'])}, {base['tid']}{of}"


def local_rows(local: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Return the rows that tell what has changed locally."""
    lines = []
    for name, change in local["storages"].items():
        if change["transactions"] is None:
            lines.append((f"local {name}", "packed locally: earlier savepoints are useless"))
        else:
            more = "" if change["complete"] else "more than "
            count = counted(change["transactions"], "transaction")
            lines.append((f"local {name}", f"{more}{count}, {human_size(change['size'])}"))
        if change["conversion"]:
            lines.append((f"magic of {name}", change["conversion"]))
    from cowstorage.actions.local_changes import Tree  # start-up

    lines.append(("local BLOBs", str(Tree(**local["blobs"]))))
    return lines


def cache_rows(cache: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Return the row that tells what the BLOB cache holds; none where it is empty."""
    from cowstorage.part.blob_cache import Held  # start-up

    held = Held(**cache)
    return [("BLOB cache", str(held))] if held.files or held.read else []


def production_rows(production: Optional[Dict[str, Any]]) -> List[Tuple[str, str]]:
    """Return the rows that tell how far production is ahead."""
    if not production:
        return []
    if "problem" in production:
        return [("production", production["problem"])]
    rows = [(f"lead of {name}", lead_text(ahead)) for name, ahead in production.items()]
    for ahead in production.values():
        if "gone" in ahead:
            return [*rows, ("lost BLOBs", gone_text(ahead["gone"]))]
    return rows


def gone_text(gone: Optional[Dict[str, int]]) -> str:
    """Return what a pack of production's means here, while its BLOBs are mounted."""
    from cowstorage.actions.absent_blobs import Gone  # start-up

    if gone and not gone["gone"] and gone["looked_at"] == gone["needed"]:
        return "none: all that the local database refers to is there still"
    what = str(Gone(**gone)) if gone else "what was deleted there is gone here, too"
    return f"{what}: Plone says FileNotFoundError or POSKeyError. The next sync mends it; what is prefetched stays"


def lead_text(ahead: Dict[str, Any]) -> str:
    """Return one FileStorage's lead as a sentence."""
    if ahead["converted"]:
        return (
            f"production was converted since, and is {human_size(ahead['size'])} ahead: the next sync takes that over"
        )
    if ahead["state"] == "current":
        return "none: production has not changed since the last sync"
    if ahead["state"] == "grown":
        return f"production is {human_span(ahead['time'])} and {human_size(ahead['size'])} ahead"
    if ahead["state"] == "packed":
        return "production was packed since: the next sync fetches all of it"
    if ahead["state"] == "missing":
        return "the local file is gone: the next sync fetches all of it"
    return f"production is not what was fetched before: {ahead['remark']}. The next sync asks about it"


def advice(context: Context, data: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Return what to do next, where something is to be done."""
    if data["unfinished"]:
        return [("to do", f"an interrupted {data['unfinished']['command']}: run {data['unfinished']['again']} again")]
    if "problem" in (data["production"] or {}) and all(mount["state"] == survey.MOUNTED for mount in data["mounts"]):
        return [("to do", "look on the server, and at remote in the part; your local changes are all here")]
    if data["unprepared"]:
        return [("to do", f"what was fetched is not prepared yet: {context.script('rollback')} prepares it anew")]
    if data["state"] == survey.BROKEN:
        return [("to do", f"stop your instance, then run {context.script('mount')}: it mounts anew")]
    if data["settings_changed"]:
        return [("to do", f"the part was changed: {context.script('mount')} mounts anew with the new options")]
    if data["state"] == survey.NOT_MOUNTED:
        return [("to do", f"{context.script('mount')}")]
    return []
