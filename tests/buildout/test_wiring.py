"""The two paths are found as plone.recipe.zeoserver and plone.recipe.zope2instance themselves find them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowstorage.buildout import wiring
from cowstorage.errors import SettingsError

DIRECTORY = "/srv/plone"
CLIENT = {"zeo-client": "on"}
SHARED = {"zeo-client": "on", "shared-blob": "on"}


def zeoserver(**options):
    """Options of a zeoserver part; underscores stand for hyphens."""
    return {"recipe": wiring.ZEOSERVER, "pack-keep-old": "false", **hyphenated(options)}


def instance(**options):
    """Options of an instance part; underscores stand for hyphens."""
    return {"recipe": wiring.ZOPE2INSTANCE, **hyphenated(options)}


def hyphenated(options):
    return {name.replace("_", "-"): value for name, value in options.items()}


def places(parts, name=None):
    found = wiring.find(parts, DIRECTORY, name)
    return found.part, found.file_storage, found.file_name, found.blob_storage


def refusal(parts, name=None):
    with pytest.raises(SettingsError) as caught:
        wiring.find(parts, DIRECTORY, name)
    return str(caught.value)


@pytest.mark.parametrize(
    "recipe, name",
    [
        ("plone.recipe.zeoserver", "plone.recipe.zeoserver"),
        ("plone.recipe.zeoserver[zrs]", "plone.recipe.zeoserver"),
        ("plone.recipe.zeoserver:default", "plone.recipe.zeoserver"),
        ("plone.recipe.zope2instance >= 6", "plone.recipe.zope2instance"),
        ("plone-recipe_zope2instance", "plone.recipe.zope2instance"),
        (" Plone.Recipe.ZEOServer ", "plone.recipe.zeoserver"),
        ("", ""),
    ],
)
def test_the_name_of_a_recipe_is_found_in_any_spelling(recipe, name):
    assert wiring.recipe_name(recipe) == name


@pytest.mark.parametrize(
    "options, file_storage, file_name, blob_storage",
    [
        ({}, "var/filestorage", "Data.fs", "var/blobstorage"),
        ({"var": "data"}, "data/filestorage", "Data.fs", "data/blobstorage"),
        ({"var": "/data"}, "/data/filestorage", "Data.fs", "/data/blobstorage"),
        ({"file_storage": "fs/Zope.fs"}, "var/fs", "Zope.fs", "var/blobstorage"),
        ({"file_storage": "/data/Data.fs", "blob_storage": "/data/blobs"}, "/data", "Data.fs", "/data/blobs"),
        ({"blob_storage": "blobs"}, "var/filestorage", "Data.fs", "var/blobs"),
        ({"blob_storage": "../b"}, "var/filestorage", "Data.fs", "b"),
    ],
)
def test_the_paths_of_a_zeoserver_are_found(options, file_storage, file_name, blob_storage):
    expected = tuple(absolute(path) for path in (file_storage, blob_storage))
    part, file_storage, name, blob_storage = places({"zeo": zeoserver(**options)})
    assert (part, name, file_storage, blob_storage) == ("zeo", file_name, *expected)


@pytest.mark.parametrize(
    "options, file_storage, file_name, blob_storage",
    [
        ({}, "var/filestorage", "Data.fs", "var/blobstorage"),
        ({"var": "data"}, "data/filestorage", "Data.fs", "data/blobstorage"),
        ({"file_storage": "fs/Zope.fs"}, "var/fs", "Zope.fs", "var/blobstorage"),
        ({"file_storage": "/data/Data.fs", "blob_storage": "/data/blobs"}, "/data", "Data.fs", "/data/blobs"),
        ({"var": "data", "blob_storage": "blobs"}, "data/filestorage", "Data.fs", "blobs"),
        ({"shared_blob": "on"}, "var/filestorage", "Data.fs", "var/blobstorage"),
        ({"demo_storage": "off", "zeo_client": "off"}, "var/filestorage", "Data.fs", "var/blobstorage"),
    ],
)
def test_the_paths_of_an_instance_without_a_server_are_found(options, file_storage, file_name, blob_storage):
    expected = tuple(absolute(path) for path in (file_storage, blob_storage))
    part, file_storage, name, blob_storage = places({"instance": instance(**options)})
    assert (part, name, file_storage, blob_storage) == ("instance", file_name, *expected)


def absolute(path):
    return path if path.startswith("/") else f"{DIRECTORY}/{path}"


# Which part


def test_a_server_comes_before_instances_in_any_order():
    parts = {"instance": instance(var="/x"), "client": instance(**CLIENT), "zeo": zeoserver()}
    assert places(parts)[0] == "zeo"
    assert places(dict(reversed(parts.items())))[0] == "zeo"


def test_instances_that_agree_are_one():
    assert places({"a": instance(), "b": instance(var=f"{DIRECTORY}/var")})[0] == "a"


def test_parts_that_differ_need_a_choice():
    parts = {"a": zeoserver(), "b": zeoserver(var="b")}
    message = refusal(parts)
    assert message.startswith("instance: [a] and [b] keep their data in different places.")
    assert "instance = a" in message
    assert places(parts, "b")[1] == f"{DIRECTORY}/b/filestorage"


def test_a_named_part_comes_before_the_server():
    assert places({"zeo": zeoserver(), "debug": instance(var="d")}, "debug")[0] == "debug"


def test_a_named_part_must_be_one_that_keeps_data():
    assert "Such parts are: zeo." in refusal({"zeo": zeoserver(), "x": {"recipe": "zc.recipe.egg"}}, "x")
    assert "Such parts are: there is none." in refusal({}, "x")
    assert refusal({"client": instance(**CLIENT)}, "client").startswith("instance: [client] is a ZEO client")


def test_without_a_part_that_keeps_data_the_defaults_are_taken():
    found = wiring.find({"other": {"recipe": "zc.recipe.egg"}, "macro": {}}, DIRECTORY)
    assert found.file_storage == f"{DIRECTORY}/var/filestorage"
    assert found.blob_storage == f"{DIRECTORY}/var/blobstorage"
    assert found.found == "There is no zeoserver or instance part to take the paths from: these are the defaults."
    assert found.warnings == ()


@pytest.mark.parametrize(
    "options, reason",
    [
        (zeoserver(zeo_conf="zeo.conf"), "has a zeo-conf of its own"),
        (zeoserver(blob_storage=""), "keeps no BLOBs"),
        (zeoserver(file_storage="data.zodb"), "file-storage = data.zodb"),
        (instance(zope_conf="zope.conf"), "has a zope-conf of its own"),
        (instance(blob_storage=""), "keeps no BLOBs"),
        (instance(file_storage=""), "no file name that ends in .fs"),
        (instance(**CLIENT), "without shared BLOBs"),
        (instance(**SHARED), "its server has the data"),
        (instance(demo_storage="on"), "demo-storage on"),
        (instance(demo_storage="on", before_storage="before"), "demo-storage on"),
        (instance(rel_storage="type postgresql\ndsn x"), "in the SQL database"),
        (instance(rel_storage="type x\nblob-dir /b"), "in the SQL database"),
        (instance(rel_storage="type x\nblob-dir /b\nshared-blob-dir false"), "in the SQL database"),
    ],
)
def test_parts_that_keep_nothing_to_serve_are_passed_over_with_the_reason(options, reason):
    message = refusal({"part": options})
    assert f"[part] {reason}" in message or reason in message
    assert places({"part": options, "good": instance()})[0] == "good"


def test_relstorage_has_blobs_only():
    found = wiring.find(
        {"instance": instance(rel_storage="type postgresql\ndsn x y\nblob-dir  var/rel\nshared-blob-dir true")},
        DIRECTORY,
    )
    assert found.file_storage is None
    assert found.blob_storage == f"{DIRECTORY}/var/rel"
    assert found.found.startswith("BLOBs only")


# What is said


@pytest.mark.parametrize(
    "options, said",
    [
        ({}, "file-storage by default, blob-storage by default."),
        ({"blob_storage": "b"}, "file-storage by default, blob-storage from its option."),
        ({"file_storage": "f.fs", "blob_storage": "b"}, "file-storage from its option, blob-storage from its option."),
    ],
)
def test_what_was_found_is_told_with_part_recipe_and_option(options, said):
    found = wiring.find({"zeo": zeoserver(**options)}, DIRECTORY)
    assert found.found == f"Taken from [zeo] (plone.recipe.zeoserver): {said}"


@pytest.mark.parametrize("value, warned", [(None, True), ("", True), ("true", True), ("False", False), ("off", True)])
def test_pack_keep_old_is_warned_about_as_the_recipe_reads_it(value, warned):
    options = zeoserver()
    del options["pack-keep-old"]
    if value is not None:
        options["pack-keep-old"] = value
    warnings = wiring.find({"zeo": options}, DIRECTORY).warnings
    assert [True for warning in warnings if "[zeo] has pack-keep-old on" in warning] == [True] * warned


def test_clients_that_look_elsewhere_are_warned_about():
    parts = {
        "zeo": zeoserver(),
        "good": instance(**SHARED),
        "own-cache": instance(**CLIENT, blob_storage="cache"),
        "astray": instance(**SHARED, blob_storage="other"),
    }
    assert wiring.find(parts, DIRECTORY).warnings == (
        "[astray] has shared-blob on, but looks for BLOBs in /srv/plone/other and not in /srv/plone/var/blobstorage.",
    )


names = st.sampled_from(
    "recipe var file-storage blob-storage zeo-client shared-blob demo-storage rel-storage zeo-conf zope-conf".split()
)
values = st.one_of(
    st.text(max_size=10), st.sampled_from([wiring.ZEOSERVER, wiring.ZOPE2INSTANCE, "on", "off", "a/b.fs", "/x.fs"])
)


@given(st.dictionaries(st.text(max_size=3), st.dictionaries(names, values), max_size=3), st.text(max_size=3))
def test_any_buildout_is_wired_or_refused(parts, name):
    try:
        found = wiring.find(parts, DIRECTORY, name)
    except SettingsError:
        return
    assert found.part in parts or "these are the defaults" in found.found
    assert found.blob_storage.startswith("/")
    assert found.file_storage is None or found.file_storage.startswith("/")
