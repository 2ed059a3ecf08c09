"""What commands are made of: all that yields the steps of a plan, and what decides which steps.

Imports every room but ``commands`` and ``buildout``.  A command goes: ``survey`` (look once), decide (pure, in the
command), a plan (``mounting``, ``fetch``, ``local_changes``, ``savepoints``), run or shown by ``plan``.
Begin with ``plan`` (what a step is) and ``survey`` (what is looked at), then read ``commands/rollback.py``.
"""
