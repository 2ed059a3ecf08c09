"""One part on this machine: its settings, paths, journal, lock, BLOB cache and trash, and the facts about its host.

Imports ``system`` and ``database``; knows no union, no file system of production's and no command.
Begin with ``settings`` (what buildout hands to the scripts) and ``journal`` (what the scripts remember between runs);
``scripts`` is the table of the scripts.
"""
