"""Part I with other settings than its own, and its exercises with wrong answers.

A reader changes a number in the first cell and runs the chapter again: nothing may break, and no
window may stand where the picture has none. A reader answers an exercise wrongly: its check has to
say so.
"""

import re

import pytest
import torch
from chapter_code import code_cells, run, settings_of
from run_chapters import chapter_texts

from ramlib.glimpse import GlimpseGrid, read_glimpse

# Another seed, image size, N and T; and so little training that all of it takes a minute.
OTHER = {
    "01_why_look": "SIZE, N, T, WINDOW, SHRINK, SEED, SIDES = 80, 8, 3, 24, 5, 5, (50, 100, 200)",
    "02_glimpse": "SIZE, N, SEED, TRAIN, VALIDATION = 120, 8, 5, 500, 200",
    "03_looks_once": "SIZE, N, SEED, DISTRACTORS, HELD_OUT, UPDATES, RUNS = 48, 8, 5, 2, 50, 10, 1",
    "04_attention": (
        "SIZE, N, SEED, START, COUNT, SEARCHES, STEPS = 80, 8, 5, 0.5, 50, 12, 10;"
        "SIDES = (28, 40, SIZE)"
    ),
    "05_eyes_and_memory": (
        "SIZE, N, T, F, SEED, HELD_OUT, EYES = 48, 8, 2, 32, 5, 50, (4, 6);"
        "EYE_UPDATES, ORDER_UPDATES = 4, 4"
    ),
    "06_whole_model": (
        "SIZE, N, T, HIDDEN, SEED, HELD_OUT = 80, 8, 2, 32, 5, 50;"
        "UPDATES, CHECK_EVERY, BATCH = 6, 3, 8"
    ),
}
CHAPTERS = {text.stem: text for text in chapter_texts() if text.stem in OTHER}
# A second answer for each exercise, which its check has to refuse. Names are the chapter's own.
WRONG = {
    "ex-read-cost": [
        "check_read_cost(lambda n, h, w: n * h * w)",
        "check_read_cost(lambda n, h, w: n * h * w + n**2 * h)",
    ],
    "ex-context-cost": ["check_context_side(50)", "check_context_side(100)"],
    "ex-looks-per-cnn": ["check_looks(4)", "check_looks(20)"],
    "ex-copy": [
        "check_copy(GlimpseGrid(*torch.tensor([[0.], [0.], [1.], [1.], [1.], [1.]])), 28)",
        "check_copy(GlimpseGrid(*torch.tensor([[0.], [0.], [1.], [1.], [.1], [2.]])), 28)",
        "check_copy(GlimpseGrid(*torch.tensor([[0.], [0.], [1.], [1.], [.1], [1.]])), 27)",
    ],
    "ex-squared-twice": ["check_blind(0.5)", "check_blind(2.0)"],
    "ex-covariance": [
        "check_gradient(lambda line, mu, sigma: 0.0)",
        "check_gradient(lambda line, mu, sigma: sigma**2 * gradient(line, mu, sigma))",
    ],
    "ex-once-crop": ["check_crop(())", "check_crop({'what', 'where'})"],
    "ex-once-first": ["check_first_window(lambda size, start: (0.0, 0.0, size, size))"],
    "ex-corner": ["check_corner(1.0)", "check_corner(math.atanh(0.99))"],
    "ex-push": [
        "check_push(lambda a, b: b)",
        "check_push(lambda a, b: math.sqrt(b))",
        "check_push(lambda a, b: math.sqrt(a / 2))",
    ],
    "ex-blurred-aim": ["check_aim(0.5)", "check_aim(2.0)"],
    "ex-networks-count": ["check_eye_size(N)", "check_eye_size(500)"],
    "ex-networks-where": ["check_blind_shift(8)", "check_blind_shift(32)"],
    "ex-recurrence-plain": ["check_plain(0, 0)", "check_plain(30, 30)", "check_plain(-30, -30)"],
    "ex-recurrence-path": ["check_paths([])", "check_paths([(o, 2) for o in orders])"],
    "ex-whole-stop": [
        "check_stop(lambda p: torch.full((len(p),), p.shape[1] - 1))",
        "check_stop(lambda p: p.max(-1).values.argmin(1))",
    ],
}
# What a trained model does, out of a few possible words: whatever it does, one word is right.
CHOICES = {
    "ex-whole-more": [f"check_more({word!r})" for word in ("better", "as good", "worse")],
    "ex-whole-lie": ["check_misled('recovers')", "check_misled('lost')"],
}
EXERCISES = {
    label: name
    for name, text in CHAPTERS.items()
    for label in re.findall(r"\{exercise-start\}[^\n]*\n:label: (\S+)", text.read_text("utf-8"))
}


