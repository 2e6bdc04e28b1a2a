"""Labels, groups and splits from CSV files."""

import shutil
from pathlib import Path

import pytest
import torch
from made_files import draw, draw_classes, draw_flat

from ssl_zoo.data.datasets import Dataset, create_dataset


def labelled(home: Path, text: str, **options) -> Dataset:
    file = home.parent / "labels.csv"
    file.write_bytes(text.encode())
    return create_dataset(f"folder:{home}", labels=file, **options)


def told(dataset: Dataset, split: str) -> dict[str, str]:
    part = dataset.split(split)
    return {name: part.classes[label] for name, label in zip(part.names, part.labels, strict=True)}


def rows(header: str, lines: list[str]) -> str:
    return "\n".join([header, *lines, ""])


def test_some_images_are_labelled_and_the_others_only_pretrain(home: Path) -> None:
    draw_flat(home, 60)
    truth = {f"{i:03}.png": "cat" if i % 2 else "dög" for i in range(0, 60, 2)} | {
        "001.png": "cat",
        "003.png": "cat",
    }
    dataset = labelled(home, rows("path,label", [f"{name},{label}" for name, label in truth.items()]))
    assert told(dataset, "train") | told(dataset, "test") == truth
    assert dataset.split("train").classes == ("cat", "dög")
    assert dataset.split("test").labels.bincount().tolist() == [1, 6]
    everything = {f"{i:03}.png" for i in range(60)}
    assert set(dataset.split("pretrain").names) == everything - set(dataset.split("test").names)
    assert dataset.split("pretrain").names[:25] == dataset.split("train").names
    assert dataset.split("pretrain").labels is None
    assert dataset.rule == "test: 20 % per class by content hash"
    assert dataset.notes == ("images for pretraining only: 005.png, 007.png, 009.png and 25 more",)


def test_the_file_goes_before_class_folders_and_none_forgets_them(home: Path) -> None:
    draw_classes(home, {"2021": 6, "2022": 6})
    lines = [f"{year}/{i}.png,{'ab'[i % 2]}" for year in (2021, 2022) for i in range(6)]
    dataset = labelled(home, rows("label,path", [",".join(reversed(line.split(","))) for line in lines]))
    assert dataset.split("train").classes == ("a", "b")
    assert told(dataset, "train") | told(dataset, "test") == dict(line.split(",") for line in lines)
    bare = create_dataset(f"folder:{home}", labels="none")
    assert [bare.split(split).labels for split in bare.splits] == [None] * 3
    assert create_dataset(f"folder:{home}").split("train").classes == ("2021", "2022")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_files_of_other_programs_are_read(home: Path, mark: str, end: str) -> None:
    found = ["a/Ka\u0308fer.png", 'a/x, "y".png', "b/1.png", "b/\u00d6.png"]  # a letter and its dots apart
    for number, name in enumerate(found):
        draw(home / name, number)
    lines = [
        " path , label ",
        "a/K\u00e4fer.png, one",
        '"a/x, ""y"".png","o,ne"',
        "",
        "b\\1.png,one",
        "./b/../b/O\u0308.png,one",
        "b/\u00d6.png,one",
        " , ",
    ]
    dataset = labelled(home, mark + end.join(lines))
    assert told(dataset, "train") | told(dataset, "test") == dict(
        zip(found, ["one", "o,ne", "one", "one"], strict=True)
    )


