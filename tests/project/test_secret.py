"""What counts as a secret in a URL, and that no message tells one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hatch_mar.project.secret import conceal, find_secret

if TYPE_CHECKING:
    from tests.project.scratch import Scratch

SHA = "a" * 64
SIGNED = "https://h/w?token=hunter2"


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("https://user:hunter2@h/w.pt", "a password"),
        ("https://hunter2@h/w.pt", "a user's name or token"),
        ("git+https://hunter2@h/r.git", "a user's name or token"),
        ("s3://key:hunter2@b/w.pt", "a password"),
        ("https://h/w.pt?token=hunter2", "`token`"),
        ("https://h/w.pt?x=1&X-Amz-Signature=hunter2", "`X-Amz-Signature`"),
        ("https://h/w.pt?sv=1&sig=hunter2", "`sig`"),
        ("https://h/w.pt?api_key=hunter2", "`api_key`"),
    ],
)
def test_a_secret_is_named_and_not_told(url: str, secret: str) -> None:
    assert find_secret(url) == secret
    assert "hunter2" not in conceal(f"x @ {url}")


@pytest.mark.parametrize(
    "url",
    [
        "https://h/w.pt",
        "https://h/w.pt?download=true&key=models/w.pt",
        "https://user:${PASSWORD}@h/simple",
        "https://${TOKEN}@h/simple",
        "git+ssh://git@h/r.git",
        "abfs://container@account/w.pt",
        "http://[",
        "w.pt",
    ],
)
def test_what_is_none(url: str) -> None:
    assert find_secret(url) is None
    assert conceal(url) == url


@pytest.mark.parametrize(
    ("mar", "key"),
    [
        (
            f'weights = {{ source = "https://u:hunter2@h/w.pt", sha256 = "{SHA}" }}',
            "weights.source",
        ),
        (
            f'weights = [{{ source = "https://h/w", sha256 = "{SHA}", mirrors = ["{SIGNED}"] }}]',
            "weights[0].mirrors[0]",
        ),
        ('requirements = ["a @ https://u:hunter2@h/a.whl"]', "requirements[0]"),
        ('requirements = ["--extra-index-url https://u:hunter2@h/simple"]', "requirements[0]"),
    ],
)
def test_no_archive_tells_a_secret(scratch: Scratch, mar: str, key: str) -> None:
    scratch.configure(mar)
    problem = scratch.problem()
    assert problem.startswith(f"pyproject.toml: tool.mar.{key}: ")
    assert "everybody who has the archive could read" in problem
    assert "hunter2" not in problem
