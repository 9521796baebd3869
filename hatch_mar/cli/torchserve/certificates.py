"""The certificate that encrypted ports show: TorchServe's keys of config.properties.

A PEM pair (`certificate_file`, `private_key_file`), else a keystore (PKCS #12), else one that is
made for this run and signed by nobody.
"""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.api.listeners import Certificate
from hatch_mar.errors import HatchMarError, Problem, ProblemsError

if TYPE_CHECKING:
    from hatch_mar.cli.torchserve.properties import Properties

_FILE = "config.properties"
_LIFETIME = timedelta(days=365)
_NAMES = ("localhost", "127.0.0.1", "::1")


def find_certificate(properties: Properties, directory: Path) -> Certificate:
    """Return the files to show; what has to be made is written into `directory`.

    Raises:
        ProblemsError: files that are not there, or cannot be read.
        HatchMarError: the extra that reads keystores and makes certificates is missing.
    """
    certificate, key = properties.certificate_file, properties.private_key_file
    if certificate or key:
        return _pair(certificate, key)
    if find_spec("cryptography") is None:
        raise HatchMarError(
            "https needs certificate_file and private_key_file, or the extra that reads keystores "
            "and makes certificates: pip install 'hatch-mar[tls]'"
        )
    if properties.keystore:
        return _from_keystore(properties, directory)
    return _self_signed(directory)


def _pair(certificate: str | None, key: str | None) -> Certificate:
    found = {"certificate_file": certificate, "private_key_file": key}
    problems = [
        Problem(_FILE, name, "is missing: both files are needed" if not text else f"'{text}': gone")
        for name, text in found.items()
        if not text or not Path(text).is_file()
    ]
    if problems:
        raise ProblemsError(problems)
    assert certificate is not None
    assert key is not None
    return Certificate(certificate=Path(certificate), private_key=Path(key))


def _from_keystore(properties: Properties, directory: Path) -> Certificate:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - an extra
        Encoding,
        NoEncryption,
        PrivateFormat,
        pkcs12,
    )

    path = Path(properties.keystore or "")
    if properties.keystore_type.upper() != "PKCS12":
        raise ProblemsError([Problem(_FILE, "keystore_type", _convert(path))])
    try:
        key, certificate, more = pkcs12.load_key_and_certificates(
            path.read_bytes(), properties.keystore_pass.encode()
        )
    except OSError as error:
        message = f"'{path}' cannot be read: {error.strerror}"
        raise ProblemsError([Problem(_FILE, "keystore", message)]) from error
    except ValueError as error:
        message = f"'{path}' is no PKCS #12 keystore, or keystore_pass is not its password"
        raise ProblemsError([Problem(_FILE, "keystore", message)]) from error
    if key is None or certificate is None:
        message = f"'{path}' does not hold both a key and its certificate"
        raise ProblemsError([Problem(_FILE, "keystore", message)])
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in (certificate, *more))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return _write(directory, chain, pem)


def _convert(path: Path) -> str:
    return (
        "only PKCS12 is read here; convert the keystore: keytool -importkeystore "
        f"-srckeystore {path} -destkeystore {path.with_suffix('.p12')} -deststoretype PKCS12"
    )


def _self_signed(directory: Path) -> Certificate:
    from cryptography import x509  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAMES[0])])
    names: list[x509.GeneralName] = [x509.DNSName(_NAMES[0])]
    names += [x509.IPAddress(ipaddress.ip_address(text)) for text in _NAMES[1:]]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return _write(directory, certificate.public_bytes(Encoding.PEM), pem)


def _write(directory: Path, chain: bytes, key: bytes) -> Certificate:
    """Write both for this run; nobody else reads the key."""
    paths = directory / "certificate.pem", directory / "private-key.pem"
    for path, data in zip(paths, (chain, key), strict=True):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    return Certificate(certificate=paths[0], private_key=paths[1])
