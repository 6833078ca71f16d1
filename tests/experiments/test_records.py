"""The ledger keeps what was measured, whole, and joins a curve over interruptions."""

import json
import re

import pandas as pd
import pytest
import torch

from ramlib.experiments import records

RECORD = dict.fromkeys(records.FIELDS, 0) | {
    "recipe": "digit",
    "row": "Ours, without context — ±",
    "metrics": {"error": {"value": 3.29, "low": 3.05, "high": 3.55, "n": 20_000}},
}


class TestWriteAndRead:
    def test_reads_what_was_written(self, tmp_path):
        path = records.write(RECORD, tmp_path)
        assert path == tmp_path / "digit.json"
        assert records.read("digit", tmp_path) == RECORD

    def test_the_file_is_plain_json_that_ends_in_a_line(self, tmp_path):
        text = records.write(RECORD, tmp_path).read_text(encoding="utf-8")
        assert json.loads(text) == RECORD
        assert text.endswith("}\n")
        assert "—" in text

    def test_a_new_record_replaces_the_old(self, tmp_path):
        records.write(RECORD, tmp_path)
        records.write(RECORD | {"seed": 7}, tmp_path)
        assert records.read("digit", tmp_path)["seed"] == 7
        assert [path.name for path in tmp_path.iterdir()] == ["digit.json"]

    def test_refuses_a_record_that_lacks_a_field_or_has_one_too_many(self, tmp_path):
        for record in ({k: v for k, v in RECORD.items() if k != "seed"}, RECORD | {"mood": "good"}):
            with pytest.raises(ValueError, match="write: a record must have the fields"):
                records.write(record, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_missing_record_is_named(self, tmp_path):
        message = f"read: nothing was recorded for 'digit' in {tmp_path}"
        with pytest.raises(FileNotFoundError, match=re.escape(message)):
            records.read("digit", tmp_path)

    def test_a_damaged_record_is_named(self, tmp_path):
        (tmp_path / "digit.json").write_text('{"recipe": "di')
        with pytest.raises(ValueError, match=r"read: .*digit\.json is damaged"):
            records.read("digit", tmp_path)

    def test_all_records_are_those_of_recipes_in_their_order(self, tmp_path):
        for name in ("digit-context", "digit"):
            records.write(RECORD | {"recipe": name}, tmp_path)
        (tmp_path / "notes.json").write_text("[]")
        assert list(records.read_all(tmp_path)) == ["digit", "digit-context"]


def write_part(folder, first, **columns):
    path = folder / "curve" / f"from-{first:07d}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    pd.DataFrame(columns).to_csv(path, index=False)


class TestCurve:
    def test_a_resumed_part_replaces_what_was_logged_beyond_its_start(self, tmp_path):
        # Killed at step 7 or later, resumed at 4, killed again, resumed at 6.
        write_part(tmp_path, 0, step=[1, 3, 5, 7], loss=[0.1, 0.2, 0.3, 0.4], epoch=[0] * 4)
        write_part(tmp_path, 4, step=[5, 7], loss=[1.3, 1.4], epoch=[0] * 2)
        write_part(tmp_path, 6, step=[7, 9], loss=[2.4, 2.5], epoch=[0] * 2)
        curve = records.curve(tmp_path)
        assert curve.to_dict("list") == {
            "step": [1, 3, 5, 7, 9],
            "loss": [0.1, 0.2, 1.3, 2.4, 2.5],
        }

    def test_validation_and_loss_of_a_step_share_a_row(self, tmp_path):
        nan = float("nan")
        write_part(tmp_path, 0, step=[1, 3, 3], loss=[0.1, 0.2, nan], error=[nan, nan, 9.0])
        curve = records.curve(tmp_path)
        assert curve.step.tolist() == [1, 3]
        assert curve.loss.tolist() == [0.1, 0.2]
        assert curve.error.isna().tolist() == [True, False]

    def test_parts_may_know_different_columns(self, tmp_path):
        write_part(tmp_path, 0, step=[1], loss=[0.1])
        write_part(tmp_path, 2, step=[3], loss=[0.2], rate=[5.0])
        assert records.curve(tmp_path).rate.isna().tolist() == [True, False]

    def test_a_folder_without_a_curve_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=re.escape(f"no learning curve in {tmp_path}")):
            records.curve(tmp_path)


class TestMachine:
    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_names_the_cores_that_are_used_and_says_that_there_is_no_gpu(self):
        assert re.search(r"\S, 1 of \d+ cores, no GPU$", records.machine())

    def test_today_is_a_date(self):
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", records.today())
