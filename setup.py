"""Packages; everything else is in pyproject.toml, which has no way to say "all that are found, and configs/"."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["gptdist*", "data_prep*", "launch*"]), "gptdist.shipped"],
    package_dir={"gptdist.shipped": "configs"},
)
