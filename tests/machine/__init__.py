"""User-mode Linux, a kernel that is a program, for what the kernel at hand can't do: NFS, CIFS, aufs.

It boots from the host's own root file system, which it can't write to; one boot runs all the tests of a module.
"""
