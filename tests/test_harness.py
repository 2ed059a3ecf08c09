"""The harness itself: its checks can fail, and what it makes is what it says."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Callable

import pytest

from cowstorage.part.scripts import SCRIPTS
from harness import cleanup, database, fuse_conf, needs, processes, tree
from harness.buildout import Buildout
from harness.developer import Developer, Developers
from harness.polling import until
from harness.production import Production
from harness.sshd import WRITE_REQUEST, Sshd, asked
from harness.workspace import BASE_VARIABLE, Workspace, base, remove_left_behind


def ssh(developer: Developer, sshd: Sshd, command: str, *options: str) -> str:
    """What a command prints on the server."""
    return developer.run(["ssh", *options, sshd.host, command], check=True).stdout


def sftp(developer: Developer, sshd: Sshd, batch: str, *options: str) -> str:
    """What a batch of sftp prints, errors included."""
    result = developer.run(["sftp", *options, "-b", "-", sshd.host], input=batch)
    return result.stdout + result.stderr


# Snapshots


@pytest.fixture
def blob(production: Production) -> Path:
    """One of production's BLOB files."""
    return next(production.blob_storage.rglob("*.blob"))


def test_snapshot_shows_one_changed_byte(production: Production, blob: Path) -> None:
    before = production.snapshot()
    times = blob.stat()
    with blob.open("r+b") as file:
        first = file.read(1)[0]
        file.seek(0)
        file.write(bytes([first ^ 1]))
    os.utime(blob, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(AssertionError, match=rf"{blob.name}: ctime_ns .*sha256 \w+… -> "):
        production.assert_unchanged()
    assert len(tree.differences(before, production.snapshot())) == 1
    production.remember()


def test_snapshot_shows_mode_times_new_and_missing_paths(production: Production, blob: Path) -> None:
    before = production.snapshot()
    blob.chmod(0o600)
    os.utime(production.data_fs, (1, 1))
    (production.path / "new").mkdir()
    (production.path / "etc" / "site.conf").unlink()
    shown = "\n".join(tree.differences(before, production.snapshot()))
    assert f"{blob.relative_to(production.path)}: mode 0400 -> 0600, ctime_ns" in shown
    assert "var/filestorage/Data.fs: mtime_ns" in shown
    assert "new: new, directory 07" in shown
    assert "etc/site.conf: gone" in shown
    production.remember()


def test_snapshot_shows_what_was_taken_back(production: Production, blob: Path) -> None:
    blob.chmod(0o600)
    blob.chmod(0o400)
    with pytest.raises(AssertionError, match=r"ctime_ns"):
        production.assert_unchanged()
    production.remember()


# Production


def test_production_reads_back_as_it_was_written(production: Production) -> None:
    found = database.read(str(production.data_fs), str(production.blob_storage))
    production.remember()
    assert found == production.expected()
    assert len(found) == 10
    assert all(document.sha256 for document in found.values())


def test_production_is_private_to_its_user(production: Production) -> None:
    entries = production.snapshot()
    assert {entry.uid for entry in entries.values()} == {production.uid}
    assert {entry.mode for path, entry in entries.items() if path.endswith(".blob")} == {0o400}
    stored = [(path, e) for path, e in entries.items() if path.startswith(("var/filestorage", "var/blobstorage"))]
    assert {e.mode for _, e in stored if e.type == "directory"} == {0o700}
    assert entries["var/filestorage/Data.fs"].mode == 0o600
    assert (production.blob_storage / ".layout").read_text() == "bushy"
    sizes = {entry.size for path, entry in entries.items() if path.endswith(".blob")}
    assert sizes == set(database.SIZES)
    assert (production.file_storage / "Data.fs.index").exists()


def test_production_expects_what_is_committed_to_it(production: Production) -> None:
    before = production.expected()
    size = production.data_fs.stat().st_size
    written = production.commit(3, changed=1, note="Upgraded to 5.2", user="admin")
    assert production.data_fs.stat().st_size > size
    assert set(production.expected()) > set(before)
    assert production.expected().items() >= written.items()
    assert database.read(str(production.data_fs), str(production.blob_storage)) == production.expected()
    assert b"Upgraded to 5.2 3" in production.data_fs.read_bytes()
    assert b"/Plone admin" in production.data_fs.read_bytes()
    production.remember()


def test_a_pack_of_production_removes_revisions_and_blobs(production: Production) -> None:
    size, blobs = production.data_fs.stat().st_size, len(list(production.blob_storage.rglob("*.blob")))
    production.pack()
    assert production.data_fs.stat().st_size < size
    assert len(list(production.blob_storage.rglob("*.blob"))) == len(production.expected()) < blobs
    assert database.read(str(production.data_fs), str(production.blob_storage)) == production.expected()
    production.remember()


def test_an_added_storage_has_documents_of_its_own(production: Production) -> None:
    production.add_storage("catalog.fs")
    found = database.read(str(production.file_storage / "catalog.fs"), None)
    production.remember()
    assert found == production.expected("catalog.fs")
    assert len(found) == 2


@pytest.mark.parametrize("length", [None, 30])
def test_a_torn_tail_is_an_unfinished_transaction_at_the_end(production: Production, length: int | None) -> None:
    end = production.torn_tail(length)
    content = production.data_fs.read_bytes()
    assert len(content) == end + length if length else len(content) > end + 100
    assert content[end + 16 : end + 17] == b"c"
    assert database.read(str(production.data_fs), str(production.blob_storage)) == production.expected()
    production.remember()


# sshd


@pytest.mark.parametrize("who", Developers._fields)
def test_sshd_serves_every_developer(sshd: Sshd, developers: Developers, production: Production, who: str) -> None:
    developer = getattr(developers, who)
    assert ssh(developer, sshd, "id -un") == "cowprod\n"
    assert "Data.fs.index" in sftp(developer, sshd, f"ls {production.file_storage}")
    assert any("opendir" in request for request in sshd.requests())


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-s", "/usr/lib/openssh/sftp-server"),
        ("-s", "PATH=/usr/libexec:/usr/lib/openssh exec sftp-server -l QUIET"),
    ],
    ids=["subsystem", "path", "search"],
)
def test_sftp_write_is_noticed(sshd: Sshd, developers: Developers, scratch: Path, options: tuple[str, ...]) -> None:
    target = scratch / "target"
    target.mkdir()
    target.chmod(0o777)
    sftp(developers.dev, sshd, f"get /etc/hostname {target}/fetched", *options)
    sshd.assert_no_write_requests()
    sftp(developers.dev, sshd, f"put /etc/hostname {target}/stored", *options)
    assert (target / "stored").exists()
    with pytest.raises(AssertionError, match=r'open ".*/stored" flags WRITE'):
        sshd.assert_no_write_requests()
    sshd.forget_requests()


