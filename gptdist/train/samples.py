"""Texts that the model writes while it trains.

They follow from the seed, the step, the prompt's number and the weights; no generator of the training is touched.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from gptdist.config.validation import GenerationConfig
from gptdist.model.gpt import OutputHead
from gptdist.model.parameters import derived_seed
from gptdist.train.generate import NextToken, pick, write_on
from gptdist.train.run import Run


def log_samples(run: Run, *, is_last: bool) -> None:
    """Continue every prompt, if the step is one of ``intervals.sample_steps`` or the last.

    Replicas do the same work: texts are few. Collective: every rank calls it.
    """
    sampler, state = run.sampler, run.state
    if sampler is None or (state.step % sampler.every_steps and not is_last):
        return
    generators = [
        torch.Generator().manual_seed(derived_seed(run.config.seed, "sample", state.step, number))
        for number in range(len(sampler.prompts))
    ]
    head = run.engine.module.get_submodule("output_layer")
    assert isinstance(head, OutputHead), "the model has a head of ours"
    model = NextToken(
        run.engine.deepspeed,
        head,
        run.mesh,
        run.device.torch_device,
        run.rules.document_end,
    )
    end = sampler.tokenizer.eod_id
    size, found = run.config.batch.micro_batch_size, []
    for first in range(0, len(sampler.prompts), size):
        prompts = sampler.prompts[first : first + size]
        texts = write_on(
            model,
            [prompt.ids for prompt in prompts],
            partial(_draw, sampler.options, generators[first : first + size]),
            lambda _, ids: ids[-1] == end,
            max_new_tokens=sampler.options.max_new_tokens,
            seq_length=run.config.model.seq_length,
        )
        found += [
            {
                "prompt": prompt.text,
                "text": sampler.text_after(prompt, ids),
                "tokens": len(ids),
                "is_ended": ids[-1] == end,
            }
            for prompt, ids in zip(prompts, texts, strict=True)
        ]
    if run.metrics is not None:
        run.metrics.log_samples(state.step, found)


def _draw(options: GenerationConfig, generators: Sequence[torch.Generator], index: int, logits: Tensor) -> int:
    return pick(logits, options, generators[index])
