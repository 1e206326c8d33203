"""Files of the Hugging Face hub; the only module that imports huggingface_hub."""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from tabml.errors import (
    CorruptModelError,
    MissingExtraError,
    ModelFileNotFoundError,
    ProviderAccessError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from tabml.files.types import FileInfo, FileRef, FileStream, Progress, check_name
from tabml.files.url import Transport, check_url, open_url

try:
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
except ImportError:
    raise MissingExtraError("hub", "huggingface_hub") from None

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

Answer = TypeVar("Answer")

_DEFAULT = Transport()
_SHA256 = re.compile("[0-9a-f]{64}")


class HubProvider:
    """Files of the hub, streamed past the hub's own disk cache; ``HF_ENDPOINT`` or ``endpoint`` moves it.

    The large files' checksums, which the hub announces, are checked as the bytes go by. Nobody's login is used
    but the ``token`` given here.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        token: str | None = None,
        transport: Transport = _DEFAULT,
        progress: Progress | None = None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            endpoint: The hub's address; ``HF_ENDPOINT``, or the public hub, when None.
            token: For gated and private repositories.
            transport: Time limits, retries and size cap.
            progress: Called as bytes arrive.

        Raises:
            OptionError: ``endpoint`` is neither https nor http on the loopback.
        """
        self._token: str | bool = token if token is not None else False
        self._api = HfApi(endpoint=endpoint, token=self._token)
        check_url(self._api.endpoint, allow_http=transport.allow_http)
        self._transport, self._progress = transport, progress

    def __repr__(self) -> str:
        return f"HubProvider({self._api.endpoint!r})"

    def open(self, ref: FileRef) -> FileStream:
        """The file as a stream of bytes; its last chunk is followed by the check of its sum."""
        endpoint = self._api.endpoint
        with _hub_errors(str(ref)):
            url = hf_hub_url(ref.repo, ref.path, revision=ref.revision, endpoint=endpoint)
        found = self._ask(
            str(ref),
            lambda: get_hf_file_metadata(url, token=self._token, timeout=self._transport.timeout_s, endpoint=endpoint),
        )
        if found.commit_hash:  # so that a push between two attempts can't mix two versions
            url = hf_hub_url(ref.repo, ref.path, revision=found.commit_hash, endpoint=endpoint)
        secret = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        transport = replace(self._transport, headers={**self._transport.headers, **secret})
        stream = open_url(url, transport, progress=self._progress)
        if found.etag and _SHA256.fullmatch(found.etag):
            return FileStream(_checked(stream, found.etag, ref), size=stream.size, close=stream.close)
        return stream

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        """The files of a repository, sorted by path."""
        check_name("repo", repo)
        found: ModelInfo = self._ask(
            f"{repo}@{revision or 'main'}",
            lambda: self._api.model_info(
                repo, revision=revision, files_metadata=True, timeout=self._transport.timeout_s
            ),
        )
        infos = [
            FileInfo(file.rfilename, file.size, file.lfs.sha256 if file.lfs else None) for file in found.siblings or []
        ]
        return sorted(infos, key=lambda info: info.path)

    def _ask(self, what: str, question: Callable[[], Answer]) -> Answer:
        """The hub's answer, asked again where that may help."""
        for attempt in range(1, self._transport.attempts + 1):
            try:
                with _hub_errors(what):
                    return question()
            except (ProviderUnavailableError, ProviderTimeoutError):
                if attempt == self._transport.attempts:
                    raise
                time.sleep(self._transport.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
        raise AssertionError("attempts is positive")


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """The hub's errors as ours."""
    try:
        yield
    except GatedRepoError as problem:
        raise ProviderAccessError(f"{what} is gated on the hub; ask there for access, and give a token") from problem
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError, HFValidationError) as problem:
        raise ModelFileNotFoundError(f"{what} is not on the hub, or not for this token") from problem
    except HfHubHTTPError as problem:
        status = problem.response.status_code
        said = f"the hub answered {status} for {what}"
        if status in (401, 403):
            raise ProviderAccessError(said) from problem
        raise (ProviderUnavailableError if status == 429 or status >= 500 else ProviderError)(said) from problem
    except ProviderError:
        raise
    except Exception as problem:  # the errors of whichever HTTP client the hub's library uses
        said = f"{type(problem).__name__}: {problem}".splitlines()[0][:200]
        if "Timeout" in type(problem).__name__:
            raise ProviderTimeoutError(f"the hub stopped answering for {what}: {said}") from problem
        raise ProviderUnavailableError(f"the hub can't be reached for {what}: {said}") from problem


def _checked(stream: FileStream, sha256: str, ref: FileRef) -> Iterator[bytes]:
    """The chunks, and an error at the end when their sum is not ``sha256``."""
    running = hashlib.sha256()
    for chunk in stream:
        running.update(chunk)
        yield chunk
    if running.hexdigest() != sha256:
        raise CorruptModelError(f"{ref}: sha256 is {running.hexdigest()[:12]}…, not the hub's {sha256[:12]}…")
