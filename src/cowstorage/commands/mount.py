"""cow-mount: production read-only, Data.fs if there is none yet, the unions, and proof that they work."""

from __future__ import annotations

import argparse
import time
from itertools import chain
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from cowstorage.actions import (
    absent_blobs,
    compare,
    fetch,
    lead,
    mounting,
    preflight,
    preparation,
    production_mount,
    survey,
)
from cowstorage.actions.context import Context
from cowstorage.actions.facts import AssumedFacts, Facts
from cowstorage.actions.plan import Step, show, without_undo
from cowstorage.actions.survey import Survey
from cowstorage.part import blob_cache, trash
from cowstorage.production import look
from cowstorage.production.look import Production
from cowstorage.system.output import human_seconds, human_size, local_time, numbered, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be had instead of mounting, and mounting without a network."""
    parser.add_argument(
        "--offline", action="store_true", help="without production, where cow-prefetch has fetched all of it"
    )
    parser.add_argument(
        "--production-only", action="store_true", help="production read-only, without unions and without Data.fs"
    )
    parser.add_argument(
        "--check", action="store_true", help="try everything, leave nothing mounted, show what works here"
    )
    parser.add_argument(
        "--sudoers",
        action="store_true",
        help="print sudoers lines for this part's commands; whoever has them can become root",
    )


class Todo(NamedTuple):
    """What there is to do.

    :param mount: anything; else all is mounted as it should be.
    :param unmount: why what is mounted has to be unmounted before; empty when nothing has.
    :param lay_again: the unions alone, so that they show what was prefetched.
    """

    mount: bool
    unmount: str = ""
    lay_again: bool = False


def run(context: Context) -> int:
    """Mount, or find that all is mounted."""
    if context.arguments.sudoers:
        from cowstorage.actions import sudoers  # start-up

        return sudoers.show(context)
    if context.arguments.check:
        from cowstorage.actions import checkup  # start-up

        return checkup.check(context)
    if context.arguments.production_only:
        from cowstorage.actions import production_only  # start-up

        return production_only.mount(context)
    offline = context.arguments.offline
    preflight.refuse_unfinished(context)
    preparation.check(context)
    (preflight.check_offline if offline else preflight.check)(context)
    seen = survey.take(context)
    todo = decide(seen, offline, context.journal.operation, context.journal.is_outdated)
    if todo.lay_again:
        return lay_again(context, seen)
    if not todo.mount:
        context.output.say(f"{context.settings.remote} is mounted already, with {context.journal.union} on top.")
        if not context.arguments.dry_run:
            production, _ = lead.look_at_production(context, seen)
            say_facts(context, lead.of(context, production))
            preparation.run_due(context)
        return 0
    if context.arguments.dry_run:
        fresh = preparation.is_due(context) or not (context.journal.bases or offline)
        prepared = preparation.prepare(context) if context.settings.prepare and fresh else ()
        show(chain(plan(context, seen, todo, AssumedFacts(context)), prepared), context.runner, context.output)
        return 0
    if todo.unmount:
        context.output.say(f"What is mounted {todo.unmount}: unmounting it first.")
    preflight.refuse_in_use(context, seen, with_network=True)
    begun = time.monotonic()
    facts = Facts(context)
    context.run(plan(context, seen, todo, facts))
    seconds = time.monotonic() - begun
    trash.empty(context.settings.location, context.runner)
    preparation.run_due(context)
    summary(context, seconds, lead.describe(context, facts.compared, {}))
    return 0


def lay_again(context: Context, seen: Survey) -> int:
    """Lay the unions again, unless something is open, which goes on as before."""
    from cowstorage.system import in_use  # start-up

    if context.arguments.dry_run:
        show(mounting.lay_again(context, seen), context.runner, context.output)
        return 0
    is_mounted = f"{context.settings.remote} is mounted already, with {context.journal.union} on top"
    if in_use.holders([one.target for one in seen.unions], context.daemons):
        again = context.script("mount")
        context.output.say(f"{is_mounted}. To read from here what was prefetched, stop your instance and run {again}.")
        return 0
    preflight.refuse_in_use(context, seen, with_network=False)
    context.run(mounting.lay_again(context, seen))
    context.output.say(f"{is_mounted}, which is laid again: what was prefetched is read from here now.")
    return 0


def decide(seen: Survey, offline: bool, operation: Optional[Dict[str, Any]], outdated: bool = False) -> Todo:
    """Decide what there is to do.

    :param offline: without production.
    :param operation: the step that an earlier command was killed in.
    :param outdated: the unions don't show what was prefetched.
    """
    if seen.state == survey.NOT_MOUNTED:
        return Todo(mount=True)
    if seen.state == survey.BROKEN:
        return Todo(mount=True, unmount="is broken")
    if operation:
        return Todo(mount=True, unmount=f"was left by an interrupted {operation['command']}")
    if not seen.as_configured or seen.offline != offline or seen.alone:
        return Todo(mount=True, unmount="was made with other options")
    return Todo(mount=False, lay_again=outdated)


def plan(context: Context, seen: Survey, todo: Todo, facts: Facts) -> Iterator[Step]:
    """Yield the steps that mount everything."""
    offline = context.arguments.offline
    if mounting.has_lost_production(seen) and not offline:
        yield from mounting.mount_production_below(context, seen)
    else:
        if todo.unmount:
            yield from without_undo(mounting.unmount_all(context, seen.made_with))
        yield mounting.note_mounted(context, look.NOTHING, offline=offline)
        if not offline:
            # Before the wire counts what is there.
            yield from mounting.make_room(context)
            yield from production_mount.mount_production(context)
    production = remembered(context) if offline else facts.production()
    with facts.reading_indexes(production):
        choice = facts.union(production)
        if not offline:
            yield from first_fetch(context, production, facts)
    for remark in facts.remarks:
        yield Step(remark)
    yield mounting.note_mounted(context, production, choice.union.name, choice.tried, offline)
    yield from mounting.mount_unions(context, choice.union, production)


def remembered(context: Context) -> Production:
    """Return what is known of production without asking it."""
    return look.NOTHING._replace(storages={name: size for name, (size, _) in context.journal.bases.items()})


def first_fetch(context: Context, production: Production, facts: Facts) -> Iterator[Step]:
    """Yield the steps that fetch the FileStorages where there are none yet, or a first fetch was cut off."""
    others = facts.lost_blobs(production)
    gone = absent_blobs.count(context) if others else None
    for lost in others:
        why = lost.remark or "it was packed since, and what was deleted there is gone"
        if lost.state == compare.PACKED and gone and not gone.gone and gone.looked_at == gone.needed:
            continue
        context.output.warn(
            f"production's {lost.name} is not what was fetched before: {why}. "
            f"{gone or 'BLOBs may be missing here'}: Plone says FileNotFoundError or POSKeyError, "
            f"until {context.script('sync')}, which drops local changes."
        )
    if not context.settings.file_storage or not fetch.is_first(context, look.chosen(context.settings, production)):
        return
    findings = facts.findings(production)
    fetch.check_space(context, findings)
    if not context.arguments.dry_run:
        total = human_size(sum(finding.moves for finding in findings))
        context.output.say(f"Fetching {', '.join(finding.name for finding in findings)}: {total}")
    facts.compared = []
    yield from fetch.plan(context, findings, production, facts.added(production))
    yield fetch.note_synced(context)


def facts_of(context: Context, ahead: Optional[Dict[str, Any]]) -> List[Tuple[str, str]]:
    """Return which data is mounted, what is local, how far production is ahead, and how many BLOBs are here.

    :param ahead: production's lead, as ``lead.of`` returns it; ``None``: not known.
    """
    from cowstorage.actions import local_changes  # start-up

    journal = context.journal
    of = f" of {local_time(journal.synced)}" if journal.synced else ""
    rows = [
        (name, f"production's{of}, {human_size(base.size)}") for name, base in sorted(journal.base_positions().items())
    ]
    rows += [("local", f"{change.name}: {change}") for change in local_changes.changes(context) if change.is_any]
    if ahead and "problem" not in ahead and any(one["state"] != compare.CURRENT for one in ahead.values()):
        rows += lead.rows(ahead)
    held = blob_cache.held(context.settings, local_changes.COUNT_SECONDS)
    if blob_cache.suffices(context.settings, journal.bases):
        rows.append(("BLOBs", "all are here: Plone asks nothing of production"))
    elif held.files:
        rows.append(("BLOBs", f"{numbered(held.files, held.complete)} in the cache here, {human_size(held.size)}"))
    return rows


def say_facts(context: Context, ahead: Optional[Dict[str, Any]]) -> None:
    """Print what ``facts_of`` returns."""
    for line in table(facts_of(context, ahead)):
        context.output.say(f"  {line}")


def summary(context: Context, seconds: float, ahead: Optional[Dict[str, Any]]) -> None:
    """Say what is there now, whose state it is, and what to do next."""
    journal, settings = context.journal, context.settings
    how = "served from here, without a network" if journal.is_offline else "mounted, read-only"
    context.output.say(f"{settings.remote} is {how}, with {journal.union} on top. ({human_seconds(seconds)})")
    say_facts(context, ahead)
    for name in (journal.mounted or {}).get("hidden", ()):
        context.output.warn(
            f"{name} of production was not fetched and is hidden. "
            f"To have it, name it in storages (or leave storages out) and run {context.script('sync')}."
        )
    say_next(context)


def say_next(context: Context) -> None:
    """Say what to do next, the quick way back first: it needs no network."""
    context.output.say("Next: start your instance.")
    ways = [
        (context.script("rollback"), "drops what you change, in a second"),
        (context.script("sync"), "brings production's latest state"),
    ]
    for line in table(ways):
        context.output.say(f"      {line}")
