"""What one types: a module a script, each with ``add_arguments(parser)`` and ``run(context) -> exit code``.

Imports every room but ``buildout``; nothing in here is needed by another command.
A command reads: look (``survey``), decide (pure), plan (steps, the same for ``--dry-run``), run.
Begin with ``rollback`` and ``umount``, the shortest; ``cli`` calls them.
"""
