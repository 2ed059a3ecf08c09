"""The recipe in real buildout runs, offline, in a process of their own.

The recipe and two stubs stand in ``develop-eggs`` as links, which is what a ``develop`` line makes.  The stubs have the
names of Plone's recipes and, like these, don't write their defaults back; test_true_recipes.py compares with the
originals.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import locales

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]
COMMANDS = ["log", "mount", "prefetch", "rollback", "savepoint", "status", "sync", "umount"]

STUB = '''
import logging

class Stub:
    """Does nothing, but tells when it is initialised and when it is installed."""

    def __init__(self, buildout, name, options):
        self.name = name
        logging.getLogger(name).info("initialised")

    def install(self):
        logging.getLogger(self.name).info("installed")
        return ()

    update = install
'''

PART = """
[cow-storage]
recipe = cowstorage
remote = plone@www.example.com:/srv/plone
"""

ZEOSERVER = """
[zeoserver]
recipe = plone.recipe.zeoserver
pack-keep-old = false
"""


@pytest.fixture(scope="session")
def links(tmp_path_factory):
    """Directories with the metadata of the recipe and of the stubs, by distribution."""
    own = tmp_path_factory.mktemp("cowstorage")
    for name in ("setup.py", "README.rst", "CHANGES.rst"):
        shutil.copy(CHECKOUT / name, own)
    (own / "src").mkdir()
    (own / "src" / "cowstorage").symlink_to(CHECKOUT / "src" / "cowstorage")
    subprocess.run([sys.executable, "setup.py", "-q", "egg_info"], cwd=own, check=True)
    result = {"cowstorage": own / "src"}
    for name in (
        "plone.recipe.zeoserver",
        "plone.recipe.zope2instance",
        "collective.recipe.filestorage",
        "other.recipe",
    ):
        directory = tmp_path_factory.mktemp("stub")
        module = "stub_" + name.replace(".", "_")
        (directory / f"{module}.py").write_text(STUB)
        metadata = directory / f"{name}.egg-info"
        metadata.mkdir()
        (metadata / "PKG-INFO").write_text(f"Metadata-Version: 1.0\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[zc.buildout]\ndefault = {module}:Stub\n")
        result[name] = directory
    return result


class Buildout:
    """A buildout directory that can be configured and run."""

    def __init__(self, directory, links):
        self.directory = directory
        (directory / "develop-eggs").mkdir(parents=True)
        for name, location in links.items():
            (directory / "develop-eggs" / f"{name}.egg-link").write_text(f"{location}\n.")
        # An index that is empty: nothing is ever asked for over the network.
        self.index = directory / "index"
        self.index.mkdir()

    def configure(self, text, parts="cow-storage", buildout="", name="buildout.cfg"):
        (self.directory / name).write_text(
            f"[buildout]\nparts = {parts}\nindex = {self.index.as_uri()}\n{buildout}\n{text}", encoding="utf-8"
        )

    def run(self, *arguments, before=(), **variables):
        """Run buildout, and return what it has printed; its exit code must be 0."""
        done = self._run(arguments, before, variables)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def fails(self, *arguments, before=(), **variables):
        """Run a buildout that must end with a message for its user, and return that."""
        done = self._run(arguments, before, variables)
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stdout
        return " ".join(done.stdout[done.stdout.index("Error: ") :].split())

    def _run(self, arguments, before, variables):
        return subprocess.run(
            [*before, sys.executable, "-c", "from zc.buildout.buildout import main; main()", "-o", *arguments],
            cwd=self.directory,
            env={**os.environ, "BUILDOUT_HOME": str(self.directory / "home"), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )

    def scripts(self):
        """Names and contents of what is in bin."""
        return {path.name: path.read_text(encoding="utf-8") for path in sorted((self.directory / "bin").iterdir())}

    def data(self, script="cow-mount"):
        """What a script hands to its command."""
        return script_data(self.scripts()[script])

    def installed(self):
        """The paths that buildout would delete."""
        text = (self.directory / ".installed.cfg").read_text(encoding="utf-8")
        return (
            re.search(r"__buildout_installed__ = (.*?)\n__", text[text.index("[cow-storage]") :], re.S).group(1).split()
        )


def script_data(source):
    """The dictionary in a script's last statement; the name ``base`` is kept as a string."""
    call = ast.parse(source).body[-1].body[0].value.args[0]
    keys = [key.value for key in call.args[0].keys]
    values = [value.id if isinstance(value, ast.Name) else ast.literal_eval(value) for value in call.args[0].values]
    return dict(zip(keys, values))


