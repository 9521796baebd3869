"""What was compiled for a device, kept for the next start.

It lies in the cache beside the weights, `compiled/<kind>/<fingerprint>`, and is as trusted as they
are: it is machine code that the user's own processes have written. A fingerprint covers all that
the result depends on, so that a file is either right or has another name.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatch_mar.weights.cache import default_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


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
        OSError: it cannot be written.
    """
    directory = default_directory(environ) / "compiled" / kind
    directory.mkdir(parents=True, exist_ok=True)
    return directory


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
