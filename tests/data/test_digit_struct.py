"""The official list of digits is read as it is, one like it is written, and damage is named."""

import re

import h5py
import numpy as np
import pytest
from svhn_files import FIELDS, some_entries, write_list

from ramlib.data import digit_struct
from ramlib.data.digit_struct import FILE, DigitStruct


def read(folder):
    return digit_struct.read(folder, quiet=True)


def struct_of(entries):
    """What the reader must say, worked out entry by entry."""
    boxes = [
        (left, top, left + width, top + height)
        for _, digits in entries
        for _, left, top, width, height in digits
    ]
    return DigitStruct(
        [name for name, _ in entries],
        np.array([len(digits) for _, digits in entries]),
        np.array([d[0] % 10 for _, digits in entries for d in digits], np.uint8),
        np.array(boxes, np.float32),
    )


def assert_same(one, other):
    assert one.names == other.names
    for field in ("counts", "digits", "boxes"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


class TestRead:
    def test_says_what_was_written(self, tmp_path):
        entries = some_entries(12)
        write_list(tmp_path, entries)
        assert_same(read(tmp_path), struct_of(entries))

    def test_one_digit_is_inline_and_several_are_references(self, tmp_path):
        """The two forms of the official file, told apart here by the type of the field."""
        entries = [("1.png", [(7, 2, 3, 4, 5)]), ("2.png", [(1, 2, 3, 4, 5), (2, 6, 3, 4, 5)])]
        write_list(tmp_path, entries)
        with h5py.File(tmp_path / FILE) as file:
            groups = [file[reference[0]] for reference in file["digitStruct/bbox"]]
            assert groups[0]["label"].dtype == np.float64
            assert groups[1]["label"].dtype == h5py.ref_dtype
        assert read(tmp_path).digits.tolist() == [7, 1, 2]

    def test_label_ten_is_the_digit_zero(self, tmp_path):
        write_list(tmp_path, [("1.png", [(10, 0, 0, 4, 5), (1, 4, 0, 4, 5), (10, 8, 0, 4, 5)])])
        assert read(tmp_path).digits.tolist() == [0, 1, 0]

    def test_order_of_the_file_is_kept(self, tmp_path):
        entries = some_entries(11)[::-1]
        write_list(tmp_path, entries)
        assert read(tmp_path).names == [name for name, _ in entries]

    def test_boxes_may_leave_the_image(self, tmp_path):
        write_list(tmp_path, [("1.png", [(3, -1, -2, 4, 500)])])
        assert read(tmp_path).boxes.tolist() == [[-1, -2, 3, 498]]

    def test_a_number_may_have_more_than_five_digits(self, tmp_path):
        write_list(tmp_path, [("1.png", [(n + 1, 5 * n, 0, 5, 9) for n in range(6)])])
        assert read(tmp_path).counts.tolist() == [6]

    def test_starts_point_at_each_images_first_digit(self, tmp_path):
        write_list(tmp_path, some_entries(7))
        listed = read(tmp_path)
        assert listed.starts.tolist() == [sum(listed.counts[:i]) for i in range(7)]

    def test_shows_a_progress_bar_unless_it_is_quiet(self, tmp_path, capsys):
        write_list(tmp_path / "train", some_entries(3))
        digit_struct.read(tmp_path / "train")
        assert "reading train/digitStruct.mat: 100%" in capsys.readouterr().err
        read(tmp_path / "train")
        assert capsys.readouterr().err == ""


class TestWrite:
    def test_comes_back(self, tmp_path):
        struct = struct_of(some_entries(12))
        assert digit_struct.write(struct, tmp_path) == tmp_path / FILE
        assert_same(read(tmp_path), struct)

    def test_has_the_official_structure(self, tmp_path):
        """Walked with h5py's upper layer, next to a file of the tests' own writer."""
        entries = some_entries(6)
        digit_struct.write(struct_of(entries), tmp_path / "ours")
        write_list(tmp_path / "theirs", entries)

        def walk(path):
            with h5py.File(path / FILE) as file:
                assert set(file) == {"#refs#", "digitStruct"}
                top = file["digitStruct"]
                for name, bbox in zip(top["name"], top["bbox"], strict=True):
                    characters, group = file[name[0]], file[bbox[0]]
                    yield characters.dtype, characters[()].tolist()
                    for field in FIELDS:
                        data = group[field]
                        if data.dtype == h5py.ref_dtype:
                            yield field, [file[r[0]][()].tolist() for r in data]
                        else:
                            yield field, data.dtype, data[()].tolist()

        assert list(walk(tmp_path / "ours")) == list(walk(tmp_path / "theirs"))

    def test_a_kept_list_is_replaced_in_one_move(self, tmp_path):
        for n in (2, 5):
            digit_struct.write(struct_of(some_entries(n)), tmp_path)
        assert len(read(tmp_path).names) == 5
        assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.usefixtures("as_installed")
class TestBadInput:
    def test_lengths_must_agree(self):
        message = "DigitStruct: 2 names and 2 counts, which sum to 3, do not fit 2 digits and 2 b"
        with pytest.raises(ValueError, match=message):
            DigitStruct(["1.png", "2.png"], np.array([1, 2]), np.zeros(2), np.zeros((2, 4)))

    def test_a_missing_list_is_named_with_its_cure(self, tmp_path):
        message = f"digit_struct.read: no file {re.escape(str(tmp_path / FILE))}; unpack"
        with pytest.raises(FileNotFoundError, match=message):
            read(tmp_path)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda raw: b"",
            lambda raw: b"<html>404</html>",
            lambda raw: raw[: len(raw) // 2],
            lambda raw: raw.replace(b"bbox", b"bqox"),
            lambda raw: raw.replace(b"digitStruct", b"digitStrict"),
            lambda raw: raw.replace(b"label", b"babel"),
        ],
        ids=["empty", "a web page", "cut short", "no boxes", "no list", "no labels"],
    )
    def test_a_damaged_list_is_named_with_its_cure(self, damage, tmp_path):
        write_list(tmp_path, some_entries(5))
        path = tmp_path / FILE
        path.write_bytes(damage(path.read_bytes()))
        message = f"digit_struct.read: {re.escape(str(path))} is damaged at entry 1 .*; unpack"
        with pytest.raises(ValueError, match=message):
            read(tmp_path)

    def test_a_broken_reference_is_named_by_its_entry(self, tmp_path):
        write_list(tmp_path, some_entries(4))
        with h5py.File(tmp_path / FILE, "r+") as file:
            file["digitStruct/bbox"][2, 0] = h5py.Reference()
        with pytest.raises(ValueError, match="is damaged at entry 3 "):
            read(tmp_path)

    def test_fields_of_unequal_length_are_named_by_their_entry(self, tmp_path):
        write_list(tmp_path, some_entries(4))
        with h5py.File(tmp_path / FILE, "r+") as file:
            group = file[file["digitStruct/bbox"][3, 0]]
            del group["top"]
            group["top"] = [[5.0]]
        with pytest.raises(ValueError, match="is damaged at entry 4 "):
            read(tmp_path)

    def test_more_names_than_boxes_are_refused(self, tmp_path):
        write_list(tmp_path, some_entries(3))
        with h5py.File(tmp_path / FILE, "r+") as file:
            kept = file["digitStruct/bbox"][:2]
            del file["digitStruct/bbox"]
            file["digitStruct"].create_dataset("bbox", data=kept, dtype=h5py.ref_dtype)
        with pytest.raises(ValueError, match="3 names and 2 lists of boxes"):
            read(tmp_path)

    @pytest.mark.parametrize(
        ("digits", "complaint"),
        [
            ([(11, 0, 0, 4, 5)], "the labels of 1.png must be 1 to 10, got [11.0]"),
            ([(0, 0, 0, 4, 5)], "the labels of 1.png must be 1 to 10, got [0.0]"),
            ([(1.5, 0, 0, 4, 5)], "the labels of 1.png must be 1 to 10, got [1.5]"),
            ([(1, 0, 0, 0, 5)], "1.png has a box of height 5 and width 0; both must be above 0"),
            ([(1, 0, 0, 4, -5)], "1.png has a box of height -5 and width 4"),
            ([(1, float("nan"), 0, 4, 5)], "1.png has a box that is not finite"),
        ],
    )
    def test_an_entry_that_cannot_be_is_refused_by_name(self, digits, complaint, tmp_path):
        write_list(tmp_path, [("1.png", digits)])
        with pytest.raises(ValueError, match=re.escape(complaint)):
            read(tmp_path)

    def test_an_entry_without_a_digit_is_refused_by_name(self, tmp_path):
        write_list(tmp_path, [("1.png", [(1, 0, 0, 4, 5)] * 2)])
        with h5py.File(tmp_path / FILE, "r+") as file:
            group = file[file["digitStruct/bbox"][0, 0]]
            for field in FIELDS:
                del group[field]
                group.create_dataset(field, (0, 1), np.float64)
        with pytest.raises(ValueError, match=r"1\.png has no digit"):
            read(tmp_path)

    @pytest.mark.parametrize("name", ["../1.png", "a/1.png", "", "1\n.png"])
    def test_a_name_that_leads_elsewhere_is_refused(self, name, tmp_path):
        write_list(tmp_path, [("1.png", [(1, 0, 0, 4, 5)]), (name or "x", [(1, 0, 0, 4, 5)])])
        if not name:
            with h5py.File(tmp_path / FILE, "r+") as file:
                reference = file["digitStruct/name"][1, 0]
                empty = file["#refs#"].create_dataset("empty", (0, 1), np.uint16)
                assert reference
                file["digitStruct/name"][1, 0] = empty.ref
        with pytest.raises(ValueError, match="which is not the name of a file beside it"):
            read(tmp_path)

    def test_a_name_listed_twice_is_refused(self, tmp_path):
        write_list(tmp_path, [("1.png", [(1, 0, 0, 4, 5)])] * 2)
        with pytest.raises(ValueError, match=r"1\.png is listed twice"):
            read(tmp_path)
