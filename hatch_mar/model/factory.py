"""`handler_factory`: a few plain functions become a handler.

This file is the whole of it. An archive carries a copy named `base_handler.py`, so that its handler
also runs in stock TorchServe: therefore it imports the standard library only, takes torch, Pillow,
safetensors and yaml where a model needs them, knows nothing of the rest of hatch_mar, and avoids
what Python 3.8 lacks.

What the author's functions get and give:

* `init_function(**init_kwargs)` returns the model; the archive's checkpoint is loaded into it.
  It may run twice: parameters have no memory of their own the first time (see `make_model`).
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

import array
import contextlib
import copy
import filecmp
import gc
import gzip
import importlib
import io
import itertools
import json
import logging
import os
import pickle
import re
import shutil
import stat
import sys
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections import OrderedDict
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
INDEX_SUFFIX = ".index.json"
"""What names the shards of a checkpoint: `{"weight_map": {key: file beside the index}}`."""
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
        self._accelerated: Callable[[Any], Any] | None = None
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
        model = self._make_model(directory, context, config)
        if not callable(model):
            raise TypeError(
                f"init_function returned {model!r}; it must return the model, a torch.nn.Module"
            )
        if _is_module(model):
            self.device = choose_device(gpu_id)
            model = model.to(self.device).eval()
            if "cuda" in config:  # which only hatch-mar's own context knows how to read
                accelerate = getattr(context, "accelerate", lambda *_: None)
                self._accelerated = accelerate(model, self.device)
        self.model = model
        self.initialized = True

    def _make_model(self, directory: Path, context: Any, config: Mapping[str, Any]) -> Any:
        try:
            checkpoint = find_checkpoint(directory, getattr(context, "manifest", None), config)
        except FileNotFoundError:
            model = self._init()  # what is no torch module may find its files itself
            if _is_module(model):
                raise
            return model
        if checkpoint is None:
            return self._init()
        trusted = is_trusted(checkpoint, directory, context)
        return make_model(self._init, checkpoint, trusted=trusted)

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
        output = self._run(move(batch, self.device))
        return move(output, "cpu")  # once for the batch: every `.item()` on a GPU would wait for it

    def _run(self, batch: Any) -> Any:
        """Call the model with `batch`, which is on its device, and so is what this returns."""
        if self._accelerated is not None:
            return self._accelerated(batch)
        if isinstance(batch, Mapping):
            return self.model(**batch)
        return self.model(*(batch if isinstance(batch, tuple) else (batch,)))

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
    if type(value) is list:
        tensor = read_floats(value)
        if tensor is not None:
            return tensor
    if isinstance(value, (bool, int, float, list)) or type(value).__module__ == "numpy":
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            return torch.as_tensor(value)
    return None


def read_floats(values: list[Any]) -> Any:
    """Return what `torch.as_tensor` makes of floats in lists, in a fifth of its time.

    None where `values` are anything else: no float among the numbers, say, or lists of different
    lengths.
    """
    torch = _torch()
    code = {torch.float32: "f", torch.float64: "d"}.get(torch.get_default_dtype())
    shape = [len(values)]
    while values and type(values[0]) is list:
        if set(map(type, values)) != {list} or len(set(map(len, values))) != 1:
            return None
        shape.append(len(values[0]))
        values = list(itertools.chain.from_iterable(values))
    kinds = set(map(type, values))
    if code is None or float not in kinds or not kinds <= {float, int, bool}:
        return None
    try:
        numbers = array.array(code, values)
    except OverflowError:  # for torch to say
        return None
    return torch.frombuffer(numbers, dtype=torch.get_default_dtype()).reshape(shape)


def divide(output: Any, count: int) -> list[Any] | None:
    """Return the `count` parts of a batch's `output`; None if any of it is not that long."""
    if isinstance(output, list):
        return output if len(output) == count else None
    if isinstance(output, (Mapping, tuple)):
        values = values_in(output)
        columns = [[None] * count if value is None else divide(value, count) for value in values]
        if not columns or None in columns:
            return None
        return [rebuild(output, [column[i] for column in columns if column]) for i in range(count)]
    shape: Any = getattr(output, "shape", ())
    if not len(shape) or shape[0] != count:
        return None
    return list(output.unbind() if hasattr(output, "unbind") else output)


def values_in(container: Mapping[Any, Any] | tuple[Any, ...]) -> list[Any]:
    """Return the values of a mapping or a tuple, in order."""
    return list(container.values() if isinstance(container, Mapping) else container)


def rebuild(original: Any, values: list[Any]) -> Any:
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
        return rebuild(value, [move(item, device) for item in values_in(value)])
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
    return sys.modules.get("torch") or importlib.import_module("torch")


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


