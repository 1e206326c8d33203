"""Tiny models with random weights, saved as real ones are: they go through the libraries' whole loading and computing.

The numbers mean nothing, but they are the same in every run: each recipe seeds torch before it builds.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers as tf
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = (
    "the quick brown fox jumps over the lazy dog",
    "hello world, how are you today?",
    "translate English to German: the house is wonderful.",
    "def add(a, b):\n    return a + b\n",
    "This example is about politics. sports. economy.",
    "a photo of a cat. a photo of a dog. the sound of rain.",
    "user: hi\nassistant: hello!",
    "0123456789 + - * / = < > ( ) [ ] { } . , ; : ! ?",
)
CORPUS = SENTENCES * 4
"""What the tokenizers are trained on."""

_BERT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
_SEQ2SEQ: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "init_std": 0.5,
}
_LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
}


# ---------------------------------------------------------------------------------------------------- tokenizers
def byte_level(specials: Sequence[str], size: int = 384, **options: Any) -> Any:
    """Byte-level BPE, as GPT-2, Llama 3 and Qwen have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(specials),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)


def word_pieces() -> Any:
    """As BERT has, with 64 tokens at the most."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def bart_pieces() -> Any:
    """As BART has, with 64 tokens at the most."""
    names = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    tokenizer = byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], 400, model_max_length=64, **names)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _unigram_vocabulary() -> list[tuple[str, float]]:
    """Pieces with their scores, the unknown one left out."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"][1:]]


def _sentence_pieces(path: Path) -> list[str]:
    """Write a sentencepiece model; gives its pieces."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=written,
        vocab_size=120,
        hard_vocab_limit=False,
        minloglevel=2,
        character_coverage=1.0,
    )
    path.write_bytes(written.getvalue())
    model = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    return [model.id_to_piece(at) for at in range(model.get_piece_size())]


# ---------------------------------------------------------------------------------------------------- encoders
def _bert(kind: Any, folder: Path, **options: Any) -> None:
    tokenizer = word_pieces()
    _save(folder, kind(tf.BertConfig(vocab_size=len(tokenizer), **_BERT, **options)), tokenizer)


def _labels(*names: str) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: at for at, name in enumerate(names)}}


def bert(folder: Path) -> None:
    """A plain model, without a head and without files of sentence-transformers."""
    _bert(tf.BertModel, folder)


def sentence_bert(folder: Path) -> None:
    """The layout of sentence-transformers: mean, then length 1; 32 tokens; a prompt ``query``."""
    _bert(tf.BertModel, folder)
    _modules(folder, {"1_Pooling": "Pooling", "2_Normalize": "Normalize"})
    _json(folder / "1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
    _json(folder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
    _json(
        folder / "config_sentence_transformers.json",
        {"prompts": {"query": "query: ", "long": "translate the house: "}, "default_prompt_name": None},
    )


def sentence_inside(folder: Path) -> None:
    """The old layout: the model in a folder of its own; the main folder's ``config.json`` is no model's."""
    _bert(tf.BertModel, folder / "0_Transformer")
    _modules(folder, {"1_Pooling": "Pooling", "2_Dense": "Dense"}, "0_Transformer")
    _json(folder / "config.json", {"__version__": "0.3.8"})
    _json(folder / "1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
    _json(folder / "0_Transformer/sentence_bert_config.json", {"max_seq_length": 20})
    _json(folder / "2_Dense/config.json", {"in_features": 32, "out_features": 16})
    dense = torch.nn.Linear(32, 16)
    save_file(
        {"linear.weight": dense.weight.data, "linear.bias": dense.bias.data}, folder / "2_Dense/model.safetensors"
    )


def sentence_dense(folder: Path) -> None:
    """Three poolings joined that leave the prompt out, a linear layer, layer normalisation; not of length 1."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as modules

    plain = folder / "plain"
    _bert(tf.BertModel, plain)
    body = modules.Transformer(str(plain), max_seq_length=40)
    pooling = modules.Pooling(32, pooling_mode=("cls", "max", "weightedmean"), include_prompt=False)
    dense = modules.Dense(96, 24, activation_function=torch.nn.GELU())
    model = SentenceTransformer(
        modules=[body, pooling, dense, modules.LayerNorm(24)],
        prompts={"ask": "hello you: "},
        default_prompt_name="ask",
        device="cpu",
    )
    model.save(str(folder), create_model_card=False)


