"""model-config.yaml: the author's file, and what is laid over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from hatch_mar.project.serve_keys import SERVE_KEYS

if TYPE_CHECKING:
    from tests.project.scratch import Scratch

FILE = "# mine\nbatchSize:   8\nhandler: {top: 5}\nsystem: {maxGPUMemory: 500}\n"


def test_with_nothing_laid_over_it_the_file_travels_byte_for_byte(scratch: Scratch) -> None:
    scratch.write({"model-config.yaml": FILE})
    scratch.configure("serve.batch-size = 8\nsystem.max-gpu-memory = 500")  # says nothing new
    assert scratch.content("model-config.yaml").decode() == FILE
    assert scratch.plan().manifest.config_file == "model-config.yaml"


def test_a_file_of_another_name_keeps_it(scratch: Scratch) -> None:
    scratch.write({"conf/prod.yaml": FILE})
    scratch.configure('config = "conf/prod.yaml"')
    assert scratch.plan().manifest.config_file == "prod.yaml"


def test_without_a_file_and_settings_there_is_none(scratch: Scratch) -> None:
    assert scratch.plan().manifest.config_file is None


def test_the_overlay_is_merged_section_by_section(scratch: Scratch) -> None:
    scratch.write({"model-config.yaml": FILE})
    scratch.configure(
        """\
        [tool.mar.serve]
        job-queue-size = 3
        handler = { threshold = 0.5 }
        [tool.mar.system]
        decode-images = "never"
        """
    )
    assert yaml.safe_load(scratch.content("model-config.yaml")) == {
        "batchSize": 8,
        "handler": {"top": 5, "threshold": 0.5},
        "system": {"maxGPUMemory": 500, "decodeImages": "never"},
        "jobQueueSize": 3,
    }


def test_every_key_of_torchserve_has_a_spelling(scratch: Scratch) -> None:
    assert SERVE_KEYS["max-retry-timeout-in-sec"] == "maxRetryTimeoutInSec"
    assert SERVE_KEYS["sequence-max-idle-msec"] == "sequenceMaxIdleMSec"
    assert SERVE_KEYS["client-timeout-in-mills"] == "clientTimeoutInMills"
    assert all(key == key.lower() for key in SERVE_KEYS)
    scratch.configure("serve = { use-job-ticket = true, isolate = false }")
    assert scratch.spec().config == {"useJobTicket": True, "isolate": False}


@pytest.mark.parametrize(
    ("mar", "problem"),
    [
        (
            "serve.batch-size = 4",
            "serve.batch-size: is 4, but model-config.yaml says `batchSize: 8`; keep one",
        ),
        (
            "serve.handler = { top = 6 }",
            "serve.handler.top: is 6, but model-config.yaml says `handler.top: 5`; keep one",
        ),
        (
            "system.max-gpu-memory = 4",
            (
                "system.max-gpu-memory: is 4, but model-config.yaml says "
                "`system.maxGPUMemory: 500`; keep one"
            ),
        ),
        ("serve.batchSize = 8", "serve.batchSize: is written 'batch-size' here"),
        ("serve.batch-sise = 8", "serve.batch-sise: unknown key; did you mean 'batch-size'?"),
        ("serve.system = {}", "serve.system: has a table of its own, [tool.mar.system]"),
        (
            'serve.job-queue-size = "8"',
            "serve.job-queue-size: must be an integer, not '8'; write 8 without quotes",
        ),
        (
            "serve.torchrun.nproc_per_node = 2",
            (
                "serve.torchrun.nproc_per_node: TorchServe does not "
                "pass this on to torchrun; did you mean 'nproc-per-node'?"
            ),
        ),
        ("serve.min-workers = 2", "serve.min-workers: does nothing without maxWorkers; set both"),
        (
            'config = "model-confg.yaml"',
            "config: 'model-confg.yaml' does not exist; did you mean 'model-config.yaml'?",
        ),
    ],
)
def test_one_mistake_one_problem(scratch: Scratch, mar: str, problem: str) -> None:
    scratch.write({"model-config.yaml": FILE})
    scratch.configure(mar)
    assert scratch.problem() == f"pyproject.toml: tool.mar.{problem}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("batchsize: 8\n", "model-config.yaml: batchsize: unknown key; did you mean 'batchSize'?"),
        ("minWorkers: 1\n", "model-config.yaml: minWorkers: does nothing without maxWorkers"),
        ("batchSize: 8\n\tx: 1\n", "model-config.yaml: line 2"),
        ("batchSize: 8\nbatchSize: 9\n", "model-config.yaml: batchSize: "),
        ("", "model-config.yaml: is empty"),
        ("- 1\n", "model-config.yaml: must be a mapping"),
    ],
)
def test_mistakes_in_the_file_name_the_file(scratch: Scratch, text: str, problem: str) -> None:
    scratch.write({"model-config.yaml": text})
    assert scratch.problem().startswith(problem)


def test_an_overlay_can_complete_what_the_file_began(scratch: Scratch) -> None:
    scratch.write({"model-config.yaml": "minWorkers: 1\n"})
    scratch.configure("serve.max-workers = 2")
    assert scratch.spec().config == {"minWorkers": 1, "maxWorkers": 2}


def test_a_generated_file_is_the_same_bytes_again(scratch: Scratch) -> None:
    scratch.configure('serve = { handler = { name = "zähler" }, batch-size = 2 }')
    first = scratch.content("model-config.yaml")
    assert first == scratch.content("model-config.yaml")
    assert first.decode() == "handler:\n  name: zähler\nbatchSize: 2\n"


def test_the_overlay_says_cuda_in_kebab_case(scratch: Scratch) -> None:
    scratch.write({"model-config.yaml": "cuda: {precision: bfloat16}\n"})
    scratch.configure("serve.cuda = { channels-last = true, buckets = [1, 8] }")
    assert yaml.safe_load(scratch.content("model-config.yaml")) == {
        "cuda": {"precision": "bfloat16", "channelsLast": True, "buckets": [1, 8]}
    }


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "channelsLast = true",
            "tool.mar.serve.cuda.channelsLast: is written 'channels-last' here",
        ),
        ("graph = true", "tool.mar.serve.cuda.graph: unknown key; did you mean 'graphs'?"),
        ("decode-threads = 0", "tool.mar.serve.cuda.decode-threads: must be at least 1, not 0"),
    ],
)
def test_a_wrong_key_of_cuda_is_found_where_it_is_written(
    scratch: Scratch, key: str, message: str
) -> None:
    scratch.configure(f"[tool.mar.serve.cuda]\n{key}")
    assert message in "\n".join(scratch.problems())