class CheckpointError(ValueError):
    """A file that holds no weights, more than weights, or those of another model."""


def find_checkpoint(
    directory: Path, manifest: Mapping[str, Any] | None, config: Mapping[str, Any]
) -> Path | None:
    """Return the weights: the manifest's serialized file, or `handler.model_path` of the config.

    Raises:
        FileNotFoundError: they are named, and not there.
    """
    section = config.get("handler")
    name: str | None = ((manifest or {}).get("model") or {}).get("serializedFile")
    path: Any = section.get("model_path") if isinstance(section, Mapping) else None
    if not name and not path:
        return None
    found = directory / (name or path)
    if found.is_dir():
        return None  # what a language model's own loader reads
    if found.is_file():
        return found
    if found.is_symlink():
        there = os.readlink(str(found))  # noqa: PTH115 - Path has it since Python 3.9
        raise FileNotFoundError(
            f"{name or path}: leads to {there}, which is there no more; restart the server to have "
            "it fetched again"
        )
    if name:
        raise FileNotFoundError(f"{name}: the model's checkpoint is not in the archive")
    if os.path.isabs(path):  # noqa: PTH117 - Path would be made of it for this alone
        raise FileNotFoundError(f"handler.model_path: there is no file {path!r} on this machine")
    raise FileNotFoundError(
        f"handler.model_path: there is no file {path!r} in the model's directory; put it there, or "
        "name the place where it is, as an absolute path"
    )


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

    Tensors are mapped: nothing is read before it is used, and processes share what they read. Only
    pickles as torch saved them before 1.6 are read into memory.

    Raises:
        CheckpointError: the file holds no state_dict, or objects that only `trusted` lets in.
    """
    if path.name.endswith(INDEX_SUFFIX):
        return _read_shards(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    loaded = _read_pickle(path, trusted=trusted)
    if isinstance(loaded, _torch().nn.Module):
        return loaded.state_dict()  # type: ignore[no-any-return]
    for key in STATE_DICT_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping):
        kind = type(loaded).__name__
        raise CheckpointError(f"{path.name}: holds a {kind}, not a state_dict")
    return loaded


def _read_shards(index: Path) -> Mapping[str, Any]:
    """Return what all the files hold that `index` names; they lie beside it."""
    try:
        placed = json.loads(index.read_bytes())["weight_map"]
        names = sorted(set(placed.values()))
        inside = [".." not in PurePosixPath(name).parts and name[:1] != "/" for name in names]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index.name}: not an index of shards: {error!r}") from error
    if not all(inside):
        raise CheckpointError(f"{index.name}: names a shard outside of its directory")
    absent = [name for name in names if not (index.parent / name).is_file()]
    if absent:
        raise CheckpointError(
            f"{index.name}: names {_shorten(absent)}, not there; shards are weights, too: name all "
            "of them beside the index"
        )
    shards = {name: read_checkpoint(index.parent / name) for name in names}
    lost = [key for key, name in placed.items() if key not in shards[name]]
    if lost:
        raise CheckpointError(
            f"{index.name}: {_shorten(lost)} not in the shard that it says; are all of one model?"
        )
    return {key: value for shard in shards.values() for key, value in shard.items()}


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    safetensors = importlib.import_module("safetensors.torch")
    try:
        state: Mapping[str, Any] = safetensors.load_file(str(path))
    except importlib.import_module("safetensors").SafetensorError as error:
        raise CheckpointError(f"{path.name}: not a whole safetensors file: {error}") from error
    return state


def _read_pickle(path: Path, *, trusted: bool) -> Any:
    torch, whole = _torch(), zipfile.is_zipfile(path)
    try:
        return torch.load(str(path), map_location="cpu", weights_only=not trusted, mmap=whole)
    except pickle.UnpicklingError as error:
        if trusted:
            raise CheckpointError(f"{path.name}: not a checkpoint: {error}") from error
        raise CheckpointError(_explain_refusal(path, str(error))) from error
    except (RuntimeError, EOFError, OSError) as error:
        with path.open("rb") as file:
            cut_off = not whole and file.read(2) in (b"", b"PK")
        reason = "it is cut off" if cut_off else str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path.name}: not a checkpoint: {reason}") from error


def _explain_refusal(path: Path, error: str) -> str:
    """Say what torch has refused to unpickle, and what to do."""
    wanted = re.search(r"\bGLOBAL (\S+)", error)
    detail = error.partition("WeightsUnpickler error: ")[2] or error
    reason = f"asks for `{wanted[1]}`" if wanted else detail.strip().partition("\n")[0]
    return (
        f"{path.name}: holds more than tensors: {reason}, and unpickling that may run any code; "
        "save the weights alone, with\n"
        "    from safetensors.torch import save_model\n"
        f'    save_model(model, "{path.stem}.safetensors")\n'
        "or, if you trust whoever made the file, set `trusted-pickle = true` for it in "
        "`[tool.mar]` weights"
    )


def _shorten(names: Sequence[str]) -> str:
    return f"{', '.join(names[:8])}{f' and {len(names) - 8} more' if names[8:] else ''}"


# Weights in a model


def make_model(build: Callable[[], Any], checkpoint: Path, *, trusted: bool = False) -> Any:
    """Return what `build` makes; if that is a torch module, with the weights in `checkpoint`.

    Its parameters are the mapped file then: nothing is copied, and workers share the memory. Where
    that would make a difference, because `build` does something with the values of parameters that
    it keeps, it runs once more, and the weights are copied as `load_state_dict` does.

    Raises:
        CheckpointError: what `read_checkpoint` and `fit_state_dict` raise it for.
    """
    with _new_objects() as find_new:
        model = _build_hollow(build)
        if model is None:
            model = build()
        if not _is_module(model):
            return model
        _hollow_out(model)
        state = read_checkpoint(checkpoint, trusted=trusted)
        hollow = any(parameter.is_meta for parameter in model.parameters())
        try:
            fit_state_dict(model, state, checkpoint.name)
        except (CheckpointError, TypeError):  # a TypeError: its own load_state_dict cannot assign
            if not hollow:
                raise
        else:
            if not hollow or not _is_hollow_kept(find_new):
                return model
    logger.info(
        "%s: copied, not mapped: the model keeps what it made of its first parameters",
        checkpoint.name,
    )
    model = build()
    fit_state_dict(model, state, checkpoint.name)
    return model


@contextlib.contextmanager
def _new_objects() -> Iterator[Callable[[], list[Any]]]:
    """Yield a function that lists what was made since, as far as the garbage collector sees it.

    What is there before is set aside meanwhile: an interpreter with torch has 200,000 objects.
    """
    was_frozen = gc.get_freeze_count()
    gc.freeze()
    try:
        yield gc.get_objects
    finally:
        if not was_frozen:
            gc.unfreeze()


def _build_hollow(build: Callable[[], Any]) -> Any:
    """Return what `build` makes, with parameters that have a shape but no memory.

    None if it needs their values, or draws random numbers: those that it keeps would be others than
    with parameters that draw theirs.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not hasattr(torch.utils, "swap_tensors"):
        return None
    before = torch.get_rng_state()
    hollowed: list[str] = []
    try:
        with _hollow_parameters(torch, hollowed):
            model = build()
    except Exception as error:
        if not hollowed:
            raise
        logger.debug("made without memory for parameters, the model fails: %s", error)
        model = None
    fits = _is_module(model) and not _is_scripted(model)
    if not hollowed or (fits and torch.equal(before, torch.get_rng_state())):
        return model
    torch.set_rng_state(before)
    return None


