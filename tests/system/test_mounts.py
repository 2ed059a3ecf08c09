"""The kernel's table of mounts, whatever is in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cowstorage.system import mounts

PIECES = st.lists(st.sampled_from(["36 35 98:0", " / /mnt", " - ", "\\040", "\\999", "\n", "ro"]))


@given(st.text(max_size=400) | PIECES.map("".join))
def test_any_mountinfo_is_read(text: str) -> None:
    for mount in mounts.parse(text):
        assert mounts.is_read_only(mount) in (True, False)
        assert str(mount)
    mounts.at_or_below(mounts.parse(text), "/mnt")


def test_a_mount_that_is_not_in_mountinfo_is_gone() -> None:
    """Whatever else is mounted at its place."""
    (here, *_) = mounts.read()
    assert not mounts.IsGone(here.identity)()
    assert mounts.IsGone(max(mount.identity for mount in mounts.read()) + 1_000_000)()
    assert mounts.unmount_of(here, 0, waits=False) == mounts.unmount_of(here, 0, waits=False)
    assert mounts.unmount_of(here, 0, waits=False) != mounts.unmount_of(here, 0)


@given(st.text(st.characters(min_codepoint=1, exclude_categories=("Cs",)), min_size=1, max_size=40))
def test_what_the_kernel_encodes_is_decoded(name: str) -> None:
    """seq_path(), fs/proc_namespace.c: blank, tab, newline and backslash are escaped."""
    encoded = "".join(f"\\{ord(one):03o}" if one in " \t\n\\" else one for one in name)
    (mount,) = mounts.parse(f"36 35 98:0 / /{encoded} ro - ext4 /dev/x ro\n")
    assert mount.target == f"/{name}"
