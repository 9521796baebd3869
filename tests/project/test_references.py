"""Weights that an archive names: what the lock says of them, and where each file goes and why."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import onnx
import pytest

from hatch_mar.project.shards import sibling
from hatch_mar.weights.lockfile import LOCK_NAME, LockedFile
from tests.project.scratch import INHERITING_HANDLER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.project.scratch import Scratch

SHA = hashlib.sha256(b"weights").hexdigest()
URI = "https://models.example.org/net.pt"
COMMIT = "1" * 40


def locked(target: str, source: str, resolved: str = "", **more: tuple[str, ...]) -> LockedFile:
    return LockedFile(
        target=target, source=source, resolved=resolved or source, size=7, sha256=SHA, **more
    )


def write_index(scratch: Scratch, *shards: str, folder: str = "net") -> None:
    index = {"weight_map": {f"layer{each}": each for each in shards}}
    scratch.write({f"{folder}/model.safetensors.index.json": json.dumps(index)})
    scratch.write({f"{folder}/{each}": b"weights" for each in shards})


# The lock


def test_a_moving_revision_is_sealed_as_what_it_was(scratch: Scratch) -> None:
    source = "hf://org/net@main/net.pt"
    scratch.configure(f'weights = "{source}"')
    scratch.lock(locked("net.pt", source, f"hf://org/net@{COMMIT}/net.pt"))
    (reference,) = scratch.plan().references
    assert (reference.source, reference.size) == (f"hf://org/net@{COMMIT}/net.pt", 7)
    assert scratch.root / LOCK_NAME in scratch.spec().files, "an sdist needs it"


def test_every_reference_that_is_not_locked_is_a_problem(scratch: Scratch) -> None:
    scratch.configure('weights = ["s3://bucket/a.pt", "gs://bucket/b.pt", "/mnt/c.pt"]')
    scratch.lock(locked("b.pt", "gs://bucket/b.pt"))
    assert [problem.split(": ")[1] for problem in scratch.problems()] == [
        "tool.mar.weights[0]",
        "tool.mar.weights[2]",
    ]


def test_a_broken_lock_is_the_only_problem(scratch: Scratch) -> None:
    scratch.configure(f'weights = "{URI}"')
    scratch.write({LOCK_NAME: "version = 7\n"})
    assert scratch.problem().startswith("mar.lock: version: is 7: this hatch-mar reads 1")


def test_a_lock_that_is_a_link_out_of_the_project(scratch: Scratch) -> None:
    scratch.configure(f'weights = "{URI}"')
    scratch.lock(locked("net.pt", URI))
    (scratch.root / LOCK_NAME).rename(scratch.root.parent / LOCK_NAME)
    (scratch.root / LOCK_NAME).symlink_to(f"../{LOCK_NAME}")
    assert scratch.problem().startswith("mar.lock: leads out of the project")


def test_an_index_with_nothing_but_a_digest_names_nothing(scratch: Scratch) -> None:
    source = "https://h.example/m.safetensors.index.json"
    scratch.configure(f'weights = {{ source = "{source}", sha256 = "{SHA}" }}')
    assert "names further files, which nobody has looked up; run `hatch-mar" in scratch.problem()


def test_shards_may_have_entries_of_their_own(scratch: Scratch) -> None:
    index, shard = "https://h.example/m.safetensors.index.json", "https://h.example/m-1.safetensors"
    scratch.configure(f'weights = ["{index}", "{shard}"]')
    scratch.lock(
        locked("m.safetensors.index.json", index, names=("m-1.safetensors",)),
        locked("m-1.safetensors", shard),
    )
    assert [each.source for each in scratch.plan().references] == [index, shard]


# Where a file goes


@pytest.mark.parametrize(
    ("mar", "note"),
    [
        ('weights = "net.pt"', None),
        (
            'weights = { source = "net.pt", place = "embed" }\nwheel.embed-limit = 3',
            'net.pt: in the archive, for `place = "embed"`',
        ),
        (
            'weights = "net.pt"\nwheel = { embed = "always", embed-limit = 3 }',
            'net.pt: in the archive, for `wheel.embed = "always"`',
        ),
        (
            'weights = { source = "net.pt", mirrors = ["URI"] }\nwheel.embed-limit = 3',
            "net.pt: by reference, for 7 B is more than `wheel.embed-limit`, 3",
        ),
        (
            'weights = { source = "net.pt", mirrors = ["URI"], place = "reference" }',
            'net.pt: by reference, for `place = "reference"`',
        ),
        ('weights = "URI"', "net.pt: by reference, for its source is a URI"),
        (
            'weights = "/mnt/net.pt"',
            "net.pt: by reference, for its source is a path outside of the project",
        ),
    ],
)
def test_the_decision_is_told_with_its_reason(scratch: Scratch, mar: str, note: str | None) -> None:
    scratch.write({"net.pt": b"weights"})
    scratch.configure(mar.replace("URI", URI))
    source = next((each for each in (URI, "/mnt/net.pt") if f'"{each}"' in mar), "net.pt")
    if note is not None and "by reference" in note:
        source = {"weights = {": "net.pt"}.get(mar[:11], URI if "URI" in mar else "/mnt/net.pt")
        mirrors = (URI,) if source == "net.pt" else ()
        scratch.lock(locked("net.pt", source, "https://x.example/net.pt", mirrors=mirrors))
    notes = [each for each in scratch.spec().notes if ", for " in each]
    assert notes == ([] if note is None else [note])


def test_an_absolute_path_into_the_project_is_written_relative(scratch: Scratch) -> None:
    scratch.write({"runs/net.pt": b"weights"})
    scratch.configure(f'weights = "{scratch.root}/runs/net.pt"')
    assert scratch.problem().endswith("is in the project; write 'runs/net.pt'")


def test_a_directory_elsewhere_is_no_file(scratch: Scratch) -> None:
    scratch.configure(f'weights = "{scratch.root.parent}"')
    assert scratch.problem().endswith("is a directory, not a file")


# Files that name others


def test_the_shards_of_an_index_go_where_it_goes(scratch: Scratch) -> None:
    write_index(scratch, "m-1.safetensors", "m-2.safetensors")
    scratch.configure(
        """\
        weights.source = "net/model.safetensors.index.json"
        weights.target = "l/i.safetensors.index.json"
        extra-files = [{ from = "net/m-1.safetensors", to = "l/" }]
        """
    )
    plan = scratch.plan()
    assert {"l/i.safetensors.index.json", "l/m-1.safetensors", "l/m-2.safetensors"} <= {
        member.name for member in plan.members
    }
    assert plan.manifest.serialized_file == "l/i.safetensors.index.json"
    assert scratch.root / "net/m-2.safetensors" in scratch.spec().files


def test_a_shard_that_is_not_there(scratch: Scratch) -> None:
    write_index(scratch, "m-1.safetensors")
    (scratch.root / "net/m-1.safetensors").unlink()
    scratch.configure('weights = "net/model.safetensors.index.json"')
    assert scratch.problem() == (
        "pyproject.toml: tool.mar.weights: 'model.safetensors.index.json' names "
        "'net/m-1.safetensors', which does not exist"
    )


def test_a_shard_that_is_too_big_names_the_ways_out(scratch: Scratch) -> None:
    write_index(scratch, "m-1.safetensors")
    (scratch.root / "net/m-1.safetensors").write_bytes(bytes(500))
    scratch.configure('weights = "net/model.safetensors.index.json"\nwheel.embed-limit = "400 B"')
    assert "'net/m-1.safetensors' has 500 B, more than `wheel.embed-limit`" in scratch.problem()


def test_shards_are_beside_the_mirror_of_their_index(scratch: Scratch) -> None:
    write_index(scratch, "m-1.safetensors")
    (scratch.root / "net/m-1.safetensors").write_bytes(bytes(500))
    mirror = "s3://bucket/net/model.safetensors.index.json?versionId=3"
    scratch.configure(
        f"""\
        weights = {{ source = "net/model.safetensors.index.json", mirrors = ["{mirror}"] }}
        wheel.embed-limit = "400 B"
        """
    )
    shard = LockedFile(
        target="m-1.safetensors",
        source="net/m-1.safetensors",
        resolved="s3://bucket/net/m-1.safetensors?versionId=4",
        size=500,
        sha256=SHA,
        mirrors=("s3://bucket/net/m-1.safetensors",),
    )
    scratch.lock(shard)
    plan = scratch.plan()
    assert [each.source for each in plan.references] == [shard.resolved]
    assert "model.safetensors.index.json" in {member.name for member in plan.members}
    (scratch.root / "net/m-1.safetensors").unlink()
    assert scratch.plan() == plan, "as in an unpacked sdist"


def test_onnx_brings_its_external_data(scratch: Scratch) -> None:
    weights = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [256], bytes(1024), raw=True)
    graph = onnx.helper.make_graph([], "g", [], [], [weights])
    (scratch.root / "net").mkdir()
    onnx.save_model(
        onnx.helper.make_model(graph),
        str(scratch.root / "net/net.onnx"),
        save_as_external_data=True,
        location="net.bin",
        size_threshold=0,
    )
    scratch.configure('weights = "net/net.onnx"')
    assert (scratch.root / "net/net.bin").read_bytes() == scratch.content("net.bin")


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("/mnt/net/index.json", "/mnt/net/s/x 1.bin"),
        ("file:///mnt/net/index.json", "file:///mnt/net/s/x%201.bin"),
        ("https://h.example/net/index.json?x=1#y", "https://h.example/net/s/x%201.bin"),
        ("s3://bucket/net/index.json?versionId=7", "s3://bucket/net/s/x 1.bin"),
        ("gs://bucket/index.json#7", "gs://bucket/s/x 1.bin"),
        (f"hf://org/net@{COMMIT}/index.json", f"hf://org/net@{COMMIT}/s/x 1.bin"),
        ("net/index.json", "net/s/x 1.bin"),
    ],
)
def test_what_a_file_names_is_beside_it(source: str, wanted: str) -> None:
    assert sibling(source, "s/x 1.bin") == wanted


# `handler.model_path`


def model_path(scratch: Scratch, text: str | Path) -> None:
    scratch.write({"model-config.yaml": f"handler:\n  model_path: {text}  # mine\n"})
    scratch.configure("")


def test_a_model_path_in_the_project_goes_into_the_archive(scratch: Scratch) -> None:
    scratch.write({"nets/net.pt": b"weights", "handler.py": INHERITING_HANDLER})
    model_path(scratch, "nets/net.pt")
    plan = scratch.plan()
    assert scratch.content("nets/net.pt") == b"weights"
    assert plan.manifest.serialized_file == "nets/net.pt"
    assert plan.runtime == "torchscript"
    assert scratch.content("model-config.yaml").endswith(b"# mine\n")


def test_one_that_is_not_there(scratch: Scratch) -> None:
    scratch.write({"nets/net.pt": b"weights"})
    model_path(scratch, "nets/nett.pt")
    assert scratch.problem() == (
        "model-config.yaml: handler.model_path: 'nets/nett.pt' does not exist; "
        "did you mean 'nets/net.pt'?"
    )


def test_one_that_leads_out_of_the_project(scratch: Scratch) -> None:
    model_path(scratch, "../net.pt")
    assert "model-config.yaml: handler.model_path: '../net.pt'" in scratch.problem()


def test_one_among_the_extra_files_is_theirs(scratch: Scratch) -> None:
    scratch.write({"x/net.pt": b"weights"})
    model_path(scratch, "llm/net.pt")
    scratch.configure('extra-files = [{ from = "x", to = "llm/" }]')
    assert scratch.spec().weights == ()
    model_path(scratch, "llm")
    scratch.configure('extra-files = [{ from = "x", to = "llm/" }]')
    assert scratch.spec().notes == ()


def test_one_on_the_servers_disk_stays_where_handlers_look(scratch: Scratch) -> None:
    model_path(scratch, "/mnt/models/net.pt")
    assert scratch.problem().startswith(
        "model-config.yaml: handler.model_path: '/mnt/models/net.pt' is a reference"
    )
    scratch.lock(locked("net.pt", "/mnt/models/net.pt"))
    plan = scratch.plan()
    assert [each.target for each in plan.references] == ["net.pt"]
    assert plan.manifest.serialized_file is None, "TorchServe's handlers would look for it inside"
    assert scratch.content("model-config.yaml").endswith(b"# mine\n")


def test_a_model_path_that_the_table_says(scratch: Scratch) -> None:
    scratch.configure('serve.handler = { model_path = "/mnt/net.pt" }')
    assert scratch.problem().startswith(
        "pyproject.toml: tool.mar.serve.handler.model_path: '/mnt/net.pt' is a reference"
    )


def test_a_secret_in_a_model_path(scratch: Scratch) -> None:
    model_path(scratch, "https://me:hunter2@h.example/net.pt")
    (problem,) = scratch.problems()
    assert problem.startswith("model-config.yaml: handler.model_path: ")
    assert "hunter2" not in problem


def test_weights_in_the_table_come_before_it(scratch: Scratch) -> None:
    scratch.write({"net.pt": b"weights"})
    model_path(scratch, "/mnt/models/net.pt")
    scratch.configure('weights = "net.pt"')
    assert scratch.plan().references == ()


@pytest.mark.parametrize("text", ["", "~", "3", "[a]"])
def test_an_odd_model_path_is_one_problem(scratch: Scratch, text: str) -> None:
    scratch.write({"model-config.yaml": f"handler:\n  model_path: {text}\n"})
    scratch.configure("")
    assert "handler.model_path: must be a string" in scratch.problem()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://models.example/", "'https://models.example/' does not end in a file's name"),
        ("https:/user:secret@h/w.pt", "begins as a URI and is none; write https://..."),
        (" https://user:secret@h/w.pt", "begins as a URI and is none; write https://..."),
    ],
)
def test_a_model_path_that_is_nearly_a_uri(scratch: Scratch, text: str, said: str) -> None:
    model_path(scratch, f"'{text}'")
    (problem,) = scratch.problems()
    assert said in problem
    assert "secret" not in problem
