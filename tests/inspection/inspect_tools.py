# SPDX-License-Identifier: Apache-2.0
"""What tests of inspections need of the machine."""

import pytest
from kvq.errors import Unsupported
from kvq.inspect import tools


def missing(*names):
    for name in names:
        try:
            tools.find(name)
        except Unsupported as error:
            return str(error)
    return None


NO_MACHINE_CODE = missing("ptxas", "nvdisasm")
needs_machine_code = pytest.mark.skipif(NO_MACHINE_CODE is not None, reason=f"{NO_MACHINE_CODE}")
