"""cow-prefetch: fetches the BLOBs that the local Data.fs refers to."""