def run_script(script, *arguments):
    """Run a status script that finds nothing mounted; what it prints, which is JSON."""
    done = subprocess.run([script, *arguments], stdout=subprocess.PIPE, encoding="utf-8", check=False)
    assert done.returncode == 3
    return json.loads(done.stdout)


@pytest.fixture
def buildout(tmp_path, links):
    return Buildout(tmp_path / "buildout", links)


# What is generated


def test_a_minimal_part_gets_its_scripts_and_the_paths_of_the_server(buildout):
    buildout.configure(PART + ZEOSERVER, "zeoserver cow-storage")
    output = buildout.run()
    assert list(buildout.scripts()) == [f"cow-{command}" for command in COMMANDS]
    for command in COMMANDS:
        assert f"cowstorage.cli.{command}({{\n    'part': 'cow-storage',\n" in buildout.scripts()[f"cow-{command}"]
    data = buildout.data()
    assert data["remote"] == "plone@www.example.com:/srv/plone"
    assert data["directory"] == str(buildout.directory)
    assert (data["file_storage"], data["blob_storage"]) == ("var/filestorage", "var/blobstorage")
    assert f"over {buildout.directory}/var/filestorage and {buildout.directory}/var/blobstorage" in output
    assert "Taken from [zeoserver] (plone.recipe.zeoserver): file-storage by default" in output


def test_only_scripts_are_reported_as_installed(buildout):
    buildout.configure(PART + ZEOSERVER, "zeoserver cow-storage")
    buildout.run()
    assert sorted(buildout.installed()) == [f"{buildout.directory}/bin/cow-{command}" for command in COMMANDS]
    assert not (buildout.directory / "var").exists()
    assert not (buildout.directory / "parts" / "cow-storage").exists()


def test_an_unchanged_run_changes_nothing(buildout):
    buildout.configure(PART + ZEOSERVER, "zeoserver cow-storage")
    buildout.run()
    # An old time, which any writing would change.
    for path in (buildout.directory / "bin").iterdir():
        os.utime(path, (1, 1))
    output = buildout.run()
    assert "Updating cow-storage." in output
    assert {path.stat().st_mtime for path in (buildout.directory / "bin").iterdir()} == {1}


def test_a_changed_remote_is_in_the_scripts(buildout):
    buildout.configure(PART + ZEOSERVER, "zeoserver cow-storage")
    buildout.run()
    buildout.configure(PART.replace("www", "new") + ZEOSERVER, "zeoserver cow-storage")
    assert "Uninstalling cow-storage." in buildout.run()
    assert buildout.data()["remote"] == "plone@new.example.com:/srv/plone"


def test_a_change_in_the_part_that_is_wired_is_noticed(buildout):
    buildout.configure(PART + ZEOSERVER, "zeoserver cow-storage")
    buildout.run()
    buildout.configure(PART + ZEOSERVER + "blob-storage = blobs\n", "zeoserver cow-storage")
    buildout.run()
    assert buildout.data()["blob_storage"] == "var/blobs"


def test_part_name_and_prefix_name_the_scripts(buildout):
    buildout.configure((PART + ZEOSERVER).replace("cow-storage", "acceptance-storage"), "acceptance-storage")
    assert "There is no zeoserver or instance part to take the paths from: these are the defaults." in buildout.run()
    assert buildout.data("acceptance-mount")["file_storage"] == "var/filestorage"
    buildout.configure((PART + ZEOSERVER).replace("cow-storage", "acceptance-storage"), "zeoserver acceptance-storage")
    buildout.run()
    assert "acceptance-mount" in buildout.scripts()
    buildout.configure(PART + "script-prefix = x\n" + ZEOSERVER, "zeoserver cow-storage")
    buildout.run()
    assert list(buildout.scripts()) == [f"x-{command}" for command in COMMANDS]