@pytest.fixture(scope="module")
def chapter():
    """Each chapter, run once with other settings when a test first asks for it."""
    runs = {}

    def get(name):
        if name not in runs:
            with pytest.MonkeyPatch.context() as patch:
                runs[name] = run(CHAPTERS[name], OTHER[name], patch)
        return runs[name]

    return get


def test_all_of_part_one_is_here():
    assert set(CHAPTERS) == set(OTHER)


@pytest.mark.parametrize("name", OTHER)
def test_settings_stand_in_the_first_cell_and_the_test_changes_only_those(name):
    chosen = set(re.findall(r"\b[A-Z][A-Z_0-9]*\b(?=[^()]*=)", OTHER[name]))
    assert {"SIZE", "N", "SEED"} <= chosen <= settings_of(CHAPTERS[name])


@pytest.mark.parametrize("name", OTHER)
def test_chapter_runs_with_other_settings_and_draws_windows_where_they_are(name, chapter):
    done = chapter(name)
    assert done.drawn
    if name == "03_looks_once":  # plain PyTorch: it has no grid of the package's
        assert all(drawn.picture == (done.names["SIZE"],) * 2 for drawn in done.drawn)
    else:
        assert done.misplaced() == []


def test_a_window_computed_for_another_image_is_found(tmp_path, monkeypatch):
    text = tmp_path / "chapter.md"
    source = CHAPTERS["02_glimpse"].read_text("utf-8")
    mended = "window = grid.boxes(N, (SIZE, SIZE))"
    assert mended in source
    text.write_text(source.replace(mended, "window = grid.boxes(N, (100, 100))"), "utf-8")
    assert run(text, OTHER["02_glimpse"], monkeypatch).misplaced()


def test_every_exercise_is_tried():
    assert set(EXERCISES) == {*WRONG, *CHOICES}


@pytest.mark.parametrize(
    ("label", "answer"), [(label, answer) for label in WRONG for answer in WRONG[label]]
)
def test_check_refuses_a_wrong_answer(label, answer, chapter):
    names = chapter(EXERCISES[label]).names
    with pytest.raises(AssertionError):
        eval(answer, names)


@pytest.mark.parametrize("label", CHOICES)
def test_one_word_is_right(label, chapter):
    names, passed = chapter(EXERCISES[label]).names, 0
    for answer in CHOICES[label]:
        try:
            eval(answer, names)
        except AssertionError:
            continue
        passed += 1
    assert passed == 1


@pytest.mark.parametrize("label", EXERCISES)
def test_solution_hands_its_answer_to_the_check(label):
    used = (WRONG | CHOICES)[label][0].partition("(")[0]
    sources = [source for _, source in code_cells(CHAPTERS[EXERCISES[label]])]
    assert any(re.search(rf"^{used}\(", source, re.M) for source in sources)


class TestPlainCode:
    """What a chapter writes out is what the package computes, on grids of every kind."""

    def grids(self):
        generator = torch.Generator().manual_seed(0)
        c_x, c_y = 2 * torch.rand(2, 20, generator=generator) - 1
        delta = 0.5 + 4 * torch.rand(20, generator=generator)
        return GlimpseGrid(c_x, c_y, delta, delta, delta / 2, torch.ones(20))

    def test_glimpse_of_chapter_2(self, chapter):
        names, grids = chapter("02_glimpse").names, self.grids()
        image = torch.rand(1, 1, 40, 50)
        for i in range(20):
            one = grids[i : i + 1]
            torch.testing.assert_close(
                names["read"](image[0, 0], one, 7), read_glimpse(image, one, 7)[0, 0]
            )

    def test_glimpse_and_windows_of_chapter_3(self, chapter):
        names, grids = chapter("03_looks_once").names, self.grids()
        size, n = names["SIZE"], names["N"]
        images, where = torch.rand(20, 1, size, size), (grids.c_x, grids.c_y, grids.delta_x)
        torch.testing.assert_close(names["read"](images, *where), read_glimpse(images, grids, n))
        torch.testing.assert_close(names["windows"](*where), grids.boxes(n, (size, size)))
