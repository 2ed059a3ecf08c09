"""Options become validated settings, or one clear refusal."""

from __future__ import annotations

import ast
import contextlib
import json
from typing import Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awkward import TEXT, VALUES
from cowstorage.buildout.options import (
    FOREIGN_OPTIONS,
    OPTION_NAMES,
    OPTIONS,
    canonical,
    check_apart,
    check_paths,
    from_options,
    script_prefix,
)
from cowstorage.errors import SettingsError
from cowstorage.part import settings
from cowstorage.part.settings import from_script, local_paths, to_script
from cowstorage.production import filesystems
from part.parts import DIRECTORY, MINIMAL, made


def refusal(**options):
    """The option that is refused, and why."""
    with pytest.raises(SettingsError) as caught:
        check_paths(made(**options))
    return caught.value.subject, caught.value.problem


# Defaults


def test_a_minimal_part_gets_the_documented_defaults():
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
        read_through=True,
    )


def test_reading_through_can_be_turned_off():
    assert made(read_through="no").read_through is False
    assert made(read_through="yes").read_through is True


@pytest.mark.parametrize("value", ["true", "off", "YES", "1"])
def test_another_word_than_yes_and_no_is_refused(value):
    assert refusal(read_through=value) == ("read-through", f"{value!r} is not known: write yes or no.")


def test_reading_through_is_sshfss_only():
    assert refusal(remote="/mnt/backup", read_through="yes")[0] == "read-through"
    assert made(remote="/mnt/backup").read_through is True


def test_empty_values_count_as_left_out():
    empty = {name: "" for name in OPTION_NAMES if name not in MINIMAL and name != "rsync-options"}
    assert from_options({**MINIMAL, **empty}, "cow-storage", DIRECTORY, "Found here.") == made()


def test_a_second_part_has_paths_of_its_own():
    first, second = made("cow-storage"), made("acceptance-storage", file_storage="a/fs", blob_storage="a/bs")
    assert second.prefix == "acceptance"
    assert second.mount_point == f"{DIRECTORY}/var/prod-acceptance"
    assert second.location == f"{DIRECTORY}/var/acceptance-cow-storage"
    check_apart(first, second)


@pytest.mark.parametrize(
    "part, prefix",
    [("cow-storage", "cow"), ("acceptance_storage", "acceptance"), ("x", "x"), ("-storage", "-storage")],
)
def test_scripts_are_named_after_the_part(part, prefix):
    assert script_prefix(part) == prefix


# Spellings


def test_underscores_are_accepted():
    assert canonical({"mount_point": "a"}) == {"mount-point": "a"}


def test_both_spellings_may_agree_but_not_differ():
    assert canonical({"mount_point": "a", "mount-point": " a "}) == {"mount-point": "a"}
    with pytest.raises(SettingsError, match=r"^mount-point: .*underscores"):
        canonical({"mount_point": "a", "mount-point": "b"})


@pytest.mark.parametrize(
    "name, hint",
    [("remoet", "Did you mean remote?"), ("mount_pont", "mean mount-point?"), ("zzz", "Known are: remote")],
)
def test_an_unknown_option_is_refused_with_a_suggestion(name, hint):
    with pytest.raises(SettingsError) as caught:
        canonical({name: ""})
    assert caught.value.subject == name
    assert hint in caught.value.problem


def test_options_of_buildout_and_its_egg_recipe_are_left_alone():
    assert canonical({"recipe": "cowstorage", "eggs": "ZEO", "relative-paths": "true", "_b": "x"}) == {}


# Relative paths


def test_prepare_has_one_command_a_line():
    assert made(prepare="").prepare == ()
    lines = made(prepare="\n  bin/instance run a.py\n\n  sh -c 'a && b'\n").prepare
    assert lines == ("bin/instance run a.py", "sh -c 'a && b'")
    assert from_script(json.loads(json.dumps(to_script(made(prepare="a\nb"))))).prepare == ("a", "b")
    for line, says in (("a && b", "'&&'"), ("a > b", "'>'"), ("a 'b", "No closing quotation"), ("a\tb", "control")):
        subject, problem = refusal(prepare=line)
        assert subject == "prepare"
        assert says in problem


def test_a_relative_remote_is_below_the_buildout():
    assert made(remote="../backup/", filesystem="directory").remote == "/srv/backup"


def test_every_option_is_described_once():
    assert len(set(OPTION_NAMES)) == len(OPTIONS)
    assert all(option.default and option.meaning for option in OPTIONS)
    assert not FOREIGN_OPTIONS & set(OPTION_NAMES)


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
def test_a_wrong_value_is_refused_with_its_option_and_reason(options, option, words):
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


def test_directories_beside_each_other_are_accepted():
    check_paths(made())
    check_paths(made(file_storage=""))
    check_paths(made(blob_storage="/data/blobs", mount_point="/mnt/var/prod", location="var/prod-of-cow"))
    check_paths(made(remote="/mnt/backup"))


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
def test_two_parts_in_conflict_are_refused(options, words):
    with pytest.raises(SettingsError) as caught:
        check_apart(made("b", **{"script_prefix": "cow", **options}), made("a", script_prefix="cow"))
    assert str(caught.value).startswith(words)
    assert "[a]" in str(caught.value)
    assert "[b]" in str(caught.value)


# Any options

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
hints = st.sampled_from(
    "ro rw yes no auto sshfs directory overlay host:/srv u@h:p /srv //a/b ~ ~x .. ../.. / var a.fs -z '".split()
)
options_of_users = st.dictionaries(st.sampled_from(OPTION_NAMES), st.one_of(text, hints, hints.map(str.upper)))


@given(options_of_users, text)
def test_any_values_give_settings_that_survive_a_round_trip_or_a_refusal(options, part):
    try:
        result = from_options({**MINIMAL, **options}, part, DIRECTORY)
        check_paths(result)
    except SettingsError:
        return
    data = settings.to_script(result)
    assert settings.from_script(ast.literal_eval(ascii(data))) == result
    assert settings.from_script(json.loads(json.dumps(data))) == result
    assert not result.remote.startswith("-")
    assert not set(result.mount_options) & filesystems.WRITING_MOUNT_OPTIONS


@given(st.dictionaries(text, text))
def test_any_names_are_known_or_refused(options):
    with contextlib.suppress(SettingsError):
        assert set(canonical(options)) <= set(OPTION_NAMES)


BASE = {
    "remote": "plone@www.example.com:/srv/plone",
    "file-storage": "var/filestorage",
    "blob-storage": "var/blobstorage",
}


@given(st.dictionaries(st.sampled_from(OPTION_NAMES) | TEXT, VALUES, max_size=4))
def test_any_options_give_settings_or_a_refusal(given_options: Dict[str, str]) -> None:
    try:
        found = from_options({**BASE, **given_options}, "cow-storage", "/home/dev/site")
        check_paths(found)
    except SettingsError:
        return
    again = from_script(json.loads(json.dumps(to_script(found))))
    assert again == found
    assert not found.remote.startswith("-")
    for path in local_paths(found).values():
        assert path.startswith("/")
        assert not any(ord(character) < 32 for character in path)
