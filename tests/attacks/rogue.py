"""What a rogue server shows and says."""

from __future__ import annotations

# A title is set, the screen cleared, the line overwritten, a line forged, and the direction of reading turned.
HOSTILE = "x\x1b]0;owned\x07\x9b2J\r\x1b[1A\nforged: all is well\u202e\x7f"
