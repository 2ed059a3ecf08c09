"""What the tests need around cowstorage: a production, an sshd, developers, and the means to clean up after them.

Each module has one job; the fixtures of ``conftest.py`` put them together.  Everything here needs root, and
nothing here skips: what is missing fails the test with a text that says what to install.
"""
