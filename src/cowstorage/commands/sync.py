"""cow-sync: the database at production's latest state, local changes dropped."""

from __future__ import annotations

import argparse
from typing import Iterator, List, Optional

from cowstorage import local, production, refresh, reset, savepoints, stack, trash, union
from cowstorage.commands import mount as mounting
from cowstorage.context import Context
from cowstorage.output import confirm, human_size
from cowstorage.plan import Execution, Step, chain, show
from cowstorage.refresh import Finding
from cowstorage.settings import mounted_alike
from cowstorage.union.choice import Choice, choose


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(context: Context) -> int:
    """Look first, ask, and only then let go of anything."""
    mounting.check(context)
    if context.arguments.dry_run:
        show(dry_plan(context), context.runner, context.output)
        return 0
    made_with = context.mounted or context.settings
    pieces = stack.survey(context)
    stack.refuse_in_use(context, made_with, with_network=False)
    had_network = any(piece.name == "network" and piece.mount for piece in pieces)
    unfinished = context.journal.unfinished or {}
    had_unions = any(piece.name != "network" and piece.mount for piece in pieces) or bool(unfinished.get("mounted"))
    agree(context, [] if context.journal.unfinished else losses(context), "This drops:")
    sample = (context.journal.mounted or {}).get("sample")
    choice = laid(context, pieces)
    with context.execution() as execution:
        renew(context, execution, pieces)
        seen = mounting.look(context, sample)
        findings = compare(context, seen)
        agree(context, oddities(findings), "Production is not what was fetched before:")
        if had_unions and choice is None:
            choice = mounting.chosen(context, lambda: renewed_choice(context, seen))
        # From here on the old state is given up: what fails is finished by the same command again.
        context.begin(f"bin/{context.command}", had_unions)
        execution.keep()
        # Not to be undone: that would show a database that is half the old one, half the new.
        context.execution().run(chain(stack.lift_unions(context, made_with), drop(context)))
        context.execution().run(fetch(context, findings, seen))
        context.finish()
        if choice:
            mounting.lay(context, execution, seen, choice)
            execution.keep()
    if not had_unions and not had_network:
        context.execution().run(stack.detach(context, context.settings))
        context.journal.mounted = None
        context.save()
    trash.empty(context.settings.location, context.runner)
    summary(context, findings, had_unions)
    return 0


def renew(context: Context, execution: Execution, pieces: List[stack.Piece]) -> None:
    """The network mount, made anew where it is broken, shows another remote, or would hide what is new there."""
    network = [piece for piece in pieces if piece.name == "network"]
    sound = all(piece.state == stack.MOUNTED for piece in network)
    fresh = not context.network.keeps_old_news and not stack.is_offline(context)
    if sound and fresh and mounted_alike(context.mounted, context.settings):
        return
    made_with = context.mounted or context.settings
    if any(piece.mount for piece in pieces):
        stack.refuse_in_use(context, made_with, with_network=True)
        execution.run(chain(stack.lift_unions(context, made_with), stack.detach(context, made_with)))
    if not any(piece.name != "network" and piece.mount for piece in pieces):
        mounting.note_mounted(context, production.NOTHING, None)
    execution.run(stack.attach(context))


def compare(context: Context, seen: production.Production) -> List[Finding]:
    """Each FileStorage against production's, with room for what is to be fetched."""
    if not context.settings.file_storage:
        return []
    findings = refresh.find(context, production.chosen(context.settings, seen), seen)
    refresh.check_space(context, findings)
    return findings


def losses(context: Context) -> List[str]:
    """What is dropped, a line each."""
    return local.losses(context) + [f"savepoint {name}" for name in sorted(context.journal.savepoints)]


def oddities(findings: List[Finding]) -> List[str]:
    """Where production's database is not a later state of the one that was fetched before."""
    return [f"{finding.name}: {finding.remark}" for finding in findings if finding.state == refresh.REPLACED]


