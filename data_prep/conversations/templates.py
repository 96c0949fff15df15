"""How a conversation becomes one text, and which parts of it are learnt."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from data_prep.conversations.turns import Conversation
from gptdist.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """A piece of the text."""

    text: str
    is_learnt: bool = False
    is_markup: bool = False
    """Whether it is one special token of the template, which a tokenizer may have an id for."""


@dataclass(frozen=True)
class ChatTemplate:
    """What stands around the turns. Each of ``specials`` in it is one token where the tokenizer has such a one."""

    opening: str
    """Before a turn; ``{role}`` and ``{Role}`` are its role."""

    closing: str
    """Behind a turn; learnt with the assistant's."""

    between: str = ""
    """Behind that, never learnt."""

    begin: str = ""
    specials: tuple[str, ...] = ()
    closes_last: bool = True
    """Whether the last turn has a closing; else end-of-document alone says that it is over."""

    marks_pairs: bool = True
    """Whether prompts and completions are marked as turns of user and assistant; else they are joined as they are."""


TEMPLATES: Mapping[str, ChatTemplate] = MappingProxyType(
    {
        "plain": ChatTemplate("{Role}:\n", "\n\n", closes_last=False, marks_pairs=False),
        "chatml": ChatTemplate("<|im_start|>{role}\n", "<|im_end|>", "\n", specials=("<|im_start|>", "<|im_end|>")),
        "llama3": ChatTemplate(
            "<|start_header_id|>{role}<|end_header_id|>\n\n",
            "<|eot_id|>",
            begin="<|begin_of_text|>",
            specials=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ),
    }
)


def template_named(name: str) -> ChatTemplate:
    """Return a template.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in TEMPLATES:
        raise ConfigError([f"--chat-template: '{name}' is not known; use {', '.join(TEMPLATES)}"])
    return TEMPLATES[name]


def laid_out(conversation: Conversation, template: ChatTemplate) -> list[Part]:
    """Return the text of a conversation in parts, neighbours of one kind joined; end-of-document is not among them."""
    is_marked = conversation.is_chat or template.marks_pairs
    parts = _marked(conversation, template) if is_marked else _joined(conversation)
    found: list[Part] = []
    for part in parts:
        last = found[-1] if found else None
        if not part.text:
            continue
        if last is not None and not (part.is_markup or last.is_markup) and part.is_learnt == last.is_learnt:
            found[-1] = Part(last.text + part.text, part.is_learnt)
        else:
            found.append(part)
    return found


def _joined(conversation: Conversation) -> Iterator[Part]:
    return (Part(turn.content, turn.is_learnt) for turn in conversation.turns)


def _marked(conversation: Conversation, template: ChatTemplate) -> Iterator[Part]:
    yield from _markup(template.begin, template, is_learnt=False)
    last = len(conversation.turns) - 1
    for index, turn in enumerate(conversation.turns):
        opening = template.opening.format(role=turn.role, Role=turn.role.capitalize())
        yield from _markup(opening, template, is_learnt=False)
        yield Part(turn.content, turn.is_learnt)
        if index < last or template.closes_last:
            yield from _markup(template.closing, template, is_learnt=turn.is_learnt)
            yield Part(template.between)


def _markup(text: str, template: ChatTemplate, *, is_learnt: bool) -> Iterator[Part]:
    """Cut a template's own text at its special tokens."""
    while text:
        places = [(text.find(special), special) for special in template.specials if special in text]
        at, special = min(places, default=(len(text), ""))
        yield Part(text[:at], is_learnt)
        if special:
            yield Part(special, is_learnt, is_markup=True)
        text = text[at + len(special) :]
