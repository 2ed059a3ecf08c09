"""cow-status: what is mounted, from where, how far production has moved on, what has changed locally."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from cowstorage import stack
from cowstorage.children import within
from cowstorage.context import Context
from cowstorage.errors import CowStorageError
from cowstorage.output import counted, human_size, human_span, local_time, table
from cowstorage.settings import mounted_alike

if TYPE_CHECKING:
    from cowstorage.production import Production

EXIT_CODES = {stack.MOUNTED: 0, stack.NOT_MOUNTED: 3, stack.BROKEN: 4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """For scripts."""
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.epilog = (
        f"{parser.epilog}. Exit codes: 0 mounted, 3 not mounted, 4 broken; "
        f"so that bin/{parser.prog} -q && bin/instance fg works."
    )


def run(context: Context) -> int:
    """Print it; the exit code tells the state."""
    pieces = stack.survey(context)
    seen, problem = look(context, pieces)
    state = stack.BROKEN if problem or context.journal.unfinished else stack.state_of(pieces)
    if context.output.quiet and not context.arguments.json:
        return EXIT_CODES[state]
    data = collect(context, pieces, state)
    data["production"] = {"problem": problem} if problem else lead(context, seen)
    if context.arguments.json:
        context.output.result(json.dumps(data, indent=1))
    else:
        for line in table(rows(context, data)):
            context.output.result(line)
    return EXIT_CODES[state]


def collect(context: Context, pieces: List[stack.Piece], state: str) -> Dict[str, Any]:
    """Everything, as plain data: sizes in bytes, times in unix seconds."""
    from cowstorage import local, mounts

    journal, settings = context.journal, context.settings
    made = journal.mounted or {}
    changes = local.changes(context)
    upper = local.blobs(context)
    return {
        "part": settings.part,
        "state": state,
        "offline": stack.is_offline(context),
        "remote": made.get("settings", {}).get("remote", settings.remote),
        "filesystem": made.get("settings", {}).get("filesystem", settings.filesystem),
        "union": made.get("union") or None,
        "passed_over": made.get("tried", []),
        "mounts": [
            {
                "name": piece.name,
                "target": piece.target,
                "state": piece.state,
                "problem": piece.ailment or None,
                "type": piece.mount.type if piece.mount else None,
                "read_only": mounts.is_read_only(piece.mount) if piece.mount else None,
            }
            for piece in pieces
        ],
        "settings_changed": bool(context.mounted and not mounted_alike(context.mounted, settings)),
        "unfinished": journal.unfinished,
        "synced": journal.synced,
        "base": {name: {"size": size, "tid": tid} for name, (size, tid) in journal.bases.items()},
        "local": {
            "storages": {
                change.name: {
                    "transactions": change.transactions,
                    "size": change.size,
                    "complete": change.complete,
                }
                for change in changes
            },
            "blobs": {"files": upper.files, "size": upper.size, "complete": upper.complete},
        },
        "savepoints": sorted(journal.savepoints),
        "hidden": made.get("hidden", []),
        "found": settings.found,
    }


def look(context: Context, pieces: List[stack.Piece]) -> Tuple[Optional[Production], Optional[str]]:
    """Production, where it is mounted, and why it can't be what lies below the unions."""
    if stack.state_of(pieces) != stack.MOUNTED or stack.is_offline(context):
        return None, None
    from cowstorage import production

    settings = context.mounted or context.settings
    root = context.network.root(settings, context.host)
    try:
        return production.look(settings, root, context.developer, sample=False), None
    except CowStorageError as error:
        return None, str(error)


def lead(context: Context, seen: Optional[Production]) -> Optional[Dict[str, Any]]:
    """How far production is ahead: of each FileStorage ``state``, ``size`` in bytes, ``time`` in seconds, ``remark``.

    ``None`` when production isn't mounted, or nothing was fetched yet.
    """
    from cowstorage import glance, production, refresh

    if seen is None or not context.journal.bases:
        return None
    try:
        names = [name for name in sorted(context.journal.bases) if name in seen.storages]
        remotes = {name: refresh.paths(context, name).remote for name in names}
        now = within(
            production.LOOK_SECONDS,
            "reading sizes and times of production's FileStorages",
            lambda: {name: glance.facts(path) for name, path in remotes.items()},
        )
        sizes = {name: facts.size for name, facts in now.items()}
        findings = refresh.find(context, names, seen._replace(storages=sizes))
    except (CowStorageError, OSError) as error:
        return {"problem": str(error)}
    result: Dict[str, Any] = {}
    for finding in findings:
        base = refresh.base_of(context, finding.name)
        ahead = finding.remote_size - base.size if base else 0
        modified = now[finding.name].modified
        since = modified - (context.journal.synced or modified)
        result[finding.name] = {
            "state": finding.state,
            "size": max(0, ahead),
            "time": max(0.0, since),
            "remark": finding.remark,
        }
    return result


def rows(context: Context, data: Dict[str, Any]) -> List[Tuple[str, str]]:
    """The table for people."""
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
    lines += [(f"base of {name}", f"{human_size(base['size'])}, {base['tid']}") for name, base in data["base"].items()]
    lines += local_rows(data["local"])
    lines += production_rows(data["production"])
    if data["savepoints"]:
        lines.append(("savepoints", ", ".join(data["savepoints"])))
    if data["hidden"]:
        lines.append(("hidden", f"{', '.join(data['hidden'])}: on production, not fetched"))
    lines += advice(context, data)
    if context.output.verbose:
        lines += [("passed over", f"{name}: {reason}") for name, reason in data["passed_over"]]
        lines.append(("paths", data["found"] or "as given in the part"))
    return lines


def local_rows(local: Dict[str, Any]) -> List[Tuple[str, str]]:
    """What has changed locally."""
    lines = []
    for name, change in local["storages"].items():
        if change["transactions"] is None:
            lines.append((f"local {name}", "packed locally: earlier savepoints are useless"))
        else:
            more = "" if change["complete"] else "more than "
            count = counted(change["transactions"], "transaction")
            lines.append((f"local {name}", f"{more}{count}, {human_size(change['size'])}"))
    blobs = local["blobs"]
    more = "" if blobs["complete"] else "more than "
    lines.append(("local BLOBs", f"{more}{counted(blobs['files'], 'file')}, {human_size(blobs['size'])}"))
    return lines


def production_rows(production: Optional[Dict[str, Any]]) -> List[Tuple[str, str]]:
    """How far production is ahead."""
    if not production:
        return []
    if "problem" in production:
        return [("production", production["problem"])]
    return [(f"lead of {name}", lead_text(ahead)) for name, ahead in production.items()]


def lead_text(ahead: Dict[str, Any]) -> str:
    """One FileStorage's lead as a sentence."""
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
    """What to do next, where something is to be done."""
    if data["unfinished"]:
        return [("to do", f"an interrupted {data['unfinished']['command']}: run {data['unfinished']['again']} again")]
    if "problem" in (data["production"] or {}) and all(mount["state"] == stack.MOUNTED for mount in data["mounts"]):
        return [("to do", "look on the server, and at remote in the part; your local changes are all here")]
    if data["state"] == stack.BROKEN:
        return [("to do", f"stop your instance, then run {context.script('mount')}: it mounts anew")]
    if data["settings_changed"]:
        return [("to do", f"the part was changed: {context.script('mount')} mounts anew with the new options")]
    if data["state"] == stack.NOT_MOUNTED:
        return [("to do", f"{context.script('mount')}")]
    return []
