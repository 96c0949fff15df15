"""A checkpoint as lm-evaluation-harness wants a model: likelihoods of texts, and texts to the end of something."""

from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from gptdist.data.batches import Batch
from gptdist.errors import ConfigError
from gptdist.mesh.groups import Mesh
from gptdist.model.gpt import LanguageModel
from gptdist.tokenizer.tokenizer import Tokenizer
from gptdist.train.generate import NextToken, write_on

DEFAULT_NEW_TOKENS = 256
"""Tokens of a text whose task does not say how many."""


class HarnessModel(TemplateLM):
    """A trained model in one process.

    How contexts and continuations are cut into tokens is the harness's own (``TemplateLM``): both are encoded together,
    so that a token may not reach across their border unseen.
    """

    def __init__(
        self, model: LanguageModel, mesh: Mesh, tokenizer: Tokenizer, seq_length: int, batch_size: int
    ) -> None:
        """Evaluate ``model``, which knows ``seq_length`` positions, on ``batch_size`` texts at a time."""
        super().__init__()
        self._model, self._mesh, self._texts = model, mesh, tokenizer
        self._seq_length, self._batch_size = seq_length, batch_size
        self._where = next(model.parameters()).device

    @property
    def eot_token_id(self) -> int:
        """The id that ends a document, and so begins the next."""
        return self._texts.eod_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return the ids of ``string``; nothing is added."""
        ids: list[int] = self._texts.encode_batch([string])[0].tolist()
        return ids

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Return log p(continuation | context) and whether each of its tokens is the likeliest."""
        rows = [(context + continuation)[-self._seq_length - 1 :] for _, context, continuation in requests]
        counts = [
            min(len(continuation), len(row) - 1) for (_, _, continuation), row in zip(requests, rows, strict=True)
        ]
        found: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
        by_length = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        for first in range(0, len(by_length), self._batch_size):
            chunk = by_length[first : first + self._batch_size]
            for index, scores in zip(chunk, self._scores([rows[index] for index in chunk]), strict=True):
                row, count = torch.tensor(rows[index][1:]), counts[index]
                if not count:
                    continue
                ends = slice(len(row) - count, len(row))
                logs = scores[ends].log_softmax(dim=-1)
                picked = logs.gather(1, row[ends].unsqueeze(1)).sum()
                found[index] = float(picked), bool((logs.argmax(dim=-1) == row[ends]).all())
        return found

    def _scores(self, rows: Sequence[list[int]]) -> Tensor:
        """Return logits [b, s, v] of what follows each token of ``rows`` but the last."""
        length = max(map(len, rows)) - 1
        tokens = torch.tensor([row[:-1] + [0] * (length + 1 - len(row)) for row in rows], device=self._where)
        batch = Batch(tokens, tokens, tokens)  # what pads on the right is never attended to
        with torch.no_grad():
            logits: Tensor = self._model(batch.tokens, batch.positions(), None)
        return logits.float().cpu()

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Return log p of whole texts: every token once, in windows that each begin with the last token before."""
        found = []
        for request in requests:
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._seq_length,
                context_len=1,
            )
            pairs = [(("", ""), *make_disjoint_window(window)) for window in windows]
            found.append(sum(score for score, _ in self._loglikelihood_tokens(pairs)))
        return found

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return what the model writes, likeliest token by likeliest token, up to the first stop text."""
        model = NextToken(self._model, self._model.output_layer, self._mesh, self._where, None)
        return [self._write(model, *request.args) for request in requests]

    def _write(self, model: NextToken, context: str, settings: dict[str, Any]) -> str:
        if settings.get("do_sample"):
            raise ConfigError(["--tasks: a task asks for do_sample; texts are written without sampling, take it out"])
        stops = settings.get("until") or []
        stops = [stop for stop in ([stops] if isinstance(stops, str) else stops) if stop]
        most = int(settings.get("max_gen_toks", DEFAULT_NEW_TOKENS))
        most = max(1, min(most, self._seq_length - 1))
        prompt = (self.tok_encode(context) or [self.eot_token_id])[-(self._seq_length - most) :]
        before = len(self._texts.decode(prompt))

        def text_of(ids: list[int]) -> str:
            return self._texts.decode([*prompt, *ids])[before:]

        (ids,) = write_on(
            model,
            [prompt],
            lambda _, logits: int(logits.argmax()),
            lambda _, ids: ids[-1] == self.eot_token_id or any(stop in text_of(ids) for stop in stops),
            max_new_tokens=most,
            seq_length=self._seq_length,
        )
        text = text_of(ids)
        for stop in stops:
            text = text.split(stop)[0]
        return text
