"""Which tokens of the training data count in the loss."""

from gptdist.config.section import Section


class LossMaskConfig(Section):
    """Tokens that are read but not learnt. The loss is the mean over the tokens that count, in a whole global batch."""

    ignore_tokens: tuple[int | str, ...] = ()
    """Ids, or special tokens as the tokenizer spells them, that no prediction of counts."""

    ignore_document_starts: bool = False
    """Whether the first token of a document does not count: the one before it ends another, and tells nothing of it."""

    @property
    def is_empty(self) -> bool:
        """Whether every token counts."""
        return not self.ignore_tokens and not self.ignore_document_starts

    def problems(self, vocab_size: int) -> list[str]:
        """Return every value out of its range for a model of ``vocab_size``."""
        bad = [
            f"data.loss_mask.ignore_tokens: ids are from 0 to model.vocab_size - 1 ({vocab_size - 1}), got {token}"
            for token in self.ignore_tokens
            if isinstance(token, int) and not 0 <= token < vocab_size
        ]
        bad += [
            f"data.loss_mask.ignore_tokens: '{token}' is listed twice; remove one"
            for token in dict.fromkeys(self.ignore_tokens)
            if self.ignore_tokens.count(token) > 1
        ]
        return bad
