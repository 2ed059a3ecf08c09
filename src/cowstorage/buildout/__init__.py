"""Build time: the recipe that buildout runs, its search for the two storage paths, and the part's options judged.

Alone imports ``zc.*``; besides that ``system``, ``part``, ``production`` and ``union``.  No script imports it.
Begin with ``recipe`` (what buildout calls), then ``wiring`` (where the buildout keeps its data) and ``options`` (which
values are refused, and what becomes of the others).
"""