def test_scripts_with_relative_paths_work_after_a_move(buildout):
    buildout.configure(PART + ZEOSERVER, "zeoserver cow-storage", "relative-paths = true")
    buildout.run()
    source = buildout.scripts()["cow-mount"]
    assert script_data(source)["directory"] == "base"
    assert str(buildout.directory) not in source
    moved = buildout.directory.with_name("moved")
    buildout.directory.rename(moved)
    assert run_script(moved / "bin" / "cow-status", "--json")["mounts"][0]["target"] == f"{moved}/var/prod"


def test_eggs_of_the_user_are_importable_and_get_no_scripts(buildout):
    buildout.configure(PART + "eggs =\n    other.recipe\n    pytest\n" + ZEOSERVER, "zeoserver cow-storage")
    buildout.run()
    assert list(buildout.scripts()) == [f"cow-{command}" for command in COMMANDS]
    location = (buildout.directory / "develop-eggs" / "other.recipe.egg-link").read_text().split("\n")[0]
    assert location in buildout.scripts()["cow-mount"]


def test_awkward_values_reach_the_scripts_unharmed(tmp_path, links):
    buildout = Buildout(tmp_path / "büild 'out", links)
    remote = 'plone@www.example.com:/srv/größe $x 100% \\ "q" #1'
    buildout.configure(
        f"[cow-storage]\nrecipe = cowstorage\nremote = {remote}\nssh-options = -p 22\n    -i 'a key'\n" + ZEOSERVER,
        "zeoserver cow-storage",
    )
    buildout.run()
    assert buildout.data()["remote"] == remote
    assert buildout.data()["directory"] == str(buildout.directory)
    assert buildout.data()["ssh_options"] == ("-p", "22", "-i", "a key")
    assert "Updating cow-storage." in buildout.run()


def test_a_path_with_umlauts_is_the_same_directory_in_another_locale(tmp_path, links):
    buildout = Buildout(tmp_path / "büild", links)
    buildout.configure(PART + ZEOSERVER, "zeoserver cow-storage")
    buildout.run(**locales.latin_1(tmp_path / "locales"))
    assert buildout.data()["directory"] == str(buildout.directory)


def test_a_configuration_below_the_buildout_directory_may_name_that(buildout):
    (buildout.directory / "conf").mkdir()
    (buildout.directory / "conf" / "base.cfg").write_text(PART + ZEOSERVER)
    buildout.configure("", "zeoserver cow-storage", "extends = base.cfg", name="conf/dev.cfg")
    buildout.run("-c", "conf/dev.cfg", f"buildout:directory={buildout.directory}")
    assert buildout.data()["directory"] == str(buildout.directory)


def test_a_configuration_makes_its_own_directory_the_buildout_directory(buildout):
    """As zc.buildout has it, and Plone's recipes with it."""
    (buildout.directory / "develop-eggs").rename(buildout.directory / "eggs-of-others")
    (buildout.directory / "conf").mkdir()
    buildout.configure(
        PART + ZEOSERVER,
        "zeoserver cow-storage",
        f"develop-eggs-directory = {buildout.directory}/eggs-of-others",
        name="conf/dev.cfg",
    )
    buildout.run("-c", "conf/dev.cfg")
    buildout.directory /= "conf"
    assert buildout.data()["directory"] == str(buildout.directory)


def test_a_develop_line_makes_the_recipe_available(buildout, links):
    (buildout.directory / "develop-eggs" / "cowstorage.egg-link").unlink()
    buildout.configure(PART + ZEOSERVER, "zeoserver cow-storage", f"develop = {links['cowstorage'].parent}")
    # The second switches build isolation off: pip reads it as "use build isolation: no".
    buildout.run(PIP_NO_INDEX="1", PIP_NO_BUILD_ISOLATION="0")
    assert "cow-mount" in buildout.scripts()


