"""Distribution metadata; setup.py because zc.buildout 3 and 4 know no pyproject-only projects."""

import re
import sys

# An old easy_install, such as that of a buildout of Python 2, doesn't look at python_requires.
if sys.version_info < (3, 8):  # noqa: UP036
    sys.exit(
        "cowstorage needs Python 3.8 or later. Beside a buildout of Python 2 install it into a venv of its own, "
        "and run: python -m cowstorage init"
    )

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.sdist import sdist

HERE = Path(__file__).parent


class SourceDistribution(sdist):
    """What setuptools puts in by default, the change log that this file reads, and all of the tests."""

    def make_distribution(self):
        self.filelist.append("CHANGES.rst")
        tests = [path.relative_to(HERE) for path in sorted((HERE / "tests").rglob("*")) if path.is_file()]
        self.filelist.extend(str(path) for path in tests if path.suffix != ".pyc")
        super().make_distribution()


# A picture of the checkout is none of the index's.
README = re.sub(r"\.\. image:: .*\n(?: +.*\n)*\n", "", (HERE / "README.rst").read_text(encoding="utf-8"))

setup(
    name="cowstorage",
    version="1.0.dev0",
    description="Develop a Plone upgrade against production's data: read-only network mount, copy-on-write on top",
    long_description=README + "\n\n" + (HERE / "CHANGES.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    license="GPL-2.0-or-later",
    keywords="plone zope zodb buildout blobstorage overlayfs sshfs copy-on-write upgrade",
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Environment :: Console",
        "Framework :: Buildout :: Recipe",
        "Framework :: Plone",
        "Framework :: Plone :: 5.2",
        "Framework :: Plone :: 6.0",
        "Framework :: Plone :: 6.1",
        "Framework :: Plone :: 6.2",
        "Framework :: ZODB",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.8",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Database",
        "Topic :: System :: Filesystems",
    ],
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={"cowstorage": ["pages/*"]},
    include_package_data=True,
    python_requires=">=3.8",
    install_requires=[
        "zc.buildout",
        "zc.recipe.egg",
        "sh >= 2",
        "ZODB",
    ],
    entry_points={
        "console_scripts": ["cowstorage = cowstorage.init:main"],
        "zc.buildout": ["default = cowstorage.buildout.recipe:CowStorage"],
        "zc.buildout.uninstall": ["default = cowstorage.buildout.recipe:uninstall"],
    },
    zip_safe=False,
    cmdclass={"sdist": SourceDistribution},
)
