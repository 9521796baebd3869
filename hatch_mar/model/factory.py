"""`handler_factory`: a few plain functions become a handler.

This file is the whole of it. An archive carries a copy named `base_handler.py`, so that its handler
also runs in stock TorchServe: therefore it imports the standard library only, takes torch, Pillow,
safetensors and yaml where a model needs them, knows nothing of the rest of hatch_mar, and avoids
what Python 3.8 lacks.

What the author's functions get and give:

* `init_function(**init_kwargs)` returns the model; the archive's checkpoint is loaded into it.
* `preprocess_function(sample)` gets one request's `data` or `body` and returns one input *without*
  a batch dimension: a tensor, an array, a list of numbers, a tuple (positional arguments of the
  model) or a mapping (keyword arguments). Inputs of one shape go through the model as one batch.
* `postprocess_function(output)` gets one output without its batch dimension, in host memory, and
  returns what the client gets: bytes, text, or anything JSON can say (tensors become lists).

Without its batch dimension means: where every part of the model's output is as long as the batch.
A model of which that is not true runs once per request, and its output is passed on as it is.
"""

# ruff: noqa: ANN401 - torch is not imported here, so models and tensors are Any

from __future__ import annotations

import contextlib
import filecmp
import gzip
import importlib
import io
import json
import logging
import os
import pickle
import shutil
import stat
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HATCH_MAR_BASE_HANDLER = 1
"""Tells a copy of this file from any other `base_handler.py`."""

