"""Every exception of hatch-mar.

    HatchMarError                     exit 1   HTTP 500
     ├── ProblemsError                exit 2           several problems, reported together
     ├── ArchiveError                 exit 3   HTTP 400
     │    └── UnsafeArchiveError      exit 3   HTTP 400
     ├── WeightsError                 exit 4   HTTP 500
     │    ├── DigestMismatchError     exit 4
     │    └── OfflineError            exit 4
     ├── ModelError                   exit 5   HTTP 500
     │    ├── HandlerError            exit 5           not found, wrong shape, raised in initialize
     │    ├── GoldenError             exit 5           a golden example gave another answer
     │    ├── WorkerStartError        exit 5           the worker process died or hung while loading
     │    └── RequirementsError       exit 5           requirements that cannot be installed
     ├── ModelArchiverError           exit 1           what `hatch_mar.archiver` raises
     ├── TargetError                  exit 6           what to serve cannot be found
     ├── AddressInUseError            exit 7
     ├── UnguardedManagementError     exit 2           management off loopback without a token
     └── RequestError                          HTTP status and `type` of TorchServe's error body
          ├── BadRequestError                  400 BadRequestException
          ├── InvalidModelError                400 InvalidModelException
          ├── DownloadArchiveError             400 DownloadArchiveException
          ├── PackagesError                    400 ModelException
          ├── WrongTokenError                  401 InvalidKeyException
          ├── WrongHostError                   403 InvalidHostException
          ├── DefaultVersionError              403 InvalidModelVersionException
          ├── ResourceNotFoundError            404 ResourceNotFoundException
          ├── ModelNotFoundError               404 ModelNotFoundException
          ├── ModelVersionNotFoundError        404 ModelVersionNotFoundException
          ├── MethodNotAllowedError            405 MethodNotAllowedException
          ├── RequestTimeoutError              408 RequestTimeoutException
          ├── ConflictError                    409 ConflictStatusException
          ├── BodyTooLargeError                413 a bare answer, as TorchServe's
          ├── RegistrationError                500 InternalServerException
          ├── ServiceUnavailableError          503 ServiceUnavailableException
          ├── DeadlineError                    504 DeadlineExceededException
          └── PredictionFailedError            5xx InternalServerException

A message says what is wrong, where, and what to do. The types of the last branch are the names that
TorchServe's clients match on (its `ErrorResponse`), so they are not ours to improve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class HatchMarError(Exception):
    """The root: catch this to catch everything hatch-mar raises on purpose."""

    exit_code: ClassVar[int] = 1
    status: int = 500
    type: str = "InternalServerException"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in what an author wrote, and where."""

    file: str
    """The file as the author knows it, relative to the project: `pyproject.toml`."""
    key: str
    """Full key path in it, `tool.mar.weights[0].source`; empty if the file itself is wrong."""
    message: str
    """What is wrong and what to do, lower-case, without a full stop."""

    def __str__(self) -> str:
        """Render as one line, whatever is quoted in it: `file: key: message`."""
        line = ": ".join(part for part in (self.file, self.key, self.message) if part)
        return "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)


