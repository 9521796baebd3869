from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.archive.configkeys import FRONTEND_KEYS
from hatch_mar.archive.modelconfig import (
    ModelConfig,
    check_model_config,
    parse_model_config,
    parse_yaml,
    read_model_config,
)
from hatch_mar.errors import ArchiveError

FILE = "model-config.yaml"


def test_every_key_has_its_attribute() -> None:
    attributes = {field.name for field in fields(ModelConfig)}
    assert {key.attribute for key in FRONTEND_KEYS} <= attributes


def test_all_is_default_where_nothing_is_said() -> None:
    nothing: dict[str, Any] = {}
    for raw in (None, nothing):
        config = read_model_config(raw)
        assert config == ModelConfig()
        assert (config.batch_size, config.response_timeout) == (1, 120)
        assert config.max_batch_delay is None


def test_what_the_author_says_is_taken() -> None:
    raw = {
        "minWorkers": 1,
        "maxWorkers": 3,
        "batchSize": 8,
        "maxBatchDelay": 50,
        "responseTimeout": 10,
        "deviceType": "GPU",
        "deviceIds": [1, 0],
        "parallelType": "tp",
        "parallelLevel": 2,
        "clientTimeoutInMills": 500,
        "sequenceMaxIdleMSec": 7,
        "isolate": False,
        "handler": {"mine": 1},
        "system": {"extraFiles": "x.tar", "maxGPUMemory": 500, "decodeImages": "never"},
    }
    assert read_model_config(raw) == ModelConfig(
        min_workers=1,
        max_workers=3,
        batch_size=8,
        max_batch_delay=50,
        response_timeout=10,
        device_type="gpu",
        device_ids=(1, 0),
        parallel_type="tp",
        parallel_level=2,
        client_timeout_in_mills=500,
        sequence_max_idle_msec=7,
        isolate=False,
        system_extra_files=("x.tar",),
        system_max_gpu_memory=500,
        system_decode_images="never",
        raw=raw,
    )


@pytest.mark.parametrize(
    ("raw", "attribute", "value", "warning"),
    [
        ({"batchSize": 0}, "batch_size", 1, "batchSize: must be at least 1, not 0; taken as 1"),
        ({"batchSize": "8"}, "batch_size", 1, "batchSize: must be an integer, not '8'"),
        ({"batchSize": True}, "batch_size", 1, "batchSize: must be an integer, not True"),
        ({"batchSize": 2**31}, "batch_size", 1, "batchSize: must be an integer, not 2147483648"),
        ({"minWorkers": 2}, "min_workers", None, "minWorkers: ignored, because maxWorkers is not"),
        ({"maxWorkers": 2}, "max_workers", None, "maxWorkers: ignored, because minWorkers is not"),
        ({"minWorkers": 3, "maxWorkers": 2}, "min_workers", None, "maxWorkers: 2 is less than"),
        ({"maxBatchDelay": 0}, "max_batch_delay", None, "maxBatchDelay: must be at least 1"),
        ({"responseTimeout": 1.5}, "response_timeout", 120, "responseTimeout: must be an integer"),
        ({"responseTimeout": 0}, "response_timeout", 120, "responseTimeout: must be at least 1"),
        ({"deviceType": "neuron"}, "device_type", None, "deviceType: must be 'cpu' or 'gpu'"),
        ({"deviceIds": [0, "1"]}, "device_ids", None, "deviceIds: must be a list of integers"),
        ({"deviceIds": [0, -1]}, "device_ids", None, "deviceIds: must be at least 0, not -1"),
        ({"deviceIds": []}, "device_ids", None, "deviceIds: must not be empty"),
        ({"maxRetryTimeoutInSec": -5}, "max_retry_timeout_in_sec", 0, "taken as 0"),
        ({"useVenv": "yes"}, "use_venv", False, "useVenv: must be a boolean"),
        ({"batchSize": None}, "batch_size", 1, "batchSize: must be an integer, but is empty"),
        ({"system": "x"}, "system_extra_files", (), "system: must be a mapping"),
        ({"system": {"extraFiles": 5}}, "system_extra_files", (), "system.extraFiles: must be"),
        ({"system": {"extraFiles": "../x"}}, "system_extra_files", (), "'../x' holds"),
        ({"system": {"maxGPUMemory": 0}}, "system_max_gpu_memory", None, "maxGPUMemory: must be"),
    ],
)
def test_the_rest_is_what_torchserve_makes_of_it(
    raw: dict[str, Any], attribute: str, value: object, warning: str
) -> None:
    config = read_model_config(raw)
    assert getattr(config, attribute) == value
    assert len(config.warnings) == 1
    assert warning in config.warnings[0]


def test_parallel_level_alone_does_nothing() -> None:
    assert read_model_config({"parallelLevel": 4}).parallel_level == 0


