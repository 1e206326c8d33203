"""The files of one model: which of them are needed, fetched in two steps, and checked before a library sees them."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tabml.cancellation import current_cancellation
from tabml.errors import CorruptModelError, ModelFileNotFoundError, UnsafeModelError
from tabml.files import FileProvider, FileRef, MemoryFile, Progress, Snapshot
from tabml.text import checks
from tabml.text._door import text_extra

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

_TOKENIZER = "tokenizer.json"
_TOKENIZER_FILES = (
    _TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
)  # fmt: skip
_VOCABULARIES = (
    "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
"""Of tokenizers that have no ``tokenizer.json``."""
_OWN_VOCABULARIES = {
    "bartpho": ("dict.txt", "sentencepiece.bpe.model"),
    "bertgeneration": ("spiece.model",),
    "bertjapanese": ("vocab.txt", "spiece.model"),
    "bertweet": ("vocab.txt", "bpe.codes"),
    "biogpt": ("vocab.json", "merges.txt"),
    "blenderbotsmall": ("vocab.json", "merges.txt"),
    "byt5": (),
    "canine": (),
    "cpm": ("spiece.model",),
    "cpmant": ("vocab.txt",),
    "ctrl": ("vocab.json", "merges.txt"),
    "esm": ("vocab.txt",),
    "flaubert": ("vocab.json", "merges.txt"),
    "fsmt": ("vocab-src.json", "vocab-tgt.json", "merges.txt"),
    "gptneoxjapanese": ("vocab.txt", "emoji.json"),
    "gptsw3": ("spiece.model",),
    "m2m100": ("vocab.json", "sentencepiece.bpe.model"),
    "marian": ("source.spm", "target.spm", "vocab.json", "target_vocab.json"),
    "myt5": ("byte_maps.json",),
    "perceiver": (),
    "phobert": ("vocab.txt", "bpe.codes"),
    "plbart": ("sentencepiece.bpe.model",),
    "prophetnet": ("prophetnet.tokenizer",),
    "rocbert": ("vocab.txt", "word_shape.json", "word_pronunciation.json"),
    "tapas": ("vocab.txt",),
    "xlm": ("vocab.json", "merges.txt"),
}
"""Of tokenizers of transformers that never read ``tokenizer.json``, by their class or the type of model, in short."""
_SENTENCE_SETTINGS = "sentence_bert_config.json"
SENTENCE_FILES = ("modules.json", "config_sentence_transformers.json", _SENTENCE_SETTINGS)
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
GGUF_LISTS = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type")
"""Lists of a GGUF file's metadata that are kept; of others the length is."""
_CONFIGS = ("config.json", "generation_config.json")
_INDEX = "model.safetensors.index.json"
_WEIGHTS = "model.safetensors"
_SHARDS_AT_ONCE = 2  # one fills the gaps of the other; more are slower, and their buffers are memory
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_OF_TRAINING = re.compile(r"(^|/)(training_args|optimizer|scheduler|rng_state|scaler|trainer_state)[\w-]*\.\w+$")
"""Files that are pickled too, and are no weights."""
_PART = re.compile(r"-\d+-of-\d+\.")
_SHARD = re.compile(r"(-\d+-of-\d+)?\.\w+$")


