"""cow-sync: the database at production's latest state, local changes dropped."""

from __future__ import annotations

import argparse
import time
from functools import partial
from itertools import chain
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from cowstorage.actions import (
    compare,
    drop,
    fetch,
    lead,
    local_changes,
    mounting,
    preflight,
    preparation,
    production_mount,
    savepoints,
    survey,
)
from cowstorage.actions.choose_union import Choice
from cowstorage.actions.compare import Finding
from cowstorage.actions.context import Context
from cowstorage.actions.facts import AssumedFacts, Facts
from cowstorage.actions.plan import Plan, Step, show, without_undo
from cowstorage.actions.survey import Survey
from cowstorage.database.format import PYTHONS
from cowstorage.errors import CowStorageError
from cowstorage.part import trash
from cowstorage.part.journal import Journal
from cowstorage.production import look
from cowstorage.production.look import Production
from cowstorage.system.output import human_seconds, human_size
from cowstorage.union import kinds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: ``--yes`` and ``--dry-run`` are common to all."""


class Todo(NamedTuple):
    """What there is to do, decided before anything is touched.

    :param mount_network: production is mounted anew, or for the first time.
    :param unmount_first: unions and production are unmounted before that.
    :param mount_unions: the unions are mounted again at the end.
    :param unmount_network: production is unmounted at the end, since nothing of the part was mounted.
    :param union: the union that lies there now and need not be tried again.
    """

    mount_network: bool
    unmount_first: bool
    mount_unions: bool
    unmount_network: bool
    union: Optional[str]


def run(context: Context) -> int:
    """Look at production, ask, and only then let go of anything."""
    preflight.check(context)
    preparation.check(context)
    if context.arguments.dry_run:
        return show_plan(context)
    facts = Facts(context)
    try:
        if shows_present(survey.take(context, probe=False), context.filesystem.caches_attributes):
            facts.begin(context.journal.sample)
        return sync(context, facts)
    finally:
        facts.give_up()


def show_plan(context: Context) -> int:
    """Print what would be done."""
    seen = survey.take(context)
    todo = decide(seen, context.journal, context.filesystem.caches_attributes)
    for line in losses_of(context):
        context.output.result(f"# This would be dropped, after a question: {line}")
    prepared = preparation.prepare(context) if context.settings.prepare and todo.mount_unions else ()
    show(chain(plan(context, seen, todo, AssumedFacts(context), []), prepared), context.runner, context.output)
    return 0


def sync(context: Context, facts: Facts) -> int:
    """Do it.

    :param facts: may be looking at production already.
    """
    seen = survey.take(context)
    todo = decide(seen, context.journal, context.filesystem.caches_attributes)
    losses = losses_of(context)
    findings: List[Finding] = []
    preflight.refuse_in_use(context, seen, with_network=todo.unmount_first)
    unasked = [] if has_asked(context, seen, losses) else losses
    if todo.mount_network or (losses and context.host.interactive):
        # Seen through a mount that goes, or before somebody was asked.
        facts.give_up()
    begun = time.monotonic()
    try:
        context.run(plan(context, seen, todo, facts, findings, unasked))
    except CowStorageError:
        if losses and not context.journal.unfinished:
            context.output.say("Nothing was dropped: your local changes are all here.")
        raise
    trash.empty(context.settings.location, context.runner)
    if todo.mount_unions:
        preparation.run_due(context)
    summary(context, findings, todo.mount_unions, bool(losses), time.monotonic() - begun)
    return 0


def shows_present(seen: Survey, caches_attributes: bool) -> bool:
    """Tell whether production's mounts show what production has now.

    :param caches_attributes: they show names and sizes of earlier.
    """
    return seen.network_is_sound and seen.as_configured and not seen.offline and not caches_attributes


def decide(seen: Survey, journal: Journal, caches_attributes: bool) -> Todo:
    """Decide what there is to do; parameters are those of ``shows_present``."""
    up_to_date = shows_present(seen, caches_attributes)
    unfinished = journal.unfinished or {}
    has_unions = seen.has_unions or bool(unfinished.get("mounted"))
    # A union that others were passed over for may have become the second best.
    is_best = seen.state == survey.MOUNTED and seen.as_configured and not (journal.mounted or {}).get("tried")
    return Todo(
        mount_network=not up_to_date,
        unmount_first=not up_to_date and (seen.has_unions or seen.has_network),
        mount_unions=has_unions,
        unmount_network=not has_unions and not seen.has_network,
        union=journal.union if is_best and journal.union in kinds.UNIONS else None,
    )


def losses_of(context: Context) -> List[str]:
    """Return what is dropped, a line each; nothing where an interrupted command has begun to drop."""
    if context.journal.unfinished:
        return []
    return local_changes.losses(context) + [f"savepoint {name}" for name in sorted(context.journal.savepoints)]


def has_asked(context: Context, seen: Survey, losses: List[str]) -> bool:
    """Ask whether to drop what is local, where production is mounted and can be asked first how far ahead it is.

    :returns: whether that is settled.  Else the plan asks, once it has looked at production: over a line that is dead
        nobody is asked.
    """
    if context.arguments.yes or not losses:
        return not losses
    production, _ = lead.look_at_production(context, seen) if context.host.interactive else (None, None)
    ahead = lead.of(context, production)
    if context.host.interactive and (not ahead or "problem" in ahead):
        return False
    local_changes.agree(context, losses, heading(ahead))
    return True


def heading(ahead: Optional[Dict[str, Any]]) -> str:
    """Return the begin of the question: what is got for what is dropped.

    :param ahead: production's lead, as ``lead.of`` returns it; ``None``: not known.
    """
    sentences = lead.sentences(ahead)
    if ahead and all(one["state"] == compare.CURRENT and not one["converted"] for one in ahead.values()):
        return f"{sentences[0]} cow-rollback drops local changes without the network. This drops:"
    return " ".join([*sentences, "To get there, this is dropped:" if sentences else "This drops:"])


def plan(
    context: Context, seen: Survey, todo: Todo, facts: Facts, findings: List[Finding], losses: Sequence[str] = ()
) -> Iterator[Step]:
    """Yield the steps of a sync.

    :param findings: takes how production's FileStorages relate to the local ones.
    :param losses: what is dropped, where nobody was asked about it yet.
    """
    sample = context.journal.sample
    if todo.mount_network and mounting.has_lost_production(seen):
        yield from mounting.mount_production_below(context, seen)
    else:
        if todo.unmount_first:
            # A connection that is dead would be waited for.
            yield from mounting.unmount_all(context, seen.made_with, stays_connected=seen.network_is_sound)
        if todo.mount_network:
            if not seen.has_unions:
                yield mounting.note_mounted(context, look.NOTHING, alone=seen.alone)
            yield from production_mount.mount_production(context)
    production = facts.production(known=sample)
    findings += facts.findings(production)
    fetch.check_space(context, findings)
    yield from ask(context, findings, losses)
    choice = choice_of(todo, production, facts) if todo.mount_unions else None
    for remark in facts.remarks:
        yield Step(remark)
    # What fails from here on is finished by the same command again.  Nothing is undone: that would show a database
    # that is half the old one, half the new.
    begin = partial(context.begin, f"bin/{context.command}", todo.mount_unions)
    yield Step("Give up the old state", action=begin, keeps=True)
    if not todo.unmount_first:
        yield from without_undo(mounting.unmount_unions(context, seen.made_with))
    if not todo.mount_network and context.filesystem.shows_removed and has_removed(findings):
        yield from without_undo(production_mount.unmount_production(context, seen.made_with, stays_connected=True))
        yield from without_undo(production_mount.mount_production(context))
    yield from without_undo(chain(drop_all(context), fetch_all(context, findings, production, facts.added(production))))
    # By one writing with how the mounts are made, where they are: each waits for the disk.
    yield Step("Note that the new state is whole", action=context.end_change if choice else context.finish)
    if choice:
        yield mounting.note_mounted(context, production, choice.union.name, choice.tried)
        yield from mounting.mount_unions(context, choice.union, production)
    if todo.unmount_network:
        yield from without_undo(production_mount.unmount_production(context, context.settings))
        yield mounting.note_unmounted(context)


def has_removed(findings: List[Finding]) -> bool:
    """Tell whether production has removed BLOBs since the last sync: it was packed, or is another database."""
    return any(finding.state in (compare.PACKED, compare.REPLACED) for finding in findings)


def ask(context: Context, findings: List[Finding], losses: Sequence[str]) -> Iterator[Step]:
    """Yield the questions that are left: what is dropped, and a production that is no later state of the one before."""
    if losses:
        begin = heading(lead.describe(context, findings, {}))
        yield Step("Ask about local changes", action=partial(local_changes.agree, context, losses, begin))
    lines = [f"{finding.name}: {finding.remark}" for finding in findings if finding.state == compare.REPLACED]
    if lines:
        begin = "Production is not what was fetched before:"
        yield Step("Ask about another database", action=partial(local_changes.agree, context, lines, begin))


def choice_of(todo: Todo, production: Production, facts: Facts) -> Choice:
    """Return the union for afterwards, chosen before anything is dropped, whatever wrote the old uppers."""
    return Choice(kinds.UNIONS[todo.union]) if todo.union else facts.union(production, fresh=True)


def drop_all(context: Context) -> Plan:
    """Return the steps that drop savepoints, since they need the local BLOBs; these; and unknown files."""
    forget = partial(savepoints.forget, context, list(context.journal.savepoints))
    return chain(
        (Step("Forget savepoints", action=forget),), drop.drop_blobs(context), drop.drop_unknown_files(context)
    )


def fetch_all(
    context: Context, findings: List[Finding], production: Production, added: Mapping[str, bytes]
) -> Iterator[Step]:
    """Yield the steps that fetch the FileStorages, and note their common base.

    :param added: what was read already, as ``Facts.added`` returns it.
    """
    if not context.arguments.dry_run:
        say_what_is_fetched(context, findings)
    if findings:
        yield from fetch.plan(context, findings, production, added)
        names = {finding.name for finding in findings}
        yield Step("Forget FileStorages that are no longer fetched", action=partial(forget_others, context, names))
    yield fetch.note_synced(context)


def say_what_is_fetched(context: Context, findings: List[Finding]) -> None:
    """Say what is fetched, how big it is, and why all of it where all of it is."""
    for finding in findings:
        if finding.state == compare.PACKED:
            why = finding.remark or "production was packed"
            context.output.say(f"{finding.name}: {why}. All of it is compared, what differs is fetched.")
        if finding.converted and finding.magic:
            python = PYTHONS[finding.magic]
            context.output.say(f"{finding.name}: production was converted since, it is of {python} now.")
        if finding.moves:
            context.output.say(f"Fetching {finding.name}: {human_size(finding.moves)}")


def forget_others(context: Context, names: set[str]) -> None:
    """Remove the bases of FileStorages that the part no longer names from the journal."""
    context.journal.bases = {name: base for name, base in context.journal.bases.items() if name in names}
    context.journal.magics = {name: magic for name, magic in context.journal.magics.items() if name in names}


def summary(context: Context, findings: List[Finding], mounted: bool, dropped: bool, seconds: float) -> None:
    """Say what was brought, what was dropped, how long that took, and what to do next."""
    for finding in findings:
        base = context.journal.base_of(finding.name)
        if base is None:
            continue
        moved = base.size - finding.base.size if finding.base and finding.state == compare.GROWN else finding.moves
        how = {compare.CURRENT: "unchanged", compare.GROWN: f"{human_size(moved)} added"}.get(
            finding.state, f"{human_size(base.size)}, fetched whole"
        )
        context.output.say(f"{finding.name} is at production's latest state ({how}).")
    following = "start your instance" if mounted else context.script("mount")
    local = "Local changes are dropped" if dropped else "There were no local changes"
    context.output.say(f"Done in {human_seconds(seconds)}. {local}. Next: {following}.")
