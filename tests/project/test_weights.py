"""Weights: in the archive, or named by it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from hatch_mar.weights.reference import Reference

if TYPE_CHECKING:
    from tests.project.scratch import Scratch

SHA = hashlib.sha256(b"weights").hexdigest()
URI = "https://models.example.org/v1/net%20one.pt?x=1"


@pytest.fixture
def weighed(scratch: Scratch) -> Scratch:
    scratch.write({"runs/net.pt": b"weights"})
    return scratch


def test_a_local_file_is_embedded_under_its_own_name(weighed: Scratch) -> None:
    weighed.configure('weights = "runs/net.pt"')
    plan = weighed.plan()
    assert plan.manifest.serialized_file == "net.pt"
    assert weighed.content("net.pt") == b"weights"
    assert plan.references == ()
    assert weighed.root / "runs/net.pt" in weighed.spec().files


def test_several_files_and_the_primary_one(weighed: Scratch) -> None:
    weighed.write({"head.pt": b"head"})
    weighed.configure(
        """\
        [[tool.mar.weights]]
        source = "runs/net.pt"
        target = "backbone/net.pt"
        [[tool.mar.weights]]
        source = "head.pt"
        primary = true
        trusted-pickle = true
        """
    )
    plan = weighed.plan()
    assert plan.manifest.serialized_file == "head.pt"
    assert plan.trusted_pickle == ("head.pt",)
    assert weighed.content("backbone/net.pt") == b"weights"


def test_a_uri_with_its_digest_is_a_reference(weighed: Scratch) -> None:
    weighed.configure(
        f"""\
        [tool.mar.weights]
        source = "{URI}"
        sha256 = "{SHA.upper()}"
        size = 7
        mirrors = ["s3://bucket/net.pt"]
        """
    )
    plan = weighed.plan()
    assert plan.references == (
        Reference(
            target="net one.pt", source=URI, sha256=SHA, size=7, mirrors=("s3://bucket/net.pt",)
        ),
    )
    assert plan.manifest.serialized_file == "net one.pt"
    assert b"handler:\n  model_path: net one.pt\n" in weighed.content("model-config.yaml")


def test_a_model_path_of_the_authors_is_left_alone(weighed: Scratch) -> None:
    weighed.write({"model-config.yaml": "handler:\n  model_path: /models/net.pt  # mine\n"})
    weighed.configure(f'weights = {{ source = "{URI}", sha256 = "{SHA}" }}')
    assert weighed.content("model-config.yaml").endswith(b"# mine\n")


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        (
            f'{{ source = "{URI}" }}',
            f"weights.source: '{URI}' is a reference, and there is no mar.lock",
        ),
        (f'"{URI}"', f"weights: '{URI}' is a reference, and there is no mar.lock, so nobody"),
        (f'{{ source = "{URI}", sha256 = "12" }}', "weights.sha256: '12' is not a sha256"),
        (f'{{ source = "{URI}", place = "embed" }}', "weights.place: "),
        (
            '{ source = "https://example.org/", sha256 = "SHA" }',
            "weights.target: 'https://example.org/' does not end in a file's name",
        ),
        (
            '{ source = "https://example.org/..", sha256 = "SHA" }',
            "weights.target: 'https://example.org/..' does not end in a file's name",
        ),
        (
            '{ source = "https://[x/w.pt", sha256 = "SHA" }',
            "weights.source: 'https://[x/w.pt' is not a URL: invalid IPv6 URL",
        ),
        (
            '{ source = "https://x:port/w.pt", sha256 = "SHA" }',
            "weights.source: 'https://x:port/w.pt' is not a URL: port",
        ),
        (
            '{ source = "https:///w.pt", sha256 = "SHA" }',
            "weights.source: 'https:///w.pt' is not a URL: it names no server",
        ),
        (
            '{ source = "htps://x/w.pt", sha256 = "SHA" }',
            "weights.source: 'htps://x/w.pt' is of a kind that nobody knows; did you mean 'https'?",
        ),
        (
            '{ source = "file://w.pt", sha256 = "SHA" }',
            "weights.source: 'file://w.pt' is not an absolute path on this machine",
        ),
        (
            f'{{ source = "{URI}", sha256 = "SHA", mirrors = ["https://[x/"] }}',
            "weights.mirrors[0]: 'https://[x/' is not a URL: invalid IPv6 URL",
        ),
        ('{ source = "runs/net.pt", target = "a/" }', "weights.target: 'a/' is a folder; write"),
        ('{ source = "runs/net.pt", target = "../net.pt" }', "weights.target: '../net.pt' is not"),
        ('{ source = "runs/net.pt", mirrors = ["net.pt"] }', "weights.mirrors[0]: 'net.pt' is no"),
        ('{ source = "runs/net.pt", sha256 = "SHA", size = 3 }', "weights.size: is 3, but"),
        ('{ source = "runs/net.pt", sha256 = "ZERO" }', "weights.sha256: is not that of"),
        (
            '{ source = "runs/net.pt", place = "reference" }',
            "weights.source: 'runs/net.pt' is a local path",
        ),
        (
            (
                '[{ source = "runs/net.pt", primary = true }, '
                '{ source = "runs/net.pt", target = "b.pt", primary = true }]'
            ),
            "weights[1].primary: only one",
        ),
        ('"runs"', "weights: 'runs' is a directory, not a file"),
        ('"runs/nett.pt"', "weights: 'runs/nett.pt' does not exist; did you mean 'runs/net.pt'?"),
        ('"/runs/net.pt"', "weights: '/runs/net.pt' is a reference, and there is no mar.lock"),
        ('"../net.pt"', "weights: '../net.pt' leads out of the project"),
    ],
)
def test_one_mistake_one_problem(weighed: Scratch, weights: str, problem: str) -> None:
    weighed.configure(f"weights = {weights}".replace("SHA", SHA).replace("ZERO", "0" * 64))
    assert weighed.problem().startswith(f"pyproject.toml: tool.mar.{problem}")


def test_a_big_file_without_a_uri_names_the_three_ways_out(weighed: Scratch) -> None:
    weighed.configure('weights = "runs/net.pt"\nwheel.embed-limit = "3 B"')
    problem = weighed.problem()
    assert "has 7 B, more than `wheel.embed-limit` (3 B)" in problem
    for way in ("that URI as `source`", '`place = "embed"`', "raise `wheel.embed-limit`"):
        assert way in problem


@pytest.mark.parametrize(
    "mar",
    [
        'weights = "runs/net.pt"\nwheel = { embed-limit = 3, embed = "always" }',
        'weights = { source = "runs/net.pt", place = "embed" }\nwheel.embed-limit = 3',
        'weights = "runs/net.pt"\nwheel.embed-limit = 7',
    ],
)
def test_ways_to_embed_it(weighed: Scratch, mar: str) -> None:
    weighed.configure(mar)
    assert "net.pt" in weighed.members()


def test_never_embedding_is_a_reason_too(weighed: Scratch) -> None:
    weighed.configure('weights = "runs/net.pt"\nwheel.embed = "never"')
    assert 'must not be embedded (`wheel.embed = "never"`)' in weighed.problem()


def test_a_big_file_with_mirrors_is_a_reference(weighed: Scratch) -> None:
    weighed.configure(
        f"""\
        weights = {{ source = "runs/net.pt", sha256 = "{SHA}", mirrors = ["{URI}", "s3://bkt/k"] }}
        wheel.embed-limit = 3
        """
    )
    spec = weighed.spec()
    assert spec.references == (
        Reference(target="net.pt", source=URI, sha256=SHA, size=None, mirrors=("s3://bkt/k",)),
    )
    assert weighed.root / "runs/net.pt" not in spec.files


def test_a_reference_to_a_file_that_is_here_is_held_against_it(weighed: Scratch) -> None:
    weighed.configure(
        'weights = { source = "runs/net.pt", place = "reference", '
        f'sha256 = "{"0" * 64}", mirrors = ["{URI}"] }}'
    )
    assert "weights.sha256: is not that of 'runs/net.pt'" in weighed.problem()


def test_a_file_named_by_reference_may_also_be_carried(weighed: Scratch) -> None:
    weighed.configure(
        f"""\
        weights = {{ source = "runs/net.pt", sha256 = "{SHA}", mirrors = ["{URI}"] }}
        wheel.embed = "never"
        extra-files = ["runs/net.pt"]
        """
    )
    assert weighed.root / "runs/net.pt" in weighed.spec().files


def test_what_no_store_reads_yet_is_noted(weighed: Scratch) -> None:
    source = "ftp://b/w.pt"
    weighed.configure(f'weights = {{ source = "{source}", sha256 = "{SHA}" }}')
    (note,) = [note for note in weighed.spec().notes if note.startswith("ftp://b/w.pt: ")]
    assert "a server needs one that fetches ftp" in note


@pytest.mark.parametrize("place", ["auto", "reference"])
def test_a_git_lfs_pointer_is_not_weights(weighed: Scratch, place: str) -> None:
    weighed.write({"runs/net.pt": "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"})
    weighed.configure(
        f'weights = {{ source = "runs/net.pt", place = "{place}", mirrors = ["{URI}"] }}'
    )
    assert weighed.problem().endswith("is a Git LFS pointer; run `git lfs pull`")


def test_a_link_out_of_the_project_is_refused(weighed: Scratch) -> None:
    (weighed.root.parent / "outside.pt").write_bytes(b"x")
    (weighed.root / "net.pt").symlink_to("../outside.pt")
    weighed.configure('weights = "net.pt"')
    assert "leads out of the project" in weighed.problem()


def test_a_link_inside_the_project_keeps_its_name(weighed: Scratch) -> None:
    (weighed.root / "best.pt").symlink_to("runs/net.pt")
    weighed.configure('weights = "best.pt"')
    assert weighed.content("best.pt") == b"weights"


def test_an_sdist_needs_what_a_link_leads_to(weighed: Scratch) -> None:
    (weighed.root / "latest.pt").symlink_to("best.pt")
    (weighed.root / "best.pt").symlink_to("runs/net.pt")
    weighed.configure('weights = "latest.pt"')
    names = {path.relative_to(weighed.root).as_posix() for path in weighed.spec().files}
    assert {"latest.pt", "best.pt", "runs/net.pt"} <= names


def test_weights_that_a_glob_takes_along_again_are_noted(weighed: Scratch) -> None:
    weighed.configure('weights = "runs/net.pt"\nextra-files = ["runs/*"]')
    assert weighed.spec().notes == (
        "runs/net.pt: weights that `extra-files[0]` carries a second time",
    )
