# SPDX-License-Identifier: Apache-2.0
"""`kvq tune` in this process."""

from kvq.cli import main


def run(capsys, *arguments):
    """Exit code, standard output, standard error."""
    code = main(["tune", *map(str, arguments)])
    screen = capsys.readouterr()
    return code, screen.out, screen.err