def test_refused_sftp_write_is_noticed(sshd: Sshd, developers: Developers, production: Production) -> None:
    server = ("-s", "/usr/lib/openssh/sftp-server -R")
    sftp(developers.dev, sshd, f"ls {production.path}", *server)
    assert sshd.requests()
    sshd.assert_no_write_requests()
    new = production.path / "new"
    for batch, request in (
        (f"rm {production.data_fs}", "Refusing remove request"),
        (f"mkdir {new}", "Refusing mkdir request"),
        (f"put /etc/hostname {new}", f'open "{new}" flags WRITE'),
    ):
        sftp(developers.dev, sshd, batch, *server)
        assert sshd.write_requests()[0].startswith(request)
        sshd.forget_requests()
    production.assert_unchanged()


def test_first_request_of_a_session_may_be_refused() -> None:
    said = [f"Refusing {name} request in read-only mode" for name in ("posix-rename", "hardlink", "posix-rename")]
    assert asked(["received client version 3", *said]) == ["received client version 3", said[2]]
    assert asked(["received client version 3", "opendir", said[0]]) == ["received client version 3", "opendir", said[0]]


def test_rsync_is_noticed_by_its_direction(sshd: Sshd, developers: Developers, scratch: Path) -> None:
    target = scratch / "target"
    target.mkdir()
    target.chmod(0o777)
    developers.dev.run(["rsync", sshd.remote("/etc/hostname"), target / "fetched"], check=True)
    assert any(request.startswith("rsync --server --sender") for request in sshd.requests())
    sshd.assert_no_write_requests()
    developers.dev.run(["rsync", "/etc/hostname", sshd.remote(target / "stored")], check=True)
    with pytest.raises(AssertionError, match=r"rsync --server"):
        sshd.assert_no_write_requests()
    sshd.forget_requests()