class ProblemsError(HatchMarError):
    """Everything that is wrong with a project, found in one go."""

    exit_code = 2
    status = 400

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep `problems` in the order in which they were found."""
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"hatch-mar: {count} problem{'s' if count != 1 else ''}"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in self.problems)]))


def explain(error: OSError) -> str:
    """Say what the machine refused, as our own errors do: `/dist: Permission denied`."""
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"{error.filename}: {reason}"
    if isinstance(error, FileNotFoundError):  # of no file: it was asked where it is
        return "the current directory has been removed; change to another one"
    return reason


class ArchiveError(HatchMarError):
    """An archive that cannot be read: broken, truncated, or not an archive."""

    exit_code = 3
    status = 400


class UnsafeArchiveError(ArchiveError):
    """An archive that would write outside its directory, or more than it says."""


class WeightsError(HatchMarError):
    """Weights that cannot be found, fetched or stored."""

    exit_code = 4


class DigestMismatchError(WeightsError):
    """Bytes whose sha256 or size is not what the author locked."""


class OfflineError(WeightsError):
    """A fetch that `HATCH_MAR_OFFLINE=1` forbids."""


class ModelError(HatchMarError):
    """A model that cannot be loaded or does not answer as it should."""

    exit_code = 5

    def __init__(self, message: str, *, traceback: str = "") -> None:
        """Carry the handler's own `traceback`, text as Python prints it, for the operator's log."""
        super().__init__(message)
        self.traceback = traceback


class HandlerError(ModelError):
    """A handler that is missing, has the wrong shape, or raised while initialising."""


class GoldenError(ModelError):
    """A golden example whose answer is not the recorded one."""


class WorkerStartError(ModelError):
    """A worker process that died or hung before its model was loaded."""


class RequirementsError(ModelError):
    """Requirements of a model that cannot be installed."""


class ModelArchiverError(HatchMarError):
    """An archive that was not made, as scripts written for torch-model-archiver catch it."""


class TargetError(HatchMarError):
    """Something to serve that is neither a file, a directory nor an installed model."""

    exit_code = 6


class AddressInUseError(HatchMarError):
    """A port that somebody else listens on."""

    exit_code = 7


class UnguardedManagementError(HatchMarError):
    """Management would be open to other machines without a token."""

    exit_code = 2


class RequestError(HatchMarError):
    """A request that gets TorchServe's error body: `{"code", "type", "message"}`."""

    status = 500

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: int | None = None
    ) -> None:
        """Say `message` to the client; `retry_after`, in seconds, becomes `Retry-After`."""
        super().__init__(message)
        if status is not None:
            self.status = status
        self.retry_after = retry_after


class BadRequestError(RequestError):
    """A request that makes no sense as it is."""

    status = 400
    type = "BadRequestException"


class InvalidModelError(RequestError):
    """An archive that is none, or says too little to be served."""

    status = 400
    type = "InvalidModelException"


class DownloadArchiveError(RequestError):
    """An archive that could not be fetched."""

    status = 400
    type = "DownloadArchiveException"


class PackagesError(RequestError):
    """A model whose requirements could not be installed, to whoever registers it."""

    status = 400
    type = "ModelException"


class WrongTokenError(RequestError):
    """A management request without the token, or with a wrong one."""

    status = 401
    type = "InvalidKeyException"


class WrongHostError(RequestError):
    """A management request for a host that is not this one."""

    status = 403
    type = "InvalidHostException"


class DefaultVersionError(RequestError):
    """A default version that others are still served beside."""

    status = 403
    type = "InvalidModelVersionException"


class ResourceNotFoundError(RequestError):
    """A path nothing answers to."""

    status = 404
    type = "ResourceNotFoundException"


class ModelNotFoundError(RequestError):
    """A model name that is not served."""

    status = 404
    type = "ModelNotFoundException"


class ModelVersionNotFoundError(RequestError):
    """A version of a served model that is not served."""

    status = 404
    type = "ModelVersionNotFoundException"


class WorkflowNotFoundError(RequestError):
    """A workflow: there are none here."""

    status = 404
    type = "WorkflowNotFoundException"


class MethodNotAllowedError(RequestError):
    """A path that does not take this method."""

    status = 405
    type = "MethodNotAllowedException"


class RequestTimeoutError(RequestError):
    """A request that waited longer than `clientTimeoutInMills`."""

    status = 408
    type = "RequestTimeoutException"


class ConflictError(RequestError):
    """A version that is served already."""

    status = 409
    type = "ConflictStatusException"


class BodyTooLargeError(RequestError):
    """A body above the limit."""

    status = 413


class RegistrationError(RequestError):
    """A model that could not be brought up, or down."""

    type = "InternalServerException"


class ServiceUnavailableError(RequestError):
    """No worker, a full queue, or a model that is not ready."""

    status = 503
    type = "ServiceUnavailableException"


class DeadlineError(RequestError):
    """A request that was not answered by the deadline that its client set."""

    status = 504
    type = "DeadlineExceededException"


class PredictionFailedError(RequestError):
    """The worker answered with an error, or died; the status says which (500, 503, 507)."""

    type = "InternalServerException"
