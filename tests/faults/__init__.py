"""Faults, injected for real: killed, cut off, full, abused.  After each, the promises of cowstorage still hold."""
