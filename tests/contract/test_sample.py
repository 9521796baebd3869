"""The sample project both ways: our archive in TorchServe, torch-model-archiver's in ours."""

from __future__ import annotations

import json
import zipfile
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.exchange import Call, exchange, is_close
from tests.support.runner import start_runner
from tests.support.torchserve import start_torchserve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.torchserve import TorchServeHome

FORMS = ("default", "zip-store", "tgz", "no-archive")
"""What torch-model-archiver calls the shapes an archive may have."""


@pytest.fixture(scope="module")
def images(request: pytest.FixtureRequest) -> list[bytes]:
    """Every picture that comes with the sample."""
    found = sorted((request.config.rootpath / "sample_project" / "images").glob("*.png"))
    assert len(found) >= 10
    return [path.read_bytes() for path in found]


@pytest.fixture(scope="module")
def their_archives(
    sample_mar: Path, torchserve_home: TorchServeHome, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """The sample's files, archived by torch-model-archiver in each of its formats."""
    files = tmp_path_factory.mktemp("files")
    with zipfile.ZipFile(sample_mar) as archive:
        archive.extractall(files)
    model = json.loads((files / "MAR-INF" / "MANIFEST.json").read_text())["model"]
    named = {model[key] for key in ("serializedFile", "configFile", "requirementsFile")}
    module, _, attribute = model["handler"].partition(":")
    module = module.removesuffix(".py")
    extra = [path for path in files.iterdir() if path.is_file() and path.name not in named]
    into = tmp_path_factory.mktemp("theirs")
    return [
        torchserve_home.make_archive(
            f"digits-{form}",
            into,
            handler=f"{files / module}:{attribute}",
            form=form,
            weights=files / model["serializedFile"],
            config=files / model["configFile"],
            requirements=files / model["requirementsFile"],
            extra_files=[path for path in extra if path.name != f"{module}.py"],
        )
        for form in FORMS
    ]


@pytest.fixture(scope="module")
def addresses(
    sample_mar: Path, their_archives: list[Path], torchserve_home: TorchServeHome
) -> Iterator[tuple[str, str]]:
    """TorchServe with our archive of the sample; ours with that one and with all of theirs."""
    archives = [sample_mar, *their_archives]
    with ExitStack() as stack:
        theirs = stack.enter_context(
            start_torchserve(torchserve_home, sample_mar.parent, models=[sample_mar.name])
        )
        ours = stack.enter_context(start_runner(*map(str, archives)))
        assert ours.exited() is None, ours.output()
        yield theirs.url, ours.url


def _upload(model: str, image: bytes) -> Call:
    """Send what `curl -T image.png` sends."""
    return Call(method="PUT", path=f"/predictions/{model}", body=image)


def _typed(model: str, image: bytes) -> Call:
    headers = [("Content-Type", "image/png")]
    return Call(path=f"/predictions/{model}", headers=headers, body=image)


def _form(model: str, image: bytes) -> Call:
    """Send what `curl -F data=@image.png` sends."""
    body = b'--edge\r\nContent-Disposition: form-data; name="data"; filename="image.png"\r\n'
    body += b"Content-Type: image/png\r\n\r\n" + image + b"\r\n--edge--\r\n"
    headers = [("Content-Type", "multipart/form-data; boundary=edge")]
    return Call(path=f"/predictions/{model}", headers=headers, body=body)


@pytest.mark.parametrize("send", [_upload, _typed, _form])
def test_our_archive_in_torchserve(
    addresses: tuple[str, str], images: list[bytes], send: Callable[[str, bytes], Call]
) -> None:
    theirs, ours = addresses
    for image in images:
        expected, answer = (exchange(url, send("digits", image)) for url in (theirs, ours))
        assert (expected.status, answer.status) == (200, 200), (expected, answer)
        assert is_close(answer.json(), expected.json())


@pytest.mark.parametrize("form", FORMS)
def test_their_archive_in_ours(addresses: tuple[str, str], images: list[bytes], form: str) -> None:
    _, ours = addresses
    for image in images:
        expected = exchange(ours, _upload("digits", image))
        answer = exchange(ours, _upload(f"digits-{form}", image))
        assert (expected.status, answer.status) == (200, 200), (expected, answer)
        assert is_close(answer.json(), expected.json())