# Wiring


def test_a_recipe_from_a_macro_and_paths_by_substitution_are_found(buildout):
    buildout.configure(
        PART + "[paths]\nvar = ${buildout:directory}/data\n"
        "[zeo-base]\nrecipe = plone.recipe.zeoserver\npack-keep-old = false\nvar = ${paths:var}\n"
        "[other-base]\nfoo = bar\n"
        "[database]\n<= zeo-base\n    other-base\n",
        "database cow-storage",
    )
    assert "[database] (plone.recipe.zeoserver)" in buildout.run()
    assert buildout.data()["blob_storage"] == "data/blobstorage"


def test_the_option_instance_chooses_between_parts(buildout):
    instances = "[a]\nrecipe = plone.recipe.zope2instance\n[b]\n<= a\nvar = b\n"
    buildout.configure(PART + instances, "a b cow-storage")
    assert "[cow-storage] instance: [a] and [b] keep their data in different places" in buildout.fails()
    buildout.configure(PART + "instance = b\n" + instances, "a b cow-storage")
    buildout.run()
    assert buildout.data()["file_storage"] == "b/filestorage"
    buildout.configure(PART + "instance = a\n" + instances, "b cow-storage")
    assert "instance: a is no part with" in buildout.fails()


def test_paths_of_the_user_come_first(buildout):
    buildout.configure(PART + "blob_storage = blobs\n" + ZEOSERVER, "zeoserver cow-storage")
    assert "But blob-storage is set in the part itself." in buildout.run()
    assert (buildout.data()["file_storage"], buildout.data()["blob_storage"]) == ("var/filestorage", "blobs")
    buildout.configure(PART + "blob-storage = /b\nfile-storage =\n")
    assert "over /b. The paths are set in the part itself." in buildout.run()
    assert (buildout.data()["file_storage"], buildout.data()["blob_storage"]) == (None, "/b")


def test_other_parts_may_use_our_options(buildout):
    buildout.configure(
        PART + ZEOSERVER + "[other]\nrecipe = other.recipe\npath = ${cow-storage:mount-point}\n", "other zeoserver"
    )
    buildout.run()
    assert f"path = {buildout.directory}/var/prod\n" in (buildout.directory / ".installed.cfg").read_text()


def test_parts_of_other_recipes_keep_their_place(buildout):
    """A part that runs our scripts at build time is listed after ours and must stay there."""
    buildout.configure(PART + ZEOSERVER + "[other]\nrecipe = other.recipe\n", "cow-storage other zeoserver")
    output = buildout.run()
    assert re.findall("Installing (.*)\\.", output) == ["zeoserver", "cow-storage", "other"]


def test_warnings_are_shown_every_time(buildout):
    buildout.configure(PART + "[zeo]\nrecipe = plone.recipe.zeoserver\n", "zeo cow-storage")
    for _ in range(2):
        assert "cow-storage: [zeo] has pack-keep-old on (the default)" in buildout.run()


def test_extra_storages_are_warned_about(buildout):
    extra = "[catalog]\nrecipe = collective.recipe.filestorage\nparts = catalog\n"
    buildout.configure(PART + ZEOSERVER + extra, "zeoserver catalog cow-storage")
    assert "cow-storage: [catalog] (collective.recipe.filestorage) adds FileStorages" in buildout.run()


def test_demo_storage_is_the_reason_given(buildout):
    buildout.configure(
        PART + "[instance]\nrecipe = plone.recipe.zope2instance\ndemo-storage = on\n", "instance cow-storage"
    )
    assert "[instance] has demo-storage on, which already keeps changes apart" in buildout.fails()


