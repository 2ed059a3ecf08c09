"""Attacks on both promises: each is tried for real, and production is compared byte for byte after it."""