@pytest.mark.parametrize(
    "line, writes",
    [
        ('open "/srv/flags WRITE" flags READ mode 0666', False),
        ('open "/srv/Data.fs" flags READ,WRITE mode 0666', True),
        ('open "/srv/Data.fs" flags WRITE,CREATE,TRUNCATE mode 0644', True),
        ('close "/srv/Data.fs" bytes read 4096 written 0', False),
        ('opendir "/srv/remove name"', False),
        ('set "/srv/Data.fs" modtime 20240101-00:00:00', True),
        ('posix-rename old "/a" new "/b"', True),
        ("Refusing posix-rename request in read-only mode", True),
        ("rsync --server --sender -vlogDtprze.iLsfxCIvu . /srv/plone/var/filestorage/Data.fs", False),
        ("rsync --server -vlogDtprze.iLsfxCIvu . /srv/plone", True),
    ],
)
def test_what_counts_as_a_write_request(line: str, writes: bool) -> None:
    assert bool(WRITE_REQUEST.match(line)) == writes


def test_a_forced_command_is_all_that_sshd_runs(
    make_sshd: Callable[..., Sshd], developers: Developers, production: Production
) -> None:
    sshd = make_sshd(forced="internal-sftp -R")
    assert "Data.fs" in sftp(developers.dev, sshd, f"ls {production.file_storage}")
    assert "ermission denied" in sftp(developers.dev, sshd, f"rm {production.data_fs}")
    assert "sftp connections only" in developers.dev.run(["ssh", sshd.host, "id -un"]).stdout


def test_a_hung_sshd_answers_nobody_until_it_is_resumed(sshd: Sshd, developers: Developers) -> None:
    session = developers.dev.popen(["ssh", sshd.host, "cat"])
    assert session.stdin
    assert session.stdout
    session.stdin.write("before\n")
    session.stdin.flush()
    assert session.stdout.readline() == "before\n"
    sshd.hang()
    with pytest.raises(subprocess.TimeoutExpired):
        session.communicate("during\n", timeout=0.5)
    with pytest.raises(subprocess.TimeoutExpired):
        developers.dev.run(["ssh", sshd.host, "true"], timeout=0.5)
    sshd.resume()
    assert session.communicate(timeout=10)[0] == "during\n"
    assert ssh(developers.dev, sshd, "echo back") == "back\n"


@pytest.mark.parametrize("how", ["stop", "kill", "drop_sessions"])
def test_sessions_end_with_sshd_and_it_comes_back(sshd: Sshd, developers: Developers, how: str) -> None:
    session = developers.dev.popen(["ssh", sshd.host, "echo here; cat"])
    assert session.stdout
    assert session.stdout.readline() == "here\n"
    getattr(sshd, how)()
    assert session.wait(10) == 255
    if how != "drop_sessions":
        assert developers.dev.run(["ssh", sshd.host, "true"]).returncode == 255
        sshd.start()
    assert ssh(developers.dev, sshd, "echo back") == "back\n"


def test_changed_host_key_and_revoked_key_are_refused(sshd: Sshd, developers: Developers) -> None:
    sshd.change_host_key()
    refused = developers.dev.run(["ssh", sshd.host, "true"])
    assert refused.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr
    developers.dev.known_hosts.write_text(sshd.known_hosts_line())
    assert ssh(developers.dev, sshd, "echo back") == "back\n"
    sshd.revoke_all()
    assert "Permission denied (publickey)" in developers.dev.run(["ssh", sshd.host, "true"]).stderr


