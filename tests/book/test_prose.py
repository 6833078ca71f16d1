"""The search for typed numbers: what it catches and what it lets pass."""

import pytest
from prose import directives, sentences, typed_numbers

CAUGHT = [
    "The model reaches 3.3 %.",
    "The model reaches 3.3% after an hour.",
    "It drops by $2.1\\,\\%$.",
    "It drops by $\\approx 2\\%$.",
    "It drops by {math}`2\\,\\%`.",
    "About three percent of the digits are lost.",
    "It is two percentage points better.",
    "Ten per cent are wrong.",
    "The error is `3 %`.",
    "The error is 3.",
    "The test error falls from 5 to 3 after training.",
    "An accuracy of 0.97 is not enough.",
    "The validation error reaches $0.03$.",
    "Accuracy: 0.97, as expected.",
    "The error of **0.031** is low.",
    "We process 900 images/s.",
    "We process 1,200 images per second.",
    "A step takes 40 ms.",
    "It is 2.5 times faster.",
    "- an item with 12 % of them",
    "| context | 1.8 % |\n| --- | --- |\n| none | 3.3 % |",
    "| row | error |\n| --- | --- |\n| ours | 0.033 |",
    "# A heading with 12 %",
    "```{note}\nThe error is 3.3 %.\n```",
    ":::{admonition} A title with 3 %\nText.\n:::",
    "```{figure} a.svg\n:alt: A curve that ends at 3 %.\n\nA caption.\n```",
    "```{figure} a.svg\n:alt: A curve.\n\nA caption with 3 %.\n```",
    "```{code-cell}\n---\nmystnb:\n  figure:\n    caption: It ends at 3 %.\n---\nplot()\n```",
    "```{code-cell}\n---\nmystnb:\n  image:\n    alt: A curve that ends at 3 %.\n---\nplot()\n```",
    "<p>The error is 3 %.</p>",
    "<!-- numbers allowed --> The error is 3 %.",
    "$$ e = 3\\,\\% $$",
    # a source for one sentence is no source for the next, and neither is a glued number
    "They reach 9.41 % {cite:p}`mnih2014recurrent`. We reach 3 %.",
    "We reach {glue:text}`error` %, down from 5 %.",
]
PASSED = [
    "They reach 9.41 % {cite:p}`mnih2014recurrent`.",
    "{cite:t}`mnih2014recurrent` reach an error of 9.41 %, and 8.11 % with more glimpses.",
    "| {cite:t}`mnih2014recurrent` | 9.41 % |\n| --- | --- |\n| ours | {glue:text}`error` % |",
    "| step | rate |\n| --- | --- |\n| first | 0.001 |",
    "We reach {glue:text}`error` %.",
    "One layer in place of two gives {glue:text}`one` %, two {glue:text}`two` %.",
    "We reach {glue:text}`error:.2f` % on 20,000 test images.",
    "We give a 95 % interval, and the 95 % confidence interval of the error.",
    "Four glimpses reduce the error.",
    "The error on 20,000 images of 10 classes falls in all 3 runs.",
    "The error of digit 7 is the largest.",
    "With $\\alpha = 0.1$ the error falls.",
    "The window starts at 0.6 of the image, and the error falls.",
    "The window is 12 pixels wide, or 0.12 of the image.",
    "A sigma of 0.5 pixels makes the error large.",
    "Dropout is 0.5.",
    "It reads 16 times fewer pixels.",
    "An image has $100 \\times 100$ pixels.",
    "See {numref}`fig-error` and {eq}`eq-3`.",
    "```python\nerror = 0.03  # 3 %\n```",
    "```{code-cell} ipython3\nprint('error 3 %')\n```",
    "```{math}\n:label: eq-a\n\ne = 0.03\n```",
    "<!-- the error was 3 % -->",
    "% the error was 3 %",
    "---\ntitle: 3 %\n---\n\nText.",
]


def found(markdown):
    return [number for _, sentence in sentences(markdown) for number in typed_numbers(sentence)]


@pytest.mark.parametrize("markdown", CAUGHT)
def test_catches_a_typed_number(markdown):
    assert found(markdown)


@pytest.mark.parametrize("markdown", PASSED)
def test_lets_other_numbers_pass(markdown):
    assert found(markdown) == []


def test_names_the_line_and_the_sentence():
    text = "# Title\n\nFirst. Second\nsentence.\n\n````{note}\n:class: tip\nInner.\n````\n"
    assert list(sentences(text)) == [
        (1, "Title"),
        (3, "First."),
        (3, "Second sentence."),
        (8, "Inner."),
    ]


def test_takes_directives_apart():
    text = "````{solution-start} ex-a\n:label: sol-a\n:class: dropdown\n````\n"
    text += "````{note} Title\n```{figure} a.svg\n:alt: A curve.\n\nCaption.\n```\n````\n"
    outer, note, figure = directives(text)
    assert outer[:3] == ("solution-start", "ex-a", {"label": "sol-a", "class": "dropdown"})
    assert note[:2] == ("note", "Title")
    assert (figure.options, figure.body.strip()) == ({"alt": "A curve."}, "Caption.")
    assert text.splitlines()[figure.body_line] == "Caption."  # after the blank line
