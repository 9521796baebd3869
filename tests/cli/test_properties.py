from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from hatch_mar.cli.torchserve.properties import WITHOUT_EFFECT, Properties, read_properties
from hatch_mar.errors import HatchMarError, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def _read(
    path: Path, text: str, environ: Mapping[str, str] | None = None, **overrides: str
) -> tuple[Properties, list[str]]:
    file = path / "config.properties"
    file.write_text(text)
    found = read_properties(file, environ=environ or {}, overrides=overrides)
    return found.properties, found.remarks


def test_without_a_file_everything_is_torchserves_default() -> None:
    found = read_properties(None, environ={}, overrides={})
    assert (found.properties, found.texts, found.remarks) == (Properties(), {}, [])


def test_the_file_is_read_as_java_reads_it(tmp_path: Path) -> None:
    found, remarks = _read(
        tmp_path,
        "# a comment\n! another\n"
        "inference_address : http://0.0.0.0:9000\n"
        "load_models=a.mar,\\\n    b.mar\n"
        "job_queue_size 7\n"
        "cors_allowed_origin=caf\\u00e9\n"
        "enable_model_api=TRUE\n"
        "decode_input_request=yes\n"
        "token_expiration_min=0.5\n",
    )
    assert found == Properties(
        inference_address="http://0.0.0.0:9000",
        load_models="a.mar,b.mar",
        job_queue_size=7,
        cors_allowed_origin="café",
        enable_model_api=True,
        decode_input_request=False,
        token_expiration_min=0.5,
    )
    assert remarks == []


def test_an_empty_value_is_none(tmp_path: Path) -> None:
    assert _read(tmp_path, "job_queue_size=\nmodel_store=  \n")[0] == Properties()


def test_what_the_command_line_says_wins(tmp_path: Path) -> None:
    assert _read(tmp_path, "model_store=a\n", model_store="b")[0].model_store == "b"


def test_variables_in_values(tmp_path: Path) -> None:
    found, _ = _read(tmp_path, "model_store=$$ROOT$$/store\n", {"ROOT": "/models"})
    assert found.model_store == "/models/store"


@pytest.mark.parametrize("key", ["job_queue_size", "ts_open_inference_protocol"])
def test_variables_win_once_they_are_let_in(tmp_path: Path, key: str) -> None:
    environ = {"TS_JOB_QUEUE_SIZE": "9", "TS_OPEN_INFERENCE_PROTOCOL": "true"}
    plain, _ = _read(tmp_path, f"{key}=1\n", environ)
    let_in, _ = _read(tmp_path, f"{key}=1\nenable_envvars_config=true\n", environ)
    assert getattr(plain, key) == (1 if key == "job_queue_size" else False)
    assert getattr(let_in, key) == (9 if key == "job_queue_size" else True)


def test_urls_may_be_the_environments_matter(tmp_path: Path) -> None:
    environ = {"TS_ALLOWED_URLS": "https://mine/.*"}
    plain, _ = _read(tmp_path, "allowed_urls=https://theirs/.*\n", environ)
    assert plain.allowed_urls == "https://theirs/.*"
    text = "allowed_urls=https://theirs/.*\nuse_env_allowed_urls=true\n"
    assert _read(tmp_path, text, environ)[0].allowed_urls == "https://mine/.*"
    assert _read(tmp_path, text)[0].allowed_urls is None


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError) as caught:
        _read(
            tmp_path,
            "job_queue_size=many\ntoken_expiration_min=soon\nmodels={\nmodel_snapshot=[]\n"
            "metrics_mode=loud\nallowed_urls=https://.*,[\nmodel_store=$$NOWHERE$$\n",
        )
    file = str(tmp_path / "config.properties")
    problems = {problem.key: problem.message for problem in caught.value.problems}
    assert {problem.file for problem in caught.value.problems} == {file}
    assert problems["job_queue_size"] == "'many' is not a whole number"
    assert problems["token_expiration_min"] == "'soon' is not a number"
    assert problems["models"].startswith("is not JSON: ")
    assert problems["model_snapshot"] == "is not a JSON object"
    assert problems["metrics_mode"] == "'loud' is no mode; choose log, prometheus or legacy"
    assert problems["allowed_urls"].startswith("'[' is not a regular expression: ")
    assert problems["model_store"] == "'$$NOWHERE$$': there is no variable NOWHERE; set it"


def test_numbers_that_java_has_not(tmp_path: Path) -> None:
    for text in (
        "job_queue_size=9999999999",
        "token_expiration_min=nan",
        "token_expiration_min=inf",
    ):
        with pytest.raises(ProblemsError, match="is beyond what fits in 32 bits"):
            _read(tmp_path, f"{text}\n")


@pytest.mark.parametrize("port", ["65536", "-1"])
def test_a_port_that_is_none(tmp_path: Path, port: str) -> None:
    with pytest.raises(ProblemsError, match=r"grpc_inference_port: '.*' is no port"):
        _read(tmp_path, f"grpc_inference_port={port}\n")


@pytest.mark.parametrize("text", ["a\\r\\nX-Evil: 1", "\\u2603"])
def test_what_cannot_stand_in_a_header(tmp_path: Path, text: str) -> None:
    with pytest.raises(ProblemsError, match=r"cors_allowed_origin: .* cannot stand in a header"):
        _read(tmp_path, f"cors_allowed_origin={text}\n")


def test_json_without_end(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError, match="models: is nested too deeply"):
        _read(tmp_path, "models=" + "[" * 100_000)


def test_keys_without_effect_are_accepted_with_a_line_each(tmp_path: Path) -> None:
    _, remarks = _read(tmp_path, "vmargs=-Xmx4g\nmy_own=1\n")
    assert remarks == [
        "vmargs has no effect: there is no Java here",
        "my_own has no effect: neither TorchServe nor hatch-mar knows it",
    ]


def test_no_key_is_in_both_lists() -> None:
    assert not {field.name for field in dataclasses.fields(Properties)} & set(WITHOUT_EFFECT)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HatchMarError, match=r"none\.properties: cannot be read: No such file"):
        read_properties(tmp_path / "none.properties", environ={}, overrides={})


def test_a_broken_escape(tmp_path: Path) -> None:
    with pytest.raises(HatchMarError, match=r"config\.properties: is no properties file: "):
        _read(tmp_path, "model_store=\\u12\n")