@pytest.mark.parametrize(
    ("raw", "key", "message"),
    [
        ({"minWorkers": 2}, "minWorkers", "does nothing without maxWorkers; set both"),
        ({"maxWorkers": 2}, "maxWorkers", "does nothing without minWorkers; set both"),
        ({"minWorkers": 2, "maxWorkers": 1}, "maxWorkers", "must not be less than minWorkers"),
        ({"minWorkers": 0, "maxWorkers": 1}, "minWorkers", "must be at least 1, not 0"),
        ({"maxBatchDelay": 0}, "maxBatchDelay", "TorchServe takes 0 for 100; leave it out"),
        ({"batchSize": "8"}, "batchSize", "not '8'; write 8 without quotes"),
        ({"useJobTicket": "true"}, "useJobTicket", "write true without quotes"),
        ({"batchSize": None}, "batchSize", "is empty"),
        ({"batchsize": 8}, "batchsize", "unknown key; did you mean 'batchSize'?"),
        ({"batch-size": 8}, "batch-size", "did you mean 'batchSize'?"),
        ({"batch_size": 8}, "batch_size", "did you mean 'batchSize'?"),
        ({"responseTimeOut": 8}, "responseTimeOut", "did you mean 'responseTimeout'?"),
        ({"maxWorker": 8}, "maxWorker", "did you mean 'maxWorkers'?"),
        ({"micro-batching": {}}, "micro-batching", "did you mean 'micro_batching'?"),
        ({"deviceType": "neuron"}, "deviceType", "must be 'cpu' or 'gpu', not 'neuron'"),
        ({"deviceIds": 0}, "deviceIds", "must be a list of integers, not 0"),
        ({"deviceIds": [0, 0]}, "deviceIds", "names a device twice"),
        ({"parallelType": "ddp"}, "parallelType", "must be 'pp', 'tp', 'pptp', 'custom' or ''"),
        ({"parallelLevel": 2}, "parallelLevel", "does nothing without parallelType"),
        ({"torchrun": {"nproc_per_node": 2}}, "torchrun.nproc_per_node", "'nproc-per-node'?"),
        ({"torchrun": {"max-restarts": 2}}, "torchrun.max-restarts", "does not pass this on"),
        ({"torchrun": {"nnodes": "2"}}, "torchrun.nnodes", "must be an integer"),
        ({"sequenceBatching": True}, "sequenceBatching", "needs sequenceMaxIdleMSec"),
        ({"maxQueueDelay": 0}, "maxQueueDelay", "must be at least 1"),
        (
            {"maxQueueDelay": 9, "continuousBatching": True},
            "maxQueueDelay",
            "does nothing with continuousBatching",
        ),
        ({"handler": "handler.py"}, "handler", "must be a mapping, not 'handler.py'"),
        ({"handler": {"profile": "yes"}}, "handler.profile", "must be a boolean"),
        ({"pt2": 5}, "pt2", "must be a mapping, not 5"),
        ({"pt2": "inductr"}, "pt2", "did you mean 'inductor'?"),
        ({"pt2": {"compile": {}}}, "pt2.compile", "needs the key 'enable'"),
        ({"pt2": {"compile": {"enable": 1}}}, "pt2.compile.enable", "must be a boolean"),
        ({"pt2": {"compile": True}}, "pt2.compile", "must be a mapping, not True"),
        ({"pt2": {"compil": {"enable": True}}}, "pt2.compil", "did you mean 'compile'?"),
        ({"pt2": {"export": {"aot_compile": 1}}}, "pt2.export.aot_compile", "must be a boolean"),
        ({"pt2": {"backend": "inductr"}}, "pt2.backend", "did you mean 'inductor'?"),
        ({"system": {"extraFiles": ["a", "a"]}}, "system.extraFiles", "names 'a' twice"),
        ({"system": []}, "system", "must be a mapping"),
        ({"system": {"extraFiles": "/x"}}, "system.extraFiles", "'/x' is an absolute path"),
        ({"system": {"extraFiles": [1]}}, "system.extraFiles", "a file name or a list of them"),
        ({"system": {"maxGPUMemory": "500"}}, "system.maxGPUMemory", "write 500 without quotes"),
        ({"system": {"maxGpuMem0ry": 5}}, "system.maxGpuMem0ry", "did you mean 'maxGPUMemory'?"),
        ({"system": {"decodeImages": "maybe"}}, "system.decodeImages", "'auto', 'never' or"),
        ({5: 6}, "5", "is no string; quote it"),
    ],
)
def test_a_build_refuses_what_would_do_nothing(raw: dict[str, Any], key: str, message: str) -> None:
    problems = check_model_config(raw, FILE)
    assert [(problem.file, problem.key) for problem in problems] == [(FILE, key)]
    assert message in problems[0].message


