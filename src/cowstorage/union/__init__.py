"""Copy-on-write: the unions that lay local changes over production, their trial, and what each leaves in an upper.

Imports ``system``, ``database`` and ``part``; knows nothing of how production is mounted, nor of commands.
Begin with ``base`` (what a union is) and ``kinds`` (the table of them); ``trial`` proves that a union works,
``whiteouts`` and ``copy_up`` read what it wrote.
"""
