# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests: none depends on how fast the machine is."""

from hypothesis import settings

settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")
