"""The program `torchserve`: as scripts start it, wait for it and stop it."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509 import load_pem_x509_certificate

from hatch_mar.api.rpc.schema import MANAGEMENT, message
from hatch_mar.cli.torchserve.certificates import find_certificate
from hatch_mar.cli.torchserve.properties import Properties
from tests.support.archives import write_mar
from tests.support.daemon import HANDLER, Home
from tests.support.runner import await_file

if TYPE_CHECKING:
    from pathlib import Path


def test_version(home: Home) -> None:
    done = home.run("--version")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "TorchServe Version is 0.12.0")


def test_start_serve_and_stop(home: Home) -> None:
    home.start("--models", "all", "--disable-token-auth")
    assert stat.S_ISREG((home.path / "tmp" / ".model_server.pid").stat().st_mode)
    assert httpx.get(f"{home.url}/ping").json() == {"status": "Healthy"}
    assert httpx.post(f"{home.url}/predictions/fine", content=b"", timeout=60).status_code == 200
    again = home.run("--start", "--model-store", "store")
    assert again.returncode == 1
    assert "already running, please use torchserve --stop" in again.stdout
    stopped = home.run("--stop")
    assert (stopped.returncode, stopped.stdout) == (0, "TorchServe has stopped.\n")
    assert "\nModel server started.\n" in home.log.read_text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{home.url}/ping")
    assert list((home.path / "tmp").iterdir()) == []


def test_nothing_to_stop(home: Home) -> None:
    done = home.run("--stop")
    assert (done.returncode, done.stdout) == (0, "TorchServe is not currently running.\n")


@pytest.mark.parametrize("text", ["0", "-1", "99999999999999999999", "1.5", ""])
def test_a_pid_file_that_names_no_process(home: Home, text: str) -> None:
    (home.path / "tmp" / ".model_server.pid").write_text(text)
    done = home.run("--stop")
    assert (done.returncode, done.stdout) == (0, "TorchServe is not currently running.\n")


def test_the_pid_file_of_a_server_that_died(home: Home) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    (home.path / "tmp" / ".model_server.pid").write_text(str(child.pid))
    home.start("--disable-token-auth")
    assert httpx.get(f"{home.url}/ping").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--start"], "Missing mandatory parameter --model-store"),
        (["--model-store", "nowhere"], "--model-store directory not found: nowhere"),
        (["--ts-config", "none"], "--ts-config file not found: none"),
    ],
)
def test_what_is_missing(home: Home, arguments: list[str], message: str) -> None:
    done = home.run(*arguments)
    assert done.returncode == 1
    assert message in done.stdout


def test_the_variable_wins_over_the_flag(home: Home) -> None:
    done = home.run("--ts-config", "config.properties", TS_CONFIG_FILE="elsewhere")
    assert (done.returncode, "--ts-config file not found: elsewhere" in done.stdout) == (1, True)


def test_a_port_that_is_taken(home: Home) -> None:
    with socket.create_server(("127.0.0.1", home.ports[1])):
        done = home.run("--model-store", "store", "--ts-config", "config.properties")
    assert done.returncode == 7
    assert "the management port is taken; choose another with management_address" in done.stdout
    assert not (home.path / "key_file.json").exists()


def test_keys(home: Home) -> None:
    home.start("--models", "fine-1.0.mar")
    keys = home.keys()
    ping = f"{home.url}/ping"
    assert httpx.get(ping).json()["type"] == "InvalidKeyException"
    assert httpx.get(ping, headers=keys["inference"]).status_code == 200
    assert httpx.get(ping, headers=keys["management"]).status_code == 400
    predict = f"{home.url}/predictions/fine"
    assert httpx.post(predict, content=b"").status_code == 400
    allowed = httpx.post(predict, content=b"", headers=keys["inference"], timeout=60)
    assert allowed.status_code == 200
    models = f"{home.management_url}/models"
    assert httpx.get(models, headers=keys["inference"]).status_code == 400
    assert httpx.get(models, headers=keys["management"]).status_code == 200
    renewed = httpx.get(f"{home.management_url}/token?type=inference", headers=keys["API"])
    assert renewed.status_code == 200
    assert httpx.get(ping, headers=keys["inference"]).status_code == 400
    assert httpx.get(ping, headers=home.keys()["inference"]).status_code == 200
    home.run("--stop")
    assert not (home.path / "key_file.json").exists()


def test_keys_over_grpc(home: Home) -> None:
    home.start("--models", "fine-1.0.mar")
    places = dict(re.findall(r"(inference|management) (127\S+?:\d+)", home.log.read_text()))
    key = home.keys()["management"]["Authorization"]
    with grpc.insecure_channel(places["management"]) as channel:
        ask = channel.unary_unary(f"/{MANAGEMENT}/ListModels")
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"", timeout=30)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert caught.value.details().startswith("Token Authorization failed.")
        assert b"fine" in ask(
            message("management.ListModelsRequest")(limit=9).SerializeToString(),
            timeout=30,
            metadata=[("authorization", key)],
        )


def test_a_model_that_cannot_be_served_stops_nothing(home: Home) -> None:
    write_mar(home.path / "store", "broken", "raise RuntimeError('no')\n")
    home.start("--models", "broken-1.0.mar", "none.mar", "--dt")
    home.wait_for("broken: not served")
    home.wait_for("none.mar: not served")
    assert httpx.get(f"{home.url}/ping").status_code == 200


def test_what_the_file_says_reaches_the_models(home: Home) -> None:
    models = {"fine": {"1.0": {"minWorkers": 2, "batchSize": 3, "responseTimeout": 7}}}
    home.configure(
        "load_models=other=fine-1.0.mar,fine-1.0.mar\n"
        "default_workers_per_model=1\njob_queue_size=9\ndefault_startup_timeout=66\n"
        "blacklist_env_vars=MY_.*\n"
        f"models={json.dumps(models)}\n"
    )
    home.start("--disable-token-auth", MY_SECRET="s3cret")
    fine, other = home.described("fine"), home.described("other")
    keys = ("minWorkers", "batchSize", "responseTimeout", "startupTimeout")
    assert [fine[key] for key in keys] == [2, 3, 7, 66]
    assert [other[key] for key in keys] == [1, 1, 120, 66]
    assert fine["jobQueueStatus"]["remainingCapacity"] == 9
    answer = httpx.post(f"{home.url}/predictions/fine", content=b"", timeout=60)
    assert answer.json() == {"secret": None, "batch": 3}


def test_workers_by_torchserves_rule(home: Home) -> None:
    home.start("--models", "all", "--disable-token-auth")
    assert home.described("fine")["minWorkers"] == os.cpu_count()


def test_one_address_for_everything(home: Home) -> None:
    home.configure(f"management_address={home.url}\n")
    home.start("--models", "all", "--disable-token-auth")
    assert httpx.get(f"{home.url}/models").json()["models"]
    assert httpx.get(f"{home.url}/metrics").status_code == 200


def test_everything_that_is_wrong_is_said_at_once(home: Home) -> None:
    home.configure('metrics_address=here\nmodels={"m": [], "n": {"1": {"minWorkers": -1}}}\n')
    done = home.run("--model-store", "store", "--ts-config", "config.properties")
    assert done.returncode == 2
    assert "metrics_address: 'here' is no address; write it like http://" in done.stdout
    assert "models.m: has no versions" in done.stdout
    assert "models.n.1.minWorkers: -1 is no number of minWorkers" in done.stdout


def test_models_come_and_go_if_allowed(home: Home) -> None:
    home.start("--enable-model-api", "--disable-token-auth")
    answer = httpx.post(f"{home.management_url}/models?url=fine-1.0.mar")
    assert answer.json()["status"].startswith('Model "fine" Version: 1.0 registered with 0')


def test_a_model_that_goes_does_not_wait_for_ever(home: Home) -> None:
    begun = home.path / "begun"
    write_mar(
        home.path / "store",
        "slow",
        f"""
        import pathlib, time

        def handle(data, context):
            if data is not None:
                pathlib.Path({str(begun)!r}).touch()
                time.sleep(600)
        """,
    )
    home.configure("unregister_model_timeout=1\nenable_model_api=true\n")
    home.start("--models", "slow-1.0.mar", "--disable-token-auth")
    home.wait_for("slow 1.0: ready")
    with ThreadPoolExecutor(1) as pool:
        url = f"{home.url}/predictions/slow"
        asked = pool.submit(httpx.post, url, content=b"", timeout=60)
        await_file(begun)
        gone = httpx.delete(f"{home.management_url}/models/slow", timeout=60)
        assert gone.json()["status"] == 'Model "slow" unregistered'
        assert asked.result().status_code == 500


def test_flags_without_effect_say_so(home: Home) -> None:
    home.configure("vmargs=-Xmx1g\n")
    home.start("--disable-token-auth", "--log-config", "log4j2.xml")
    text = home.log.read_text()
    assert text.count("--log-config has no effect: ") == 1
    assert text.count("vmargs has no effect: there is no Java here") == 1


def test_a_snapshot_is_what_a_later_start_goes_on_with(home: Home) -> None:
    write_mar(home.path / "store", "late", HANDLER, config="minWorkers: 1\nmaxWorkers: 1\n")
    home.configure("default_workers_per_model=1\nenable_model_api=true\n")
    flags = ("--model-store", "store", "--disable-token-auth")
    home.start_with(*flags, "--ts-config", "config.properties", "--models", "fine-1.0.mar")
    kept = home.path / "logs" / "config"
    while not list(kept.glob("*-startup.cfg")):  # it is written when every model is ready
        time.sleep(0.02)
    httpx.post(f"{home.management_url}/models?url=late-1.0.mar", timeout=60).raise_for_status()
    scaling = f"{home.management_url}/models/late?min_worker=2&synchronous=true"
    httpx.put(scaling, timeout=60).raise_for_status()
    home.run("--stop")
    snapshots = sorted(kept.iterdir())
    kinds = [path.name.rpartition("-")[2] for path in snapshots]
    assert kinds == ["startup.cfg", "snapshot.cfg", "snapshot.cfg", "shutdown.cfg"]
    home.start_with("--start")
    assert f"going on with what logs/config/{snapshots[-1].name} says" in home.log.read_text()
    home.wait_for("late 1.0: ready")
    assert [home.described(name)["minWorkers"] for name in ("fine", "late")] == [1, 2]


@pytest.mark.parametrize(
    "value", ['"../fine-1.0.mar"', '"/fine-1.0.mar"', '".."', '""', "null", "1", r'"a\\u0000"']
)
def test_a_snapshot_does_not_lead_out_of_the_store(home: Home, value: str) -> None:
    _snap(home, '{"m": {"1.0": {"marName": ' + value + "}}}")
    done = home.run("--model-store", "store", "--ts-config", "config.properties")
    assert done.returncode == 2
    assert "models.m.1.0.marName: " in done.stdout
    assert "is no file of the model store" in done.stdout


@pytest.mark.parametrize("models", ['{"m": 1}', '{"m": {"1.0": null}}'])
def test_a_snapshot_of_another_shape(home: Home, models: str) -> None:
    _snap(home, models)
    done = home.run("--model-store", "store", "--ts-config", "config.properties")
    assert done.returncode == 2
    assert "Traceback" not in done.stdout


def test_a_snapshot_that_cannot_be_read_says_how_to_begin_without_it(home: Home) -> None:
    (home.path / "logs" / "config").mkdir(parents=True)
    (home.path / "logs" / "config" / "20990101000000000-shutdown.cfg").write_text(
        "job_queue_size=x"
    )
    done = home.run("--model-store", "store")
    assert done.returncode == 2
    assert "--no-config-snapshots begins afresh" in done.stdout
    assert "job_queue_size: 'x' is not a whole number" in done.stdout


def _snap(home: Home, models: str) -> None:
    home.configure('model_snapshot={"models": ' + models + "}\n")


def test_without_snapshots_nothing_is_written_or_gone_on_with(home: Home) -> None:
    home.start("--disable-token-auth")
    home.run("--stop")
    assert not (home.path / "logs" / "config").exists()


@pytest.fixture
def encrypted(home: Home) -> Home:
    home.configure(f"inference_address=https://127.0.0.1:{home.ports[0]}\n")
    return home


def _ask(home: Home, certificate: Path) -> int:
    context = ssl.create_default_context(cafile=str(certificate))
    return httpx.post(
        f"https://127.0.0.1:{home.ports[0]}/predictions/fine", content=b"", verify=context
    ).status_code


def test_large_bodies_are_encrypted_too(encrypted: Home) -> None:
    write_mar(
        encrypted.path / "store",
        "bounce",
        """
        def handle(data, context):
            return None if data is None else [row["body"] for row in data]
        """,
    )
    encrypted.start("--models", "bounce-1.0.mar", "--disable-token-auth")
    encrypted.wait_for("bounce 1.0: ready")
    url = f"https://127.0.0.1:{encrypted.ports[0]}/predictions/bounce"
    body = bytes(range(256)) * 12_000
    headers = {"content-type": "application/octet-stream"}
    assert httpx.post(url, content=body, headers=headers, verify=False).content == body


def _make_pair(directory: Path) -> tuple[Path, Path]:
    made = find_certificate(Properties(), directory)
    return made.certificate, made.private_key


def test_https_with_a_pair_of_files(encrypted: Home) -> None:
    certificate, key = _make_pair(encrypted.path)
    with (encrypted.path / "config.properties").open("a") as file:
        file.write(f"certificate_file={certificate}\nprivate_key_file={key}\n")
    encrypted.start("--models", "all", "--disable-token-auth")
    encrypted.wait_for("fine 1.0: ready")
    assert _ask(encrypted, certificate) == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"https://127.0.0.1:{encrypted.ports[0]}/ping")


def test_https_with_a_keystore(encrypted: Home) -> None:
    certificate, key = _make_pair(encrypted.path)
    private_key = load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private_key, EllipticCurvePrivateKey)
    store = pkcs12.serialize_key_and_certificates(
        b"mine",
        private_key,
        load_pem_x509_certificate(certificate.read_bytes()),
        None,
        BestAvailableEncryption(b"changeit"),
    )
    (encrypted.path / "keystore.p12").write_bytes(store)
    with (encrypted.path / "config.properties").open("a") as file:
        file.write("keystore=keystore.p12\n")
    encrypted.start("--models", "all", "--disable-token-auth")
    encrypted.wait_for("fine 1.0: ready")
    assert _ask(encrypted, certificate) == 200


def test_https_with_nothing_but_the_address(encrypted: Home) -> None:
    encrypted.start("--models", "all", "--disable-token-auth")
    url = f"https://127.0.0.1:{encrypted.ports[0]}/ping"
    assert httpx.get(url, verify=False).json() == {"status": "Healthy"}
    encrypted.run("--stop")
    assert not list((encrypted.path / "tmp").iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("certificate_file=none.pem\n", "private_key_file: is missing: both files are needed"),
        ("keystore=none.p12\n", "keystore: 'none.p12' cannot be read: No such file"),
        ("keystore=config.properties\n", "is no PKCS #12 keystore, or keystore_pass is not its"),
        ("keystore=k.jks\nkeystore_type=JKS\n", "keytool -importkeystore -srckeystore k.jks"),
    ],
)
def test_https_with_what_cannot_be_used(encrypted: Home, text: str, message: str) -> None:
    with (encrypted.path / "config.properties").open("a") as file:
        file.write(text)
    done = encrypted.run("--model-store", "store", "--ts-config", "config.properties")
    assert (done.returncode, message in done.stdout) == (2, True), done.stdout