def test_the_options_of_a_key_are_kept(sshd: Sshd, developers: Developers) -> None:
    sshd.revoke_all()
    sshd.authorize(developers.dev.public_key, 'restrict,command="echo forced"')
    assert ssh(developers.dev, sshd, "id -un") == "forced\n"


# Developers


def test_developers_are_who_they_are(developers: Developers) -> None:
    assert developers.dev.run(["id", "-un"]).stdout == "cowdev\n"
    assert developers.alone.run(["id", "-un"]).stdout == "cowalone\n"
    assert developers.root.run(["id", "-u"]).stdout == "0\n"
    assert developers.dev.run(["sudo", "-n", "id", "-u"]).stdout == "0\n"
    assert developers.alone.run(["sudo", "-n", "true"]).returncode != 0
    assert developers.dev.run(["cat"], input="zażółć").stdout == "zażółć"
    assert developers.alone.run(["pwd"]).stdout == f"{developers.alone.home}\n"


def test_a_terminal_gets_its_answers(developers: Developers) -> None:
    script = 'test -t 0 && test -t 1 && printf "Name? " && read -r n && printf "%s, sure? " "$n" && read -r y && id -un'
    result = developers.dev.run(["sh", "-c", script], tty=True, answers=[("Name?", "Ada\n"), ("Ada, sure?", "y\n")])
    assert result.returncode == 0
    assert result.stdout.endswith("cowdev\n")
    interrupted = developers.dev.run(["sh", "-c", "echo on; exec cat"], tty=True, answers=[("on", "\x03")])
    assert interrupted.returncode == -signal.SIGINT
    with pytest.raises(AssertionError, match="Never asked 'Why"):
        developers.dev.run(["echo", "Because"], tty=True, answers=[("Why?", "\n")])
    with pytest.raises(subprocess.TimeoutExpired):
        developers.dev.run(["cat"], tty=True, timeout=0.2)


