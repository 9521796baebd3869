"""Amazon S3 and what speaks its API, through s3fs: credentials, endpoint and proxies as it says.

Where botocore finds no credentials at all, requests are not signed: that reads public objects.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from aiobotocore.session import AioSession
from aiohttp import ClientError as HttpError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSOError,
)
from s3fs import S3FileSystem

from hatch_mar.weights.stores.answers import explain_status, read_content_range, write_range
from hatch_mar.weights.stores.objects import Answer
from hatch_mar.weights.stores.protocol import Resolved

if TYPE_CHECKING:
    from hatch_mar.weights.address import ObjectAddress

_LOGIN = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, to those who may read it"
_PASSING = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "InternalError"}
_REFUSED = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed"}
_BROKEN = (EndpointConnectionError, HTTPClientError, IncompleteReadError, HttpError)
_CONNECTIONS = 64
"""More than a fetch opens: one above this number would wait for another to end."""
_UNVERSIONED = {None, "null"}


class Client:
    """One object of a bucket."""

    def __init__(self, address: ObjectAddress, stall: float) -> None:
        """See `objects.Client`."""
        self._object = {"Bucket": address.container, "Key": address.key}
        if address.version:
            self._object["VersionId"] = address.version
        self._address = address
        self._stall = stall
        self._anonymous = False
        self._s3: Any = None

    async def connect(self) -> None:
        """See `objects.Client`."""
        session = AioSession()
        self._anonymous = await session.get_credentials() is None
        filesystem = S3FileSystem(
            anon=self._anonymous,
            session=session,
            asynchronous=True,
            skip_instance_cache=True,
            config_kwargs={
                "connect_timeout": self._stall,
                "read_timeout": self._stall,
                "max_pool_connections": _CONNECTIONS,
                "retries": {"total_max_attempts": 1},  # who fetches tries again
                "response_checksum_validation": "when_required",  # and hashes
            },
        )
        self._s3 = await filesystem.set_session()

    async def get(self, start: int, stop: int | None) -> Answer:
        """See `objects.Client`."""
        wanted = write_range(start, stop)
        answer = await self._s3.get_object(**self._object, **({"Range": wanted} if wanted else {}))
        found = read_content_range(answer.get("ContentRange"))
        body = answer["Body"]

        async def close() -> None:
            body.close()

        return Answer(
            start=found[0] if found else 0,
            total=found[1] if found else answer["ContentLength"],
            version=answer.get("VersionId") or answer.get("ETag"),
            read=body.read,
            close=close,
        )

    async def resolve(self) -> Resolved:
        """See `objects.Client`."""
        found = await self._s3.head_object(**self._object, ChecksumMode="ENABLED")
        version = found.get("VersionId")
        address = self._address if version in _UNVERSIONED else self._address.at(version)
        return Resolved(
            source=str(address), size=found["ContentLength"], sha256=_read_sha256(found)
        )

    async def close(self) -> None:
        """See `objects.Client`."""
        if self._s3 is not None:
            await self._s3.close()

    def explain(self, error: Exception) -> OSError:
        """See `objects.Client`."""
        if isinstance(error, ClientError):
            return self._explain_answer(error)
        if isinstance(error, ReadTimeoutError | ConnectTimeoutError | TimeoutError):
            return TimeoutError("S3 sends nothing")
        if isinstance(
            error,
            NoCredentialsError | PartialCredentialsError | CredentialRetrievalError | SSOError,
        ):
            return PermissionError(f"credentials cannot be had ({type(error).__name__}); {_LOGIN}")
        if isinstance(error, _BROKEN):
            return ConnectionError(f"S3 cannot be read ({type(error).__name__})")
        if isinstance(error, BotoCoreError | ValueError):  # how it is set up; names no secret
            return OSError(f"S3 cannot be asked: {error}")
        return error if isinstance(error, OSError) else OSError(type(error).__name__)

    def _explain_answer(self, error: ClientError) -> OSError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        server = "S3" if code.isdigit() else f"S3 ({code})"
        if code in _PASSING:
            return ConnectionError(f"{server} answers {status}")
        login = f"the request was not signed: {_LOGIN}" if self._anonymous else _LOGIN
        if code in _REFUSED:
            return PermissionError(f"{server} answers {status}; {login}")
        return explain_status(status, server=server, missing=_missing(code), login=login)


def _missing(code: str) -> str:
    if code == "NoSuchBucket":
        return "there is no such bucket"
    if code == "NoSuchVersion":
        return "the bucket has no such version of the object"
    return "the bucket has no such object"


def _read_sha256(found: dict[str, Any]) -> str | None:
    """Return the digest that an uploader has left, in hex; that of a whole object, not of parts."""
    checksum = found.get("ChecksumSHA256", "")
    if not checksum or "-" in checksum or found.get("ChecksumType") == "COMPOSITE":
        return None
    return base64.b64decode(checksum).hex()
