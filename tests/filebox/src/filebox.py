"""A box of files on Zope, each in a BLOB; beside it production's documents, as they are."""

import transaction
from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from OFS.Folder import Folder
from OFS.SimpleItem import SimpleItem
from persistent import Persistent
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


class MailHost(SimpleItem):
    """What Plone's is, as far as a script finds it and switches it off."""

    meta_type = "Mail Host"
    smtp_host, smtp_port = "mail.example.com", 25

    def __init__(self, name):
        self.id = name


class Member(Persistent):
    """One of a site's."""

    def __init__(self, **properties):
        self.properties = properties

    def setMemberProperties(self, properties):
        self.properties = {**self.properties, **properties}


class Members(SimpleItem):
    """Plone's portal_membership, as far as a script changes its members."""

    id = "portal_membership"

    def __init__(self):
        self.members = [Member(fullname="Ada Lovelace", email="ada@example.org"), Member(email="bob@example.org")]

    def listMembers(self):
        return list(self.members)


class Site(Folder):
    """A Plone site, as far as a script finds it."""

    meta_type = "Plone Site"


def _content(blob):
    with blob.open("r") as file:
        return file.read()


def install(app):
    """Put a box in."""
    app._setObject("box", FileBox("box"))
    app._setObject("site", Site("site"))
    app.site._setObject("portal_membership", Members())
    app.site._setObject("MailHost", MailHost("MailHost"))
    transaction.get().note("Installed the file box")
    transaction.commit()
