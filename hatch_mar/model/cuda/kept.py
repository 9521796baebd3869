"""What was compiled for a device, kept for the next start.

It lies in the cache beside the weights, `compiled/<kind>/<fingerprint>`. It is machine code, which
no digest vouches for: the directory has to be the user's own, and nobody else may write to it, also
where several users share a cache. A fingerprint covers all that the result depends on, so that a
file is either right or has another name.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatch_mar.weights.cache import CACHE_VARIABLE, default_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_OF_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return 32 hexadecimal digits that stand for `facts`, which JSON can say."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def describe_device(device: Any) -> dict[str, str]:  # noqa: ANN401 - a torch.device
    """Return what code for `device` depends on: torch, and the GPU or the CPU.

    Source: `AOTI_DEVICE_KEY`, `AOTI_CPU_ISA` and `AOTI_COMPUTE_CAPABILITY` of AOTInductor's own
    packages, which say the same.
    """
    import torch  # noqa: PLC0415 - the room is open to models that need none

    facts = {"torch": torch.__version__, "system": platform.system(), "device": device.type}
    if device.type != "cuda":
        capability = torch.backends.cpu.get_cpu_capability()
        return {**facts, "machine": platform.machine(), "capability": str(capability)}
    major, minor = torch.cuda.get_device_capability(device)
    return {
        **facts,
        "name": torch.cuda.get_device_name(device),
        "capability": f"{major}.{minor}",
        "cuda": str(torch.version.cuda),
    }


def directory_of(kind: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of what is kept of `kind`, which is there afterwards.

    Raises:
        WeightsError: nobody has said where the cache is, and nothing does by itself.
        OSError: it cannot be written, or others may put code there.
    """
    top = default_directory(environ) / "compiled"
    top.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    _refuse_foreign(top)
    directory = top / kind
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _refuse_foreign(directory: Path) -> None:
    """Raise PermissionError unless `directory` is this user's, and no other's to write to."""
    status, user = directory.stat(), os.geteuid() if hasattr(os, "geteuid") else None
    if user is None or (status.st_uid == user and not status.st_mode & _OF_OTHERS):
        return
    flaw = f"belongs to user {status.st_uid}" if status.st_uid != user else "others may write to it"
    raise PermissionError(
        f"{directory}: {flaw}, and what lies there is run; make it your own (chmod go-w), or set "
        f"{CACHE_VARIABLE} to another directory"
    )


def make_once(path: Path, make: Callable[[Path], None]) -> bool:
    """Have `make` write a file that becomes `path`, unless that is there; say whether it did.

    Of several processes one makes it, the others wait for it. What failed leaves nothing.

    Raises:
        OSError: the directory cannot be written.
    """
    if path.exists():
        return False
    with _lock(path):
        if path.exists():
            return False
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as scratch:
            made = Path(scratch, path.name)
            make(made)
            made.replace(path)
    return True


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    from filelock import FileLock  # noqa: PLC0415 - an extra

    with FileLock(path.with_name(f".{path.name}.lock")):
        yield
