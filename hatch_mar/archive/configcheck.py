"""What a build refuses in model-config.yaml: everything that would silently do nothing.

TorchServe ignores what it does not understand. That is how a `batchsize: 8` is served one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from hatch_mar.archive.configkeys import (
    COMPILE_BACKENDS,
    FRONTEND_KEYS,
    SECTIONS,
    SYSTEM_KEYS,
    TORCHRUN_KEYS,
    find_type_flaw,
)
from hatch_mar.archive.cudakeys import CUDA_KEYS, SECTION, find_cuda_flaws
from hatch_mar.archive.names import find_flaw
from hatch_mar.errors import Problem

Finding = tuple[str, str]
"""A key path, and what is wrong there."""

PT2_KEYS = ("compile", "export", "backend")
"""Keys of `pt2`: the third is an older way to say the first."""
GRAPHING_MODES = ("reduce-overhead", "max-autotune")
"""Modes of torch.compile that make CUDA graphs."""
NEAR = 0.85
"""How alike a key must be to one that we know before it counts as misspelt."""
_UNFORESEEN = ("sequenceBatching", "continuousBatching", "asyncCommunication")
"""With these, workers do not answer batch after batch."""


def check_model_config(raw: Mapping[str, Any] | None, file: str) -> list[Problem]:
    """Return everything in `raw`, the parsed `file`, that would not do what it says.

    Keys that nobody knows are the handler's own, unless they look like one that somebody knows.
    """
    if raw is None:
        return []
    checks: tuple[Callable[[Mapping[str, Any]], Iterator[Finding]], ...] = (
        _check_frontend,
        _check_names,
        _check_combinations,
        _check_sections,
        _check_torchrun,
        _check_system,
        _check_pt2,
        _check_cuda,
    )
    return [Problem(file, key, message) for check in checks for key, message in check(raw)]


def _check_frontend(raw: Mapping[str, Any]) -> Iterator[Finding]:
    for key in (key for key in FRONTEND_KEYS if key.name in raw):
        value = raw[key.name]
        flaw = key.find_flaw(value)
        if flaw is None and key.name == "deviceIds" and len(set(value)) < len(value):
            flaw = "names a device twice"
        if flaw is not None:
            hint = (
                "; TorchServe takes 0 for 100; leave it out for no delay"
                if _is_no_delay(key.name, value)
                else ""
            )
            yield key.name, f"{flaw}{hint}"


def _is_no_delay(key: str, value: object) -> bool:
    return key == "maxBatchDelay" and type(value) is int and value == 0


def _check_names(raw: Mapping[Any, Any]) -> Iterator[Finding]:
    known = [*(key.name for key in FRONTEND_KEYS), *SECTIONS]
    for key in raw:
        if not isinstance(key, str):
            yield str(key), "is no string; quote it"
        elif key not in known and (near := _nearest(key, known)):
            yield key, f"unknown key; did you mean '{near}'?"


def _nearest(key: str, known: Iterable[str]) -> str | None:
    import difflib  # noqa: PLC0415 - runners read configs, and do not say what was meant

    folded = {_fold(name): name for name in known}
    matches = difflib.get_close_matches(_fold(key), folded, n=1, cutoff=NEAR)
    return folded[matches[0]] if matches else None


def _fold(key: str) -> str:
    return key.casefold().replace("_", "").replace("-", "")


def _check_combinations(raw: Mapping[str, Any]) -> Iterator[Finding]:
    least, most = raw.get("minWorkers"), raw.get("maxWorkers")
    if least is not None and most is None:
        yield "minWorkers", "does nothing without maxWorkers; set both"
    if most is not None and least is None:
        yield "maxWorkers", "does nothing without minWorkers; set both"
    if type(least) is int and type(most) is int and most < least:
        yield "maxWorkers", f"must not be less than minWorkers, {least}, but is {most}"
    if "parallelLevel" in raw and not raw.get("parallelType"):
        yield "parallelLevel", "does nothing without parallelType; set both"
    if "parallelLevel" in raw and "torchrun" in raw:
        yield "parallelLevel", "is overridden by torchrun.nproc-per-node; set only that"
    if raw.get("sequenceBatching") is True and not raw.get("sequenceMaxIdleMSec"):
        yield "sequenceBatching", "needs sequenceMaxIdleMSec; set it to more than 0"
    if "maxQueueDelay" in raw and (other := next((key for key in _UNFORESEEN if raw.get(key)), "")):
        yield "maxQueueDelay", f"does nothing with {other}: no wait can be predicted there"


def _check_sections(raw: Mapping[str, Any]) -> Iterator[Finding]:
    for name in SECTIONS:
        if name in raw and name not in ("pt2", SECTION):  # which may be a string; have their own
            flaw = find_type_flaw("mapping", raw[name])
            if flaw is not None:
                yield name, flaw
    handler = raw.get("handler")
    if isinstance(handler, Mapping):
        yield from _check_types("handler", handler, {"profile": "boolean", "model_path": "string"})


def _check_types(
    section: str, raw: Mapping[str, Any], kinds: Mapping[str, Any]
) -> Iterator[Finding]:
    for name, kind in kinds.items():
        if name in raw and (flaw := find_type_flaw(kind, raw[name])) is not None:
            yield f"{section}.{name}", flaw


def _check_torchrun(raw: Mapping[str, Any]) -> Iterator[Finding]:
    torchrun = raw.get("torchrun")
    if not isinstance(torchrun, Mapping):
        return
    yield from _check_types("torchrun", torchrun, TORCHRUN_KEYS)
    for key in torchrun:
        if key not in TORCHRUN_KEYS:
            near = _nearest(str(key), TORCHRUN_KEYS)
            hint = f"; did you mean '{near}'?" if near else ""
            yield f"torchrun.{key}", f"TorchServe does not pass this on to torchrun{hint}"


def _check_system(raw: Mapping[str, Any]) -> Iterator[Finding]:
    system = raw.get("system")
    if not isinstance(system, Mapping):
        return
    if "extraFiles" in system:
        yield from _check_extra_files(system["extraFiles"])
    for key in SYSTEM_KEYS:
        if key.name in system and (flaw := key.find_flaw(system[key.name])) is not None:
            yield f"system.{key.name}", flaw
    known = ["extraFiles", *(key.name for key in SYSTEM_KEYS)]
    for name in system:
        if name not in known and (near := _nearest(str(name), known)):
            yield f"system.{name}", f"unknown key; did you mean '{near}'?"


def _check_extra_files(value: object) -> Iterator[Finding]:
    names = value if isinstance(value, list) else [value]
    for name in names:
        if not isinstance(name, str):
            yield "system.extraFiles", f"must be a file name or a list of them, not {value!r}"
        elif (flaw := find_flaw(name)) is not None:
            yield "system.extraFiles", f"{name!r} {flaw}"
    for name, count in Counter(name for name in names if isinstance(name, str)).items():
        if count > 1:
            yield "system.extraFiles", f"names {name!r} twice"


def _check_pt2(raw: Mapping[str, Any]) -> Iterator[Finding]:
    if "pt2" not in raw:
        return
    pt2 = raw["pt2"]
    if isinstance(pt2, str):
        yield from _check_backend("pt2", pt2)
    elif not isinstance(pt2, Mapping):
        yield "pt2", f"must be a mapping, not {pt2!r}"
    else:
        yield from _check_types("pt2", pt2, {"compile": "mapping", "export": "mapping"})
        for key in pt2:
            if key not in PT2_KEYS and (near := _nearest(str(key), PT2_KEYS)):
                yield f"pt2.{key}", f"unknown key; did you mean '{near}'?"
        yield from _check_pt2_sections(pt2)


def _check_pt2_sections(pt2: Mapping[str, Any]) -> Iterator[Finding]:
    if isinstance(options := pt2.get("compile"), Mapping):
        if "enable" not in options:
            yield "pt2.compile", "needs the key 'enable'; TorchServe's worker dies without it"
        yield from _check_types("pt2.compile", options, {"enable": "boolean"})
        yield from _check_backend("pt2.compile.backend", options.get("backend", "inductor"))
    if isinstance(options := pt2.get("export"), Mapping):
        yield from _check_types("pt2.export", options, {"aot_compile": "boolean"})
    if "compile" not in pt2 and "backend" in pt2:
        yield from _check_backend("pt2.backend", pt2["backend"])


def _check_backend(key: str, backend: object) -> Iterator[Finding]:
    if backend not in COMPILE_BACKENDS:
        near = _nearest(str(backend), COMPILE_BACKENDS)
        hint = f"; did you mean '{near}'?" if near else ""
        yield key, f"{backend!r} is no backend that TorchServe compiles with{hint}"


def _check_cuda(raw: Mapping[str, Any]) -> Iterator[Finding]:
    if SECTION not in raw:
        return
    section = raw[SECTION]
    for key, flaw in find_cuda_flaws(section):
        yield f"{SECTION}.{key}".removesuffix("."), flaw
    if not isinstance(section, Mapping):
        return
    known = [key.name for key in CUDA_KEYS]
    for name in section:
        if name not in known:
            near = _nearest(str(name), known)
            hint = f"did you mean '{near}'?" if near else f"known are {', '.join(known)}"
            yield f"{SECTION}.{name}", f"unknown key; {hint}"
    if section.get("pipeline") is False and "decodeThreads" in section:
        yield f"{SECTION}.decodeThreads", "does nothing with pipeline: false; keep one"
    mode = _compile_mode(raw.get("pt2"))
    if section.get("graphs") is True and mode in GRAPHING_MODES:
        yield f"{SECTION}.graphs", f"pt2's mode {mode!r} makes CUDA graphs itself; keep one"


def _compile_mode(pt2: object) -> object:
    options = pt2.get("compile", pt2) if isinstance(pt2, Mapping) else None
    return options.get("mode") if isinstance(options, Mapping) else None
