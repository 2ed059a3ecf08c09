"""A box of files on Zope, each in a BLOB; beside it production's documents, as they are."""

import transaction
from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from OFS.SimpleItem import SimpleItem
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob
from ZPublisher import zpublish


@zpublish
class FileBox(SimpleItem):
    """Has what ``upload`` put in."""

    meta_type = "File Box"
    security = ClassSecurityInfo()

    def __init__(self, name):
        self.id = name
        self.files = PersistentMapping()

    @security.protected("Manage portal")
    @zpublish(methods="POST")
    def upload(self, name, file):
        """Keep a file."""
        blob = Blob()
        with blob.open("w") as out:
            out.write(file.read())
        self.files[name] = blob
        transaction.get().note(f"Uploaded {name}")

    @security.protected("Manage portal")
    @zpublish
    def download(self, name):
        """A file of this box."""
        return _content(self.files[name])

    @security.protected("Manage portal")
    @zpublish
    def document(self, name):
        """A document of the database that the box was put in."""
        return _content(self._p_jar.root()["documents"][name]["blob"])


InitializeClass(FileBox)


def _content(blob):
    with blob.open("r") as file:
        return file.read()


def install(app):
    """Put a box in."""
    app._setObject("box", FileBox("box"))
    transaction.get().note("Installed the file box")
    transaction.commit()
