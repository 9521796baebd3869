from __future__ import annotations

from typing import Any

import pytest

from hatch_mar.model.cuda.section import CudaOptions, read_cuda_options


@pytest.mark.parametrize("config", [None, {}, {"batchSize": 8}, {"cuda": None}, {"cuda": 3}])
def test_without_a_section_there_are_no_options(config: Any) -> None:
    assert read_cuda_options(config) is None


def test_an_empty_section_is_all_defaults() -> None:
    assert read_cuda_options({"cuda": {}}) == CudaOptions()


def test_what_the_author_says_is_taken() -> None:
    section = {
        "precision": "BFloat16",
        "channelsLast": True,
        "buckets": [8, 1, 4],
        "graphs": True,
        "pipeline": False,
        "decodeThreads": 3,
        "aotInductor": True,
        "tensorrt": True,
    }
    assert read_cuda_options({"cuda": section}) == CudaOptions(
        precision="bfloat16",
        channels_last=True,
        buckets=(1, 4, 8),
        graphs=True,
        pipeline=False,
        decode_threads=3,
        aot_inductor=True,
        tensorrt=True,
    )


def test_graphs_need_buckets_and_get_them() -> None:
    options = read_cuda_options({"cuda": {"graphs": True}})
    assert options is not None
    assert options.buckets is True


def test_what_is_wrong_is_as_if_it_were_not_set() -> None:
    section = {"precision": "bf16", "buckets": [0], "graphs": 1, "channelsLast": True, "speed": 9}
    assert read_cuda_options({"cuda": section}) == CudaOptions(channels_last=True)
