"""The BLOB cache and cow-prefetch, for real: what is fetched, what the unions show, and doing without a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Iterator, List

import pytest

from cowstorage.part import blob_cache
from cowstorage.system import mounts
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.release import DEVELOPERS_UNION
from harness.sshd import Sshd
from stacks import ON_AUFS, Stack, developer_of, is_clean_of, part_options, prepared

STACKS = [
    Stack("sshfs", "overlay", "sudo"),
    Stack("sshfs", "overlay", "root"),
    Stack("sshfs", DEVELOPERS_UNION, "alone"),
    Stack("directory", "overlay", "sudo"),
    Stack("directory", "fuse-overlayfs", "alone"),
]


class Site:
    """A production, an sshd where the network file system wants one, and a developer's buildout."""

    def __init__(self, buildout: Buildout, production: Production, sshds: List[Sshd]):
        self.buildout = buildout
        self.production = production
        self.sshds = sshds
        self.run = buildout.run
        self.blobs = Path(blob_cache.cache_paths(buildout.settings).blobs)

    def cached(self) -> List[Path]:
        return sorted(self.blobs.rglob("*.blob"))


@pytest.fixture
def make_site(
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> Iterator[Callable[..., Site]]:
    made = []

    def make(stack: Stack = STACKS[0], **options: str) -> Site:
        developer = developer_of(stack, developers)
        sshds = [make_sshd()] if stack.filesystem == "sshfs" else []
        context = prepared(stack, production, developer)
        context.__enter__()
        # What is read would be in the cache, too: what is fetched is to be told apart.
        alone = {"read-through": "no"} if sshds else {}
        part = {**part_options(stack, production, sshds[0] if sshds else None), **alone, **options}
        buildout = make_buildout(developer, part)
        made.append((buildout, context))
        return Site(buildout, production, sshds)

    yield make
    for buildout, context in made:
        buildout.run("umount", "--lazy")
        context.__exit__(None, None, None)


@pytest.mark.parametrize("stack", [*STACKS, *ON_AUFS], ids=str)
def test_what_was_prefetched_is_mounted_without_a_network(make_site: Callable[..., Site], stack: Stack) -> None:
    site = make_site(stack)
    site.run("mount", check=True)
    told = site.run("prefetch", "--dry-run", check=True).stdout
    assert ("To fetch: " in told) == (stack.filesystem == "directory")
    assert not site.blobs.exists()

    assert "Everything is here" in site.run("prefetch", check=True).stdout
    assert site.buildout.read() == site.production.expected()
    assert "To fetch" not in site.run("prefetch", check=True).stdout
    site.run("umount", check=True)

    for sshd in site.sshds:
        sshd.stop()
    offline = site.run("mount", "--offline", check=True).stdout
    assert "without a network" in offline
    assert "mounted already" in site.run("mount", "--offline", check=True).stdout
    assert site.run("status").returncode == 0
    assert site.buildout.read() == site.production.expected()
    site.buildout.commit(2, new=1, changed=1)
    site.run("rollback", "--yes", check=True)
    assert site.buildout.read() == site.production.expected()
    site.run("umount", check=True)
    is_clean_of(site.buildout)

    for sshd in site.sshds:
        sshd.start()
    site.run("mount", "--offline", check=True)
    site.production.commit(1, new=1, changed=1)
    site.run("sync", "--yes", check=True)
    assert site.buildout.read() == site.production.expected()
    refused = site.run("mount", "--offline")
    assert refused.returncode == 1
    assert "refreshed since" in refused.stderr
    assert "Fetched 2 BLOBs" in site.run("prefetch", check=True).stdout
    assert site.buildout.read() == site.production.expected()
    site.run("umount", check=True)


@pytest.mark.parametrize("stack", [*STACKS[:3], *ON_AUFS[:1]], ids=str)
def test_a_dry_run_prints_what_is_run_and_asks_nothing_of_production(
    make_site: Callable[..., Site], stack: Stack
) -> None:
    site = make_site(stack)
    site.run("mount", check=True)
    site.run("umount", check=True)
    (sshd,) = site.sshds
    sshd.stop()
    told = site.run("prefetch", "--dry-run", check=True).stdout
    printed = [line for line in told.splitlines() if "rsync " in line and not line.startswith("#")]
    assert len(printed) == 3
    assert "is not known without asking it" in told
    sshd.start()
    shown = site.run("prefetch", "-v", check=True).stderr.splitlines()
    assert [line for line in printed if line not in shown] == []


def test_cached_blobs_are_not_asked_for_again(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.run("mount", check=True)
    site.run("prefetch", check=True)
    site.sshds[0].forget_requests()
    assert site.buildout.read() == site.production.expected()
    site.buildout.commit(2, new=2, changed=1)
    assert [line for line in site.sshds[0].requests() if ".blob" in line] == []


def test_what_is_here_is_byte_for_byte_productions(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.run("mount", check=True)
    site.run("prefetch", "--history", check=True)
    assert site.cached()
    for path in site.cached():
        assert path.read_bytes() == (site.production.blob_storage / path.relative_to(site.blobs)).read_bytes()
        assert path.stat().st_uid == site.buildout.developer.uid
    assert len(site.cached()) == len(list(site.production.blob_storage.rglob("*.blob")))


def test_size_limit_and_age_choose_what_is_fetched(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.run("mount", check=True)
    site.run("prefetch", "--max-size", "10k", check=True)
    small = site.cached()
    assert small
    assert all(path.stat().st_size <= 10_000 for path in small)
    told = site.run("prefetch", "--limit", "1300k", check=True).stdout
    assert "Everything" not in told
    assert len(site.cached()) > len(small)
    assert sum(path.stat().st_size for path in set(site.cached()) - set(small)) <= 1_300_000
    assert "To fetch: 0 of" in site.run("prefetch", "--newer-than", "2999-01-01", check=True).stdout
    refused = site.run("umount", check=True) and site.run("mount", "--offline")
    assert refused.returncode == 1
    assert site.run("mount").returncode == 0
    assert site.buildout.read() == site.production.expected()


def test_cache_size_keeps_the_newest(make_site: Callable[..., Site]) -> None:
    site = make_site(**{"cache-size": "300k"})
    site.run("mount", check=True)
    site.run("prefetch", check=True)
    before = site.cached()
    assert 0 < sum(path.stat().st_size for path in before) <= 300_000
    site.production.commit(1, new=2, sizes=[140_000])
    site.run("sync", "--yes", check=True)
    assert "Dropped" in site.run("prefetch", check=True).stdout
    after = site.cached()
    assert 280_000 <= sum(path.stat().st_size for path in after) <= 300_000
    assert site.buildout.read() == site.production.expected()


def test_the_cache_is_listed_and_cleared(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.run("mount", check=True)
    assert "complete    no" in site.run("prefetch", "--list", check=True).stdout
    site.run("prefetch", check=True)
    listed = site.run("prefetch", "--list", check=True).stdout
    assert f"BLOBs       {len(site.cached())}" in listed
    assert "complete    yes" in listed
    site.run("prefetch", "--clear", check=True)
    assert site.cached() == []
    assert site.buildout.read() == site.production.expected()


def test_deleting_from_the_cache_by_hand_is_harmless(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.run("mount", check=True)
    site.run("prefetch", check=True)
    site.run("umount", check=True)
    site.cached()[0].unlink()
    refused = site.run("mount", "--offline")
    assert "is not in the BLOB cache" in refused.stderr
    site.run("mount", check=True)
    assert site.buildout.read() == site.production.expected()
    assert "Fetched 1 BLOB," in site.run("prefetch", check=True).stdout


def test_prefetch_runs_while_the_database_is_open(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.run("mount", check=True)
    process = site.buildout.hold()
    assert "stop it, and run bin/cow-mount; then all this is read" in site.run("prefetch", check=True).stdout
    assert "stop your instance and run bin/cow-mount" in site.run("mount", check=True).stdout
    process.kill()
    process.wait()
    assert site.buildout.read() == site.production.expected()
    network = mounts.top(mounts.read(), site.buildout.settings.mount_point)
    assert "umount" in site.run("mount", "--dry-run", check=True).stdout
    assert "which is laid again" in site.run("mount", check=True).stdout
    assert mounts.top(mounts.read(), site.buildout.settings.mount_point) == network
    assert "laid again" not in site.run("mount", check=True).stdout
    site.sshds[0].kill()
    assert site.buildout.read() == site.production.expected()


def test_an_interrupted_prefetch_goes_on_where_it_was(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.run("mount", check=True)
    site.run("prefetch", "--max-size", "10k", check=True)
    here = len(site.cached())
    leftover = site.blobs.parent / "incoming" / "0x00"
    leftover.mkdir(parents=True)
    (leftover / "0x01.blob").write_bytes(b"half")
    for path in (leftover.parent, leftover):
        os.chown(path, site.buildout.developer.uid, site.buildout.developer.gid)
    site.run("prefetch", check=True)
    assert len(site.cached()) > here
    assert not leftover.exists()


def test_blobs_that_production_has_packed_away_are_said(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.run("mount", check=True)
    site.production.commit(1, new=0, changed=2)
    site.production.pack()
    assert "Not on production: " in site.run("prefetch", check=True).stdout


def test_prefetch_without_a_database_says_what_to_do(make_site: Callable[..., Site]) -> None:
    refused = make_site().run("prefetch")
    assert refused.returncode == 1
    assert "Run bin/cow-mount" in refused.stderr
