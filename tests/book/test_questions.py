"""Three questions end each chapter; one answer holds, and every other one is explained."""

import re

import pytest
import questions
from markdown_it import MarkdownIt
from prose import sentences, typed_numbers
from run_chapters import BOOK

CHAPTERS = {path.stem: path for path in sorted(BOOK.glob("[0-9][0-9]_*.md"))}
QUESTIONS = questions.read()
EACH = [(name, question) for name, three in QUESTIONS.items() for question in three]

each = pytest.mark.parametrize(("name", "question"), EACH, ids=lambda value: str(value)[:40])


def test_every_chapter_has_three():
    assert {name: len(three) for name, three in QUESTIONS.items()} == dict.fromkeys(CHAPTERS, 3)


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_includes_its_questions_once(name):
    text = CHAPTERS[name].read_text(encoding="utf-8")
    assert re.findall(r"^```\{include\} (questions/.*)$", text, re.M) == [f"questions/{name}.md"]


@each
def test_question_has_one_right_answer_and_reasons(name, question):
    assert set(question) == {"asks", "right", "wrong"}
    assert question["asks"].strip().endswith("?")
    given = questions.answers(question)
    assert [verdict for _, verdict, _ in given].count("Yes") == 1
    assert len(given) >= 3
    assert len({answer for answer, _, _ in given}) == len(given)
    assert len({reason for _, _, reason in given}) == len(given)
    for answer, _, reason in given:
        assert answer.strip()
        assert "$" not in answer, "an answer is plain text"
        assert len(reason.split()) >= 6, f"too short to explain: {reason}"


def test_the_right_answer_has_no_place_of_its_own():
    places = [
        [verdict for _, verdict, _ in questions.answers(question)].index("Yes")
        for _, question in EACH
    ]
    for place in range(3):
        assert len(places) / 6 < places.count(place) < len(places) / 2


def test_the_right_answer_is_not_always_the_longest():
    longest = [
        max(questions.answers(question), key=lambda given: len(given[0]))[1] for _, question in EACH
    ]
    assert longest.count("Yes") <= 2 * len(EACH) / 3


@pytest.mark.parametrize("name", CHAPTERS)
def test_page_folds_every_answer(name):
    """In plain Markdown, as a notebook shows it: closed folds, whose reasons are paragraphs."""
    rendered = MarkdownIt("commonmark").render(questions.page(name))
    folds = re.findall(
        r'<details class="answer"><summary>(.*?)</summary>(.*?)</details>', rendered, re.S
    )
    assert len(folds) == sum(len(questions.answers(q)) for q in QUESTIONS[name])
    for _, inside in folds:
        assert re.match(r"\s*<p><strong>(Yes|No)\.</strong> ", inside)
    assert sum("<strong>Yes." in inside for _, inside in folds) == 3
    assert "{" not in re.sub(r"\$.*?\$", "", questions.page(name)), "no directives or roles"


@each
def test_question_states_no_measured_number(name, question):
    texts = [question["asks"], *(part for pair in questions.answers(question) for part in pair)]
    for text in texts:
        for _, sentence in sentences(text):
            assert not typed_numbers(sentence)