def sentence_causal(folder: Path) -> None:
    """The last token of a language model, as Qwen3-Embedding; its tokenizer pads on the left."""
    plain = folder / "plain"
    causal_reranker(plain)
    tokenizer = tf.AutoTokenizer.from_pretrained(plain, padding_side="left")
    tokenizer.save_pretrained(plain)
    _pooled(folder, plain, "lasttoken")


def sentence_t5(folder: Path) -> None:
    """The encoder of T5, as sentence-t5."""
    t5(folder / "plain")
    _pooled(folder, folder / "plain", "mean")


def _pooled(folder: Path, plain: Path, mode: Any) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as modules

    body = modules.Transformer(str(plain), max_seq_length=40)
    pooling = modules.Pooling(32, pooling_mode=mode)
    model = SentenceTransformer(modules=[body, pooling, modules.Normalize()], device="cpu")
    model.save(str(folder), create_model_card=False)


def cross_encoder(folder: Path) -> None:
    """One label: how well a text answers another."""
    _bert(tf.BertForSequenceClassification, folder, num_labels=1)


def causal_reranker(folder: Path) -> None:
    """A language model with the words ``yes`` and ``no``, as Qwen3-Reranker is."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = byte_level(specials, 420, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=512)
    tokenizer.add_tokens(["yes", "no"])
    config = tf.Qwen3Config(vocab_size=len(tokenizer), head_dim=16, **{**_LLAMA, "max_position_embeddings": 512})
    _save(folder, tf.Qwen3ForCausalLM(config), tokenizer)


def classifier(folder: Path) -> None:
    """Three labels that exclude each other."""
    _bert(tf.BertForSequenceClassification, folder, **_labels("bad", "fair", "good"))


def multi_label_classifier(folder: Path) -> None:
    """Three labels that don't."""
    _bert(
        tf.BertForSequenceClassification,
        folder,
        problem_type="multi_label_classification",
        **_labels("rude", "loud", "odd"),
    )


def inference_bart(folder: Path) -> None:
    """Whether a sentence follows from another: BART."""
    tokenizer = bart_pieces()
    config = tf.BartConfig(
        vocab_size=len(tokenizer),
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        **_SEQ2SEQ,
        **_labels("contradiction", "neutral", "entailment"),
    )
    _save(folder, tf.BartForSequenceClassification(config), tokenizer)


def inference_deberta(folder: Path) -> None:
    """Whether a sentence follows from another: DeBERTa."""
    tokenizer = word_pieces()
    config = tf.DebertaV2Config(
        vocab_size=len(tokenizer),
        **_BERT,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
        type_vocab_size=0,
        **_labels("contradiction", "neutral", "entailment"),
    )
    _save(folder, tf.DebertaV2ForSequenceClassification(config), tokenizer)


def token_classifier(folder: Path) -> None:
    """Persons and places, with word pieces."""
    _bert(tf.BertForTokenClassification, folder, **_labels("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))


def byte_token_classifier(folder: Path) -> None:
    """The same with byte-level tokens, of which some are a part of a character."""
    tokenizer = bart_pieces()
    config = tf.RobertaConfig(
        vocab_size=len(tokenizer),
        **{**_BERT, "max_position_embeddings": 66},
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        **_labels("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
    )
    _save(folder, tf.RobertaForTokenClassification(config), tokenizer)


def question_answerer(folder: Path) -> None:
    """Begins and ends of answers."""
    _bert(tf.BertForQuestionAnswering, folder)


def masked(folder: Path) -> None:
    """Words for ``[MASK]``."""
    _bert(tf.BertForMaskedLM, folder)


# ---------------------------------------------------------------------------------------------------- writers
def t5(folder: Path) -> None:
    """Translation and summaries, by the words in front."""
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -2.0), *_unigram_vocabulary()]
    tokenizer = tf.T5Tokenizer(vocab=vocabulary, extra_ids=2)
    config = tf.T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        initializer_factor=20.0,
    )
    _save(folder, tf.T5ForConditionalGeneration(config), tokenizer)


def marian(folder: Path) -> None:
    """From English to ``de`` or ``fr``."""
    folder.mkdir(parents=True)
    pieces = _sentence_pieces(folder / "source.spm")
    _sentence_pieces(folder / "target.spm")
    plain = [piece for piece in pieces if piece not in ("<s>", "</s>", "<unk>")]
    vocabulary = ["</s>", "<unk>", *plain, ">>de<<", ">>fr<<", "<pad>"]
    _json(folder / "vocab.json", {piece: at for at, piece in enumerate(vocabulary)})
    tokenizer = tf.MarianTokenizer(
        str(folder / "source.spm"),
        str(folder / "target.spm"),
        str(folder / "vocab.json"),
        source_lang="en",
        target_lang="de",
    )
    pad = tokenizer.pad_token_id
    config = tf.MarianConfig(
        vocab_size=len(vocabulary),
        **_SEQ2SEQ,
        pad_token_id=pad,
        eos_token_id=0,
        decoder_start_token_id=pad,
        forced_eos_token_id=0,
    )
    _save(folder, tf.MarianMTModel(config), tokenizer)