class Repository:
    """The files of one model as a folder in memory; closed once the model is built."""

    def __init__(
        self,
        provider: FileProvider,
        ref: FileRef,
        *,
        progress: Progress | None = None,
        allow_pickle: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        """Nothing is fetched yet.

        Args:
            provider: Where files come from.
            ref: ``config.json`` of a model in the layout of transformers, a file of weights beside it, or a GGUF file.
            progress: Called with name, bytes done and bytes in all, from several threads.
            allow_pickle: Read pickled weights where there are no others.
            trust_remote_code: Fetch and run the code that the model brings.
        """
        self._folder = Snapshot(
            provider, ref.repo, revision=ref.revision, cancellation=current_cancellation(), progress=progress
        )
        self._allow_pickle = allow_pickle
        self.trust_remote_code = trust_remote_code
        """Whether code of the repository may run."""
        self.ref = ref
        """What the model begins with."""
        self.config: dict[str, Any] = {}
        """``config.json``, checked; empty for GGUF."""
        self.metadata: dict[str, Any] = {}
        """Of a GGUF file, once it is fetched."""
        self._inside = "" if self.is_gguf else ref.path.rpartition("/")[0]
        self._code = ""
        self._shards: list[str] = []
        self._unpickled: list[MemoryFile] = []

    @property
    def root(self) -> Path:
        """The folder."""
        return self._folder.path

    @property
    def path(self) -> Path:
        """Where the model itself is: the folder, or one inside it, as old sentence-transformers have it.

        With code it is by a name for that code, which transformers calls its package by: other code never has the same.
        """
        return self._folder.path / self._inside / self._code

    def own(self, name: str) -> str:
        """The name, from the folder on, of a file that lies where the model itself is."""
        return f"{self._inside}/{name}" if self._inside else name

    @property
    def name(self) -> str:
        """What messages call the model."""
        return self.ref.repo

    @property
    def is_gguf(self) -> bool:
        """Whether the model is one GGUF file."""
        return self.ref.path.endswith(".gguf")

    def __contains__(self, name: str) -> bool:
        return name in self._folder

    def json(self, name: str) -> Any:
        """A JSON file of the folder; None where it isn't there.

        Raises:
            CorruptModelError: it isn't JSON, or null.
        """
        if name not in self._folder:
            return None
        try:
            found = json.loads(self._folder.read(name, checks.MAX_JSON_BYTES))
        except (ValueError, RecursionError) as problem:
            raise CorruptModelError(f"{self.name}/{name} is not JSON: {problem}") from None
        if found is None:
            raise CorruptModelError(f"{self.name}/{name} is null")
        return found

    def fetch_small(self, *, sentence: bool = False) -> None:
        """Configurations and tokenizer, checked.

        Args:
            sentence: The files of a sentence-transformers layout too.

        Raises:
            ModelFileNotFoundError: there is no ``config.json``.
            CorruptModelError: a file is not what it should be.
            UnsafeModelError: the model asks for code.
        """
        folders = self._fetch_layout() if sentence else []
        small = [self.own(name) for name in (*_CONFIGS, *_TOKENIZER_FILES)]
        beside = [f"{folder}/config.json" for folder in folders]
        self._folder.add([self.own("config.json")], optional=[*small, *beside])
        where = f"{self.name}/{self._inside}" if self._inside else self.name
        trusts_code = self.trust_remote_code
        self.config = checks.check_config(self.json(self.own("config.json")), where, trusts_code=trusts_code)
        checks.check_generation_config(self.json(self.own("generation_config.json")), where)
        tokenizer = self.json(self.own("tokenizer_config.json"))
        checks.check_tokenizer_config(tokenizer, where, trusts_code=trusts_code)
        if trusts_code:
            self._fetch_code(checks.modules_of(self.config, where) | checks.modules_of(tokenizer or {}, where))
        self._folder.add(optional=map(self.own, self._vocabularies(tokenizer or {})))
        if self.own(_TOKENIZER) in self._folder:
            checks.check_tokenizer(self._folder.read(self.own(_TOKENIZER), checks.MAX_TOKENIZER_BYTES), where)

    def _vocabularies(self, tokenizer: dict[str, Any]) -> tuple[str, ...]:
        """The files beside ``tokenizer.json``, or instead of it, that the model's tokenizer reads."""
        kind = str(tokenizer.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")
        for said in (kind, str(self.config.get("model_type") or "")):
            own = _OWN_VOCABULARIES.get(re.sub(r"[-_]", "", said.lower()))
            if own is not None:
                return own
        return () if self.own(_TOKENIZER) in self._folder else _VOCABULARIES

    def _fetch_code(self, named: set[str]) -> None:
        """The files of code, and those beside them, which they may import."""
        if not named:
            return
        self._folder.add(map(self.own, named))
        with suppress(ModelFileNotFoundError, NotImplementedError):  # a provider that can't list
            beside = self._folder.listed(self.own("*.py"))
            self._folder.add([name for name in beside if name.rpartition("/")[0] == self._inside])
        digest = hashlib.sha256()
        for name in sorted(each for each in self._folder.names if each.endswith(".py")):
            content = self._folder.read(name)
            digest.update(f"{name} {len(content)} ".encode() + content)
        code = f"code_{digest.hexdigest()[:32]}"
        self._folder.link(self.own(code), self.path)
        self._code = code

    def _fetch_layout(self) -> list[str]:
        """The folders of ``modules.json``, without the one of the model itself, which it may put inside."""
        self._folder.add(optional=SENTENCE_FILES)
        modules = self.json("modules.json")
        if modules is None:
            return []
        folders = checks.check_modules(modules, self.name)
        if modules and modules[0]["type"].endswith(".Transformer"):
            self._inside = modules[0].get("path") or ""
        if self._inside:
            self._folder.add(optional=[self.own(_SENTENCE_SETTINGS)])
        return [folder for folder in folders if folder != self._inside]

    def fetch_weights(self) -> None:
        """The weights: the file that was meant, one safetensors file, or those of an index, or the one GGUF file.

        Raises:
            ModelFileNotFoundError: there are none.
            UnsafeModelError: there are only pickled ones, which are not allowed.
            CorruptModelError: the index names something else than weights.
        """
        if self.is_gguf:
            self._folder.add([self.ref.path])
            self.metadata = checks.check_gguf(self.root / self.ref.path, self.name, GGUF_LISTS)
            return
        self._shards = self._fetch_shards()
        for shard in self._shards:
            checks.check_safetensors(self.root / shard, f"{self.name}/{shard}")

    def _fetch_shards(self) -> list[str]:
        index, whole = self.own(_INDEX), self.own(_WEIGHTS)
        meant = self.ref.path
        is_part = _PART.search(meant) is not None
        if meant.endswith(_PICKLED):
            return self._fetch_pickled(self._pickled(_PART.sub(".", meant)) if is_part else [meant], whole)
        if meant.endswith(".safetensors") and meant != whole and not is_part:
            self._folder.add([meant])
            self._folder.link(whole, self.root / meant)
            return [meant]
        if meant != whole:
            self._folder.add(optional=[index])
        if index in self._folder:
            shards = [self.own(shard) for shard in checks.check_index(self.json(index), self.name)]
            self._folder.add(shards, at_once=_SHARDS_AT_ONCE)
            return shards
        self._folder.add(optional=[whole])
        return [whole] if whole in self._folder else self._fetch_pickled(self._pickled(whole), whole)

    def fetch_weights_of(self, folder: str) -> str:
        """The weights of a module of a sentence-transformers layout, from the folder on.

        Raises:
            ModelFileNotFoundError: there are none.
            UnsafeModelError: there are only pickled ones, which are not allowed.
            CorruptModelError: header and file contradict each other.
        """
        path = f"{folder}/{_WEIGHTS}"
        self._folder.add(optional=[path])
        if path not in self._folder:
            self._fetch_pickled(self._pickled(path), path)
        checks.check_safetensors(self.root / path, f"{self.name}/{path}")
        return path

    def fetch_adapter(self) -> None:
        """``adapter_config.json``, which becomes :attr:`config`, and the weights of a LoRA adapter.

        Raises:
            ModelFileNotFoundError: one of the two is missing.
            CorruptModelError: a file is not what it should be.
            ModelKindError: it is another kind of adapter.
        """
        self._folder.add([ADAPTER_CONFIG], optional=[ADAPTER_WEIGHTS])
        self.config = checks.check_adapter_config(self.json(ADAPTER_CONFIG), self.name)
        if ADAPTER_WEIGHTS not in self._folder:
            self._fetch_pickled(self._pickled(ADAPTER_WEIGHTS), ADAPTER_WEIGHTS)
        checks.check_safetensors(self.path / ADAPTER_WEIGHTS, f"{self.name}/{ADAPTER_WEIGHTS}")

    def take_weights(self) -> list[MemoryFile]:
        """The files of the weights that are in memory for this model alone: it may drop what it has copied."""
        return self._folder.take(self._shards)

    def _pickled(self, instead_of: str) -> list[str]:
        """The files of pickled weights that the repository has in the place of others.

        Raises:
            ModelFileNotFoundError: it has none of them either.
        """
        folder, _, name = instead_of.rpartition("/")
        stem = name.partition(".")[0]
        found: list[str] = []
        with suppress(ModelFileNotFoundError, NotImplementedError):
            listed = [name for name in self._folder.listed("*") if name.rpartition("/")[0] == folder]
            found = sorted(name for name in listed if name.endswith(_PICKLED) and not _OF_TRAINING.search(name))
        stems = (f"pytorch_{stem.removeprefix('pytorch_')}", stem)
        named = [name for name in found if name.endswith(".bin") and _SHARD.sub("", name.rpartition("/")[2]) in stems]
        if not found:
            others = " nor an index of such files" if instead_of == self.own(_WEIGHTS) else ""
            raise ModelFileNotFoundError(f"{self.name} has {'neither' if others else 'no'} {instead_of}{others}")
        if len(found) > 1 and not named:
            raise ModelFileNotFoundError(
                f"{self.name} has several files of pickled weights, {', '.join(found[:5])}; give the path of the one that is meant"
            )
        return named or found

    def _fetch_pickled(self, names: list[str], to: str) -> list[str]:
        """Pickled weights as one safetensors file in memory, whose name in the folder is ``to``.

        Raises:
            UnsafeModelError: they are not allowed, or hold something else than tensors.
        """
        if not self._allow_pickle:
            raise UnsafeModelError(
                f"{self.name} has its weights as {names[0]}, a format that can run code when it is read; "
                "take a revision with safetensors, or in a program of yours allow_pickle=True if you trust its author"
            )
        with text_extra():
            from tabml.text._torch.pickles import unpickled
        self._folder.add(names, at_once=_SHARDS_AT_ONCE)
        file = unpickled([self.root / name for name in names], self.name)
        self._unpickled.append(file)
        self._folder.link(to, file.path)
        return [to]

    def close(self) -> None:
        """Let go of the files; what was mapped of them stays valid."""
        self._folder.close()
        self._unpickled.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
