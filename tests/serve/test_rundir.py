"""An archive becomes a run directory, or nothing does."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.read import open_archive
from hatch_mar.archive.tarball import make_tarball
from hatch_mar.archive.write import write_archive
from hatch_mar.errors import ArchiveError, WeightsError
from hatch_mar.serve import Deployment, Part, Request, Service, make_root, prepare, remove_rundirs
from hatch_mar.serve.rundir import remove_rundir
from hatch_mar.weights.cache import Cache
from hatch_mar.weights.reference import Reference
from hatch_mar.weights.upkeep import list_items, prune

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hatch_mar.weights.fetch import Progress

HANDLER = b"def handle(data, ctx): return data and [open('weights.bin').read()] * len(data)\n"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = make_root(tmp_path)
    yield root
    remove_rundirs(root)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def make_archive(tmp_path: Path) -> Callable[..., Path]:
    def make(
        members: Mapping[str, bytes], *, references: tuple[Reference, ...] = (), **manifest: Any
    ) -> Path:
        fields = {"model_name": "m", "model_version": "2.0", "handler": "handler.py", **manifest}
        plan = Plan(
            name="m",
            version="2.0",
            manifest=Manifest(**fields),
            members=tuple(Member(name, data) for name, data in sorted(members.items())),
            runtime="custom",
            references=references,
            filename="m.mar",
        )
        path = tmp_path / "m.mar"
        write_archive(plan, path)
        return path

    return make


def run(path: Path, root: Path, cache: Cache, **overrides: Any) -> Deployment:
    with open_archive(path) as archive:
        return prepare(archive, root=root, cache=cache, **overrides)


def test_members_config_and_names(
    make_archive: Callable[..., Path], root: Path, cache: Cache
) -> None:
    members = {
        "handler.py": HANDLER,
        "weights.bin": b"w",
        "model-config.yaml": b"batchSize: 4\nbatchsize: 5\n",
    }
    path = make_archive(members, config_file="model-config.yaml")
    deployment = run(path, root, cache)
    assert (deployment.name, deployment.version, deployment.url) == ("m", "2.0", "m.mar")
    assert deployment.handler == "handler.py"
    assert deployment.config.batch_size == 4
    assert deployment.directory.parent == root
    assert (deployment.directory / "weights.bin").read_bytes() == b"w"
    assert deployment.seal is not None
    assert deployment.manifest is not None


def test_what_the_operator_says_wins(
    make_archive: Callable[..., Path], root: Path, cache: Cache
) -> None:
    path = make_archive({"handler.py": HANDLER}, model_version=None)
    deployment = run(path, root, cache, name="../odd name", handler="other.py", url="http://x/m")
    assert (deployment.name, deployment.handler) == ("../odd name", "other.py")
    assert (deployment.version, deployment.url) == ("1.0", "http://x/m")
    assert deployment.directory.parent == root


def test_every_version_has_its_own(
    make_archive: Callable[..., Path], root: Path, cache: Cache
) -> None:
    path = make_archive({"handler.py": HANDLER})
    assert run(path, root, cache).directory != run(path, root, cache).directory


def test_extra_files_are_unpacked(
    make_archive: Callable[..., Path], root: Path, cache: Cache
) -> None:
    tarball = make_tarball({"weights.bin": b"w", "lib/x.py": b""}, gzip=True)
    members = {
        "handler.py": HANDLER,
        "extra.bin": tarball,
        "model-config.yaml": b"system: {extraFiles: extra.bin}",
    }
    path = make_archive(members, config_file="model-config.yaml")
    directory = run(path, root, cache).directory
    assert (directory / "lib/x.py").exists()
    assert (directory / "weights.bin").read_bytes() == b"w"


def test_a_directory_without_a_manifest(tmp_path: Path, root: Path, cache: Cache) -> None:
    source = tmp_path / "old"
    source.mkdir()
    (source / "handler.py").write_bytes(HANDLER)
    deployment = run(source, root, cache, handler="handler.py")
    assert deployment.manifest is None
    assert deployment.name == "old"
    assert any("MANIFEST" in warning for warning in deployment.warnings)


def reference(source: Path, target: str = "deep/weights.bin") -> Reference:
    data = source.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return Reference(target=target, source=source.as_uri(), sha256=digest, size=len(data))


def test_references_are_fetched_and_linked(
    tmp_path: Path, make_archive: Callable[..., Path], root: Path, cache: Cache
) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"many numbers")
    path = make_archive({"handler.py": HANDLER}, references=(reference(weights),))
    seen: list[tuple[object, ...]] = []

    @contextmanager
    def watch(reference: Reference) -> Iterator[Progress]:
        seen.append((reference.target,))
        yield lambda done, total: seen.append((done, total))
        seen.append(("done",))

    deployment = run(path, root, cache, watch=watch)
    target = deployment.directory / "deep/weights.bin"
    assert target.is_symlink()
    assert target.read_bytes() == b"many numbers"
    assert (seen[0], *seen[-2:]) == (("deep/weights.bin",), (12, 12), ("done",))


def test_weights_that_cannot_be_had_leave_nothing(
    tmp_path: Path, make_archive: Callable[..., Path], root: Path, cache: Cache
) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"many numbers")
    path = make_archive({"handler.py": HANDLER}, references=(reference(weights),))
    weights.unlink()
    before = sorted(root.iterdir())
    with pytest.raises(WeightsError):
        run(path, root, cache)
    assert sorted(root.iterdir()) == before


class TestHolding:
    """Nobody prunes what is served."""

    @pytest.fixture
    def path(self, tmp_path: Path, make_archive: Callable[..., Path]) -> Path:
        weights = tmp_path / "weights"
        weights.write_bytes(b"many numbers")
        return make_archive({"handler.py": HANDLER}, references=(reference(weights),))

    def prune(self, cache: Cache) -> list[str]:
        return [each.fate for each in prune(cache, now=time.time(), max_size=0)]

    def test_until_the_run_directory_goes(self, path: Path, root: Path, cache: Cache) -> None:
        one, other = run(path, root, cache), run(path, root, cache)
        remove_rundir(one.directory)
        assert self.prune(cache) == ["in use"]
        assert (other.directory / "deep/weights.bin").read_bytes() == b"many numbers"
        remove_rundir(other.directory)
        assert self.prune(cache) == ["removed"]

    def test_until_the_root_goes(self, path: Path, root: Path, cache: Cache) -> None:
        run(path, root, cache)
        assert self.prune(cache) == ["in use"]
        remove_rundirs(root)
        assert self.prune(cache) == ["removed"]

    def test_not_for_what_could_not_be_prepared(
        self, tmp_path: Path, make_archive: Callable[..., Path], root: Path, cache: Cache
    ) -> None:
        weights = tmp_path / "weights"
        weights.write_bytes(b"many numbers")
        gone = Reference(target="gone", source="/nowhere/at/all", sha256="ab" * 32)
        path = make_archive({"handler.py": HANDLER}, references=(reference(weights), gone))
        with pytest.raises(WeightsError, match="gone: cannot be fetched"):
            run(path, root, cache)
        assert self.prune(cache) == ["removed"]

    def test_who_uses_it_is_written_down(self, path: Path, root: Path, cache: Cache) -> None:
        run(path, root, cache, name="another")
        (item,) = list_items(cache)
        assert item.models == ("m 2.0",)
        assert abs(item.used - time.time()) < 60


def test_no_handler(make_archive: Callable[..., Path], root: Path, cache: Cache) -> None:
    path = make_archive({}, handler=None)
    with pytest.raises(ArchiveError, match="no manifest that names a handler"):
        run(path, root, cache)


def test_extra_files_that_are_missing(
    make_archive: Callable[..., Path], root: Path, cache: Cache
) -> None:
    members = {"handler.py": HANDLER, "c.yaml": b"system: {extraFiles: nope.tar}"}
    path = make_archive(members, config_file="c.yaml")
    before = sorted(root.iterdir())
    with pytest.raises(ArchiveError, match=r"system\.extraFiles: no member 'nope\.tar'"):
        run(path, root, cache)
    assert sorted(root.iterdir()) == before


def test_it_is_served(make_archive: Callable[..., Path], root: Path, cache: Cache) -> None:
    deployment = run(make_archive({"handler.py": HANDLER, "weights.bin": b"w"}), root, cache)

    async def main() -> None:
        service = Service()
        await service.register(deployment)
        reply = await service.predict("m", None, Request("id", (), [Part("body", "", b"")]))
        assert bytes(reply.body) == b"w"
        await service.close(timeout=10)

    asyncio.run(main())


class TestRoot:
    def test_it_goes_but_not_what_it_links_to(self, tmp_path: Path) -> None:
        root = make_root(tmp_path)
        kept = tmp_path / "kept"
        kept.write_text("precious")
        (root / "link").symlink_to(kept)
        remove_rundirs(root)
        assert not root.exists()
        assert kept.read_text() == "precious"
        remove_rundirs(root)

    def test_those_of_the_dead_are_removed(self, tmp_path: Path) -> None:
        code = (
            "import os, sys; from pathlib import Path;"
            "from hatch_mar.serve import make_root;"
            "print(make_root(Path(sys.argv[1])), flush=True); os._exit(9)"
        )
        output = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        ).stdout
        dead = Path(output.strip())
        old = time.time() - 3600
        os.utime(dead, (old, old))
        root = make_root(tmp_path)
        assert not dead.exists()
        remove_rundirs(root)

    def test_those_of_the_living_stay(self, tmp_path: Path) -> None:
        living = make_root(tmp_path)
        old = time.time() - 3600
        os.utime(living, (old, old))
        other = make_root(tmp_path)
        assert living.exists()
        for root in (living, other):
            remove_rundirs(root)

    def test_young_and_foreign_ones_stay(self, tmp_path: Path) -> None:
        (tmp_path / "hatch-mar-run-young").mkdir()
        foreign = tmp_path / "hatch-mar-run-without-lock"
        foreign.mkdir()
        os.utime(foreign, (0, 0))
        remove_rundirs(make_root(tmp_path))
        assert len(list(tmp_path.iterdir())) == 2
