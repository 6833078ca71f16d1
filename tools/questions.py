"""The three questions of a chapter, from book/questions.toml, as Markdown.

An answer is a fold that opens on whether it holds, and why. So a page needs no script, and a plain
notebook shows the same.
"""

from __future__ import annotations

import html
import tomllib
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parent.parent / "book" / "questions.toml"

ANSWER = """<details class="answer"><summary>{answer}</summary>

**{verdict}.** {reason}

</details>
"""


def read() -> dict[str, list[dict[str, Any]]]:
    """Questions by chapter."""
    return tomllib.loads(SOURCE.read_text(encoding="utf-8"))


def answers(question: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Answer, verdict and reason of each; the right one stands where its text happens to put it."""
    listed = [(answer, "No", reason) for answer, reason in question["wrong"]]
    place = len(question["asks"]) % (len(listed) + 1)
    answer, reason = question["right"]
    return [*listed[:place], (answer, "Yes", reason), *listed[place:]]


def page(chapter: str) -> str:
    """The section that a chapter includes."""
    parts = ["## Three questions\n", "Open the answer that you would give.\n"]
    for number, question in enumerate(read()[chapter], 1):
        parts.append(f"**{number}.** {question['asks']}\n")
        parts += [
            ANSWER.format(answer=html.escape(answer), verdict=verdict, reason=reason)
            for answer, verdict, reason in answers(question)
        ]
    return "\n".join(parts)