STATE_DIRECTORY = ".hatch-mar"
"""Where a model directory keeps its locks and the marks of what has been done once."""
STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights")
"""Where training scripts put the weights in a checkpoint that holds more."""
WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before each key."""
MAX_MEMBERS = 10_000
MAX_BYTES = 1 << 40
"""An archive may unpack to this many bytes, if the disk has room for them."""

logger = logging.getLogger("hatch_mar.model")


def handler_factory(
    init_function: Callable[..., Any],
    preprocess_function: Callable[[Any], Any] | None = None,
    postprocess_function: Callable[[Any], Any] | None = None,
    install_packages: Callable[[], Any] | None = None,
    unpack_dependencies: Callable[[], Any] | None = None,
    **init_kwargs: Any,
) -> FactoryHandler:
    """Make a handler of `init_function`, called with `init_kwargs`, and the optional others.

    `install_packages` and `unpack_dependencies` run once per model directory, in it, before
    `init_function`; an operator forbids them with `HATCH_MAR_INSTALL_HOOKS=0`.
    """
    hooks = {"install_packages": install_packages, "unpack_dependencies": unpack_dependencies}
    return FactoryHandler(
        init=lambda: init_function(**init_kwargs),
        preprocess=preprocess_function or (lambda sample: sample),
        postprocess=postprocess_function or (lambda output: output),
        hooks={name: hook for name, hook in hooks.items() if hook is not None},
    )


class FactoryHandler:
    """What `handler_factory` returns: called with `(None, context)` once, then with batches."""

    def __init__(
        self,
        *,
        init: Callable[[], Any],
        preprocess: Callable[[Any], Any],
        postprocess: Callable[[Any], Any],
        hooks: Mapping[str, Callable[[], Any]],
    ) -> None:
        """Keep the functions; nothing is loaded before the first call."""
        self._init = init
        self._preprocess = preprocess
        self._postprocess = postprocess
        self._hooks = hooks
        self._decode_images = "auto"
        self._batchable: bool | None = None
        self.model: Any = None
        self.device: Any = None
        self.initialized = False

    def __call__(self, data: Sequence[Any] | None, context: Any = None) -> list[Any] | None:
        """Load the model on the first call, then answer `data`: one element per row, in order.

        A unit test may leave `context` out: the model then runs on the CPU, without a checkpoint.
        """
        if not self.initialized:
            self.initialize(context)
        return None if data is None else self.handle(data, context)

    def initialize(self, context: Any) -> None:
        """Run the install hooks, make the model, load its checkpoint, put it on its device."""
        properties = getattr(context, "system_properties", None) or {}
        directory = Path(properties.get("model_dir") or ".")
        config = getattr(context, "model_yaml_config", None) or {}
        system = config.get("system") or {}
        for name, hook in self._hooks.items():
            run_install_hook(directory, name, hook)
        self._decode_images = str(system.get("decodeImages") or "auto").lower()
        if not properties.get("limit_max_image_pixels", True):
            _allow_any_image_size()
        gpu_id = properties.get("gpu_id")
        limit = getattr(context, "max_gpu_memory", None) or system.get("maxGPUMemory")
        if limit is not None:
            limit_gpu_memory(gpu_id, limit)
        model = self._init()
        if not callable(model):
            raise TypeError(
                f"init_function returned {model!r}; it must return the model, a torch.nn.Module"
            )
        if _is_module(model):
            checkpoint = find_checkpoint(directory, getattr(context, "manifest", None), config)
            if checkpoint is not None:
                trusted = is_trusted(checkpoint, directory, context)
                fit_state_dict(model, read_checkpoint(checkpoint, trusted=trusted), checkpoint.name)
            self.device = choose_device(gpu_id)
            model = model.to(self.device).eval()
        self.model = model
        self.initialized = True

    def handle(self, rows: Sequence[Any], context: Any = None) -> list[Any]:
        """Answer one batch: `preprocess` and `postprocess` per row, the model once if it can be.

        Asked to describe the model (`GET /models/{name}?customized=true`), it has nothing to add.
        """
        if context is not None and context.get_request_header(0, "describe") == "True":
            return [{} for _ in rows]
        with _inference_mode():
            samples = [self._sample(row, index, context) for index, row in enumerate(rows)]
            outputs = self.infer([self._preprocess(sample) for sample in samples])
            return [plain(self._postprocess(output)) for output in outputs]

    def infer(self, inputs: Sequence[Any]) -> list[Any]:
        """Return one output per input.

        Whether outputs can be told apart is learnt from a batch of one: there, every part that
        belongs to the batch is one long, so that a part which is as long as a later batch by chance
        (the layers of a recurrent state) is never dealt out to the wrong requests.
        """
        if len(inputs) > 1 and self._batchable is None:
            self._infer_alone(inputs[0])
        if len(inputs) > 1 and self._batchable:
            batch = collate(inputs)
            if batch is not None:
                outputs = divide(self._forward(batch), len(inputs))
                if outputs is not None:
                    return outputs
                self._batchable = False
        return [self._infer_alone(item) for item in inputs]

    def _infer_alone(self, item: Any) -> Any:
        batch = collate([item]) if _is_module(self.model) else None
        if batch is None:
            return self.model(item)
        output = self._forward(batch)
        parts = divide(output, 1)
        self._batchable = parts is not None and self._batchable is not False
        return output if parts is None else parts[0]

    def _forward(self, batch: Any) -> Any:
        batch = move(batch, self.device)
        if isinstance(batch, Mapping):
            output = self.model(**batch)
        elif isinstance(batch, tuple):
            output = self.model(*batch)
        else:
            output = self.model(batch)
        return move(output, "cpu")  # once for the batch: every `.item()` on a GPU would wait for it

    def _sample(self, row: Any, index: int, context: Any) -> Any:
        if not isinstance(row, Mapping):
            return row
        key = next((key for key in ("data", "body") if row.get(key) is not None), None)
        if key is None:
            return row
        value = row[key]
        if not isinstance(value, (bytes, bytearray)) or self._decode_images == "never":
            return value
        if self._decode_images == "always":
            return open_image(value, required=False)
        is_image = content_type_of(context, index, key).startswith("image/")
        return open_image(value, required=True) if is_image else value


# Samples


def content_type_of(context: Any, index: int, key: str) -> str:
    """Return the content type that came with `key` of row `index`; empty if none did."""
    described = None if context is None else context.get_request_header(index, key)
    value = described.get("content-type") if isinstance(described, Mapping) else None
    return value.decode("latin-1") if isinstance(value, bytes) else str(value or "")


def open_image(data: bytes | bytearray, *, required: bool) -> Any:
    """Decode `data`, if Pillow is installed; what is no image stays as it is unless `required`.

    Raises:
        PredictionException: (400) `required`, and not an image.
    """
    try:
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415
    except ImportError:
        return data  # the author decodes images with something else

    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except UnidentifiedImageError:
        if required:
            raise _bad_request("the body is not an image that can be read") from None
        return data
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _bad_request(f"the image cannot be read: {error}") from error
    return image


def _bad_request(message: str) -> Exception:
    try:
        prediction_exception = importlib.import_module("ts.utils.util").PredictionException
    except (ImportError, AttributeError):
        return ValueError(message)
    exception: Exception = prediction_exception(message, 400)
    return exception


def _allow_any_image_size() -> None:
    with contextlib.suppress(ImportError):
        importlib.import_module("PIL.Image").MAX_IMAGE_PIXELS = None  # type: ignore[attr-defined]


# Batches


def collate(samples: Sequence[Any]) -> Any:
    """Stack `samples` along a new first dimension; None if they do not fit together."""
    first = samples[0]
    if isinstance(first, Mapping):
        if not all(isinstance(one, Mapping) and one.keys() == first.keys() for one in samples):
            return None
        columns = {key: collate([sample[key] for sample in samples]) for key in first}
        return None if any(column is None for column in columns.values()) else columns
    if isinstance(first, tuple):
        if not all(isinstance(one, tuple) and len(one) == len(first) for one in samples):
            return None
        stacked = tuple(collate([sample[i] for sample in samples]) for i in range(len(first)))
        return None if any(column is None for column in stacked) else stacked
    tensors = [_as_tensor(sample) for sample in samples]
    kinds = {None if tensor is None else (tensor.shape, tensor.dtype) for tensor in tensors}
    return None if len(kinds) > 1 or None in kinds else _torch().stack(tensors)


def _as_tensor(value: Any) -> Any:
    torch = _torch()
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, (bool, int, float, list)) or type(value).__module__ == "numpy":
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            return torch.as_tensor(value)
    return None


def divide(output: Any, count: int) -> list[Any] | None:
    """Return the `count` parts of a batch's `output`; None if any of it is not that long."""
    if isinstance(output, list):
        return output if len(output) == count else None
    if isinstance(output, (Mapping, tuple)):
        values = _values(output)
        columns = [[None] * count if value is None else divide(value, count) for value in values]
        if not columns or None in columns:
            return None
        return [_rebuild(output, [column[i] for column in columns if column]) for i in range(count)]
    shape: Any = getattr(output, "shape", ())
    return [output[i] for i in range(count)] if len(shape) and shape[0] == count else None