def test_clients_are_not_taken_for_their_server(buildout):
    client = "recipe = plone.recipe.zope2instance\nzeo-client = on\n"
    clients = f"[shares]\n{client}shared-blob = on\nblob-storage = elsewhere\n[caches]\n{client}"
    buildout.configure(PART + clients + ZEOSERVER, "shares caches zeoserver cow-storage")
    output = buildout.run()
    assert "Taken from [zeoserver]" in output
    assert re.findall(r"cow-storage: \[(\w+)\] has shared-blob on, but looks for BLOBs in", output) == ["shares"]
    buildout.configure(PART + clients, "shares caches cow-storage")
    message = buildout.fails()
    assert "[shares] is a ZEO client: its server has the data" in message
    assert "[caches] is a ZEO client without shared BLOBs" in message


def test_relstorage_is_blobs_only(buildout):
    sql = "rel-storage =\n    type postgresql\n    dsn dbname=plone\n    blob-dir var/blobs\n    shared-blob-dir true\n"
    buildout.configure(PART + "[instance]\nrecipe = plone.recipe.zope2instance\n" + sql, "instance cow-storage")
    said = "BLOBs only, as [instance] (plone.recipe.zope2instance) has its objects in an SQL database"
    assert f"over {buildout.directory}/var/blobs. {said}" in buildout.run()
    assert (buildout.data()["file_storage"], buildout.data()["blob_storage"]) == (None, "var/blobs")
    shown = run_script(buildout.directory / "bin" / "cow-status", "--json")
    assert [mount["name"] for mount in shown["mounts"]] == ["network", "blobstorage"]
    buildout.configure("")
    buildout.run("buildout:parts=")
    assert buildout.scripts() == {}


def test_status_shows_what_was_found(buildout):
    buildout.configure(PART + ZEOSERVER + "blob-storage = b\n", "zeoserver cow-storage")
    buildout.run()
    script = buildout.directory / "bin" / "cow-status"
    found = "Taken from [zeoserver] (plone.recipe.zeoserver): file-storage by default, blob-storage from its option."
    assert run_script(script, "--json")["found"] == found
    shown = subprocess.run([script, "-v"], stdout=subprocess.PIPE, encoding="utf-8", check=False)
    assert found in " ".join(shown.stdout.split())


def test_typing_errors_in_other_parts_are_still_told_by_buildout(buildout):
    buildout.configure(PART + ZEOSERVER + "blob-storrage = x\n", "zeoserver cow-storage")
    assert "blob-storrage" in buildout.run()


# Refusals


@pytest.mark.parametrize(
    "options, message",
    [
        ("remoet = x", "[cow-storage] remoet: there is no such option. Did you mean remote?"),
        ("mount-options = rw", "[cow-storage] mount-options: rw would make production writable"),
        ("mount-point = a\nmount_point = b", "[cow-storage] mount-point: is also written with underscores"),
        ("location = var/prod", "[cow-storage] mount-point: the mount-point"),
        ("arguments = 1", "[cow-storage] arguments: is set by this recipe"),
        ("scripts = cow-mount", "[cow-storage] scripts: is set by this recipe"),
        ("relative-paths = yes", "[cow-storage] relative-paths: 'yes' must be true or false"),
        ("instance = zeoserver\nfile-storage = a\nblob-storage = b", "[cow-storage] instance: has no use"),
    ],
)
def test_a_wrong_option_is_refused_with_a_message(buildout, options, message):
    buildout.configure(PART + options + ZEOSERVER, "zeoserver cow-storage")
    assert message in buildout.fails()


def test_a_missing_remote_is_refused(buildout):
    buildout.configure("[cow-storage]\nrecipe = cowstorage\n" + ZEOSERVER, "zeoserver cow-storage")
    assert "[cow-storage] remote: is required" in buildout.fails()


def test_two_parts_need_paths_of_their_own(buildout):
    second = PART.replace("cow-storage", "acceptance-storage")
    buildout.configure(PART + second + ZEOSERVER, "zeoserver cow-storage acceptance-storage")
    message = buildout.fails()
    assert "are in conflict" in message
    assert "[cow-storage]" in message
    assert "[acceptance-storage]" in message
    buildout.configure(
        PART + second + "file-storage = a/filestorage\nblob-storage = a/blobstorage\n" + ZEOSERVER,
        "zeoserver cow-storage acceptance-storage",
    )
    buildout.run()
    assert buildout.data("acceptance-mount")["mount_point"] == "var/prod-acceptance"
    assert len(buildout.scripts()) == 2 * len(COMMANDS)


