"""What an exported model scores on the windows that go with it: the figures that every smaller model is held against.

Every token of a window but the first is predicted from all before it; weights are as the folder has them, arithmetic is
in fp32. So anybody with the folder gets these figures again.

Letters: b batch, s sequence, v vocabulary.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows

from gptdist.compress.bundle.held_out import HeldOut
from gptdist.compress.trained_on import MAX_LOGIT_BYTES
from gptdist.train.evaluate import Evaluation, SourceEvaluation, perplexity

BASELINE_FILE = "baseline.json"
_PROTOCOL = "windows of held_out.safetensors; each token but a window's first is predicted from all before it; fp32"


def measure_baseline(model: Any, sources: Sequence[HeldOut]) -> Evaluation:
    """Return losses and bits per byte of a transformers ``model`` on every window of ``sources``.

    Sources without weight are measured and have no part in the whole.
    """
    found = tuple(_measure(model, source) for source in sources)
    mixed = [(source.weight, one) for source, one in zip(sources, found, strict=True) if source.weight]
    loss = sum(weight * one.loss for weight, one in mixed)
    bytes_per_token = sum(weight * one.text_bytes / one.tokens for weight, one in mixed)
    return Evaluation(found, loss, loss / math.log(2) / bytes_per_token)


def baseline_tree(found: Evaluation, sources: Sequence[HeldOut], *, validation_loss: float | None) -> dict[str, Any]:
    """Return the content of ``baseline.json``.

    Args:
        found: from ``measure_baseline``.
        sources: what it was measured on.
        validation_loss: of the training at that step, which may have masked tokens or kept documents apart.
    """
    return {
        "format": "gptdist-baseline",
        "format_version": 1,
        "protocol": _PROTOCOL,
        "units": {
            "loss": "nats a token",
            "bits_per_byte": "loss x tokens / ln 2 / UTF-8 bytes of the predicted tokens",
            "perplexity": "e^loss",
        },
        "loss": found.loss,
        "bits_per_byte": found.bits_per_byte,
        "perplexity": perplexity(found.loss),
        "sources": [
            {
                "name": source.name,
                "weight": source.weight,
                "windows": len(source.ids),
                "tokens": one.tokens,
                "text_bytes": one.text_bytes,
                "loss": one.loss,
                "bits_per_byte": one.bits_per_byte,
                "perplexity": one.perplexity,
            }
            for source, one in zip(sources, found.sources, strict=True)
        ],
        "validation_loss_of_training": validation_loss,
    }


def window_losses(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return the summed cross-entropy of each window, nats, fp64.

    Shapes: ids [b, s + 1] -> [b].
    """
    with torch.inference_mode():
        logits = model(ids[:, :-1], use_cache=False).logits
        nats = F.cross_entropy(logits.transpose(1, 2).float(), ids[:, 1:], reduction="none")
    return nats.double().sum(dim=1)


def _measure(model: Any, source: HeldOut) -> SourceEvaluation:
    length, vocabulary = source.ids.shape[1] - 1, int(model.config.vocab_size)
    at_once = max(1, MAX_LOGIT_BYTES // (4 * length * vocabulary))
    ids = torch.from_numpy(source.ids.astype("int64")).to(model.device)
    nats = sum(float(window_losses(model, part).sum()) for part in ids.split(at_once))
    text_bytes = int(source.text_bytes.sum())
    return SourceEvaluation(
        name=source.name,
        loss=nats / source.tokens,
        bits_per_byte=nats / math.log(2) / text_bytes,
        tokens=source.tokens,
        text_bytes=text_bytes,
    )
