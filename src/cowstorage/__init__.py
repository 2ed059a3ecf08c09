"""Develop a Plone upgrade against production's data: read-only network mount, copy-on-write on top."""