def test_time_limit_ends_the_whole_family(developers: Developers, scratch: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        developers.dev.run(["sh", "-c", "sleep 1000; true"], timeout=0.2)
    until(lambda: not processes.marked(scratch), "killed with its parent")


# /etc/fuse.conf


@pytest.fixture
def configuration(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the place of the machine's, which other runs use as well."""
    monkeypatch.setattr(fuse_conf, "CONFIGURATION", scratch / "fuse.conf")
    monkeypatch.setattr(fuse_conf, "ORIGINAL", scratch / "fuse.conf.original")
    monkeypatch.setattr(fuse_conf, "LOCK", scratch / "fuse.conf.lock")
    return scratch / "fuse.conf"


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("text", ["# mount_max = 7\n#user_allow_other\n", " user_allow_other\nmount_max = 7\n", ""])
def test_fuse_conf_is_set_and_restored(configuration: Path, text: str, allowed: bool) -> None:
    configuration.write_text(text)
    with fuse_conf.user_allow_other(allowed):
        assert fuse_conf.allows_other() == allowed
        assert text.count("mount_max = 7") == configuration.read_text().count("mount_max = 7")
    assert configuration.read_text() == text


def test_fuse_conf_of_a_killed_run_is_restored(configuration: Path) -> None:
    configuration.write_text("user_allow_other\n")
    fuse_conf.ORIGINAL.write_text("# as it was\n")
    with fuse_conf.user_allow_other():
        fuse_conf.restore_left_behind()
        assert fuse_conf.allows_other()
    assert configuration.read_text() == "# as it was\n"
    fuse_conf.restore_left_behind()
    assert configuration.read_text() == "# as it was\n"


# What the machine lacks fails a test


def test_missing_root_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(pytest.fail.Exception, match="Run pytest as root"):
        needs.root()


def test_missing_program_fails() -> None:
    assert needs.program("sh", "dash").endswith("/sh")
    with pytest.raises(pytest.fail.Exception, match="apt install no-such-package"):
        needs.program("no-such-program", "no-such-package")


def test_missing_fuse_fails(monkeypatch: pytest.MonkeyPatch, scratch: Path, fuse: None) -> None:
    monkeypatch.setattr(needs, "FUSE_DEVICE", scratch / "fuse")
    with pytest.raises(pytest.fail.Exception, match="modprobe fuse"):
        needs.fuse()


def test_unsuitable_base_fails(monkeypatch: pytest.MonkeyPatch, scratch: Path) -> None:
    closed = scratch / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setenv(BASE_VARIABLE, str(closed))
    with pytest.raises(pytest.fail.Exception, match=f"can't look into {closed}"):
        base()


# Cleaning up


def test_leftover_mounts_and_processes_are_told_and_removed(
    developers: Developers, scratch: Path, production: Production, sshd: Sshd, fuse: None
) -> None:
    point = scratch / "a mount, with \\ and ü"
    point.mkdir()
    os.chown(point, developers.dev.uid, developers.dev.gid)
    developers.dev.run(["sshfs", "-o", "ro,idmap=user", sshd.remote(production.path), point], check=True)
    assert "Data.fs" in developers.dev.run(["ls", point / "var" / "filestorage"], check=True).stdout
    inner = scratch / "inner"
    inner.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(inner)], check=True)
    assert [mount.type for mount in cleanup.mounts_below(scratch)] == ["fuse.sshfs", "tmpfs"]
    with pytest.raises(AssertionError, match=r"fuse\.sshfs"):
        cleanup.assert_nothing_mounted(scratch)
    assert any("sshfs" in processes.command(pid) for pid in processes.marked(scratch))
    sshd.hang()
    cleanup.unmount_below(scratch)
    cleanup.assert_nothing_mounted(scratch)
    sshd.resume()
    cleanup.end_processes(scratch)
    cleanup.assert_nothing_running(scratch)


def test_next_run_removes_what_a_killed_one_left(scratch: Path) -> None:
    left = Workspace.create()
    assert left.path.exists()
    dead = subprocess.Popen(["true"])
    dead.wait()
    left.sudoers.write_text("# nothing\n")
    (left.path / "pids").write_text(f"{dead.pid} 1\n")
    inner = left.scratch("inner")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(inner)], check=True)
    remove_left_behind(left.path.parent)
    assert not left.path.exists()
    assert not left.sudoers.exists()
    assert scratch.exists()


# Buildout


@pytest.mark.parametrize("who", Developers._fields)
def test_scripts_reach_the_package(developers: Developers, make_buildout: Callable[..., Buildout], who: str) -> None:
    buildout = make_buildout(getattr(developers, who), {"remote": "production:/srv/plone"})
    for command in SCRIPTS:
        assert f"cowstorage.cli.{command}({{" in buildout.script(command).read_text()
    probe = buildout.path / "bin" / "probe"
    probe.write_text(buildout.runtime.script("cowstorage.part.settings", "__file__ and __import__('ZODB') and 0"))
    probe.chmod(0o755)
    result = buildout.developer.run([probe])
    assert (result.returncode, result.stderr) == (0, "")


def test_a_developers_database_is_written_packed_and_held(
    developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    buildout = make_buildout(developers.alone, {"remote": "production:/srv/plone", "union": "fuse-overlayfs"})
    assert buildout.settings.union == "fuse-overlayfs"
    own = buildout.create_own_database()
    assert buildout.read() == own
    changed = buildout.commit(1, new=0, changed=1, sizes=[10])
    assert buildout.read() == {**own, **changed}
    gone = buildout.delete()
    buildout.pack()
    assert buildout.read() == {name: value for name, value in {**own, **changed}.items() if name not in gone}
    holder = buildout.hold()
    with pytest.raises(AssertionError, match="LockError"):
        buildout.read()
    holder.kill()
    until(lambda: holder.poll() is not None, "the holder is gone")