def nllb(folder: Path) -> None:
    """English, German and French, by codes such as ``deu_Latn``."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trained.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=200, special_tokens=specials, show_progress=False)
    )
    said = json.loads(trained.to_str())["model"]
    tokenizer = tf.NllbTokenizer(
        vocab=said["vocab"],
        merges=[tuple(pair) for pair in said["merges"]],
        src_lang="eng_Latn",
        tgt_lang="deu_Latn",
        additional_special_tokens=["eng_Latn", "deu_Latn", "fra_Latn"],
    )
    config = tf.M2M100Config(
        vocab_size=len(tokenizer),
        **_SEQ2SEQ,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
    )
    _save(folder, tf.M2M100ForConditionalGeneration(config), tokenizer)


def bart(folder: Path) -> None:
    """Summaries."""
    tokenizer = bart_pieces()
    config = tf.BartConfig(
        vocab_size=len(tokenizer),
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
        **_SEQ2SEQ,
    )
    _save(folder, tf.BartForConditionalGeneration(config), tokenizer)


# ---------------------------------------------------------------------------------------------------- language models
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def gpt2(folder: Path) -> None:
    """A language model of the old kind: positions are learned, 128 of them."""
    end = "<|endoftext|>"
    tokenizer = byte_level([end], eos_token=end, bos_token=end, pad_token=end)
    config = tf.GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=128, bos_token_id=0, eos_token_id=0
    )
    _save(folder, tf.GPT2LMHeadModel(config), tokenizer)


def llama_chat(folder: Path) -> None:
    """A chat model with a ChatML template."""
    tokenizer = byte_level(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        eos_token="<|im_end|>",
        bos_token="<|im_start|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.chat_template = CHATML
    config = tf.LlamaConfig(vocab_size=len(tokenizer), **_LLAMA, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    _save(folder, tf.LlamaForCausalLM(config), tokenizer)


def code_fim(folder: Path) -> None:
    """A model of code with the marks for filling in the middle, as StarCoder 2 has."""
    specials = ["<|endoftext|>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<file_sep>"]
    tokenizer = byte_level(specials, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    config = tf.Starcoder2Config(vocab_size=len(tokenizer), **_LLAMA, bos_token_id=0, eos_token_id=0)
    _save(folder, tf.Starcoder2ForCausalLM(config), tokenizer)


# ---------------------------------------------------------------------------------------------------- adapters
_ADAPTED = ("q_proj", "v_proj", "down_proj", "c_attn")


def lora(
    folder: Path,
    base: Path,
    seed: int,
    *,
    rank: int = 4,
    alpha: float = 16,
    rename: Callable[[str], str] = str,
    **config: Any,
) -> Path:
    """A LoRA adapter of random matrices for the model in ``base``, in PEFT's layout."""
    noise = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, layer in tf.AutoModelForCausalLM.from_pretrained(base).named_modules():
        if name.endswith(_ADAPTED):
            out, wide = (layer.nf, layer.nx) if hasattr(layer, "nf") else layer.weight.shape
            key = rename(f"base_model.model.{name}")
            tensors[f"{key}.lora_A.weight"] = torch.randn(rank, wide, generator=noise) * 0.3
            tensors[f"{key}.lora_B.weight"] = torch.randn(out, rank, generator=noise) * 0.3
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    said = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": list(_ADAPTED),
        "bias": "none",
        "base_model_name_or_path": "/nowhere/at/all",
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


# ---------------------------------------------------------------------------------------------------- saving
def _save(folder: Path, model: Any, tokenizer: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _modules(folder: Path, behind: dict[str, str], first: str = "") -> None:
    listed = {first: "Transformer", **behind}
    _json(
        folder / "modules.json",
        [
            {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for at, (path, kind) in enumerate(listed.items())
        ],
    )


def build(recipe: Callable[[Path], None], folder: Path) -> Path:
    """The model of a recipe in ``folder``."""
    torch.manual_seed(0)
    tf.utils.logging.set_verbosity_error()
    tf.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sacremoses, which Marian's tokenizer recommends
        recipe(folder)
    return folder
