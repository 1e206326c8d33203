"""Several providers, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tabml.errors import ModelFileNotFoundError, OptionError, ProviderError
from tabml.files.types import Checksums, FileInfo, FileProvider, FileRef, FileStream, LocalFiles

Answer = TypeVar("Answer")


class FallbackProvider:
    """Asks each provider in order and answers with the first that can; the error names every attempt.

    A transfer that is cut after its first byte is not taken over by the next provider: the file may differ there.
    """

    def __init__(self, providers: Sequence[FileProvider]) -> None:
        if not providers:
            raise OptionError("providers=() must hold at least one provider")
        self._providers = tuple(providers)

    def __repr__(self) -> str:
        return f"FallbackProvider({', '.join(map(repr, self._providers))})"

    def open(self, ref: FileRef) -> FileStream:
        """The file as a stream of bytes, from the first provider that has it."""
        return self._first(str(ref), lambda provider: provider.open(ref))

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        """The files of a repository, from the first provider that has it."""
        return self._first(repo, lambda provider: provider.list(repo, revision))

    def local_path(self, ref: FileRef) -> Path | None:
        """The file itself, when it is on the disk of a provider that comes before all without files on disk."""
        for provider in self._providers:
            if not isinstance(provider, LocalFiles):  # it may have the file, and would be asked first
                return None
            if path := provider.local_path(ref):
                return path
        return None

    def sha256(self, ref: FileRef) -> str | None:
        """The checksum, when a provider knows it that comes before all without checksums."""
        for provider in self._providers:
            if not isinstance(provider, Checksums):
                return None
            if known := provider.sha256(ref):
                return known
        return None

    def _first(self, what: str, ask: Callable[[FileProvider], Answer]) -> Answer:
        attempts: list[tuple[FileProvider, ProviderError]] = []
        for provider in self._providers:
            try:
                return ask(provider)
            except ProviderError as problem:
                attempts.append((provider, problem))
        # What the user can act on comes first: a source that failed, rather than one that never had the file.
        worst = next((p for _, p in attempts if not isinstance(p, ModelFileNotFoundError)), attempts[-1][1])
        said = "; ".join(f"{provider!r}: {problem}" for provider, problem in attempts)
        raise type(worst)(f"{what}: no provider has it: {said}") from worst
