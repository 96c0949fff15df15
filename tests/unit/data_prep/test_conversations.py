"""Conversations become packed samples, and which tokens are learnt is known of each token."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.conversations.dataset import ConversationOptions, prepare_conversations
from data_prep.conversations.encoded import encode
from data_prep.conversations.templates import template_named
from data_prep.conversations.turns import Conversation, Turn, read_conversations
from gptdist.compress.bundle.held_out import held_out_windows
from gptdist.config.run import RunConfig
from gptdist.data.batches import Batch, cut_rows
from gptdist.data.dataset import TokenDataset
from gptdist.data.rules import LossMask, SampleRules
from gptdist.data.sources import TrainingData, validation_sources
from gptdist.data.trace import trace_samples
from gptdist.data.verify import verify_dataset
from gptdist.errors import ConfigError, DataError
from gptdist.tokenizer.byte import ByteTokenizer
from gptdist.tokenizer.tokenizer import Tokenizer, load_tokenizer
from tests.support.datasets import run_tree

BYTES = ByteTokenizer()
END = BYTES.eod_id
CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "Ciao"},
]


def conversation(line: object, folder: Path) -> Conversation:
    path = folder / "one.jsonl"
    path.write_text(json.dumps(line) + "\n")
    return read_conversations([path])[0]


def shown(line: object, template: str, folder: Path, tokenizer: Tokenizer = BYTES) -> str:
    """Return the text with what is learnt in brackets, and ``¶`` for end-of-document."""
    (one,) = encode([conversation(line, folder)], template_named(template), tokenizer)
    pieces, was_learnt = [], False
    for token, is_learnt in zip(one.tokens.tolist(), one.is_learnt.tolist(), strict=True):
        pieces.append({(False, True): "[", (True, False): "]"}.get((was_learnt, is_learnt), ""))
        pieces.append("¶" if token == tokenizer.eod_id else tokenizer.decode([token]))
        was_learnt = is_learnt
    return "".join(pieces) + ("]" if was_learnt else "")


@pytest.mark.parametrize(
    ("line", "template", "expected"),
    [
        ({"prompt": "2+2=", "completion": "4", "id": 7}, "plain", "2+2=[4¶]"),
        ({"prompt": "", "completion": "abc"}, "plain", "a[bc¶]"),
        (
            {"messages": CHAT},
            "plain",
            "System:\nBe kind.\n\nUser:\nHi\n\nAssistant:\n[Hello\n\n]User:\nBye\n\nAssistant:\n[Ciao¶]",
        ),
        (
            {"prompt": "2+2=", "completion": "4"},
            "chatml",
            "<|im_start|>user\n2+2=<|im_end|>\n<|im_start|>assistant\n[4<|im_end|>]\n[¶]",
        ),
        ({"messages": CHAT[1:4]}, "plain", "User:\nHi\n\nAssistant:\n[Hello\n\n]User:\nBye¶"),
        (
            {"messages": CHAT[1:3]},
            "llama3",
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n[Hello<|eot_id|>¶]",
        ),
    ],
)
def test_what_is_learnt_token_for_token(line: object, template: str, expected: str, tmp_path: Path) -> None:
    assert shown(line, template, tmp_path) == expected


def small_bpe(folder: Path, specials: list[str], end: str) -> Tokenizer:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(["user assistant Hello Hi im start end"] * 4, trainer)
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder, eod_token=end)


def test_special_tokens_of_a_template_are_single_ids_and_those_in_texts_are_text(tmp_path: Path) -> None:
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = small_bpe(tmp_path / "bpe", specials, "<|endoftext|>")
    line = {"messages": [{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "Hi"}]}
    (one,) = encode([conversation(line, tmp_path)], template_named("chatml"), tokenizer)
    assert np.count_nonzero(one.tokens == 1) == 2
    assert np.count_nonzero(one.tokens == 2) == 2, "of the four, the user's is text"
    assert one.tokens[one.is_learnt].tolist() == [*tokenizer.encode_batch(["Hi"])[0], 2, 0]
    other = small_bpe(tmp_path / "other", specials, "<|im_end|>")
    with pytest.raises(DataError, match=r"puts '<\|im_end\|>' within conversations, and the tokenizer ends documents"):
        encode([conversation(line, tmp_path)], template_named("chatml"), other)


def test_every_bad_line_is_named_at_once(tmp_path: Path) -> None:
    lines = [
        b"{",
        b"[1]",
        b'{"text": "a"}',
        b'{"prompt": "a"}',
        b'{"prompt": "a", "completion": ""}',
        b'{"prompt": 1, "completion": "a"}',
        b'{"messages": []}',
        b'{"messages": [{"role": "user", "content": "a"}]}',
        b'{"messages": [{"role": "robot", "content": "a"}, {"role": "assistant", "content": ""}]}',
        b'{"messages": [{"role": "assistant", "content": null}, 3]}',
        b'{"prompt": "\\ud800", "completion": "a"}',
        b"",
        b'{"prompt": "a", "completion": "b"}',
    ]
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ConfigError, match=r"bad.jsonl:1: not JSON") as raised:
        read_conversations([path])
    found = [problem.removeprefix(f"{path}:") for problem in raised.value.problems]
    expected = [
        "1: not JSON",
        "2: neither a prompt with a completion nor messages, or both; write",
        "3: neither a prompt with a completion nor messages",
        "4: no completion; add one",
        "5: the completion is empty, so there is nothing to learn",
        "6: prompt is 1, no text; write a string",
        "7: messages is [], no list of messages",
        "8: no message of the assistant",
        "9: messages[0].role is 'robot'; use system, user, assistant",
        "9: messages[1].content is empty",
        "10: messages[0].content is None, no text",
        "10: messages[1].role is None",
        "10: messages[1].content is None",
        "11: not JSON",
    ]
    assert len(found) == len(expected), found
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start), line
    path.write_bytes(b'{"prompt": "a"}\n' * 50)
    with pytest.raises(ConfigError, match="and 30 problems more in other lines") as raised:
        read_conversations([path])
    assert len(raised.value.problems) == 21
    path.write_bytes(b"\n")
    with pytest.raises(DataError, match=r"bad.jsonl: no conversation in it; write one"):
        read_conversations([path])


def write_pairs(path: Path, count: int = 40) -> Path:
    """Write prompts and completions of differing lengths, none equal to another."""
    with path.open("w") as file:
        for index in range(count):
            record = {"prompt": "p" * (1 + index % 7) + f"{index}:", "completion": "c" * (1 + index % 11)}
            file.write(json.dumps(record) + "\n")
    return path


def learnt_text(dataset: TokenDataset, start: int, count: int) -> str:
    row = dataset.read_sample(start, count)
    return "".join(chr(token) if token >= 0 and token != END else "" for token in row.tolist())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conversations")
    options = ConversationOptions(seq_length=32, validation_fraction=0.2)
    prepared = prepare_conversations([write_pairs(folder / "pairs.jsonl")], folder / "data/pairs", BYTES, options)
    assert prepared.is_new
    assert not prepare_conversations([folder / "pairs.jsonl"], folder / "data/pairs", BYTES, options).is_new
    (folder / "data/tokenizer").mkdir()
    BYTES.save(folder / "data/tokenizer")
    return folder


def pairs_config(folder: Path) -> RunConfig:
    data = {"sources": [{"path": str(folder / "data/pairs")}], "separate_documents": True, "eval_samples": 0}
    return RunConfig.from_tree(run_tree(folder, data=data, batch={"global_batch_size": 4}))


def test_conversations_are_whole_in_samples_and_every_one_is_in_one(folder: Path) -> None:
    assert verify_dataset(folder / "data/pairs") == []
    lines = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    expected = {line["prompt"] + line["completion"]: line["completion"] for line in lines}
    seen = {}
    for split in ("train", "validation"):
        dataset = TokenDataset(folder / "data/pairs", split)
        samples = dataset.manifest.packing[split]["samples"]
        assert samples == (dataset.num_tokens - 1) // 32, "each sample is one that training takes"
        for sample in range(samples):
            for span in dataset.documents_in(32 * sample, 32):
                text = BYTES.decode(dataset.read(span.first_token, span.last_token + 1 - span.first_token).tolist())
                end = min(span.last_token + 1, 32 * (sample + 1))
                assert span.first_token >= 32 * sample, "a conversation begins in the sample before"
                seen[text] = learnt_text(dataset, span.first_token, end - span.first_token)
    assert seen == expected


def test_labels_are_completions_and_ends_alone_and_prompts_change_no_label(folder: Path) -> None:
    config = pairs_config(folder)
    data = TrainingData(config)
    assert data.has_masks
    rules = SampleRules.of(config.data, BYTES)
    rows = data.rows(0, data.order.windows[0])
    batch = Batch.of(rows, torch.device("cpu"), rules)
    plain = np.stack([data.datasets[0].read(data.order.address(one).first_token, 33) for one in range(len(rows))])
    assert batch.tokens.tolist() == plain[:, :-1].tolist(), "marks are no part of what is read"
    counted = batch.labels[batch.labels >= 0]
    assert set(counted.tolist()) == {ord("c"), END}
    splits = data.datasets[0].manifest.packing
    assert len(counted) == splits["train"]["learnt_tokens"] == LossMask().num_counted(np.stack(rows))
    assert torch.equal(batch.labels >= 0, torch.from_numpy(np.stack(rows)[:, 1:] >= 0))
    pieces = Batch.of(cut_rows(rows, 8), torch.device("cpu"), rules)
    assert torch.equal(pieces.labels.view(batch.labels.shape), batch.labels)
    only_ends = LossMask(ignored=(ord("c"),), document_end=END).labels(np.stack(rows))
    assert set(only_ends[only_ends >= 0].tolist()) == {END}
    traced = [part for one in trace_samples(data, range(len(rows))) for part in one.documents]
    whole = [part for part in traced if part.begin < 32]  # the last token of a row is the next sample's first
    assert sum(part.learnt_tokens or 0 for part in whole) == splits["train"]["learnt_tokens"]
    (source,) = validation_sources(config)
    (held_out,) = held_out_windows({}, [folder / "data/pairs"], BYTES, seq_length=32)
    assert held_out.ids.min() >= 0, "a bundle's windows are plain ids"
    found = Batch.of(source.rows(0, len(source.first_tokens)), torch.device("cpu"), rules).labels
    assert int((found >= 0).sum()) == splits["validation"]["learnt_tokens"]


def test_damage_of_a_mask_is_named(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "pairs"
    shutil.copytree(folder / "data/pairs", copy)
    mask = copy / "train-00000.mask"
    content = mask.read_bytes()
    mask.write_bytes(b"\x02" + content[1:])
    assert "train-00000.mask: SHA-256" in verify_dataset(copy)[0]
    manifest = json.loads((copy / "manifest.json").read_text())
    import hashlib

    manifest["splits"]["train"]["shards"][0]["mask_sha256"] = hashlib.sha256(mask.read_bytes()).hexdigest()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "train-00000.mask: byte 0 is neither 0 nor 1" in verify_dataset(copy)[0]
    mask.write_bytes(content[1:])
    with pytest.raises(DataError, match=r"train-00000.mask: \d+ bytes for \d+ tokens; prepare the data again"):
        TokenDataset(copy, "train")
    mask.unlink()
    with pytest.raises(DataError, match=r"train-00000.mask: cannot be read"):
        TokenDataset(copy, "train")


def test_a_mask_is_part_of_what_data_is_known_by(folder: Path) -> None:
    before = TokenDataset(folder / "data/pairs", "train").manifest
    tree = json.loads((folder / "data/pairs/manifest.json").read_text())
    tree["splits"]["train"]["shards"][0]["mask_sha256"] = "0" * 64
    assert before.fingerprint() != type(before)._from_tree(tree).fingerprint()
    tree["splits"]["train"]["shards"][0]["mask_sha256"] = "x"
    (folder / "wrong").mkdir()
    (folder / "wrong/manifest.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match="hash that is no SHA-256"):
        type(before).read(folder / "wrong")


def test_too_long_ones_are_refused_cut_or_dropped(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "pairs.jsonl")
    with path.open("a") as file:
        file.write(json.dumps({"prompt": "long:", "completion": "x" * 40}) + "\n")
        file.write(json.dumps({"prompt": "y" * 40, "completion": "z"}) + "\n")
    with pytest.raises(ConfigError, match=r"pairs.jsonl:41: 46 tokens for samples of 32; raise --seq-length, or say"):
        prepare_conversations([path], tmp_path / "a", BYTES, ConversationOptions(32))
    with pytest.raises(ConfigError, match=r"pairs.jsonl:42: 42 tokens .* nothing to learn within these; .* drop$"):
        prepare_conversations([path], tmp_path / "a", BYTES, ConversationOptions(32, too_long="cut"))
    dropped = prepare_conversations([path], tmp_path / "b", BYTES, ConversationOptions(32, too_long="drop"))
    assert (dropped.counts.dropped, dropped.counts.cut) == (2, 0)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    cut = prepare_conversations([path], tmp_path / "c", BYTES, ConversationOptions(32, too_long="cut"))
    assert (cut.counts.dropped, cut.counts.cut) == (0, 1)
    assert verify_dataset(tmp_path / "c") == []
    (long,) = [
        one for one in encode(read_conversations([path]), template_named("plain"), BYTES) if len(one.tokens) > 32
    ]
    assert (long.cut(32).tokens[-1], long.cut(32).is_learnt[-2:].tolist()) == (END, [True, False])


def test_options_and_outputs_that_cannot_be_are_refused(folder: Path, tmp_path: Path) -> None:
    bad = ConversationOptions(1, validation_fraction=1.0, too_long="keep")  # type: ignore[arg-type] - what is tested
    with pytest.raises(ConfigError, match="--seq-length: must be at least 2, got 1") as raised:
        prepare_conversations([tmp_path / "none.jsonl"], tmp_path / "a", BYTES, bad)
    assert [problem.partition(":")[0] for problem in raised.value.problems][1:3] == [
        "--validation-fraction",
        "--too-long",
    ]
    assert "none.jsonl: no such file" in raised.value.problems[3]
    pairs = folder / "pairs.jsonl"
    with pytest.raises(ConfigError, match="--chat-template: 'x' is not known; use plain, chatml, llama3"):
        prepare_conversations([pairs], tmp_path / "a", BYTES, ConversationOptions(32, "x"))
    with pytest.raises(ConfigError, match="pairs: holds what other files or options made; remove it"):
        prepare_conversations([pairs], folder / "data/pairs", BYTES, ConversationOptions(64))
    lonely = tmp_path / "lonely.jsonl"
    lonely.write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    with pytest.raises(DataError, match="1 different conversations, and one each for training and validation"):
        prepare_conversations([lonely], tmp_path / "a", BYTES, ConversationOptions(32))
    lonely.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n')
    for index, fraction in enumerate((1e-9, 1 - 1e-9)):
        found = prepare_conversations(
            [lonely], tmp_path / f"two{index}", BYTES, ConversationOptions(32, "plain", fraction)
        )
        assert [one.conversations for one in found.counts.splits.values()] == [1, 1]


def test_equal_turns_have_equal_digests() -> None:
    one = Conversation("a", 1, 0, (Turn("user", "x"), Turn("assistant", "y")), is_chat=True)
    other = Conversation("b", 9, 9, one.turns, is_chat=True)
    found = encode([one, other], template_named("plain"), BYTES)
    assert found[0].digest == found[1].digest
