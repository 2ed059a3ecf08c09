"""BLOBs that are read over sshfs are read once: from then on they are in the BLOB cache, under each union."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Callable, Iterable, Iterator, List, NamedTuple, Set

import pytest

from harness.buildout import Buildout
from harness.developer import Developers
from harness.polling import until
from harness.production import Production
from harness.release import DEVELOPERS_UNION
from harness.sshd import Sshd
from stacks import STACKS, Stack, built, is_clean_of

pytestmark = pytest.mark.usefixtures("fuse")

OPENED = re.compile(r'open "[^"]*?/(0x[^"]*\.blob)"')


class Site(NamedTuple):
    """A buildout, its production, and the server that it reads."""

    buildout: Buildout
    production: Production
    sshd: Sshd

    @property
    def cache(self) -> Path:
        """The BLOB cache's directory."""
        return Path(self.buildout.settings.location) / "cache" / "blobstorage"

    def cached(self) -> Set[str]:
        """The BLOBs in the cache."""
        return {str(path.relative_to(self.cache)) for path in self.cache.rglob("*.blob")}

    def size(self) -> int:
        """The bytes of the BLOBs in the cache."""
        return sum((self.cache / relative).stat().st_size for relative in self.cached())

    def noted(self) -> Set[Path]:
        """The directories of the objects whose BLOBs were read over sshfs."""
        notes = self.cache.parent / "read"
        return set(map(Path, notes.read_text().split())) if notes.exists() else set()

    def objects(self) -> Set[Path]:
        """The directories of all objects that have BLOBs on production."""
        top = self.production.blob_storage
        return {path.parent.relative_to(top) for path in top.rglob("*.blob")}

    def newest(self, directories: Iterable[Path]) -> Set[str]:
        """The newest revisions of objects on production."""
        tops = {directory: self.production.blob_storage / directory for directory in directories}
        return {str(directory / max(path.name for path in top.iterdir())) for directory, top in tops.items()}

    def sums(self, relatives: Set[str]) -> None:
        """Have BLOBs read below the network mount, past the unions, which find some in the cache."""
        top = Path(self.buildout.settings.mount_point, "var", "blobstorage")
        self.buildout.developer.run(["cksum", *(top / relative for relative in sorted(relatives))], check=True)

    def opened(self) -> List[str]:
        """The BLOBs that the server was asked for."""
        return [match.group(1) for match in map(OPENED.search, self.sshd.requests()) if match]

    def reads_once(self) -> None:
        """Read all, then again in the same mount: the second time the server is asked for nothing."""
        assert self.buildout.read() == self.production.expected()
        read = set(self.opened())
        until(lambda: self.cached() >= read, "what was read is in the cache")
        self.sshd.forget_requests()
        assert self.buildout.read() == self.production.expected()
        assert self.opened() == []


@pytest.fixture(params=[stack for stack in STACKS if stack.filesystem == "sshfs"], ids=str)
def site(
    request: pytest.FixtureRequest,
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
) -> Iterator[Site]:
    made: List[Sshd] = []

    def make() -> Sshd:
        made.append(make_sshd())
        return made[0]

    stack: Stack = request.param
    with built(stack, production, developers, make, make_buildout) as buildout:
        yield Site(buildout, production, made[0])
        buildout.run("umount", "--lazy")


def test_what_was_read_is_not_asked_for_again(site: Site) -> None:
    site.buildout.run("mount", check=True)
    site.reads_once()
    cached = site.cached()
    assert len(cached) > 5
    owner = site.buildout.developer.uid
    assert {path.stat().st_uid for path in (site.cache, *site.cache.rglob("*"))} == {owner}
    for relative in cached:
        assert (site.cache / relative).read_bytes() == (site.production.blob_storage / relative).read_bytes()
    site.buildout.run("umount", check=True)
    is_clean_of(site.buildout)

    site.buildout.run("mount", check=True)
    site.sshd.forget_requests()
    assert site.buildout.read() == site.production.expected()
    assert site.opened() == []

    site.production.commit(2, new=2, changed=2)
    site.buildout.run("sync", "--yes", check=True)
    site.reads_once()
    assert site.cached() > cached

    # What was deleted is fetched again; what is mounted goes on.
    for path in site.cache.rglob("*.blob"):
        path.unlink()
    site.buildout.run("umount", check=True)
    site.buildout.run("mount", check=True)
    site.reads_once()
    site.buildout.run("umount", check=True)
    is_clean_of(site.buildout)


