"""Random text, and what an attacker, or a slip of the finger, is likelier to write than that."""

from __future__ import annotations

from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
AWKWARD = st.sampled_from(
    ["", " ", "-rf", "--", "a b", "a,b", "a:b", "a\\b", "ä", "'", '"', "a\nb", "$(x)", "..", "/", "//", "~", "%", "\0"]
)
VALUES = st.lists(AWKWARD | TEXT, max_size=4).map("".join)
