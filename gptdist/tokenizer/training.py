"""Train a tokenizer on texts; the same texts in the same order give the same tokenizer."""

import io
from collections.abc import Iterable, Iterator

from gptdist.errors import TokenizerError
from gptdist.tokenizer.bpe import BpeTokenizer
from gptdist.tokenizer.folder import END_OF_DOCUMENT
from gptdist.tokenizer.sentencepiece_model import SentencePieceTokenizer
from gptdist.tokenizer.sentencepiece_proto import NEWLINE, UNIGRAM, parse_model, round_scores

MIN_BPE_VOCAB_SIZE = 257
"""256 bytes and end-of-document."""
MIN_SENTENCEPIECE_VOCAB_SIZE = 512
"""256 bytes, unknown, end-of-document and newline, and room for characters."""

_UNKNOWN_ID, _EOD_ID = 0, 1
_LONGEST_LINE_BYTES = 1 << 20
"""sentencepiece drops longer lines in silence (4,192 by default), so lines are cut to this."""
_TRAINING_THREADS = 4
"""Fixed: the sums of a unigram model's training depend on it, and must not on the machine."""
_SPELLED_CHARACTERS = "".join(sorted(set("<unk><0x0123456789ABCDEF>" + END_OF_DOCUMENT)))
"""Always in the vocabulary, so that a text that spells a control or byte piece is encoded by its characters."""


def train_bpe(texts: Iterable[str], vocab_size: int) -> BpeTokenizer:
    """Train byte-level BPE with GPT-2's regular expression between words.

    Raises:
        TokenizerError: ``vocab_size`` leaves no room for bytes.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    _check_vocab_size(vocab_size, MIN_BPE_VOCAB_SIZE, "bpe")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(iter(texts), trainer)
    return BpeTokenizer(str(tokenizer.to_str(pretty=True)), eod_token=END_OF_DOCUMENT)


def train_sentencepiece(texts: Iterable[str], vocab_size: int, model_type: str) -> SentencePieceTokenizer:
    """Train a sentencepiece model that keeps text as it is, with byte fallback and the newline as a piece.

    Args:
        texts: documents; lines are trained on one by one.
        vocab_size: the most pieces; a small sample may give fewer.
        model_type: ``"bpe"`` or ``"unigram"``.

    Raises:
        TokenizerError: ``vocab_size`` leaves no room for characters, or sentencepiece refuses the sample.
    """
    import sentencepiece

    _check_vocab_size(vocab_size, MIN_SENTENCEPIECE_VOCAB_SIZE, "sentencepiece")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts),
            model_writer=model,
            model_type=model_type,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            byte_fallback=True,
            required_chars=_SPELLED_CHARACTERS,
            user_defined_symbols=[NEWLINE],
            unk_id=_UNKNOWN_ID,
            eos_id=_EOD_ID,
            eos_piece=END_OF_DOCUMENT,
            bos_id=-1,
            pad_id=-1,
            max_sentence_length=2 * _LONGEST_LINE_BYTES,
            num_threads=_TRAINING_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise TokenizerError(
            f"tokenizer: sentencepiece cannot train vocab_size {vocab_size} ({reason}); give more text or change it"
        ) from None
    proto = parse_model(model.getvalue())
    if proto.trainer_spec.model_type == UNIGRAM:
        round_scores(proto)
    return SentencePieceTokenizer(proto.SerializeToString(deterministic=True), eod_token=END_OF_DOCUMENT)


def _check_vocab_size(vocab_size: int, least: int, kind: str) -> None:
    if vocab_size < least:
        raise TokenizerError(f"tokenizer.vocab_size: {vocab_size} is too small for kind {kind}; use {least} or more")


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Yield non-empty lines, long ones in parts."""
    part = _LONGEST_LINE_BYTES // 4
    for text in texts:
        for line in text.split(NEWLINE):
            yield from (line[start : start + part] for start in range(0, len(line), part))
