"""A part with the fewest options."""

from __future__ import annotations

from cowstorage.buildout.options import from_options
from cowstorage.part import settings

DIRECTORY = "/srv/büild out"
MINIMAL = {
    "recipe": "cowstorage",
    "remote": "plone@www.example.com:/srv/plone",
    "file-storage": "var/filestorage",
    "blob-storage": "var/blobstorage",
}


def made(part: str = "cow-storage", **options: str) -> settings.Settings:
    """Make the settings of a part with these options beside the minimal ones; underscores are ours, not the user's."""
    given_options = {**MINIMAL, **{name.replace("_", "-"): value for name, value in options.items()}}
    return from_options(given_options, part, DIRECTORY, "Found here.")