@pytest.fixture
def alone(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> Callable[..., Buildout]:
    """Make a buildout of the developer without sudo."""

    def make(sshd: Sshd, **options: str) -> Buildout:
        remote = {"remote": sshd.remote(production.path), "union": DEVELOPERS_UNION, "sudo": "no"}
        return make_buildout(
            developers.alone, {**remote, **{name.replace("_", "-"): options[name] for name in options}}
        )

    return make


def test_what_is_prefetched_is_used_at_once(sshd: Sshd, alone: Callable[..., Buildout], production: Production) -> None:
    buildout = alone(sshd)
    buildout.run("mount", check=True)
    buildout.run("prefetch", check=True)
    site = Site(buildout, production, sshd)
    sshd.forget_requests()
    assert buildout.read() == production.expected()
    assert site.opened() == []
    buildout.run("umount", check=True)


def test_what_was_read_can_be_fetched_in_its_newest_state(
    sshd: Sshd, alone: Callable[..., Buildout], production: Production
) -> None:
    buildout = alone(sshd)
    site = Site(buildout, production, sshd)
    # The one that was read to see whether the union works.
    assert "1 BLOB of those that were read is in use" in _prefetched(buildout)
    site.reads_once()
    read = site.noted()
    production.commit(1, new=3, changed=2)
    buildout.run("sync", "--yes", check=True)
    _prefetched(buildout)
    # Some of them the wire may have fetched before.
    assert site.newest(read) <= site.cached()
    sshd.forget_requests()
    assert buildout.read() == production.expected()
    assert not {Path(name).parent for name in site.opened()} & read
    refused = buildout.run("mount", "--offline")
    assert refused.returncode == 1
    buildout.run("umount", check=True)


def _prefetched(buildout: Buildout) -> str:
    buildout.run("mount", check=True)
    return buildout.run("prefetch", "--read", check=True).stdout


def test_new_revisions_of_what_was_read_come_by_themselves(
    sshd: Sshd, alone: Callable[..., Buildout], production: Production
) -> None:
    buildout = alone(sshd)
    buildout.run("mount", check=True)
    site = Site(buildout, production, sshd)
    read = site.objects()
    before = site.newest(read)
    site.sums(before)
    until(lambda: site.noted() == read, "what was read is noted")
    until(lambda: before <= site.cached(), "what was read is in the cache")
    site.sums(before)
    production.commit(1, new=0, changed=3)
    buildout.run("sync", "--yes", check=True)
    # What sshfs opens for the first time has the wire look at once whether there is something to fetch.
    site.sums({min(site.newest(read) - before)})
    until(lambda: site.newest(read) <= site.cached(), "the new revisions have come", 30)
    sshd.forget_requests()
    assert buildout.read() == production.expected()
    assert site.opened() == []
    until(lambda: is_counted(buildout), "what was read is counted")
    buildout.run("umount", check=True)


def is_counted(buildout: Buildout) -> bool:
    """Tell whether cow-status says that BLOBs were read, some of them from the cache, and some fetched beforehand."""
    counted = json.loads(buildout.run("status", "--json", check=True).stdout)["read_through"]
    if not counted or not (counted["reads"] > counted["hits"] > 0 < counted["beforehand"]):
        return False
    shown = buildout.run("status", check=True).stdout
    assert re.search(r"BLOB reads +[0-9,]+, [0-9,]+ from the cache \(.*\); fetched .*, .* ahead", shown), shown
    return True


def test_it_can_be_turned_off(sshd: Sshd, alone: Callable[..., Buildout], production: Production) -> None:
    buildout = alone(sshd, read_through="no")
    buildout.run("mount", check=True)
    site = Site(buildout, production, sshd)
    assert buildout.read() == production.expected()
    assert site.opened() != []
    assert not site.cache.exists()
    buildout.run("umount", check=True)


def test_an_internal_server_that_is_read_only_will_do(
    make_sshd: Callable[..., Sshd], alone: Callable[..., Buildout], production: Production
) -> None:
    sshd = make_sshd(forced="internal-sftp -R")
    buildout = alone(sshd, rsync_remote="")
    site = Site(buildout, production, sshd)
    mounted = buildout.run("mount")
    assert "rsync" in mounted.stderr or mounted.returncode == 0, mounted
    buildout.run("umount")
    is_clean_of(site.buildout)


def test_root_that_works_for_a_developer_leaves_files_of_the_developers(
    sshd: Sshd, developers: Developers, alone: Callable[..., Buildout], production: Production
) -> None:
    buildout = alone(sshd, sudo="auto")
    site = Site(buildout, production, sshd)

    def by_root(command: str) -> None:
        developers.root.run([buildout.script(command)], cwd=buildout.path, check=True)

    by_root("mount")
    site.reads_once()
    owner = buildout.developer.uid
    assert {path.stat().st_uid for path in (site.cache, *site.cache.parent.rglob("*"))} == {owner}
    by_root("umount")
    is_clean_of(buildout)


def test_the_limit_of_the_cache_is_kept(sshd: Sshd, alone: Callable[..., Buildout], production: Production) -> None:
    production.commit(12, sizes=[30_000])
    buildout = alone(sshd, cache_size="250k")
    buildout.run("mount", check=True)
    assert buildout.read() == production.expected()
    site = Site(buildout, production, sshd)
    buildout.run("umount", check=True)
    until(lambda: len(site.cached()) > 1, "something is in the cache")
    assert site.size() <= 250_000
    # What found no room finds some from the next mount on.
    unkept = max(str(path.relative_to(production.blob_storage)) for path in production.blob_storage.rglob("*.blob"))
    assert unkept not in site.cached()
    mounted = buildout.run("mount", check=True)
    assert "read least recently" in mounted.stdout, mounted
    buildout.developer.run(["cksum", Path(buildout.settings.blob_storage, unkept)], check=True)
    until(lambda: unkept in site.cached(), "what is read now is in the cache")
    buildout.run("umount", check=True)
    assert site.size() <= 250_000
