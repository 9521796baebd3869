"""The keys of the section `cuda` in model-config.yaml: how our runner computes on a device.

TorchServe passes the section over, so an archive that has one runs there as if it had none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hatch_mar.archive.configkeys import Key

SECTION = "cuda"

CUDA_KEYS = (
    Key(
        name="precision",
        kind="string",
        choices=("float32", "bfloat16", "float16"),
        unless_set="`float32`: as the model is",
        meaning="What torch may compute in, through its autocast.",
    ),
    Key(
        name="channelsLast",
        kind="boolean",
        unless_set="false",
        meaning="Whether the model and its inputs of four dimensions are laid out channels last.",
    ),
    Key(
        name="buckets",
        kind="sizes",
        least=1,
        unless_set="a batch is as long as it is; with `graphs`, `true`",
        meaning="Lengths to which batches are padded, or `true`: the powers of two. `batchSize` is "
        "always one of them, and what is longer is not.",
    ),
    Key(
        name="graphs",
        kind="boolean",
        unless_set="false",
        meaning="Whether the model is captured as a CUDA graph for each bucket.",
    ),
    Key(
        name="pipeline",
        kind="boolean",
        unless_set="where it is safe",
        meaning="Whether copies to and from the device run beside the model.",
    ),
    Key(
        name="decodeThreads",
        kind="integer",
        least=1,
        unless_set="1; of our own image handlers, by the processors there are",
        meaning="Threads that prepare what comes next while the model runs: the samples of a batch "
        "where they are prepared one by one, else several batches. Needs the pipeline.",
    ),
    Key(
        name="aotInductor",
        kind="boolean",
        unless_set="false",
        meaning="Whether the model is compiled ahead for this device, and kept in the cache.",
    ),
    Key(
        name="ioBinding",
        kind="boolean",
        unless_set="false",
        meaning="Whether inputs and outputs of an ONNX model stay in memory that its device keeps.",
    ),
    Key(
        name="tensorrt",
        kind="boolean",
        unless_set="false",
        meaning="Whether an ONNX model runs through TensorRT, whose engines are kept in the cache.",
    ),
)
"""All of them are ours. The precision is the author's claim: golden examples hold it to that."""


def find_cuda_flaws(section: object) -> Iterator[tuple[str, str]]:
    """Yield a key of `section` and what is wrong with its value; the key is empty for the whole.

    Of unknown keys nothing is said here.
    """
    if not isinstance(section, Mapping):
        said = "is empty; remove it" if section is None else f"must be a mapping, not {section!r}"
        yield "", said
        return
    for key in CUDA_KEYS:
        if key.name in section:
            value = section[key.name]
            flaw = key.find_flaw(value)
            if flaw is None and isinstance(value, list) and len(set(value)) < len(value):
                flaw = "names a size twice"
            if flaw is not None:
                yield key.name, flaw
