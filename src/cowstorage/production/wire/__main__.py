"""The program that sshfs starts in the place of ssh: starts ssh, and sits between the two.

Run by path, with Python's options ``-I -S``, so that nothing of the user's Python environment is read; with them the
standard library is all that can be imported, and this package is found by the path of this file.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
from typing import List, NamedTuple, Optional

# What is complete gets so many seconds to come to the disk when sshfs has ended.
SETTLING_SECONDS = 5.0


class Arguments(NamedTuple):
    """What is on the command line: see ``command.wire``."""

    blobs: str
    cache: str
    limit: Optional[int]
    user: Optional[str]
    ssh: List[str]


def parse(argv: List[str]) -> Arguments:
    """Return the arguments."""
    at = argv.index("--")
    parser = argparse.ArgumentParser(prog="cowstorage.production.wire", add_help=False)
    parser.add_argument("--blobs", required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--user")
    return Arguments(**vars(parser.parse_args(argv[:at])), ssh=argv[at + 1 :])


def main(argv: List[str]) -> None:
    """Start ssh, then carry between it and sshfs until one of them ends."""
    from cowstorage.production.wire.candidates import Candidates  # start-up
    from cowstorage.production.wire.counting import Counting  # start-up
    from cowstorage.production.wire.exchange import Sends  # start-up
    from cowstorage.production.wire.knowledge import Knowledge  # start-up
    from cowstorage.production.wire.names import BlobNames  # start-up: found by the path below
    from cowstorage.production.wire.notes import Notes  # start-up
    from cowstorage.production.wire.relay import Relay  # start-up
    from cowstorage.production.wire.session import Session  # start-up
    from cowstorage.production.wire.store import Store  # start-up
    from cowstorage.production.wire.threads import Readers  # start-up
    from cowstorage.system import identity  # start-up
    from cowstorage.system.connected import start_connected  # start-up

    arguments = parse(argv)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    server = start_connected(tuple(arguments.ssh))
    if arguments.user:
        # The keys that ssh reads are root's, the cache is the developer's.
        identity.become(*(int(number) for number in arguments.user.split(":")))
    os.umask(0o077)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    readers, store = Readers(), Store(arguments.cache, arguments.limit)
    notes = Notes(arguments.cache, store.writer)
    names, knowledge = BlobNames(arguments.blobs), Knowledge(os.path.dirname(arguments.cache))

    counting = Counting(arguments.cache, store.writer)
    candidates = Candidates(arguments.cache, store, knowledge)

    def session(to_client: Sends, to_server: Sends) -> Session:
        return Session(names, store, readers, to_client, to_server, knowledge, notes, candidates, counting)

    relay = Relay(0, 1, server.fileno(), readers, session)
    relay.run()
    for descriptor in (0, 1):
        os.close(descriptor)
    server.close()
    counting.save()
    store.finish(SETTLING_SECONDS)


def package_directory(file: str) -> str:
    """Return the directory that a file of this package is imported from."""
    return os.path.abspath(os.path.join(os.path.dirname(file), *[os.pardir] * 3))


if __name__ == "__main__":
    sys.path.insert(0, package_directory(__file__))
    main(sys.argv[1:])
