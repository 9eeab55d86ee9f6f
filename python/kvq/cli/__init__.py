# SPDX-License-Identifier: Apache-2.0
"""The command line: `kvq eval`, `kvq chat`, `kvq env`, `kvq inspect`, `kvq tune`. torch and transformers are imported
by the commands that measure or talk, once their arguments are known to be right."""

from kvq.cli.app import inspect_main, main

__all__ = ["inspect_main", "main"]
