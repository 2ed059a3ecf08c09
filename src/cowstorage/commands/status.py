"""cow-status: what is mounted, from where, how far production has moved on, what has changed locally."""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Tuple

from cowstorage.actions import survey
from cowstorage.actions.context import Context
from cowstorage.actions.survey import Survey
from cowstorage.system import mounts
from cowstorage.system.output import GREEN, RED, YELLOW, counted, human_size, local_time, table

COLOURS = {survey.MOUNTED: GREEN, survey.BROKEN: RED}

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
    ahead, problem = look(context, seen)
    unprepared = is_unprepared(context, seen)
    state = survey.BROKEN if problem or context.journal.unfinished or unprepared else seen.state
    if context.output.quiet and not context.arguments.json:
        return EXIT_CODES[state]
    data = collect(context, seen, state, unprepared)
    data["production"] = {"problem": problem} if problem else ahead()
    if context.arguments.json:
        context.output.result(json.dumps(data, indent=1))
    else:
        shown = rows(context, data)
        for (name, value), line in zip(shown, table(shown)):
            context.output.result(line, *highlight(name, value))
    return EXIT_CODES[state]


def look(context: Context, seen: Survey) -> Tuple[Callable[[], Optional[Dict[str, Any]]], Optional[str]]:
    """Return what asks how far production is ahead, where it is mounted; and why it can't be what the unions show."""
    if seen.state != survey.MOUNTED:
        return (lambda: None), None
    from cowstorage.actions import lead  # start-up

    production, problem = lead.look_at_production(context, seen)
    return partial(lead.of, context, production), problem


def is_unprepared(context: Context, seen: Survey) -> bool:
    """Tell whether what is mounted is not to be used, since the part's preparation of it has not ended well."""
    if seen.state != survey.MOUNTED or not context.journal.prepare:
        return False
    from cowstorage.actions import preparation  # start-up

    return preparation.is_due(context)


def collect(context: Context, seen: Survey, state: str, unprepared: bool) -> Dict[str, Any]:
    """Return everything as plain data: sizes in bytes, times in unix seconds."""
    from cowstorage.actions import local_changes  # start-up
    from cowstorage.part import blob_cache, counters  # start-up

    journal, settings = context.journal, context.settings
    made = journal.mounted or {}
    changes = local_changes.changes(context)
    upper = local_changes.changed_blobs(context)
    came = counters.saved(blob_cache.cache_directory(settings))
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
        "unprepared": unprepared,
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
        "read_through": came.as_data() if came and came.reads else None,
        "savepoints": sorted(journal.savepoints),
        "hidden": made.get("hidden", []),
        "found": settings.found,
    }


def rows(context: Context, data: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Return the table for people."""
    state = data["state"]
    shown = f"{state}, offline" if data["offline"] else state
    lines: List[Tuple[str, str]] = [("state", shown), ("remote", f"{data['remote']} ({data['filesystem']})")]
    for mount in data["mounts"]:
        what = mount["state"] + (f": {in_plain_words(mount['problem'])}" if mount["problem"] else "")
        if mount["name"] == "network" and mount["read_only"]:
            what += ", read-only"
        lines.append((mount["name"], f"{context.output.below(mount['target'])} ({what})"))
    if data["union"]:
        lines.append(("union", data["union"]))
    if data["synced"]:
        lines.append(("last sync", local_time(data["synced"])))
    lines += [("fetched", base_text(name, base, context.output.verbose)) for name, base in data["base"].items()]
    lines += local_rows(data["local"])
    lines += production_rows(data["production"])
    lines += cache_rows(data["cache"]) + read_rows(data["read_through"])
    if data["savepoints"]:
        lines.append(("savepoints", ", ".join(data["savepoints"])))
    if data["hidden"]:
        lines.append(("hidden", f"{', '.join(data['hidden'])}: on production, not fetched"))
    lines += advice(context, data)
    if context.output.verbose:
        lines += [("passed over", f"{name}: {reason}") for name, reason in data["passed_over"]]
        lines.append(("paths", data["found"] or "as given in the part"))
    return lines


def in_plain_words(problem: str) -> str:
    """Return what is wrong with a mount; what the kernel says of a FUSE mount whose program is gone is put plainly."""
    return "the connection is lost" if "ENOTCONN" in problem else problem


def highlight(name: str, value: str) -> Tuple[str, str]:
    """Return the words of a row that are coloured, and their colour: the state, and what is to be done."""
    if name == "state":
        return value, COLOURS.get(value.partition(",")[0], YELLOW)
    return (name, YELLOW) if name == "to do" else ("", "")


def base_text(name: str, base: Dict[str, Any], verbose: bool) -> str:
    """Return what was fetched of one FileStorage; that it is of Python 3 is not said."""
    from cowstorage.database.format import PYTHON_2_MAGIC, PYTHONS  # start-up

    of = f", of {PYTHONS[PYTHON_2_MAGIC]}" if base["magic"] == PYTHON_2_MAGIC.decode() else ""
    last = f", up to transaction {base['tid']}" if verbose else ""
    return f"{name}, {human_size(base['size'])}{of}{last}"


def local_rows(local: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Return the rows that tell what has changed locally."""
    lines = []
    for name, change in local["storages"].items():
        if change["transactions"] is None:
            lines.append(("local", f"{name}: packed locally, so earlier savepoints are useless"))
        else:
            count = counted(change["transactions"], "transaction", change["complete"])
            lines.append(("local", f"{name}: {count}, {human_size(change['size'])}"))
        if change["conversion"]:
            lines.append(("local", f"{name}: {change['conversion']}"))
    from cowstorage.actions.local_changes import Tree  # start-up

    lines.append(("local", f"BLOBs: {Tree(**local['blobs'])}"))
    return lines


def cache_rows(cache: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Return the row that tells what the BLOB cache holds; none where it is empty."""
    from cowstorage.part.blob_cache import Held  # start-up

    held = Held(**cache)
    return [("BLOB cache", str(held))] if held.files or held.read else []


def read_rows(counted: Optional[Dict[str, int]]) -> List[Tuple[str, str]]:
    """Return the row that tells where BLOBs came from that were read over sshfs; none where none was."""
    from cowstorage.part import counters  # start-up

    return [("BLOB reads", str(counters.of_data(counted)))] if counted else []


def production_rows(production: Optional[Dict[str, Any]]) -> List[Tuple[str, str]]:
    """Return the rows that tell how far production is ahead."""
    if not production:
        return []
    if "problem" in production:
        return [("production", production["problem"])]
    from cowstorage.actions import lead  # start-up

    rows = lead.rows(production)
    for ahead in production.values():
        if "gone" in ahead:
            return [*rows, ("lost BLOBs", lead.gone_text(ahead["gone"]))]
    return rows


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
        return [("to do", f"{context.script('mount')}; now an instance would open your own database")]
    return []
