"""What a server frees is kept for what it needs next."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hatch_mar.serve.allocation import keep_freed_memory

COUNT = """
import json, resource, sys
from hatch_mar.serve.allocation import keep_freed_memory

def faults():
    def churn(count):
        for _ in range(count):
            del [bytes(150_000) for _ in range(4)][:]
    churn(5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    churn(100)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
kept = keep_freed_memory({})
print(json.dumps([kept, before, faults()]))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's own")


def test_the_kernel_is_not_asked_again() -> None:
    said = subprocess.run(
        [sys.executable, "-c", COUNT], capture_output=True, check=True, timeout=60
    ).stdout
    kept, before, after = json.loads(said)
    assert kept
    assert after < before / 10


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_"])
def test_an_operator_may_say_otherwise(name: str) -> None:
    assert not keep_freed_memory({name: "1"})
