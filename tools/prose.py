r"""Find numbers that somebody measured and then typed into the prose.

A typed number goes stale in silence. So prose takes its numbers from a cell (`{glue:text}`), and a
number of somebody else's stands in a sentence that cites them. What counts as measured:

- a percentage: 3.3 %, $3.3\,\%$, three percent (but not the level of an interval: 95 % interval);
- a number said of an error or an accuracy: an error of 3, an accuracy of 0.97;
- a speed: 900 images/s, 40 ms, 2.5 times faster.

A setting is not measured: write it as a fraction (0.6 of the image) or in a formula.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.front_matter import front_matter_plugin
from mdit_py_plugins.myst_blocks import myst_block_plugin
from mdit_py_plugins.myst_role import myst_role_plugin

_MYST = MarkdownIt("commonmark").enable("table").use(front_matter_plugin).use(myst_block_plugin)
_MYST.use(myst_role_plugin).use(colon_fence_plugin).use(amsmath_plugin)
_MYST.use(dollarmath_plugin, double_inline=True)

# Directives that hold no prose of ours. Plain code fences do not, either.
_VERBATIM = {
    *("bibliography", "code", "code-block", "code-cell", "eval-rst", "include", "literalinclude"),
    *("math", "raw", "tableofcontents", "toctree"),
}

# ---- what a measured number looks like ----

_NUMBER = r"(?<![\w.])\d(?:[\d,]*\d)?(?:\.\d+)?"
_DECIMAL = r"(?<![\w.])\d*\.\d+"
_WORD = (
    r"\b(?:half an?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen"
    r"|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|(?:a )?hundred)"
)
_PERCENT = re.compile(rf"(?:{_NUMBER}|{_WORD})[-\s]*(?:%|per\s?cent\b|percentage\spoint)", re.I)
_LEVEL = re.compile(r"9\d(?:\.\d)?\s*%\s*(?:\w+\s)?(?:interval|level|confidence|limit)", re.I)
_SCORE = re.compile(r"\b(?:errors?|accura\w+|misclassif\w+|mislocali[sz]\w+|mistakes?)\b", re.I)
_SCORE_VALUE = re.compile(
    # a decimal, unless it has a unit of length or time,
    rf"{_DECIMAL}(?!\d)(?!\s*(?:px|pixels?|seconds?|minutes?|hours?|of\sthe\s\w+)\b)"
    # or a whole number that ends its phrase, after a word such as "of"
    r"|\b(?:of|is|was|to|from|than|below|under|over|above|about|near|only|reach(?:es|ed)?)\s+"
    rf"{_NUMBER}(?=\s*(?:$|[,.;:!?)](?:\s|$)|(?:and|or|to|after|with|without|instead)\b))",
    re.I,
)
_SPEED = re.compile(
    rf"{_NUMBER}\s*(?:images?\s*(?:/|per)\s*s|ms\b|milliseconds?\b)"
    rf"|{_NUMBER}\s*(?:x|×|times)\s+(?:as\s+fast|faster|slower)",
    re.I,
)


def typed_numbers(sentence: str) -> list[str]:
    """The measured numbers typed into one sentence; none if the sentence cites a source."""
    if "{cite}" in sentence:
        return []
    plain = _LEVEL.sub("interval", sentence)
    found = [*_PERCENT.finditer(plain), *_SPEED.finditer(plain)]
    if _SCORE.search(plain):
        found += _SCORE_VALUE.finditer(_SPEED.sub(" ", _PERCENT.sub(" ", plain)))
    return [match.group().strip() for match in found]


# ---- where the prose is ----


def sentences(markdown: str, line: int = 1) -> Iterator[tuple[int, str]]:
    """The sentences of a MyST text, each with the line where its paragraph starts.

    A citation becomes `{cite}`. A glued number becomes the word "measured", a formula the word
    "formula" unless it is a mere number. Captions and alt texts count as prose; code does not.
    A row of a table is one sentence, with the head of the table before it.
    """
    head, row = None, None
    for token in _MYST.parse(markdown):
        start = line + (token.map[0] if token.map else 0)
        if token.type == "table_open":
            head = ""
        elif token.type == "tr_open":
            row = []
        elif token.type == "tr_close":
            yield start, f"{head}{' | '.join(row)}"
            head, row = head or f"{' | '.join(row)}: ", None
        elif token.type == "inline" and row is not None:
            row.append(_inline(token))
        elif token.type == "inline":
            yield from _split(_inline(token), start)
        elif directive := _directive(token, line):
            texts = [*_captions(directive.options)]
            if directive.name not in _VERBATIM:
                texts.append(directive.title)
                yield from sentences(directive.body, directive.body_line)
            yield from ((start, sentence) for text in texts for _, sentence in sentences(text))
        elif token.type in ("math_block", "math_block_label", "amsmath") and "%" in token.content:
            yield start, _formula(token.content)
        elif token.type == "html_block":
            bare = re.sub(r"<!--.*?-->|<[^>]*>", " ", token.content, flags=re.S)
            yield from _split(" ".join(bare.split()), start)


# The options of a directive: YAML between rules, or one :key: value a line.
_HEAD = re.compile(r"---\n.*?\n---\n|(?:[ \t]*:[\w-]+:[^\n]*\n?)+", re.S)


class Directive(NamedTuple):
    """A MyST directive, taken apart."""

    name: str
    title: str
    options: dict
    body: str
    body_line: int


def directives(markdown: str, line: int = 1) -> Iterator[Directive]:
    """Every directive of a text, code cells included, also those inside others."""
    for token in _MYST.parse(markdown):
        if directive := _directive(token, line):
            yield directive
            if directive.name not in _VERBATIM:
                yield from directives(directive.body, directive.body_line)


def _directive(token: Token, line: int) -> Directive | None:
    match = re.match(r"\{([\w:-]+)\}\s*(.*)", token.info.strip())
    if not match:
        return None
    head = _HEAD.match(token.content)
    skipped = head[0] if head else ""
    return Directive(
        name=match[1],
        title=match[2],
        options=_options(skipped),
        body=token.content[len(skipped) :],
        body_line=line + token.map[0] + 1 + skipped.count("\n"),
    )


def _options(head: str) -> dict:
    if head.startswith("---"):
        return yaml.safe_load(head.strip().strip("-")) or {}
    return dict(re.findall(r":([\w-]+):[ \t]*(.*)", head))


def _captions(options: dict) -> list[str]:
    """What a figure's options say to the reader."""
    found = []
    for key, value in options.items():
        if isinstance(value, dict):
            found += _captions(value)
        elif key in ("alt", "caption"):
            found.append(str(value))
    return found


