"""From tabml's errors to gRPC statuses: the one table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import grpc

from tabml import errors

DOMAIN = "tabml"
MAX_MESSAGE = 600


class DrainingError(errors.TabmlError):
    """The server is about to end."""

    code = "draining"


class UnauthenticatedError(errors.TabmlError):
    """The token is missing or wrong."""

    code = "unauthenticated"


class RequestError(errors.TabmlError, ValueError):
    """A request that is not what its RPC takes."""

    code = "request_invalid"


S = grpc.StatusCode
STATUSES: Mapping[type[Exception], grpc.StatusCode] = MappingProxyType(
    {
        RequestError: S.INVALID_ARGUMENT,
        DrainingError: S.UNAVAILABLE,
        UnauthenticatedError: S.UNAUTHENTICATED,
        errors.OptionError: S.INVALID_ARGUMENT,
        errors.FrameError: S.INVALID_ARGUMENT,
        errors.FrameTooLargeError: S.RESOURCE_EXHAUSTED,
        errors.StreamFormatError: S.INVALID_ARGUMENT,
        errors.SourceError: S.UNAVAILABLE,
        errors.ModelClosedError: S.FAILED_PRECONDITION,
        errors.ModelForkedError: S.INTERNAL,
        errors.ModelLoadError: S.INVALID_ARGUMENT,
        errors.CorruptModelError: S.DATA_LOSS,
        errors.UnsafeModelError: S.INVALID_ARGUMENT,
        errors.ModelNotLoadedError: S.FAILED_PRECONDITION,
        errors.ModelKindError: S.FAILED_PRECONDITION,
        errors.ModelConflictError: S.ALREADY_EXISTS,
        errors.ModelInUseError: S.FAILED_PRECONDITION,
        errors.InferenceError: S.INTERNAL,
        errors.AccuracyDropError: S.FAILED_PRECONDITION,
        errors.PipelineNotFoundError: S.NOT_FOUND,
        errors.UnavailableHereError: S.UNIMPLEMENTED,
        errors.CapacityError: S.RESOURCE_EXHAUSTED,
        errors.CallCancelledError: S.CANCELLED,
        errors.ModelFileNotFoundError: S.NOT_FOUND,
        errors.ProviderAccessError: S.PERMISSION_DENIED,
        errors.ProviderUnavailableError: S.UNAVAILABLE,
        errors.ProviderTimeoutError: S.DEADLINE_EXCEEDED,
        errors.ProviderError: S.UNAVAILABLE,
        errors.MissingExtraError: S.FAILED_PRECONDITION,
        MemoryError: S.RESOURCE_EXHAUSTED,
    }
)
"""The nearest class up the tree counts; what is not here is INTERNAL."""

RETRY_S = 1.0


def status_of(problem: BaseException) -> grpc.StatusCode:
    """The status of an error."""
    for kind in type(problem).__mro__:
        if kind in STATUSES:
            return STATUSES[kind]
    return S.INTERNAL


def message_of(problem: BaseException) -> str:
    """One line for the caller: tabml's own message; of a bug only its kind, for the rest is in the log."""
    if isinstance(problem, errors.TabmlError):
        return " ".join(str(problem).split())[:MAX_MESSAGE]
    if isinstance(problem, MemoryError):
        return "out of memory; unload models or send smaller requests"
    return f"internal error ({type(problem).__name__}); the server's log has the rest"


def reason_of(problem: BaseException) -> str:
    """The stable code, as ErrorInfo spells it."""
    code = problem.code if isinstance(problem, errors.TabmlError) else "internal"
    return code.upper()


def field_of(problem: BaseException) -> str:
    """The argument that a message of tabml's begins with; of a picture's bytes ``data``; else an empty text."""
    found = re.match(r"([a-z_][a-z0-9_.]*)=|(data)\b|'([a-z_.]+)' is not an option", str(problem))
    return next(filter(None, found.groups()), "") if found else ""


def details_of(problem: BaseException, metadata: Mapping[str, str]) -> bytes:
    """A serialised google.rpc.Status: ErrorInfo always, BadRequest and RetryInfo where they fit."""
    from google.rpc import error_details_pb2, status_pb2

    code, message = status_of(problem), message_of(problem)
    status = status_pb2.Status(code=code.value[0], message=message)
    info = error_details_pb2.ErrorInfo(domain=DOMAIN, reason=reason_of(problem), metadata=dict(metadata))
    status.details.add().Pack(info)
    if code is S.INVALID_ARGUMENT:
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field=field_of(problem), description=message)
        status.details.add().Pack(bad)
    if code is S.RESOURCE_EXHAUSTED:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(getattr(problem, "retry_after_s", RETRY_S) * 1e9))
        status.details.add().Pack(retry)
    content: bytes = status.SerializeToString()
    return content
