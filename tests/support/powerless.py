"""Commands whose user may not pass over the modes of files, whoever runs the tests."""

from __future__ import annotations

import os

WITHOUT_PRIVILEGES = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
)
"""Prefix of a command that root's access to everything is taken from (util-linux's `setpriv`)."""
