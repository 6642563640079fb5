"""Names of the files of sample.py."""

import pytest

from reports import sample_files


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "prior"),
        ({"text": "5"}, "given_text_5"),
        ({"image": "4", "text": "5"}, "given_image_4_text_5"),
        ({"text": "ankle boot"}, "given_text_ankle_boot"),
        ({"image": "mine.jpg"}, "given_image_mine_jpg"),
        ({"text": ""}, "given_text_none"),
        ({"french": "zéro"}, "given_french_zéro"),
    ],
)
def test_files_are_named_by_what_was_given(given, name):
    assert sample_files.name_of(**given) == name
    assert sample_files.name_of(10, **given) == ("mixture_10" if name == "prior" else name)


@pytest.mark.parametrize("text", ["../../etc/passwd", "a/b", "a\\b:c*?", "x" * 5000, "é" * 300, "\n\0", "-" * 200])
def test_any_text_makes_a_name_that_files_may_have(text, tmp_path):
    name = f"{sample_files.name_of(text=text, image=text)}.png"
    (tmp_path / name).touch()
    assert [path.name for path in tmp_path.iterdir()] == [name], "in this folder and not another"


def test_different_texts_make_different_names():
    texts = ["a/b", "a\\b", "a_b", "x" * 100, "x" * 101]
    assert len({sample_files.readable(text) for text in texts}) == len(texts)


def test_lines_are_written_into_a_new_folder(tmp_path):
    path = sample_files.write_lines(tmp_path / "new" / "prior.txt", ["5", ""])
    assert path.read_text() == "5\n\n"
