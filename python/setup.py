# SPDX-License-Identifier: Apache-2.0
"""Version and tags of the wheel, which wheel.sh knows: the package is Python for any version, with a library for one platform."""

import os

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel


class Binary(Distribution):
    def has_ext_modules(self) -> bool:
        return True


class Wheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", os.environ["NPUEMU_PLATFORM"]


setup(version=os.environ["NPUEMU_VERSION"], distclass=Binary, cmdclass={"bdist_wheel": Wheel})