def agree(context: Context, lines: List[str], heading: str) -> None:
    """Name it, and ask.

    :raises Refused: nobody agreed.
    """
    if not lines:
        return
    text = "\n".join([heading, *(f"  {line}" for line in lines)])
    confirm(text, context.arguments.yes, context.host.interactive)
    if context.arguments.yes:
        context.output.say(text)


def laid(context: Context, pieces: List[stack.Piece]) -> Optional[Choice]:
    """The union that lies there now, where no other would be preferred to it: it need not be tried again."""
    made = context.journal.mounted or {}
    sound = all(piece.state == stack.MOUNTED for piece in pieces) and mounted_alike(context.mounted, context.settings)
    if not sound or not made.get("union") or made["tried"]:
        return None
    return Choice(union.get(made["union"]), ())


def renewed_choice(context: Context, seen: production.Production) -> Choice:
    """The union for afterwards: chosen before anything is dropped, and free of what wrote the old uppers."""
    return choose(context, stack.lowers(context, "blobstorage"), seen.sample, fresh=True)


def drop(context: Context) -> Iterator[Step]:
    """Savepoints, since they need the local BLOBs; these, and strangers."""
    yield Step("Forget savepoints", action=lambda: savepoints.forget(context, list(context.journal.savepoints)))
    yield from reset.drop_blobs(context)
    yield from reset.drop_strangers(context)


def fetch(context: Context, findings: List[Finding], seen: production.Production) -> Iterator[Step]:
    """The FileStorages, then their common base."""
    for finding in findings:
        if finding.state == refresh.PACKED:
            why = finding.remark or "production was packed"
            context.output.say(f"{finding.name}: {why}. All of it is compared, what differs is fetched.")
        if finding.moves:
            context.output.say(f"Fetching {finding.name}: {human_size(finding.moves)}")
    if findings:
        yield from refresh.plan(context, findings, seen)
        yield Step("Forget FileStorages that are no longer fetched", action=lambda: forget(context, findings))
    yield Step("Remember when", action=lambda: refresh.remember_sync(context))


def forget(context: Context, findings: List[Finding]) -> None:
    """Bases of FileStorages that the part no longer names."""
    names = {finding.name for finding in findings}
    context.journal.bases = {name: base for name, base in context.journal.bases.items() if name in names}


def dry_plan(context: Context) -> Iterator[Step]:
    """What would be run, as far as it can be told without a look at production."""
    made_with = context.mounted or context.settings
    pieces = stack.survey(context, probe=False)
    if not any(piece.name == "network" and piece.mount for piece in pieces):
        yield from stack.attach(context)
    for line in local.losses(context):
        yield Step(f"This would be dropped, after a question: {line}")
    yield from stack.lift_unions(context, made_with)
    yield from drop(context)
    names = list(context.settings.storages) or list(context.journal.bases) or ["Data.fs"]
    if context.settings.file_storage:
        yield Step("Assumed here: production has only grown since the last sync")
        yield from refresh.plan(context, [_assumed(context, name) for name in names], production.NOTHING)
    kind = (context.journal.mounted or {}).get("union")
    if kind:
        yield from stack.merge(context, union.get(kind), None)


def _assumed(context: Context, name: str) -> Finding:
    base = refresh.base_of(context, name)
    return Finding(name, refresh.GROWN if base else refresh.MISSING, base, base.size if base else 0)


def summary(context: Context, findings: List[Finding], mounted: bool) -> None:
    """What was brought, and what to do next."""
    for finding in findings:
        base = refresh.base_of(context, finding.name)
        if base is None:
            continue
        moved = base.size - finding.base.size if finding.base and finding.state == refresh.GROWN else finding.moves
        how = {refresh.CURRENT: "unchanged", refresh.GROWN: f"{human_size(moved)} added"}.get(
            finding.state, f"{human_size(base.size)}, fetched whole"
        )
        context.output.say(f"{finding.name} is at production's latest state ({how}).")
    following = "start your instance" if mounted else context.script("mount")
    context.output.say(f"Local changes are dropped. Next: {following}.")