@contextlib.contextmanager
def _hollow_parameters(torch: Any, hollowed: list[str]) -> Iterator[None]:
    """Take the memory from every parameter that a module is given; add its name to `hollowed`."""

    def hollow(_module: Any, name: str, parameter: Any) -> None:
        if type(parameter) is torch.nn.Parameter and parameter.device.type == "cpu":
            hollowed.append(name)
            with contextlib.suppress(RuntimeError):  # such as one that a graph holds: it stays
                torch.utils.swap_tensors(parameter, _make_hollow(torch, parameter))

    hook = torch.nn.modules.module.register_module_parameter_registration_hook(hollow)
    try:
        with warnings.catch_warnings():
            # A model may load other weights first: that does nothing here, and torch says so.
            warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")
            yield
    finally:
        hook.remove()


def _make_hollow(torch: Any, parameter: Any) -> Any:
    hollow = torch.nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    hollow.__dict__.update(parameter.__dict__)
    return hollow


def _hollow_out(model: Any) -> None:
    """Take the memory from all parameters of `model`, unless something else holds one of them."""
    torch = _torch()
    parameters = list(model.parameters())
    here = all(parameter.device.type == "cpu" for parameter in parameters)
    lazy = any(map(torch.nn.parameter.is_lazy, parameters))
    if not here or lazy or _is_scripted(model) or not hasattr(torch.utils, "swap_tensors"):
        return
    done: list[tuple[Any, Any]] = []
    for parameter in parameters:
        kept = _make_hollow(torch, parameter)
        try:
            torch.utils.swap_tensors(parameter, kept)
        except RuntimeError:
            for each, values in done:
                torch.utils.swap_tensors(each, values)
            return
        done.append((parameter, kept))


