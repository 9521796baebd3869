"""`hatch-mar lock`: which bytes the weights are that a project refers to."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hatch_mar.project.shards import LONGEST_INDEX
from hatch_mar.weights.lockfile import LOCK_NAME, LockedFile, read_lock
from tests.project.scratch import FUNCTION_HANDLER, PROJECT, Scratch
from tests.support.tap import start_tap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.commands import Program
    from tests.support.tap import Tap

DATA = b"weights"
SHA = hashlib.sha256(DATA).hexdigest()
OTHER = b"trained again"
INDEX = {"metadata": {}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tap]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with start_tap() as tap:
        yield tap


@pytest.fixture
def project(tmp_path: Path, weights_cache: Path) -> Scratch:
    """A project with a cache of its own; `configure` says what it refers to."""
    del weights_cache
    root = tmp_path / "project"
    root.mkdir()
    scratch = Scratch(root)
    scratch.write({"handler.py": FUNCTION_HANDLER})
    return scratch


@pytest.fixture
def locked(project: Scratch, tap: Tap, hatch_mar: Program) -> Scratch:
    """A project that refers to one file, and has just been locked."""
    project.configure(f'weights = "{tap.serve("/w.pt", DATA)}"')
    assert hatch_mar("lock", project.root).code == 0
    tap.asked.clear()
    return project


def lock_of(project: Scratch) -> dict[str, LockedFile]:
    return {file.target: file for file in read_lock(project.root / LOCK_NAME).files}


def test_a_build_needs_it_and_takes_it(project: Scratch, tap: Tap, hatch_mar: Program) -> None:
    url = tap.serve("/w.pt", DATA)
    project.configure(f'weights = "{url}"')
    refused = hatch_mar("check", project.root)
    assert refused.code == 2
    assert "run `hatch-mar lock`" in refused.err
    assert tap.asked == [], "a build opens no connection"
    said = hatch_mar("lock", project.root)
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [
        f"w.pt  7 B  sha256 {SHA[:12]}  new  {url}",
        "mar.lock written",
    ]
    assert hatch_mar("check", project.root).code == 0
    (reference,) = project.plan().references
    assert (reference.source, reference.sha256, reference.size) == (url, SHA, 7)


def test_what_is_locked_is_kept_without_asking_anybody(
    locked: Scratch, tap: Tap, hatch_mar: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (locked.root / LOCK_NAME).read_bytes()
    tap.serve("/w.pt", OTHER)
    monkeypatch.setenv("HATCH_MAR_OFFLINE", "1")
    said = hatch_mar("lock", locked.root, "--json")
    assert tap.asked == []
    assert said.document["written"] is False
    assert [file["state"] for file in said.document["files"]] == ["unchanged"]
    assert (locked.root / LOCK_NAME).read_bytes() == before


def test_upgrade_looks_again(locked: Scratch, tap: Tap, hatch_mar: Program) -> None:
    tap.serve("/w.pt", OTHER)
    document = hatch_mar("lock", locked.root, "--upgrade", "--json").document
    assert [file["state"] for file in document["files"]] == ["changed"]
    assert lock_of(locked)["w.pt"].sha256 == hashlib.sha256(OTHER).hexdigest()


def test_check_is_content_with_a_lock_that_is_right(
    locked: Scratch, tap: Tap, hatch_mar: Program
) -> None:
    said = hatch_mar("lock", locked.root, "--check")
    assert (said.code, said.out) == (0, "mar.lock is up to date: 1 file\n")
    assert tap.asked == []


@pytest.mark.parametrize(
    ("mar", "problem"),
    [
        (
            'weights = "{url}/x.pt"',
            "pyproject.toml: tool.mar.weights: '{url}/x.pt' is not in mar.lock, so nobody knows",
        ),
        (
            'weights = {{ source = "{url}/x.pt", target = "w.pt" }}',
            "pyproject.toml: tool.mar.weights.source: is '{url}/x.pt', but mar.lock has '{url}/w",
        ),
        (
            'weights = {{ source = "{url}/w.pt", mirrors = ["https://b.example/w.pt"] }}',
            "pyproject.toml: tool.mar.weights.source: has other mirrors than in mar.lock",
        ),
        (
            'weights = {{ source = "{url}/w.pt", size = 8 }}',
            "pyproject.toml: tool.mar.weights.source: '{url}/w.pt' has 8 bytes, but mar.lock has 7",
        ),
        (
            'weights = {{ source = "{url}/w.pt", sha256 = "{zero}" }}',
            "pyproject.toml: tool.mar.weights.sha256: is {zero}, but mar.lock has {sha} for 'w.pt'",
        ),
        ("", "mar.lock: weights[0].target: nothing refers to 'w.pt' any more"),
    ],
)
def test_check_tells_drift_and_what_to_run(
    locked: Scratch, tap: Tap, hatch_mar: Program, mar: str, problem: str
) -> None:
    words = {"url": tap.url, "sha": SHA, "zero": "0" * 64}
    locked.configure(mar.format(**words))
    before = (locked.root / LOCK_NAME).read_bytes()
    said = hatch_mar("lock", locked.root, "--check")
    assert said.code == 1
    head, *problems = said.err.splitlines()
    assert head == "hatch-mar: mar.lock is out of date; run `hatch-mar lock`"
    assert any(line.strip().startswith(problem.format(**words)) for line in problems)
    assert all("run `hatch-mar lock`" in line for line in problems)
    assert (locked.root / LOCK_NAME).read_bytes() == before
    found = hatch_mar("lock", locked.root, "--check", "--json")
    assert (found.code, len(found.document["problems"])) == (1, len(problems))


def test_a_project_without_references(project: Scratch, hatch_mar: Program) -> None:
    project.write({"w.pt": DATA})
    project.configure('weights = "w.pt"')
    said = hatch_mar("lock", project.root)
    assert said.code == 2
    assert "nothing to lock: no file is referred to" in said.err
    assert hatch_mar("lock", project.root, "--check").code == 0
    assert not (project.root / LOCK_NAME).exists()


def test_a_lock_that_nothing_needs_any_more_goes(locked: Scratch, hatch_mar: Program) -> None:
    locked.configure("")
    assert "nothing refers to 'w.pt' any more" in locked.spec().notes[0]
    said = hatch_mar("lock", locked.root)
    assert (said.code, said.out) == (0, "mar.lock is gone: nothing is referred to any more\n")
    assert not (locked.root / LOCK_NAME).exists()


def test_offline_it_says_what_it_would_have_to_ask(
    project: Scratch, tap: Tap, hatch_mar: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.configure(f'weights = ["{tap.url}/a.pt", "{tap.url}/b.pt"]')
    monkeypatch.setenv("HATCH_MAR_OFFLINE", "1")
    said = hatch_mar("lock", project.root)
    assert said.code == 4
    for name in ("a.pt", "b.pt"):
        asked = f"{name}: not in mar.lock, and HATCH_MAR_OFFLINE forbids to ask {tap.url}/{name}"
        assert asked in said.err
    assert not (project.root / LOCK_NAME).exists()


def test_all_that_is_not_there_is_named_and_nothing_is_written(
    locked: Scratch, tap: Tap, hatch_mar: Program
) -> None:
    urls = ", ".join(f'"{tap.url}/{name}.pt"' for name in ("w", "a", "b"))
    locked.configure(f"weights = [{urls}]")
    before = (locked.root / LOCK_NAME).read_bytes()
    said = hatch_mar("lock", locked.root)
    assert said.code == 4
    assert "a.pt: " in said.err
    assert "b.pt: " in said.err
    assert (locked.root / LOCK_NAME).read_bytes() == before


def test_a_digest_of_the_authors_is_held_against_the_file(
    project: Scratch, tap: Tap, hatch_mar: Program
) -> None:
    url = tap.serve("/w.pt", DATA)
    path = project.root.parent / "w.pt"
    path.write_bytes(DATA)
    project.configure(
        f'weights = {{ source = "{path}", sha256 = "{"0" * 64}", mirrors = ["{url}"] }}'
    )
    said = hatch_mar("lock", project.root)
    assert said.code == 2
    assert f"tool.mar.weights.sha256: is {'0' * 64}, but '{path}' has {SHA}" in said.err


def test_a_mirror_with_another_file_is_found_out(
    project: Scratch, tap: Tap, hatch_mar: Program
) -> None:
    tap.serve("/w.pt", DATA)
    tap.serve("/old.pt", OTHER)
    project.configure(
        f'weights = {{ source = "{tap.url}/w.pt", '
        f'mirrors = ["{tap.url}/gone.pt", "{tap.url}/old.pt"] }}'
    )
    said = hatch_mar("lock", project.root)
    assert said.code == 2
    assert f"'{tap.url}/old.pt' has other bytes than '{tap.url}/w.pt'" in said.err


def test_a_mirror_that_does_not_answer_may_answer_to_servers(
    project: Scratch, tap: Tap, hatch_mar: Program
) -> None:
    tap.serve("/w.pt", DATA)
    mirror = f"{tap.url}/gone.pt"
    project.configure(f'weights = {{ source = "{tap.url}/w.pt", mirrors = ["{mirror}"] }}')
    said = hatch_mar("lock", project.root)
    assert said.code == 0
    assert said.err.startswith(f"note: w.pt: mirror {mirror}: ")
    assert lock_of(project)["w.pt"].mirrors == (mirror,)


# Files of this machine


def test_a_path_on_a_shared_disk_is_hashed_in_place(
    project: Scratch, hatch_mar: Program, weights_cache: Path
) -> None:
    path = project.root.parent / "shared.safetensors"
    path.write_bytes(DATA)
    project.configure(f'weights = "{path}"')
    assert hatch_mar("lock", project.root).code == 0
    locked = LockedFile(target=path.name, source=str(path), resolved=str(path), size=7, sha256=SHA)
    assert lock_of(project) == {path.name: locked}
    assert not weights_cache.exists(), "no copy"


def test_a_local_file_that_changed_is_drift(project: Scratch, hatch_mar: Program) -> None:
    path = project.root.parent / "shared.pt"
    path.write_bytes(DATA)
    project.configure(f'weights = "{path}"')
    hatch_mar("lock", project.root)
    path.write_bytes(b"changed")
    said = hatch_mar("lock", project.root, "--check")
    assert said.code == 1
    assert f"'{path}' is not what mar.lock has any more" in said.err
    assert hatch_mar("lock", project.root).code == 0
    assert hatch_mar("lock", project.root, "--check").code == 0
    path.write_bytes(OTHER)
    assert f"'{path}' has 13 bytes, but mar.lock has 7; run `hatch-mar lock`" in project.problem()


def test_a_shared_disk_that_is_not_mounted_keeps_its_entry(
    project: Scratch, hatch_mar: Program
) -> None:
    path = project.root.parent / "shared.pt"
    path.write_bytes(DATA)
    project.configure(f'weights = "{path}"')
    hatch_mar("lock", project.root)
    path.unlink()
    said = hatch_mar("lock", project.root, "--upgrade")
    assert said.err == f"note: shared.pt: '{path}' is not on this machine; its entry is kept\n"
    assert lock_of(project)["shared.pt"].sha256 == SHA


def test_one_that_was_never_there(project: Scratch, hatch_mar: Program) -> None:
    project.configure('weights = "/nowhere/w.pt"')
    said = hatch_mar("lock", project.root)
    assert said.code == 4
    assert said.err == "hatch-mar: w.pt: '/nowhere/w.pt' does not exist on this machine\n"


def test_a_file_of_the_project_is_locked_at_its_mirror(
    project: Scratch, tap: Tap, hatch_mar: Program
) -> None:
    project.write({"w.pt": DATA})
    url = tap.serve("/w.pt", DATA)
    project.configure(
        f'weights = {{ source = "w.pt", mirrors = ["{url}"] }}\nwheel.embed = "never"'
    )
    assert hatch_mar("lock", project.root).code == 0
    locked = lock_of(project)["w.pt"]
    assert (locked.source, locked.resolved, locked.mirrors) == ("w.pt", url, (url,))
    (reference,) = project.plan().references
    assert (reference.source, reference.mirrors) == (url, ())
    (project.root / "w.pt").unlink()
    assert project.plan().references == (reference,), "as in an unpacked sdist"


def test_a_file_of_the_project_that_was_not_uploaded(
    project: Scratch, tap: Tap, hatch_mar: Program
) -> None:
    project.write({"w.pt": OTHER})
    url = tap.serve("/w.pt", DATA)
    project.configure(
        f'weights = {{ source = "w.pt", mirrors = ["{url}"] }}\nwheel.embed = "never"'
    )
    said = hatch_mar("lock", project.root)
    assert said.code == 2
    assert f"'{url}' has other bytes than 'w.pt'; upload it again" in said.err


# Files that name others


def test_the_shards_of_a_remote_index_are_locked_beside_it(
    project: Scratch, tap: Tap, hatch_mar: Program
) -> None:
    tap.serve("/net/m-1.safetensors", DATA)
    tap.serve("/net/m-2.safetensors", OTHER)
    url = tap.serve("/net/m.safetensors.index.json?x=1", json.dumps(INDEX).encode())
    target = "l/m.safetensors.index.json"
    project.configure(f'weights = {{ source = "{url}", target = "{target}" }}')
    assert hatch_mar("lock", project.root).code == 0
    locked = lock_of(project)
    assert [(each.target, each.source) for each in locked.values()] == [
        ("l/m-1.safetensors", f"{tap.url}/net/m-1.safetensors"),
        ("l/m-2.safetensors", f"{tap.url}/net/m-2.safetensors"),
        ("l/m.safetensors.index.json", f"{tap.url}/net/m.safetensors.index.json?x=1"),
    ]
    assert locked["l/m.safetensors.index.json"].names == ("l/m-1.safetensors", "l/m-2.safetensors")
    assert {each.target for each in project.plan().references} == set(locked)
    tap.asked.clear()
    assert hatch_mar("lock", project.root, "--check").code == 0
    assert hatch_mar("lock", project.root).code == 0
    assert tap.asked == []
    project.lock(*(each for each in locked.values() if each.target != "l/m-2.safetensors"))
    assert "mar.lock lacks 'l/m-2.safetensors', which it names" in project.problem()


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        (b"{", "is not JSON"),
        (b"[]", "has no `weight_map`"),
        (b'{"weight_map": {}}', "is the index of no shards"),
        (b'{"weight_map": {"a": 1}}', "has no `weight_map`"),
        (b'{"weight_map": {"a": "../b"}}', "names a file '../b', which holds an empty, '.' or"),
        (b'{"weight_map": {"a": "/b"}}', "names a file '/b', which is an absolute path"),
        (b'{"weight_map": {"a": ""}}', "names a file '', which is empty"),
    ],
)
def test_an_index_that_is_none(
    project: Scratch, tap: Tap, hatch_mar: Program, index: bytes, problem: str
) -> None:
    url = tap.serve("/m.safetensors.index.json", index)
    project.configure(f'weights = "{url}"')
    said = hatch_mar("lock", project.root)
    assert said.code == 2
    assert f"pyproject.toml: tool.mar.weights: '{url}' {problem}" in said.err


def test_an_index_that_names_itself(project: Scratch, tap: Tap, hatch_mar: Program) -> None:
    text = json.dumps({"weight_map": {"a": "./m.safetensors.index.json"}})
    project.configure(f'weights = "{tap.serve("/m.safetensors.index.json", text.encode())}"')
    said = hatch_mar("lock", project.root)
    assert said.code == 2
    assert "names itself as one of the files that it needs" in said.err


def test_an_index_that_is_too_long_is_not_fetched(
    project: Scratch, tap: Tap, hatch_mar: Program, tmp_path: Path
) -> None:
    data = b" " * (LONGEST_INDEX + 1)
    project.configure(f'weights = "{tap.serve("/m.index.json", data)}"')
    said = hatch_mar("lock", project.root)
    assert said.code == 2
    assert "m.index.json' is too big for an index of shards" in said.err
    assert not list(tmp_path.rglob("*.spans"))
    assert len(tap.asked) == 1


def test_what_a_named_file_names_is_not_followed(
    project: Scratch, tap: Tap, hatch_mar: Program
) -> None:
    """Two indexes that name each other."""
    names = ["a.index.json", "b.index.json"]
    for name, other in zip(names, reversed(names), strict=True):
        tap.serve(f"/{name}", json.dumps({"weight_map": {"w": other}}).encode())
    project.configure(f'weights = "{tap.url}/{names[0]}"')
    for _ in range(2):
        assert hatch_mar("lock", project.root).code == 0
        assert {name: file.names for name, file in lock_of(project).items()} == {
            names[0]: (names[1],),
            names[1]: (),
        }


def test_a_lock_that_somebody_led_in_a_circle(
    locked: Scratch, tap: Tap, hatch_mar: Program
) -> None:
    path = locked.root / LOCK_NAME
    text = path.read_text(encoding="utf-8")
    path.write_text(f'{text}names = ["w.pt"]\n', encoding="utf-8")
    said = hatch_mar("lock", locked.root)
    assert said.code == 2
    assert "mar.lock: weights[0].names: names itself" in said.err
    assert tap.asked == []


@pytest.mark.parametrize(
    ("key", "uri"),
    [
        ("resolved", "https://user:secret@example.org/w.pt"),
        ("resolved", "https://example.org/w.pt?X-Amz-Signature=secret"),
        ("source", "https://user:secret@example.org/w.pt"),
    ],
)
def test_a_secret_that_somebody_wrote_into_the_lock(
    locked: Scratch, hatch_mar: Program, key: str, uri: str
) -> None:
    (file,) = lock_of(locked).values()
    changed = replace(file, source=uri) if key == "source" else replace(file, resolved=uri)
    locked.lock(changed)
    for command in (["lock"], ["lock", "--check"], ["check"], ["plan"], ["lock", "--json"]):
        said = hatch_mar(*command, locked.root)
        assert said.code == 2
        assert "secret" not in said.out + said.err
        assert f"weights[0].{key}" in said.out + said.err


def test_a_shard_that_the_author_names_is_the_authors(
    project: Scratch, tap: Tap, hatch_mar: Program
) -> None:
    index = tap.serve("/m.safetensors.index.json", json.dumps(INDEX).encode())
    tap.serve("/m-2.safetensors", DATA)
    tuned = tap.serve("/tuned/m-1.safetensors", OTHER)
    both = [f'{{ source = "{tuned}" }}', f'{{ source = "{index}" }}']
    for order in (both, both[::-1]):
        project.configure(f"weights = [{', '.join(order)}]")
        assert hatch_mar("lock", project.root).code == 0
        assert hatch_mar("lock", project.root, "--check").code == 0
        assert lock_of(project)["m-1.safetensors"].source == tuned


@pytest.mark.parametrize("other", ["w.pt", "W.PT"])
def test_two_files_for_one_place(
    project: Scratch, tap: Tap, hatch_mar: Program, other: str
) -> None:
    first, second = tap.serve("/w.pt", DATA), tap.serve("/second.pt", OTHER)
    entries = f'{{ source = "{first}" }}, {{ source = "{second}", target = "{other}" }}'
    project.configure(f"weights = [{entries}]")
    for option in ([], ["--check"]):
        said = hatch_mar("lock", project.root, *option)
        assert said.code == (1 if option else 2)
        assert f"weights[1].source: '{other}' is where '{first}' goes as well; give" in said.err
    assert tap.asked == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{url}/a\\u0000b", "'{url}/a\\x00b' has characters that no address has"),
        ("{url}/a\\u202eb", "has characters that no address has"),
        ("{url}/%00", "'\\x00' holds a control character; give another one"),
        ("/dev/null", "'/dev/null' is a device or a pipe, not a file"),
        ("file:w.pt", "begins as a URI and is none; write file://..."),
        ("https:/user:secret@h/w.pt", "begins as a URI and is none; write https://..."),
        (" https://user:secret@h/w.pt", "begins as a URI and is none; write https://..."),
        ("https://user:secret@[h/w.pt", "holds a password"),
        ("https://h/w\\nhttps://user:secret@h/w.pt", "has characters that no address has"),
    ],
)
def test_sources_that_are_none(
    project: Scratch, tap: Tap, hatch_mar: Program, source: str, said: str
) -> None:
    project.configure(f'weights = "{source.format(url=tap.url)}"')
    for command in ("lock", "check"):
        found = hatch_mar(command, project.root)
        assert found.code == 2
        assert said.format(url=tap.url) in found.err
        assert "secret" not in found.err
    assert tap.asked == []


def test_a_shard_that_is_missing_is_named(project: Scratch, tap: Tap, hatch_mar: Program) -> None:
    tap.serve("/m-1.safetensors", DATA)
    project.configure(
        f'weights = "{tap.serve("/m.safetensors.index.json", json.dumps(INDEX).encode())}"'
    )
    said = hatch_mar("lock", project.root)
    assert said.code == 4
    assert f"m-2.safetensors: {tap.url}/m-2.safetensors: " in said.err


def test_a_model_path_in_the_config_alone_is_locked(
    project: Scratch, tap: Tap, hatch_mar: Program
) -> None:
    url = tap.serve("/net.pt", DATA)
    project.write({"model-config.yaml": f"handler:\n  model_path: {url}\n"})
    project.configure("")
    refused = hatch_mar("check", project.root)
    assert f"model-config.yaml: handler.model_path: '{url}' is a reference" in refused.err
    assert hatch_mar("lock", project.root).code == 0
    plan = project.plan()
    assert [each.source for each in plan.references] == [url]
    assert plan.manifest.serialized_file == "net.pt"
    assert project.content("model-config.yaml") == b"handler:\n  model_path: net.pt\n"


# What is not a project


def test_what_is_wrong_with_the_lock_itself(locked: Scratch, hatch_mar: Program) -> None:
    with (locked.root / LOCK_NAME).open("a") as file:
        file.write("<<<<<<< ours\n")
    for arguments in ((), ("--check",)):
        said = hatch_mar("lock", locked.root, *arguments)
        assert said.code == 2
        assert "mar.lock: holds the marks of a merge conflict" in said.err
    assert "mar.lock: holds the marks" in locked.problem(), "and that is all"


def test_check_and_upgrade_contradict_each_other(project: Scratch, hatch_mar: Program) -> None:
    project.configure("")
    assert hatch_mar("lock", project.root, "--check", "--upgrade").code == 2


def test_a_folder_that_is_no_project(tmp_path: Path, hatch_mar: Program) -> None:
    said = hatch_mar("lock", tmp_path)
    assert said.code == 6
    assert "has no pyproject.toml" in said.err


def test_a_secret_goes_nowhere(project: Scratch, tap: Tap, hatch_mar: Program) -> None:
    url = tap.serve("/w.pt", DATA).replace("http://", "http://me:hunter2@")
    project.configure(f'weights = "{url}"')
    said = hatch_mar("lock", project.root)
    assert said.code == 2
    assert "hunter2" not in said.err
    assert not (project.root / LOCK_NAME).exists()


def test_as_a_program(project: Scratch, tap: Tap, weights_cache: Path) -> None:
    url = tap.serve("/w.pt", DATA)
    project.configure(f'weights = "{url}"', project=PROJECT)
    result = subprocess.run(
        [sys.executable, "-m", "hatch_mar", "lock"],
        cwd=project.root,
        env={**os.environ, "HATCH_MAR_CACHE_DIR": str(weights_cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("mar.lock written\n")
