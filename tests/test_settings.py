"""Options become validated settings, or one clear refusal."""

import ast
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowstorage import remotes, settings
from cowstorage.errors import SettingsError

DIRECTORY = "/srv/büild out"
MINIMAL = {
    "recipe": "cowstorage",
    "remote": "plone@www.example.com:/srv/plone",
    "file-storage": "var/filestorage",
    "blob-storage": "var/blobstorage",
}


def made(part="cow-storage", **options):
    """Settings of a part with these options beside the minimal ones; underscores are ours, not the user's."""
    given_options = {**MINIMAL, **{name.replace("_", "-"): value for name, value in options.items()}}
    return settings.from_options(given_options, part, DIRECTORY, "Found here.")


def refusal(**options):
    """The option that is refused, and why."""
    with pytest.raises(SettingsError) as caught:
        settings.check_paths(made(**options))
    return caught.value.option, caught.value.problem


# Defaults


def test_minimal_part_gets_the_documented_defaults():
    assert made() == settings.Settings(
        part="cow-storage",
        prefix="cow",
        directory=DIRECTORY,
        remote="plone@www.example.com:/srv/plone",
        filesystem="sshfs",
        mount_options=(),
        remote_file_storage="var/filestorage",
        remote_blob_storage="var/blobstorage",
        rsync_remote=None,
        rsync_options=None,
        ssh_options=(),
        union="auto",
        sudo="auto",
        file_storage=f"{DIRECTORY}/var/filestorage",
        blob_storage=f"{DIRECTORY}/var/blobstorage",
        storages=(),
        mount_point=f"{DIRECTORY}/var/prod",
        location=f"{DIRECTORY}/var/cow-storage",
        found="Found here.",
        cache_size=None,
    )


def test_empty_values_count_as_left_out():
    empty = {name: "" for name in settings.OPTION_NAMES if name not in MINIMAL and name != "rsync-options"}
    assert settings.from_options({**MINIMAL, **empty}, "cow-storage", DIRECTORY, "Found here.") == made()


def test_a_second_part_has_paths_of_its_own():
    first, second = made("cow-storage"), made("acceptance-storage", file_storage="a/fs", blob_storage="a/bs")
    assert second.prefix == "acceptance"
    assert second.mount_point == f"{DIRECTORY}/var/prod-acceptance"
    assert second.location == f"{DIRECTORY}/var/acceptance-cow-storage"
    settings.check_apart(first, second)


@pytest.mark.parametrize(
    "part, prefix",
    [("cow-storage", "cow"), ("acceptance_storage", "acceptance"), ("x", "x"), ("-storage", "-storage")],
)
def test_scripts_are_named_after_the_part(part, prefix):
    assert settings.script_prefix(part) == prefix


# Spellings


def test_underscores_are_accepted():
    assert settings.canonical({"mount_point": "a"}) == {"mount-point": "a"}


def test_both_spellings_may_agree_but_not_differ():
    assert settings.canonical({"mount_point": "a", "mount-point": " a "}) == {"mount-point": "a"}
    with pytest.raises(SettingsError, match=r"^mount-point: .*underscores"):
        settings.canonical({"mount_point": "a", "mount-point": "b"})


@pytest.mark.parametrize(
    "name, hint",
    [("remoet", "Did you mean remote?"), ("mount_pont", "mean mount-point?"), ("zzz", "Known are: remote")],
)
def test_unknown_option_is_refused_with_a_suggestion(name, hint):
    with pytest.raises(SettingsError) as caught:
        settings.canonical({name: ""})
    assert caught.value.option == name
    assert hint in caught.value.problem


def test_options_of_buildout_and_its_egg_recipe_are_left_alone():
    assert settings.canonical({"recipe": "cowstorage", "eggs": "ZEO", "relative-paths": "true", "_b": "x"}) == {}


# What the remote's form tells


@pytest.mark.parametrize(
    "remote, filesystem",
    [
        ("plone@www.example.com:/srv/plone", "sshfs"),
        ("www.example.com:/srv/plone", "sshfs"),
        ("prod:", "sshfs"),
        ("prod:~/plone", "sshfs"),
        ("plone@[2001:db8::1]:/srv/plone", "sshfs"),
        ("//server/share", "cifs"),
        ("/mnt/backup", "directory"),
        ("srv/plone", None),
        ("", None),
    ],
)
def test_filesystem_told_from_remote(remote, filesystem):
    assert remotes.told_filesystem(remote) == filesystem


def test_relative_directory_is_below_the_buildout():
    assert made(remote="../backup/", filesystem="directory").remote == "/srv/backup"


# Refusals