def test_groups_never_cross_the_split(home: Path) -> None:
    draw_flat(home, 80)
    lines = [f"{i:03}.png,{'ab'[i % 2]},patient {i // 8}" for i in range(76)] + ["076.png,a,", "077.png,b,"]
    dataset = labelled(home, rows("path,label,group", lines))
    train, test, pretrain = (dataset.split(split) for split in ("train", "test", "pretrain"))
    patients = [{int(name[:3]) // 8 for name in split.names if int(name[:3]) < 76} for split in (train, test)]
    assert not patients[0] & patients[1]
    assert 12 <= len(test) <= 20
    assert abs(int(test.labels.sum()) * 2 - len(test)) <= 1
    assert dataset.rule == "test: 20 % per class by content hash, groups together"
    for split in (train, test, pretrain):
        assert len(split.groups) == len(split)
        same = split.groups[:, None] == split.groups
        number = torch.tensor([int(name[:3]) for name in split.names])
        expected = (number[:, None] // 8 == number // 8) & (number < 76) & (number < 76)[:, None]
        assert torch.equal(same, expected | torch.eye(len(split), dtype=torch.bool))


def test_a_group_larger_than_a_fifth_is_tested_only_if_it_must_be(home: Path) -> None:
    draw_flat(home, 40)
    groups = ["big"] * 30 + ["small 1"] * 5 + ["small 2"] * 5
    dataset = labelled(
        home, rows("path,label,group", [f"{i:03}.png,{'ab'[i % 2]},{g}" for i, g in enumerate(groups)])
    )
    assert {int(name[:3]) // 30 for name in dataset.split("test").names} == {1}
    two = ["one"] * 20 + ["two"] * 20
    dataset = labelled(
        home, rows("path,label,group", [f"{i:03}.png,{'ab'[i % 2]},{g}" for i, g in enumerate(two)])
    )
    assert len(dataset.split("test")) == len(dataset.split("train")) == 20
    with pytest.raises(
        ValueError, match=r"40 labelled images are too few .* two distinct ones \(or groups\)"
    ):
        labelled(home, rows("path,label,group", [f"{i:03}.png,{'ab'[i % 2]},one" for i in range(40)]))


def test_the_split_column_is_obeyed(home: Path) -> None:
    draw_flat(home, 10)
    splits = ["train"] * 4 + ["Test"] * 2 + ["val"] * 2 + ["pretrain"]
    lines = [f"{i:03}.png,{'ab'[i % 2]},{split}" for i, split in enumerate(splits)]
    dataset = labelled(home, rows("path,label,split", lines))
    assert [int(name[:3]) for name in dataset.split("train").names] == [0, 1, 2, 3, 6, 7]
    assert [int(name[:3]) for name in dataset.split("test").names] == [4, 5]
    assert [int(name[:3]) for name in dataset.split("pretrain").names] == [0, 1, 2, 3, 6, 7, 8, 9]
    assert dataset.rule == "train and test as told by labels.csv"
    only_val = labelled(home, rows("path,label,split", [line for line in lines if "Test" not in line]))
    assert [int(name[:3]) for name in only_val.split("test").names] == [6, 7]
    assert only_val.rule == "train and val as told by labels.csv"
    none = labelled(home, rows("path,label,split", [line for line in lines if "train" in line]))
    assert none.rule == "test: 20 % per class by content hash"
    assert (len(none.split("train")), len(none.split("test"))) == (2, 2)


def test_the_parts_of_a_folder_hold_for_labels_without_a_split(home: Path) -> None:
    draw_flat(home / "train", 5)
    draw_flat(home / "test", 3, start=5)
    draw_flat(home / "unlabeled", 3, start=8)
    lines = [f"train/00{i}.png,{'ab'[i % 2]}" for i in range(4)] + [
        "test/000.png,a",
        "test/001.png,b",
        "unlabeled/002.png,b",
    ]
    dataset = labelled(home, rows("path,label", lines))
    assert sorted(told(dataset, "train")) == [*(f"train/00{i}.png" for i in range(4)), "unlabeled/002.png"]
    assert told(dataset, "test") == {"test/000.png": "a", "test/001.png": "b"}
    assert dataset.split("pretrain").names[5:] == ("train/004.png", "unlabeled/000.png", "unlabeled/001.png")
    assert dataset.notes[0] == "test images without a label, left out: test/002.png"
    moved = labelled(
        home, rows("path,label,split", [*(f"{line},train" for line in lines[:5]), f"{lines[5]},test"])
    )
    assert told(moved, "test") == {"test/001.png": "b"}
    assert "test/000.png" in moved.split("train").names
    assert "test/002.png" not in moved.split("pretrain").names  # the folder still says what it is


def test_unlabelled_copies_of_held_out_images_do_not_pretrain(home: Path) -> None:
    draw_flat(home / "all", 20)
    for index in range(10):
        (home / "mine").mkdir(exist_ok=True)
        shutil.copy(home / f"all/00{index}.png", home / f"mine/{index}.png")
    dataset = labelled(home, rows("path,label", [f"mine/{i}.png,{'ab'[i % 2]}" for i in range(10)]))
    test, pretrain = (set(dataset.split(split).content_hash().tolist()) for split in ("test", "pretrain"))
    assert (len(test), test & pretrain, len(dataset.split("pretrain"))) == (2, set(), 8 + 18)
    assert dataset.notes[0].startswith(
        "copies of test images, or of their group, left out of pretrain: all/00"
    )


def test_a_group_on_both_sides_of_a_given_split_is_an_error(home: Path) -> None:
    draw_flat(home, 8)
    lines = [f"00{i}.png,{'ab'[i % 2]},p{i // 2},{'test' if i > 5 else 'train'}" for i in range(8)]
    assert len(labelled(home, rows("path,label,group,split", lines)).split("test")) == 2
    lines[2] = "002.png,a,p3,pretrain"
    with pytest.raises(
        ValueError, match=r"group 'p3' is in test and outside of it \(002.png, 006.png\); put all"
    ):
        labelled(home, rows("path,label,group,split", lines))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n0.png,\n", r"line 2: an empty label; fill it, or leave the row out"),
        ("path,label\n,a\n", r"line 2: an empty path"),
        ("path,label\n0.png,a\n1.png,b\n./0.png,b\n", r"line 4: line 2 says otherwise of ./0.png; keep one"),
        ("path,label\n0.png,a\n7.png,b\n8.png,b\n", r"line 3: 7.png is none of the 4 images \(0.png, .* "
         r"and 1 more\); give paths like these, or remove the 2 rows of no image"),
        ("path,label\n/x/0.png,a\n", r"line 2: /x/0.png leaves the source; give the path relative"),
        ("path,label\nC:\\x\\0.png,a\n", r"line 2: C:\\x\\0.png leaves the source"),
        ("path,label\na/../../0.png,a\n", r"line 2: a/../../0.png leaves the source"),
        ("path,label\n..,a\n", r"line 2: .. leaves the source"),
        ("path,label,patient\n", r"line 1: unknown column 'patient'.* Allowed: group, label, path, split"),
        ("path,labels\n", r"unknown column 'labels'; did you mean 'label'\?"),
        ("path;label\n", r"unknown column 'path;label'.*; separate columns by commas"),
        ("path,group\n", r"line 1: the header is path,group; write path,label\[,group\]\[,split\]"),
        ("path,label,label\n", r"the header is path,label,label"),
        ("", r"line 1: the header is ; write path,label"),
        ("path,label\n", r"labels.csv has no rows; label some images"),
        ("path,label\n0.png,a,b\n", r"line 2: 3 cells for 2 columns; quote cells with commas"),
        ('path,label\n0.png,a\n1.png,"b\n', r"line 3: unexpected end of data; quote"),
        ("path,label,split\n0.png,a,train\n1.png,b,\n", r"line 3: split ''; write train, test"),
        ("path,label,split\n0.png,a,dev\n", r"line 2: split 'dev'; write train, test, val or pretrain"),
        ("path,label\n0.png,a\n1.png,a\n2.png,a\n", r"all labelled images are of one class, 'a'; label"),
        ("path,label\n0.png,a\n1.png,b\n", r"2 labelled images are too few to hold some out as a test"),
        ("path,label,split\n0.png,a,train\n1.png,b,test\n", r"classes seen in test only: 'b'"),
        ("path,label,split\n0.png,a,test\n1.png,b,test\n", r"no labelled images to train on, 2 to test"),
    ],
)  # fmt: skip
def test_every_mistake_is_told_with_its_line(home: Path, text: str, message: str) -> None:
    for index in range(4):
        draw(home / f"{index}.png", index)
    with pytest.raises(ValueError, match=message):
        labelled(home, text)


def test_files_that_are_no_csv_are_told(home: Path) -> None:
    draw_flat(home, 4)
    file = home.parent / "labels.csv"
    file.write_bytes("path,label\nä.png,a\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"labels.csv is not UTF-8 .*; save it as CSV UTF-8"):
        create_dataset(f"folder:{home}", labels=file)
    with pytest.raises(
        FileNotFoundError, match=r"labels .*absent.csv: there is no such file; give a CSV file"
    ):
        create_dataset(f"folder:{home}", labels=str(home / "absent.csv"))


def test_labels_survive_bad_images(home: Path) -> None:
    draw_flat(home, 10)
    (home / "004.png").write_bytes(b"")
    lines = [f"00{i}.png,{'ab'[i % 2]},g{i // 2}" for i in range(10)]
    dataset = labelled(home, rows("path,label,group", lines), on_bad_image="skip")
    expected = {line.split(",")[0]: line.split(",")[1] for line in lines if "004" not in line}
    assert told(dataset, "train") | told(dataset, "test") == expected
