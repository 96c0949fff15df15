"""Texts on which two engines have to agree before one may stand for the other."""

CHECKED_TEXTS = (
    "",
    " ",
    "The quick brown fox can't jump; they'll see it's 1,234,567.89 times \u2018too\u2019.\n\n  if x:\n\t\tpass\r\n",
    "Größe, façade, Žluťoučký kůň; Ελληνικά κείμενα, Русский текст, український; Հայերեն, ქართული ენა",
    "中文分词没有空格。日本語のテキスト、カタカナ。한국어 문장입니다. ภาษาไทยไม่มีช่องว่าง",
    "العربية نصٌّ مُشكَّل ١٢٣؛ עברית; فارسی می‌نویسم; हिन्दी पाठ; বাংলা লেখা; தமிழ் உரை; አማርኛ ጽሑፍ",
    "\U0001f389\U0001f469\u200d\U0001f4bb\u2764\ufe0f x\u0301 e\u0301 \ufeff\u200b\u00a0\u3000\u2028\x85",
    "\x0b\x1c \x00\x01\x7f \ufffd \U0010ffff \ufdfa \u0345 \u1e9e \ufb01 \u1100\u1161\u11a8",
    "<|endoftext|> a<|endoftext|>b <s></s> <unk> [UNK] <|im_start|>user<|im_end|> <|begin_of_text|> <0x0A> <pad> <bos>",
    "    four\n\n\n\n  \t \t two   \n x  y   z \n" + " " * 70 + "x" + "\n" * 40 + "-" * 80 + "=" * 33,
    "0123456789 12 123 1234 12345 3.14 1e-9 ½ ² ⅷ \u3007 \u0663 x1y2z3 'S 'T 'RE 'Ve 'M 'LL 'D ''s \u017f \u212a",
    "\u0130stanbul \u0131SPARTA \u01c5 https://example.org/a_b?c=%20d&e=f#g user@example.org C:\\x\\y __init__ Camel",
    '{"k": [1, null]} $\\alpha^2$ don\'t stop  here\tit is\nA a\n b\r\n c',
    "Donaudampfschifffahrtsgesellschaftskapitän" * 12 + "ьъы" * 40 + "漢" * 120 + "ab" * 400,
)
"""Ten scripts, spelled special tokens, controls, runs of spaces and long words."""