@pytest.mark.parametrize(
    "options, option, words",
    [
        ({"remote": ""}, "remote", "is required"),
        ({"remote": "-oProxyCommand=x:/srv"}, "remote", "starts with a dash"),
        ({"remote": "plone@-oProxyCommand=x:/srv"}, "remote", "starts with a dash"),
        ({"remote": "host:/srv\n/x"}, "remote", "control character"),
        ({"remote": "srv/plone"}, "filesystem", "can't be told"),
        ({"remote": "//server/share"}, "mount-options", "who logs in"),
        ({"filesystem": "shfs"}, "filesystem", "Did you mean sshfs?"),
        ({"filesystem": "sshfs", "remote": "/srv"}, "remote", "is no [user@]host:path"),
        ({"mount_options": "reconnect,rw"}, "mount-options", "rw would make production writable"),
        ({"mount_options": "ro remount"}, "mount-options", "remount would make production writable"),
        ({"mount_options": "-o ro"}, "mount-options", "without -o"),
        ({"rsync_options": "--delete"}, "rsync-options", "--delete is refused"),
        ({"rsync_options": "-e 'ssh -p 22'"}, "rsync-options", "-e is refused"),
        ({"rsync_options": "--remove-source-files"}, "rsync-options", "is refused"),
        ({"rsync_options": "'-z"}, "rsync-options", "No closing quotation"),
        ({"rsync_remote": "-e x"}, "rsync-remote", "starts with a dash"),
        ({"ssh_options": "-i 'key"}, "ssh-options", "No closing quotation"),
        ({"union": "zfs"}, "union", "zfs is not supported"),
        ({"sudo": "false"}, "sudo", "'false' is not known"),
        ({"remote_file_storage": "/var/fs"}, "remote-file-storage", "must be relative"),
        ({"remote_blob_storage": "a/../../b"}, "remote-blob-storage", "must be relative"),
        ({"storages": "../Data.fs"}, "storages", "is no file name"),
        ({"storages": "Data"}, "storages", "is no file name"),
        ({"blob_storage": ""}, "blob-storage", "was found to take it from"),
        ({"script_prefix": "../x"}, "script-prefix", "can't be the beginning"),
        ({"mount_point": "a\nb"}, "mount-point", "control character"),
    ],
)
def test_refused(options, option, words):
    refused, problem = refusal(**options)
    assert refused == option
    assert words in problem


@pytest.mark.parametrize(
    "options, option, words",
    [
        ({"location": "var/filestorage/cow"}, "location", "lies in the file-storage"),
        ({"location": "var/prod"}, "mount-point", "lies in the location"),
        ({"mount_point": "var/blobstorage"}, "blob-storage", "lies in the mount-point"),
        ({"mount_point": "var/blobstorage.prod/x"}, "mount-point", "lies in the blob-storage's upper directory"),
        ({"location": "var/filestorage.prod"}, "file-storage", "upper directory"),
        ({"blob_storage": "var/filestorage/blobs"}, "blob-storage", "lies in the file-storage"),
        ({"file_storage": "var/Data.fs"}, "blob-storage", "lies in the file-storage"),
        ({"file_storage": "."}, "file-storage", "is or contains the buildout directory"),
        ({"location": "/"}, "location", "is or contains the buildout directory"),
        ({"remote": DIRECTORY}, "remote", "are not apart from each other"),
        ({"remote": f"{DIRECTORY}/var/prod"}, "remote", "are not apart from each other"),
    ],
)
def test_directories_in_each_other_are_refused(options, option, words):
    refused, problem = refusal(**options)
    assert refused == option
    assert words in problem


def test_directories_beside_each_other_are_fine():
    settings.check_paths(made())
    settings.check_paths(made(file_storage=""))
    settings.check_paths(made(blob_storage="/data/blobs", mount_point="/mnt/var/prod", location="var/prod-of-cow"))
    settings.check_paths(made(remote="/mnt/backup"))


@pytest.mark.parametrize(
    "options, words",
    [
        ({}, "script-prefix: [b] and [a] would both write scripts named cow-..."),
        ({"script_prefix": "b"}, "blob-storage"),
        ({"script_prefix": "b", "blob_storage": "b/blobs"}, "file-storage"),
        (
            {"script_prefix": "b", "blob_storage": "b/blobs", "file_storage": "b/fs", "location": "var/prod/b"},
            "location",
        ),
        ({"script_prefix": "b", "blob_storage": "b", "file_storage": "var"}, "file-storage"),
    ],
)
def test_two_parts_in_conflict(options, words):
    with pytest.raises(SettingsError) as caught:
        settings.check_apart(made("b", **{"script_prefix": "cow", **options}), made("a", script_prefix="cow"))
    assert str(caught.value).startswith(words)
    assert "[a]" in str(caught.value)
    assert "[b]" in str(caught.value)


# To the scripts and back


def test_script_data_is_relocatable():
    data = settings.to_script(made(location="/var/lib/cow"))
    assert data["blob_storage"] == "var/blobstorage"
    assert data["location"] == "/var/lib/cow"
    moved = settings.from_script({**data, "directory": "/elsewhere"})
    assert moved.blob_storage == "/elsewhere/var/blobstorage"
    assert moved.location == "/var/lib/cow"


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
hints = st.sampled_from(
    "ro rw yes no auto sshfs directory overlay host:/srv u@h:p /srv //a/b ~ ~x .. ../.. / var a.fs -z '".split()
)
options_of_users = st.dictionaries(st.sampled_from(settings.OPTION_NAMES), st.one_of(text, hints, hints.map(str.upper)))


@given(options_of_users, text)
def test_any_values_give_settings_that_survive_a_round_trip_or_a_refusal(options, part):
    try:
        result = settings.from_options({**MINIMAL, **options}, part, DIRECTORY)
        settings.check_paths(result)
    except SettingsError:
        return
    data = settings.to_script(result)
    assert settings.from_script(ast.literal_eval(ascii(data))) == result
    assert settings.from_script(json.loads(json.dumps(data))) == result
    assert not result.remote.startswith("-")
    assert not set(result.mount_options) & remotes.WRITING_MOUNT_OPTIONS


@given(st.dictionaries(text, text))
def test_any_names_are_known_or_refused(options):
    with contextlib.suppress(SettingsError):
        assert set(settings.canonical(options)) <= set(settings.OPTION_NAMES)


def test_every_option_is_described_once():
    assert len(set(settings.OPTION_NAMES)) == len(settings.OPTIONS)
    assert all(option.default and option.meaning for option in settings.OPTIONS)
    assert not settings.FOREIGN_OPTIONS & set(settings.OPTION_NAMES)