def _values(container: Mapping[Any, Any] | tuple[Any, ...]) -> list[Any]:
    return list(container.values() if isinstance(container, Mapping) else container)


def _rebuild(original: Any, values: list[Any]) -> Any:
    """Return `values` in a container of the type of `original`, a mapping or a tuple."""
    kind: Any = type(original)
    if isinstance(original, Mapping):
        return kind(dict(zip(original, values)))  # noqa: B905 - `strict` is of Python 3.10
    return kind(*values) if hasattr(kind, "_fields") else tuple(values)


def move(value: Any, device: Any) -> Any:
    """Return `value` with every tensor in it on `device`."""
    if hasattr(value, "to") and hasattr(value, "dtype"):
        return value.to(device)
    if isinstance(value, (Mapping, tuple)) and value:
        return _rebuild(value, [move(item, device) for item in _values(value)])
    return [move(item, device) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """Return `value` with tensors and arrays turned into lists and numbers, as JSON wants them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


# torch


def _torch() -> Any:
    return importlib.import_module("torch")


def _is_module(model: Any) -> bool:
    # Not an import: a model that is a torch module has imported torch by now.
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def _inference_mode() -> Any:
    torch: Any = sys.modules.get("torch")
    return contextlib.nullcontext() if torch is None else torch.inference_mode()


def choose_device(gpu_id: int | None) -> Any:
    """Return the `torch.device` of CUDA index `gpu_id`, or the CPU if there is none."""
    torch = _torch()
    if gpu_id is not None and torch.cuda.is_available():
        return torch.device("cuda", int(gpu_id))
    if gpu_id is not None:
        logger.warning("gpu %s: this PyTorch sees no CUDA; running on the CPU", gpu_id)
    return torch.device("cpu")


def limit_gpu_memory(gpu_id: int | None, megabytes: Any) -> None:
    """Keep this process from taking more than `megabytes` MB of GPU `gpu_id`, if there is one."""
    if isinstance(megabytes, bool) or not isinstance(megabytes, int) or megabytes < 1:
        logger.warning("system.maxGPUMemory: %r is no whole number of MB; ignored", megabytes)
        return
    torch = _torch()
    if gpu_id is None or not torch.cuda.is_available():
        return
    total = torch.cuda.get_device_properties(int(gpu_id)).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, megabytes * 2**20 / total), int(gpu_id))


# Checkpoints


def find_checkpoint(
    directory: Path, manifest: Mapping[str, Any] | None, config: Mapping[str, Any]
) -> Path | None:
    """Return the weights: the manifest's serialized file, or `handler.model_path` of the config.

    Raises:
        FileNotFoundError: they are named, and not there.
    """
    section = config.get("handler")
    name: str | None = ((manifest or {}).get("model") or {}).get("serializedFile")
    name = name or (section.get("model_path") if isinstance(section, Mapping) else None)
    if not name:
        return None
    path = directory / name
    if path.is_dir():
        return None  # what a language model's own loader reads
    if not path.is_file():
        raise FileNotFoundError(f"{name}: the model's checkpoint is not in the archive")
    return path


def is_trusted(checkpoint: Path, directory: Path, context: Any) -> bool:
    """Tell whether torch may unpickle `checkpoint` freely: the server's word, else the seal's."""
    trusted = getattr(context, "trusted_pickle", None)
    if trusted is None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            seal = json.loads((directory / "MAR-INF" / "SEAL.json").read_bytes())
            trusted = seal.get("trustedPickle")
    return any(directory / name == checkpoint for name in trusted or ())


def read_checkpoint(path: Path, *, trusted: bool = False) -> Mapping[str, Any]:
    """Return the state_dict in `path`, on the CPU, wherever in the checkpoint it is.

    Raises:
        ValueError: the file holds no state_dict, or objects that only `trusted` lets in.
    """
    if path.suffix == ".safetensors":
        state: Mapping[str, Any] = importlib.import_module("safetensors.torch").load_file(str(path))
        return state
    torch = _torch()
    try:
        # mmap: the bytes go from the page cache into the model, not through a second copy.
        loaded = torch.load(
            str(path), map_location="cpu", weights_only=not trusted, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name}: holds more than tensors ({str(error).strip().splitlines()[0]}); save "
            f"model.state_dict() alone, or mark these weights trusted-pickle = true"
        ) from error
    if isinstance(loaded, torch.nn.Module):
        return loaded.state_dict()  # type: ignore[no-any-return]
    for key in STATE_DICT_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping):
        kind = type(loaded).__name__
        raise ValueError(f"{path.name}: holds a {kind}, not a state_dict")  # noqa: TRY004
    return loaded


def fit_state_dict(model: Any, state: Mapping[str, Any], name: str) -> None:
    """Load `state` into `model`, which must have exactly its keys; `name` is for the message.

    Raises:
        ValueError: keys are missing or left over, or shapes differ.
    """
    for prefix in WRAPPER_PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            bare = {key[len(prefix) :]: value for key, value in state.items()}
            state = bare if not state.keys() & model.state_dict().keys() else state
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{name}: does not fit the model: {error}") from error
    wrong = [
        f"{what} {', '.join(keys[:8])}{f' and {len(keys) - 8} more' if keys[8:] else ''}"
        for what, keys in (("lacks", list(missing)), ("has unexpected", list(unexpected)))
        if keys
    ]
    if wrong:
        raise ValueError(f"{name}: does not fit the model: {'; '.join(wrong)}")


# Once per model directory


@contextlib.contextmanager
def once(directory: Path, key: str) -> Iterator[bool]:
    """Yield True to the first process that comes with `key`, False to all after it succeeded.

    The others wait meanwhile. If the body raises, the next one tries again.
    """
    import fcntl  # noqa: PLC0415 - POSIX only, and so are the servers

    done = directory / STATE_DIRECTORY / f"{key}.done"
    if done.exists():
        yield False
        return
    done.parent.mkdir(exist_ok=True)
    with done.with_suffix(".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        first = not done.exists()
        yield first
        done.touch()


def run_install_hook(directory: Path, name: str, hook: Callable[[], Any]) -> None:
    """Run the author's `hook`, unless it has run for `directory` or the operator forbids it."""
    if os.environ.get("HATCH_MAR_INSTALL_HOOKS", "1") == "0":
        logger.warning("%s is not run: HATCH_MAR_INSTALL_HOOKS=0", name)
        return
    with once(directory, name) as first:
        if first:
            logger.info("running %s", name)
            hook()
            importlib.invalidate_caches()


def unpack_extra_files(directory: Path) -> None:
    """Unpack the archives that `system.extraFiles` in the model's config names, once, beside it."""
    try:
        manifest = json.loads((directory / "MAR-INF" / "MANIFEST.json").read_bytes())
        config = directory / manifest["model"]["configFile"]
        raw = importlib.import_module("yaml").safe_load(config.read_bytes())
        named = raw["system"]["extraFiles"]
    except (OSError, ValueError, LookupError, TypeError):
        return  # no model directory, or a model without extra files
    for name in named if isinstance(named, list) else [] if named is None else [named]:
        if not isinstance(name, str) or not name:
            logger.warning("system.extraFiles: %r is no file name; ignored", name)
            continue
        if not (directory / name).is_file():
            raise ValueError(f"system.extraFiles: there is no {name!r} in the archive")
        with once(directory, f"unpacked-{name.replace('/', '-')}") as first:
            if first:
                unpack(directory / name, directory)


def unpack(archive: Path, into: Path) -> None:
    """Extract a tar, tar.gz or zip, told apart by content, into `into`: all of it or nothing.

    Raises:
        ValueError: not such an archive, larger than there is room for, or a member that is a link,
            leaves `into`, comes twice, or has the name of another file in `into`.
    """
    state = into / STATE_DIRECTORY
    state.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=state) as scratch:
        try:
            names = _extract(archive, Path(scratch))
        except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as no:
            raise ValueError(
                f"{archive.name}: not a whole tar, tar.gz or zip archive: {no}"
            ) from no
        for parts in names:
            _refuse_another(Path(scratch, *parts), into.joinpath(*parts), archive.name)
        for parts in names:
            into.joinpath(*parts[:-1]).mkdir(parents=True, exist_ok=True)
            Path(scratch, *parts).replace(into.joinpath(*parts))
    importlib.invalidate_caches()


