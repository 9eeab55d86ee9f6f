# SPDX-License-Identifier: Apache-2.0
"""`python -m kvq`: the command line."""

import sys

from kvq.cli import main

if __name__ == "__main__":
    sys.exit(main())
