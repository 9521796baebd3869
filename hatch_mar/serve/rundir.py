"""Run directories: where a model's workers live. One per model version, made once by the door.

All run directories of a runner are in one root under the system's temporary directory. A runner
that was killed cannot remove its root; the next runner of the same user does. Whether a root's
owner still lives is told by a lock that the kernel drops with its holder.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.archive.modelconfig import read_model_config
from hatch_mar.archive.modelpath import lead_inside
from hatch_mar.archive.unpack import unpack, unpack_extra_files
from hatch_mar.errors import ArchiveError, OfflineError
from hatch_mar.serve.deployment import Deployment
from hatch_mar.serve.tuning import load_tunings
from hatch_mar.weights.fetch import Progress, fetch
from hatch_mar.weights.reference import Reference
from hatch_mar.weights.upkeep import hold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatch_mar.archive.modelconfig import ModelConfig
    from hatch_mar.archive.read import Archive
    from hatch_mar.weights.cache import Cache

DEFAULT_VERSION = "1.0"
"""What TorchServe calls a version that nobody named."""
COMPILED = "LSP"
"""What a manifest calls the runtime of handlers that are libraries."""
_PREFIX = "hatch-mar-run-"
_LOCK = ".lock"
_YOUNG_SECONDS = 60
"""A root younger than this may have an owner who has not locked it yet."""
_held: dict[Path, list[int]] = {}
"""Open files by directory: of a root its lock, of a run directory the weights that it holds."""

Watch = Callable[[Reference], AbstractContextManager[Progress | None]]
"""Entered around the fetch of one file of weights; gives what is told how far it is."""


def make_root(parent: Path | None = None) -> Path:
    """Make a root for this runner's run directories, and remove those of runners that died.

    Raises:
        OSError: `parent`, by default the system's temporary directory, cannot be written.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    for root in parent.glob(f"{_PREFIX}*"):
        if _is_abandoned(root):
            shutil.rmtree(root, ignore_errors=True)
    root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    lock = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    _held[root] = [lock]
    return root


def remove_rundirs(root: Path) -> None:
    """Remove a root and all run directories in it; links go, what they point to stays."""
    for directory in [each for each in list(_held) if each.parent == root.absolute()]:
        remove_rundir(directory)
    remove_rundir(root)


def remove_rundir(directory: Path) -> None:
    """Remove one run directory, and hold its weights no longer."""
    shutil.rmtree(directory, ignore_errors=True)
    for lock in _held.pop(directory, ()):
        os.close(lock)


def prepare(
    archive: Archive,
    *,
    root: Path,
    cache: Cache,
    name: str | None = None,
    handler: str | None = None,
    default_handler: str | None = None,
    url: str | None = None,
    watch: Watch | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Deployment:
    """Put everything the model needs into a new run directory under `root`.

    Members are verified and linked or unpacked, weights that the archive names are fetched into
    `cache` and linked, the tarballs of `system.extraFiles` are unpacked. `name` and `handler`
    overrule the manifest, `default_handler` stands in for none; `url` is what `describe` shows,
    by default the archive's file name.
    Files of the cache are held until the run directory is removed: nobody prunes what is served.

    Raises:
        ArchiveError: the archive is broken, or says too little to be served.
        WeightsError: weights could not be fetched.
        Nothing is left in `root` then.
    """
    manifest, config = archive.manifest, read_model_config(archive.config)
    if archive.seal is not None:
        config = replace(config, raw=lead_inside(config.raw, archive.seal.references))
    chosen = handler or manifest.handler or default_handler
    if not chosen:
        raise ArchiveError(
            f"{archive.path}: no manifest that names a handler: is it the archive of a model?"
        )
    if manifest.runtime == COMPILED:
        raise ArchiveError(
            f"{archive.path}: runtime {COMPILED} is TorchServe's C++ backend, which is not served "
            "here: give the model a handler in Python"
        )
    served = name or manifest.model_name
    version = manifest.model_version or DEFAULT_VERSION
    directory = Path(tempfile.mkdtemp(prefix=f"{_tame(served)}-", dir=root.absolute()))
    try:
        unpack(archive, directory)
        _link_references(archive, directory, cache, watch or _unwatched, environ)
        _unpack_extra_files(archive, directory, config)
    except BaseException:
        remove_rundir(directory)
        raise
    deployment = Deployment(
        name=served,
        version=version,
        directory=directory,
        handler=chosen,
        config=config,
        manifest=manifest if archive.has_manifest else None,
        seal=archive.seal,
        url=url or archive.path.name,
        warnings=(*archive.warnings, *config.warnings),
    )
    return load_tunings(deployment, archive.path)


def _link_references(
    archive: Archive, directory: Path, cache: Cache, watch: Watch, environ: Mapping[str, str]
) -> None:
    manifest = archive.manifest
    model = f"{manifest.model_name} {manifest.model_version or DEFAULT_VERSION}"
    forbidden: list[OfflineError] = []
    for reference in archive.seal.references if archive.seal else ():
        target = directory / reference.target
        if target.exists():
            raise ArchiveError(
                f"{archive.path}: {reference.target}: is a member and a reference at once"
            )
        try:
            path, lock = _fetch_and_hold(reference, cache, watch, environ)
        except OfflineError as error:
            forbidden.append(error)
            continue
        _held.setdefault(directory, []).append(lock)
        cache.ledger.note_use(reference.sha256, model)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    if forbidden:  # all at once: who brings them here by hand comes once
        raise OfflineError("\n".join(map(str, forbidden)))


def _fetch_and_hold(
    reference: Reference, cache: Cache, watch: Watch, environ: Mapping[str, str]
) -> tuple[Path, int]:
    """Return the file in the cache, and the descriptor that keeps it from being pruned."""
    while True:
        with watch(reference) as progress:
            path = fetch(reference, cache, progress=progress, environ=environ)
        lock = hold(path)
        if lock is not None:  # else somebody has pruned it just now
            return path, lock


def _unwatched(_: Reference) -> AbstractContextManager[None]:
    return nullcontext()


def _unpack_extra_files(archive: Archive, directory: Path, config: ModelConfig) -> None:
    for name in config.system_extra_files:
        if not (directory / name).is_file():
            raise ArchiveError(
                f"{archive.path}: model-config.yaml: system.extraFiles: no member {name!r}"
            )
        unpack_extra_files(directory / name, directory)


def _tame(name: str) -> str:
    """Make part of a file name of a model's name, which a foreign archive may have chosen."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:64]


def _is_abandoned(root: Path) -> bool:
    """Whether the runner that made `root` is gone. A root of somebody else is not touched."""
    try:
        stat = root.stat()
        if stat.st_uid != os.getuid() or time.time() - stat.st_mtime < _YOUNG_SECONDS:
            return False
        lock = os.open(root / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False
    finally:
        os.close(lock)