def test_all_problems_come_at_once() -> None:
    raw = {"batchsize": 1, "minWorkers": 1, "maxBatchDelay": "5", "system": {"maxGPUMemory": 0}}
    assert len(check_model_config(raw, FILE)) == 4


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        {"minWorkers": 1, "maxWorkers": 1, "deviceIds": [0, 1], "parallelType": ""},
        {"threshold": 0.5, "labels": ["a"], "my_section": {"batchsize": 3}, "url": None},
        {"pt2": "inductor"},
        {"pt2": {"compile": {"enable": True, "backend": "aot_eager", "mode": "x"}}},
        {"pt2": {"export": {"aot_compile": True}}},
        {"torchrun": {"nproc-per-node": 4, "OMP_NUMBER_THREADS": 2}},
        {"system": {"extraFiles": ["a.tar", "b.zip"], "mine": 1}},
        {"handler": {"anything": {"goes": 1}}, "micro_batching": {"micro_batch_size": 2}},
        {"sequenceBatching": True, "sequenceMaxIdleMSec": 100},
    ],
)
def test_what_works_is_not_complained_about(raw: dict[str, Any] | None) -> None:
    assert check_model_config(raw, FILE) == []


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from([key.name for key in FRONTEND_KEYS] + ["system", "pt2", "handler"])


@given(st.dictionaries(names, json_like, max_size=5))
def test_whatever_it_says_both_readers_answer(raw: dict[str, Any]) -> None:
    problems = check_model_config(raw, FILE)
    config = read_model_config(raw)
    if not problems:
        assert not config.warnings


def test_yaml_is_read() -> None:
    raw, problems = parse_model_config(b"batchSize: 4\nhandler:\n  x: [1, 2]\n", FILE)
    assert (raw, problems) == ({"batchSize": 4, "handler": {"x": [1, 2]}}, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", "line 3, column 2: expected ',' or ']'"),
        (b"a: 1\n b: 2\n", "line 2, column 3: mapping values are not allowed here"),
        (b"a: !!python/object/apply:os.getcwd []\n", "line 1, column 4: could not determine"),
        (b"a: \x00", "not YAML: unacceptable character"),
        (b"\xff\xff\xff", "not YAML: "),
        (b"a: 2024-13-45", "not YAML: month must be in 1..12"),
        (b"[" * 5000, "not YAML: maximum recursion depth"),
        (b"", "is empty; remove it"),
        (b"# only a comment\n", "is empty; remove it"),
        (b"- 1\n", "must be a mapping"),
        (b"a: !!int ''", "not YAML: a value is not what its tag says"),
        (b"a: !!bool maybe", "not YAML: a value is not what its tag says"),
        (b"a: !!timestamp now", "not YAML: a value is not what its tag says"),
        (b"&a [*a]", "holds more than 100000 values"),
        (b"&a {b: *a}", "holds more than 100000 values"),
        (
            b"a: &a {k: 1}\n"
            + b"".join(
                b"%c: &%c {<<: [%s]}\n" % (char, char, b", ".join([b"*%c" % (char - 1)] * 10))
                for char in b"bcdefghijkl"
            ),
            "holds more than 100000 values",
        ),
        (
            b"a: &a {k: 1}\n"
            + b"".join(
                b"%c: &%c {x: *%c, y: *%c}\n" % (char, char, char - 1, char - 1)
                for char in range(ord("b"), ord("z"))
            ),
            "holds more than 100000 values",
        ),
        (
            b"a: &a [x, x, x, x, x, x, x, x, x]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (char, char, b", ".join([b"*%c" % (char - 1)] * 9))
                for char in b"bcdefgh"
            ),
            "holds more than 100000 values",
        ),
    ],
)
def test_bad_yaml_is_one_problem(text: bytes, message: str) -> None:
    raw, problems = parse_model_config(text, FILE)
    assert raw == {}
    assert [(problem.file, problem.key) for problem in problems] == [(FILE, "")]
    assert problems[0].message.startswith(message)
    assert "\n" not in problems[0].message


def test_a_key_given_twice_is_a_problem_in_a_build_only() -> None:
    text = b"batchSize: 1\nsystem:\n  maxGPUMemory: 1\n  maxGPUMemory: 2\nbatchSize: 2\n"
    raw, problems = parse_model_config(text, FILE)
    assert {str(problem) for problem in problems} == {
        f"{FILE}: batchSize: is given twice, in lines 1 and 5",
        f"{FILE}: system.maxGPUMemory: is given twice, in lines 3 and 4",
    }
    assert raw["batchSize"] == parse_yaml(text, FILE)["batchSize"] == 2


def test_bad_yaml_in_an_archive_is_an_archive_error() -> None:
    with pytest.raises(ArchiveError, match=r"^x\.mar: m\.yaml: line 1, column"):
        parse_yaml(b"a: [1", "x.mar: m.yaml")


@given(json_like)
def test_plain_values_survive(value: object) -> None:
    text = yaml.safe_dump(value).encode()
    assert repr(parse_yaml(text, FILE)) == repr(yaml.safe_load(text))
