"""Own tensors are trained on, resumed and measured with an interval."""

import own_data
import pytest

from ramlib.experiments import training


def test_trains_resumes_and_measures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "VALIDATION_BATCHES", 1)
    first = own_data.main(updates=20, count=400, folder=tmp_path)
    assert first.n == 40
    assert "shapes on noise: 320 train, 40 validation, 40 test" in capsys.readouterr().out
    # Finished already: the same weights come back, and the same error.
    assert own_data.main(updates=20, count=400, folder=tmp_path) == first
    with pytest.raises(ValueError, match=r"was made with task\.sha256"):
        own_data.main(updates=20, count=500, folder=tmp_path)
