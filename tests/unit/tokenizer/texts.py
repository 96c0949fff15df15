"""Texts that have told tokenizers apart."""

import random

HARD = [
    "def f(x):\n    if x > 0:\n\t\treturn [x ** 2 for _ in range(10)]\r\n\r\n        pass  \n",
    "Größe, façade, Žluťoučký kůň, Ελληνικά, Русский язык",
    "中文分词。日本語のテキスト、한국어 문장. العربية עברית हिन्दी ไทย",
    "\U0001f389\U0001f469\u200d\U0001f4bb\u2764\ufe0f x\u0301 \ufeff\u200b\u00a0\u3000 \x00\x01\x7f",
    " leading, trailing   ",
    "\n\n\n",
    "a\n",
    "\n a",
    "".join(" " * i + "x" + "-" * i + "=" * (2 * i) for i in range(70)),
    "<unk> <0x0A> <s> </s> <|pad|> [UNK]",
]
SPELLED_END = "a<|endoftext|>b"


def training_texts() -> list[str]:
    """Return some 200 kB of words, code-like lines and scripts, the same every time."""
    choose = random.Random(7)
    words = [
        "".join(choose.choice("abcdefghijklmnopqrstuvwxyzäöüß") for _ in range(choose.randint(1, 9)))
        for _ in range(400)
    ]
    lines = []
    for _ in range(3000):
        indent = " " * choose.choice((0, 0, 4, 8, 12))
        lines.append(indent + " ".join(choose.choices(words, k=choose.randint(1, 12))) + choose.choice((".", ":", "")))
    lines += ["=" * choose.randint(3, 60) for _ in range(60)] + ["-" * choose.randint(3, 60) for _ in range(60)]
    choose.shuffle(lines)
    return ["\n".join(lines[i : i + 40]) for i in range(0, len(lines), 40)] + HARD