def _is_scripted(model: Any) -> bool:
    script: Any = _torch().jit.ScriptModule
    return any(isinstance(module, script) for module in model.modules())


def _is_hollow_kept(find_new: Callable[[], list[Any]]) -> bool:
    """Tell whether anything still holds a tensor without memory, such as a closure of the model."""
    torch = _torch()

    def find() -> bool:
        kinds = (torch.Tensor, torch.nn.Parameter)
        return any(each.is_meta for each in find_new() if type(each) in kinds)

    if find():
        gc.collect()  # what only a cycle holds, nobody can use
        return find()
    return False


def fit_state_dict(model: Any, state: Mapping[str, Any], name: str) -> None:
    """Load `state` into `model`, which must have exactly its keys; `name` is for the message.

    Of weights that several parts of the model share, one is enough. Parameters without memory
    become the tensors of `state`, others are copied into; both keep the model's type of number.

    Raises:
        CheckpointError: keys are missing or left over, or shapes differ.
    """
    own = model.state_dict()
    metadata = getattr(state, "_metadata", None)
    for prefix in WRAPPER_PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            bare = {key[len(prefix) :]: value for key, value in state.items()}
            state = bare if not state.keys() & own.keys() else state
    slots = _slots(model)
    hollow = any(tensor.is_meta for tensor in slots.values())
    fitted = OrderedDict(state)
    if metadata is not None:
        # A copy, for torch writes to it how these weights are loaded.
        fitted._metadata = copy.deepcopy(metadata)  # type: ignore[attr-defined]  # noqa: SLF001
    if hollow:
        fitted.update(_convert(fitted, own, name))
    try:
        assign = {"assign": True} if hollow else {}  # the argument is of torch 2.1
        missing, unexpected = model.load_state_dict(fitted, strict=False, **assign)
    except RuntimeError as error:
        raise CheckpointError(f"{name}: does not fit the model: {error}") from error
    tied = _tie(model, slots, fitted.keys(), hollow=hollow)
    missing = [key for key in missing if key not in tied]
    wrong = [
        f"{what} {_shorten(keys)}"
        for what, keys in (("lacks", missing), ("has unexpected", list(unexpected)))
        if keys
    ]
    if wrong:
        raise CheckpointError(f"{name}: does not fit the model: {'; '.join(wrong)}")


def _slots(model: Any) -> dict[str, Any]:
    """Return every parameter and buffer of `model` by its path, shared ones under each."""
    slots = dict(model.named_parameters(remove_duplicate=False))
    slots.update(model.named_buffers(remove_duplicate=False))
    return slots


def _convert(state: Mapping[str, Any], own: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return those tensors of `state` that are of another type than in the model, converted."""
    kinds = {key: getattr(own.get(key), "dtype", None) for key in state}
    others = {
        key: value.to(kinds[key])
        for key, value in state.items()
        if kinds[key] is not None and getattr(value, "dtype", kinds[key]) != kinds[key]
    }
    if others:
        key = next(iter(others))
        logger.warning(
            "%s: %d tensors are converted, which takes memory of its own in every worker: %s is "
            "%s here, and %s in the model",
            *(name, len(others), key, state[key].dtype, kinds[key]),
        )
    return others


def _tie(model: Any, slots: Mapping[str, Any], loaded: Any, *, hollow: bool) -> set[str]:
    """Return the paths of `slots` that share their memory with one of `loaded`.

    In a `hollow` model the sharing has ended: all become the one that was loaded last.
    """
    is_lazy = _torch().nn.parameter.is_lazy
    groups: dict[Any, list[str]] = {}
    for path, tensor in slots.items():
        if not is_lazy(tensor) and tensor.numel():
            groups.setdefault(_place_of(tensor), []).append(path)
    tied: set[str] = set()
    for paths in groups.values():
        sources = [path for path in paths if path in loaded]
        if not sources:
            continue
        tied.update(paths)
        if hollow:
            owner, leaf = _find_owner(model, sources[-1])
            value = getattr(owner, leaf)
            value.__dict__.update(slots[sources[-1]].__dict__)
            for path in paths:
                owner, leaf = _find_owner(model, path)
                setattr(owner, leaf, value)
    return tied


def _place_of(tensor: Any) -> tuple[Any, ...]:
    """Return what two tensors have in common if they are the same memory."""
    storage = tensor.untyped_storage()._cdata  # noqa: SLF001 - one without memory has no address
    return (storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def _find_owner(model: Any, path: str) -> tuple[Any, str]:
    prefix, _, leaf = path.rpartition(".")
    return model.get_submodule(prefix), leaf


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
