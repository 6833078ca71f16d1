"""The commonest judgement, and what a task takes over that decides nothing for itself."""

import torch

from ramlib.interface import Rollout
from ramlib.tasks import Batch, Task, wrong


class TestWrong:
    def test_of_single_labels(self):
        differs, among = wrong(torch.tensor([1, 2, 3]), torch.tensor([1, 0, 3]))
        assert differs.tolist() == [False, True, False]
        assert among.tolist() == [True] * 3

    def test_of_rows_any_difference_counts_once(self):
        answers = torch.tensor([[1, 2], [3, 4], [5, 6]])
        differs, among = wrong(answers, torch.tensor([[1, 2], [0, 0], [5, 0]]))
        assert differs.tolist() == [False, True, True]
        assert among.tolist() == [True] * 3


class Least(Task):
    """Decides nothing but what it must."""

    image_shape, classes = (1, 2, 2), 3

    def sample(self, count, *, split="train", generator):
        raise NotImplementedError

    def batches(self, split, count=None, *, batch=500, device="cpu"):
        raise NotImplementedError

    def describe(self):
        return "nothing"


def test_a_task_judges_by_wrong_labels_unless_it_says_otherwise():
    batch = Batch(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 2]))
    (judged,) = Least().judge(Rollout(torch.eye(3)[[0, 0, 2]][:, None]), batch).values()
    assert judged[0].tolist() == [False, True, False]
    assert judged[1].tolist() == [True] * 3


def test_a_task_is_its_own_public_one_unless_it_says_otherwise():
    task = Least()
    assert task.public is task
    assert isinstance(task, Task)