def _refuse_another(wanted: Path, target: Path, archive: str) -> None:
    """Raise ValueError if `target` is there, and not the same as `wanted`."""
    if not os.path.lexists(target):
        return
    if not target.is_file() or not filecmp.cmp(str(wanted), str(target), shallow=False):
        raise ValueError(f"{archive}: there is another {target.name!r} in the archive already")


def _extract(archive: Path, into: Path) -> list[tuple[str, ...]]:
    """Write the files of `archive` to the empty directory `into`; return their paths in parts."""
    names = []
    budget = min(MAX_BYTES, shutil.disk_usage(into).free)
    for name, executable, stream in _members(archive):
        parts = _safe_parts(name, archive.name)
        budget = _copy(stream, into.joinpath(*parts), budget, archive.name)
        into.joinpath(*parts).chmod(0o755 if executable else 0o644)
        names.append(parts)
        if len(names) > MAX_MEMBERS:
            raise ValueError(f"{archive.name}: has more than {MAX_MEMBERS} members")
    return names


def _members(archive: Path) -> Iterator[tuple[str, bool, Any]]:
    """Yield name, executable and content of each file of `archive`."""
    with archive.open("rb") as file:
        magic = file.read(4)
    if magic == b"PK\x03\x04":
        with zipfile.ZipFile(archive) as box:
            for info in box.infolist():
                mode = info.external_attr >> 16
                if stat.S_ISLNK(mode):
                    raise ValueError(f"{archive.name}: {info.filename!r} is a link")
                if not info.is_dir():
                    with box.open(info) as stream:
                        yield info.filename, bool(mode & stat.S_IXUSR), stream
        return
    with tarfile.open(archive) as tape:
        for member in tape:
            if not member.isdir() and not member.isreg():
                raise ValueError(f"{archive.name}: {member.name!r} is a link or a device")
            if member.isreg():
                yield member.name, bool(member.mode & stat.S_IXUSR), tape.extractfile(member)


def _safe_parts(name: str, archive: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        raise ValueError(f"{archive}: {name!r} leaves the model's directory")
    if path.parts[0] in ("MAR-INF", STATE_DIRECTORY):
        raise ValueError(f"{archive}: {name!r} is in a reserved directory")
    return path.parts


def _copy(stream: BinaryIO, target: Path, budget: int, archive: str) -> int:
    """Write `stream` to `target`; return what is left of `budget` bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("xb") as out:
            while chunk := stream.read(1 << 20):
                budget -= len(chunk)
                if budget < 0:
                    raise ValueError(f"{archive}: unpacks to more bytes than there is room for")
                out.write(chunk)
    except FileExistsError:
        raise ValueError(f"{archive}: {target.name!r} comes twice") from None
    return budget


unpack_extra_files(Path(__file__).parent)