# Removal

NAMESPACE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]


def mounted(command):
    """Words that run a buildout after mounting something in a mount namespace of its own."""
    return [*NAMESPACE, "sh", "-c", f'{command} && exec "$@"', "sh"]


NETWORK = mounted("mkdir -p var/prod && mount -t tmpfs production var/prod")
UNION = mounted("mkdir -p a b var/blobstorage && mount -t overlay -o lowerdir=a:b cowstorage var/blobstorage")
DISK = mounted("mkdir -p var/blobstorage && mount -t tmpfs disk var/blobstorage")


@pytest.mark.parametrize("before", [NETWORK, UNION], ids=["network", "union"])
def test_removal_while_mounted_is_refused(buildout, before):
    buildout.configure(PART + ZEOSERVER, "zeoserver cow-storage")
    buildout.run()
    scripts = buildout.scripts()
    buildout.configure(ZEOSERVER, "zeoserver")
    message = buildout.fails(before=before)
    assert "[cow-storage] is still mounted at" in message
    assert "Run bin/cow-umount first, then buildout again." in message
    assert buildout.scripts() == scripts
    assert "Uninstalling cow-storage." in buildout.run()
    assert buildout.scripts() == {}


def test_renaming_while_mounted_is_refused(buildout):
    buildout.configure(PART + ZEOSERVER, "zeoserver cow-storage")
    buildout.run()
    scripts = buildout.scripts()
    renamed = PART.replace("cow-storage", "prod-storage")
    buildout.configure(renamed + ZEOSERVER, "zeoserver prod-storage")
    assert "Run bin/cow-umount first, then buildout again." in buildout.fails(before=UNION)
    assert buildout.scripts() == scripts
    buildout.run()
    assert sorted(buildout.scripts()) == [f"prod-{command}" for command in COMMANDS]


def test_a_disk_of_the_users_own_does_not_hinder_removal(buildout):
    buildout.configure(PART + ZEOSERVER, "zeoserver cow-storage")
    buildout.run()
    buildout.configure(ZEOSERVER, "zeoserver")
    assert "Local changes stay" in buildout.run(before=DISK)
    assert buildout.scripts() == {}


def test_an_option_may_change_while_mounted(buildout):
    buildout.configure(PART + ZEOSERVER, "zeoserver cow-storage")
    buildout.run()
    buildout.configure(PART.replace("www", "new") + "script-prefix = cow\n" + ZEOSERVER, "zeoserver cow-storage")
    buildout.run(before=NETWORK)
    assert buildout.data()["remote"] == "plone@new.example.com:/srv/plone"


def test_a_changed_location_while_mounted_is_refused(buildout):
    """The new scripts would look for the journal in another place."""
    buildout.configure(PART + ZEOSERVER, "zeoserver cow-storage")
    buildout.run()
    buildout.configure(PART + "location = var/elsewhere\n" + ZEOSERVER, "zeoserver cow-storage")
    assert "Run bin/cow-umount first" in buildout.fails(before=NETWORK)
    buildout.run()
    assert buildout.data()["location"] == "var/elsewhere"


def test_installing_another_part_only_leaves_ours_alone(buildout):
    buildout.configure(PART + ZEOSERVER, "zeoserver cow-storage")
    buildout.run()
    scripts = buildout.scripts()
    buildout.run("install", "zeoserver", before=NETWORK)
    assert buildout.scripts() == scripts


def test_a_new_setuptools_reinstalls_the_scripts_while_mounted(buildout):
    """buildout compares a signature of all that the recipe needs, and reinstalls when it differs."""
    buildout.configure(PART + ZEOSERVER, "zeoserver cow-storage")
    buildout.run()
    record = buildout.directory / ".installed.cfg"
    record.write_text(record.read_text().replace("setuptools-", "setuptools-x"))
    assert "Uninstalling cow-storage." in buildout.run(before=NETWORK)
    assert "cow-umount" in buildout.scripts()
