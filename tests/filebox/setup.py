"""A small Zope product for the tests: it keeps files in BLOBs, and shows them over HTTP."""

from setuptools import setup

setup(
    name="filebox",
    version="1.0",
    package_dir={"": "src"},
    py_modules=["filebox"],
    install_requires=["Zope"],
)
