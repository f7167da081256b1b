"""A server takes as many file descriptors as it may have."""

from __future__ import annotations

import sys

import pytest

from tests import children


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limits")
def test_soft_limit_goes_up_to_the_hard_one() -> None:
    program = (
        "import resource\n"
        "from app.processes.descriptors import raise_descriptor_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))\n"
        "raise_descriptor_limit()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    said = children.run([sys.executable, "-c", program])
    assert said.stdout.strip() == "(512, 512)"
