# SPDX-License-Identifier: Apache-2.0
"""``python -m dsatier``."""

import sys

from dsatier.cli.main import main

sys.exit(main(sys.argv[1:]))