def _inline(token: Token) -> str:
    """A paragraph as plain words."""
    words = []
    for child in token.children:
        if child.type == "text":
            words.append(child.content)
        elif child.type == "myst_role":
            name = child.meta["name"]
            if name.startswith("cite"):
                words.append("{cite}")
            elif name == "math":
                words.append(_formula(child.content))
            else:
                words.append("measured" if name.startswith("glue") else name)
        elif child.type in ("math_inline", "math_inline_double"):
            words.append(_formula(child.content))
        elif child.type == "code_inline":
            bare = child.content.strip()
            words.append(bare if re.fullmatch(rf"{_NUMBER}\s*%?", bare) else "code")
        elif child.type == "image":
            words.append(child.content)  # the alt text
        elif child.type in ("softbreak", "hardbreak"):
            words.append(" ")
    return "".join(words)


def _formula(latex: str) -> str:
    """A number, if the formula is no more than that or has a percentage; else the word formula."""
    plain = re.sub(r"\\(?:approx|sim|pm|text|mathrm|[,;:! ])|[{}~≈]", " ", latex)
    plain = re.sub(r"\s+", " ", plain.replace("\\%", "%")).strip(" =<>")
    return plain if "%" in plain or re.fullmatch(_NUMBER, plain) else "formula"


_ABBREVIATIONS = (
    r"(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bcf\.)(?<!\bvs\.)(?<!\bal\.)(?<!\bEq\.)(?<!\bFig\.)"
)
_SENTENCE_END = re.compile(rf"(?<=[.!?])[\"')*_]*{_ABBREVIATIONS}\s+(?=\S)")


def _split(paragraph: str, line: int) -> Iterator[tuple[int, str]]:
    for sentence in _SENTENCE_END.split(paragraph):
        if sentence.strip():
            yield line, " ".join(sentence.split())
