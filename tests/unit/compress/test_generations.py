"""Texts of a model: the same from the same seed, and counted as their detectors say."""

from pathlib import Path

import pytest
import torch

from gptdist.cli.detectors import personal_data, unsuitable_words
from gptdist.compress.generate import TextModel, read_prompt
from gptdist.compress.generations import Findings, Generation, count_findings, sample_generations
from gptdist.compress.hf_model import build_huggingface_model
from gptdist.compress.hf_tokenizer import huggingface_tokenizer
from gptdist.compress.sampling import SamplingOptions
from gptdist.errors import ConfigError, DataError
from gptdist.tokenizer.byte import ByteTokenizer
from tests.unit.compress.small_models import llama
from tests.unit.compress.test_generate import continuation


@pytest.fixture(scope="module")
def text_model() -> TextModel:
    model = llama()
    network = build_huggingface_model(model.config, model, eod_id=256)
    return TextModel(network, huggingface_tokenizer(ByteTokenizer(), model.config.seq_length))


def test_the_same_seed_writes_the_same_and_leaves_the_random_state(text_model: TextModel) -> None:
    options = SamplingOptions(max_new_tokens=6, num_samples=3, seed=4)
    state = torch.get_rng_state()
    first = sample_generations(text_model, options, ["def ", ""])
    assert torch.equal(torch.get_rng_state(), state)
    assert sample_generations(text_model, options, ["def "]) == first[:3]
    assert [(one.prompt, one.sample) for one in first] == [(text, i) for text in ("def ", "") for i in range(3)]
    assert len({one.ids for one in first[:3]}) > 1
    other = SamplingOptions(max_new_tokens=6, num_samples=3, seed=5)
    assert sample_generations(text_model, other, ["def "]) != first[:3]


def test_greedy_is_what_generate_writes(text_model: TextModel) -> None:
    options = SamplingOptions(is_greedy=True, max_new_tokens=8)
    (found,) = sample_generations(text_model, options, ["def "])
    assert found.text == continuation(text_model, read_prompt(text_model, "def "), options)
    assert found.is_cut == (len(found.ids) == 8)


def test_a_text_ends_with_its_document(text_model: TextModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(rows: torch.Tensor, **_: object) -> torch.Tensor:
        return torch.cat([rows, torch.tensor([[*b"ab", 256, 256], [*b"abcd"]])], dim=1)

    monkeypatch.setattr(text_model.model, "generate", generate)
    ended, cut = sample_generations(text_model, SamplingOptions(num_samples=2, max_new_tokens=4))
    assert (ended.text, ended.ids, ended.is_cut) == ("ab", tuple(b"ab"), False)
    assert (cut.text, cut.is_cut) == ("abcd", True)


def test_findings_are_counted(tmp_path: Path) -> None:
    texts = ["write to jo@example-mail.com or 4111 1111 1111 1111", "Shit, bullshit. Shitake.", "piss -- off!"]
    made = [Generation("", i, text, tuple(range(100)), is_cut=True) for i, text in enumerate(texts)]
    found = count_findings(made, [personal_data(), unsuitable_words()])
    assert (found.generations, found.tokens) == (3, 300)
    assert {kind: count for kind, count in found.counts.items() if count} == {
        "email": 1,
        "card_number": 1,
        "unsuitable_words": 3,
    }
    assert found.tree()["per_1000_tokens"]["unsuitable_words"] == 10.0
    assert found.counts["phone_number"] == 0, "what was looked for and not there is told"
    (tmp_path / "words").write_text("write to\n")
    assert count_findings(made, [unsuitable_words([tmp_path / "words"])]).counts == {"unsuitable_words": 1}
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(DataError, match="empty: has no word"):
        unsuitable_words([tmp_path / "empty"])
    assert Findings(0, 0, {}).per_thousand_tokens("email") == 0.0


def test_bad_options_are_refused(text_model: TextModel) -> None:
    with pytest.raises(ConfigError, match="prompts: there are none; give at least one") as caught:
        sample_generations(text_model, SamplingOptions(max_new_tokens=0), [])
    assert len(caught.value.problems) == 2
