"""How good a run is, how sure it may be, when it refuses: each number beside an oracle or a literal."""

import csv
import io
import json
import math
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small import alone, draw_classes, slim_weights
from torch.nn import functional as F

from helpers import evaluating, models, runs
from helpers.__main__ import main
from helpers.data import load_splits
from helpers.settings import SAMPLE, BadArgument, choose_setting
from helpers.training import Evaluation
from helpers.transfer import Features


def answers(count, *, classes=3, sure=1.0, seed=0):
    """Evaluation and logits of a model whose logits are `sure` times as large as they should be."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    labels = logits.softmax(1).multinomial(1, generator=generator).flatten()
    return Evaluation((sure * logits).softmax(1).float(), labels), sure * logits


# ---- one temperature


@pytest.mark.parametrize("sure", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_how_much_too_sure_a_model_is(sure):
    evaluation, _ = answers(4000, sure=sure)
    assert evaluating.fit_temperature(evaluation) == pytest.approx(sure, rel=0.12)


def test_no_other_temperature_is_better_for_a_model_that_is_too_sure():
    """The oracle: torch's cross-entropy at 2,000 temperatures."""
    evaluation, logits = answers(200, sure=3.0)
    found = evaluating.fit_temperature(evaluation)
    tried = torch.logspace(-1, 1.5, 2000, dtype=torch.float64)
    losses = torch.stack([F.cross_entropy(logits / t, evaluation.labels) for t in tried])
    assert found == pytest.approx(tried[losses.argmin()].item(), rel=2e-3)


def test_the_log_loss_never_rises_by_it_in_100_resamples():
    whole, _ = answers(300, sure=1.0)
    generator = torch.Generator().manual_seed(1)
    for count in range(2, 102):
        rows = torch.randint(300, (count,), generator=generator)
        some = Evaluation(whole.probabilities[rows], whole.labels[rows])
        after = evaluating.calibrate(some, evaluating.fit_temperature(some))
        assert after.log_loss <= some.log_loss + 1e-7
        assert torch.equal(after.predictions, some.predictions)


@pytest.mark.parametrize(("right", "first"), [(True, 0.6), (True, 0.999), (False, 0.999), (False, 1.0)])
def test_few_images_all_right_or_all_wrong_make_no_answer_certain(right, first):
    some = Evaluation(torch.tensor([[first, 1 - first]]).repeat(10, 1), torch.full((10,), 0 if right else 1))
    after = evaluating.calibrate(some, evaluating.fit_temperature(some))
    assert after.log_loss <= some.log_loss + 1e-7
    assert torch.isfinite(after.probabilities).all()
    if right:  # ten in ten: about 20 in 21, as Laplace would say, unless the model was surer before
        assert after.probabilities[0, 0] <= max(first, 0.97)
        assert after.probabilities[0, 0] >= first - 1e-6


def test_soften_is_the_softmax_of_the_logits_divided():
    _, logits = answers(50)
    probabilities = logits.softmax(1).float()
    assert torch.allclose(evaluating.soften(probabilities, 2.5), (logits / 2.5).softmax(1).float(), atol=1e-6)


# ---- calibration


def test_the_calibration_error_of_an_example_worked_out_by_hand():
    """Three answers at 0.9 of which two are right, one at 0.6 that is wrong: 3/4 · |0.9 − 2/3| + 1/4 · 0.6."""
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]])
    evaluation = Evaluation(probabilities, torch.tensor([0, 0, 0, 1]))
    assert evaluating.calibration_error(evaluation) == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * 0.6, abs=1e-6)
    assert [one["images"] for one in evaluating.calibration_bins(evaluation)] == [1, 3]


@pytest.mark.parametrize("sure", [0.3, 1.0, 5.0])
def test_the_calibration_error_is_torchmetrics_own(sure):
    metrics = pytest.importorskip("torchmetrics.functional.classification", reason="the oracle is not installed")
    evaluation, _ = answers(500, sure=sure)
    expected = metrics.multiclass_calibration_error(evaluation.probabilities, evaluation.labels, 3, n_bins=15)
    assert evaluating.calibration_error(evaluation) == pytest.approx(expected.item(), abs=1e-6)


def test_the_interval_is_wilsons():
    """Literals from Brown, Cai and DasGupta's formula, worked out to four digits."""
    for right, expected in {0: (0.0, 0.2775), 5: (0.2366, 0.7634), 10: (0.7225, 1.0)}.items():
        assert evaluating.wilson(right, 10) == pytest.approx(expected, abs=1e-4)


# ---- strangeness


def features(rows, *, views=1):
    """Stored features of some images, whose further views are of no use."""
    rows = numpy.asarray(rows, dtype=numpy.float32)
    stored = numpy.stack([rows] + [numpy.full_like(rows, 99)] * (views - 1), axis=1)
    return Features(stored, torch.arange(len(rows)), torch.zeros(len(rows), dtype=torch.int64))


def test_the_score_is_the_mean_cosine_distance_to_the_five_nearest():
    """The oracle: numpy, in float64, one pair at a time."""
    generator = numpy.random.default_rng(0)
    train, others = generator.random((40, 8)), generator.random((7, 8))
    std = train.std(0)
    strangeness = evaluating.learn_strangeness(
        features(train, views=2), features(others), torch.tensor(std, dtype=torch.float32)
    )
    for image, score in zip(others, strangeness(torch.tensor(others, dtype=torch.float32)), strict=True):
        a = image / std
        cosines = [a @ (b / std) / numpy.linalg.norm(a) / numpy.linalg.norm(b / std) for b in train]
        assert score.item() == pytest.approx(1 - numpy.mean(sorted(cosines)[-5:]), abs=1e-3)


@pytest.mark.parametrize(("count", "refused"), [(1, 0), (19, 0), (20, 1), (59, 2), (100, 5)])
def test_the_threshold_refuses_no_more_than_a_twentieth_of_the_validation_images(count, refused):
    generator = numpy.random.default_rng(count)
    train, validation = generator.random((30, 4)), generator.random((count, 4))
    strangeness = evaluating.learn_strangeness(features(train), features(validation), torch.ones(4))
    scores = strangeness(torch.tensor(validation, dtype=torch.float32))
    assert (scores > strangeness.threshold).sum() == refused
    assert strangeness.known.dtype == torch.float16


def test_of_many_training_images_an_even_selection_is_kept(monkeypatch):
    monkeypatch.setattr(evaluating, "MOST_KNOWN", 10)
    train = numpy.eye(25)
    strangeness = evaluating.learn_strangeness(features(train), features(train[:3]), torch.ones(25))
    assert strangeness.known.argmax(1).tolist() == list(range(0, 25, 3))


# ---- sets


def test_sets_hold_the_right_class_as_often_as_promised_over_100_splits():
    """Half of the images set the level, the other half test it; the binomial error of the mean is far below a point."""
    whole, _ = answers(2000)
    generator, shares = torch.Generator().manual_seed(0), []
    for _ in range(100):
        order = torch.randperm(2000, generator=generator)
        known, new = (Evaluation(whole.probabilities[rows], whole.labels[rows]) for rows in order.split(1000))
        level = evaluating.conformal_level(known, coverage=0.95)
        inside = (new.probabilities >= level)[torch.arange(1000), new.labels]
        shares.append(inside.double().mean().item())
    error = 3 * math.sqrt(0.95 * 0.05 / 1000)  # of one split, calibration and test together below 3 · √2 of it
    assert 0.95 - error / 5 <= numpy.mean(shares) <= 0.95 + 1 / 1001 + error / 5
    assert min(shares) > 0.95 - 2 * error


def test_too_few_images_promise_nothing_and_then_every_class_is_in_every_set():
    few, _ = answers(18)
    assert (few.probabilities >= evaluating.conformal_level(few, coverage=0.95)).all()
    enough, _ = answers(19)
    lowest = enough.probabilities[torch.arange(19), enough.labels].min().item()
    assert evaluating.conformal_level(enough, coverage=0.95) == lowest


# ---- the numbers


def test_the_numbers_of_an_example_worked_out_by_hand():
    """Five cats of which four are named, one dog that is named: literals."""
    probabilities = torch.tensor([[0.8, 0.2]] * 4 + [[0.3, 0.7]] + [[0.4, 0.6]])
    evaluation = Evaluation(probabilities, torch.tensor([0] * 5 + [1]))
    paths = [Path(f"{i}.png") for i in range(6)]
    refused = torch.tensor([True, False, False, False, True, False])
    found = evaluating.measure(evaluation, paths, ["cats", "dogs"], refused=refused)
    assert list(found) == list(evaluating.KEYS)
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["balanced_accuracy"] == pytest.approx((4 / 5 + 1) / 2)
    assert found["confusion"] == [[4, 1], [0, 1]]
    assert found["classes"]["cats"] == {"images": 5, "named": 4, "precision": 1.0, "recall": 0.8}
    assert found["classes"]["dogs"] == {"images": 1, "named": 2, "precision": 0.5, "recall": 1.0}
    assert found["log_loss"] == pytest.approx(-(4 * math.log(0.8) + math.log(0.3) + math.log(0.6)) / 6, abs=1e-6)
    assert (found["refused"], found["accuracy_of_rest"]) == (pytest.approx(2 / 6), 1.0)
    wrong = {"path": "4.png", "class": "cats", "answer": "dogs", "probability": pytest.approx(0.7)}
    assert found["mistakes"] == [wrong]


def test_what_was_never_named_or_never_there_is_null_and_counts_in_no_mean():
    evaluation = Evaluation(torch.tensor([[0.8, 0.1, 0.1]] * 3), torch.tensor([0, 0, 1]))
    found = evaluating.measure(evaluation, [Path("x")] * 3, ["a", "b", "c"])
    assert [one["precision"] for one in found["classes"].values()] == [pytest.approx(2 / 3), None, None]
    assert [one["recall"] for one in found["classes"].values()] == [1.0, 0.0, None]
    assert found["balanced_accuracy"] == 0.5
    assert found["refused"] is found["accuracy_of_rest"] is None
    assert "–" in evaluating.as_text(found)


# ---- a run, from its training to its report


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run of a slim VGG16 on three colours: (its folder, the folder of its images)."""
    place = tmp_path_factory.mktemp("learned")
    with pytest.MonkeyPatch.context() as patch:
        alone(patch, place / "features")
        images = draw_classes(place / "images", count=40)
        setting = choose_setting(
            str(images), weights=str(slim_weights(place / "slim.safetensors")), precision="float32"
        )
        splits = load_splits(setting)
        runs.train_transfer(
            splits, replace(setting, transfer_epochs=15), folder=place / "run", report=lambda line: None
        )
    return place / "run", images


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    alone(monkeypatch, tmp_path / "features")


def run(*arguments):
    """The exit status of one command."""
    return main([str(argument) for argument in arguments])


def noise_beside(images, folder):
    """An image of each class and one of noise in grey, which is none."""
    folder.mkdir()
    for name in ("ants", "bees", "wasps"):
        shutil.copy(images / name / "0.png", folder / f"{name}.png")
    pixels = numpy.random.default_rng(0).integers(0, 2, (40, 40, 1), dtype=numpy.uint8) * 255
    Image.fromarray(pixels.repeat(3, 2)).save(folder / "zebra.png")
    return folder


def test_at_most_a_twentieth_of_the_validation_images_is_refused_by_predict_too(learned):
    folder, images = learned
    loaded = runs.load_run(folder)
    paths = [path for path, _ in load_splits(choose_setting(str(images))).validation]
    found = runs.predict_all(loaded.model, loaded.about, paths, strangeness=loaded.strangeness)
    assert sum(answer.refused for _, answer in found) <= len(paths) // 20 + 1e-9


def test_predict_says_none_of_these_and_names_the_nearest_unless_told_not_to(learned, tmp_path, capsys):
    folder, images = learned
    some = noise_beside(images, tmp_path / "some")
    assert run("predict", folder, some) == 0
    lines = [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == ["ants", "bees", "wasps"]
    assert lines[3] in [f"none of these (nearest: {name})" for name in ("ants", "bees", "wasps")]
    assert run("predict", folder, some, "--never-refuse") == 0
    assert capsys.readouterr().out.splitlines()[3].split("\t")[1] in ("ants", "bees", "wasps")


def test_predict_prints_json_and_csv_with_what_could_not_be_read(learned, tmp_path, capsys):
    folder, images = learned
    some = noise_beside(images, tmp_path / 'so, "me')
    (some / "text.jpg").write_text("not an image")
    assert run("predict", folder, some, "--json") == 1
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["ants.png", "bees.png", "text.jpg", "wasps.png", "zebra.png"]
    assert [row.get("refused") for row in rows] == [False, False, None, False, True]
    assert "can't be read as an image" in rows[2]["error"]
    assert len(printed.err.splitlines()) == 1
    assert run("predict", folder, some, "--csv") == 1
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["path"] for row in table] == [row["path"] for row in rows]
    for row, line in zip(table, rows, strict=True):
        assert row["class"] == line.get("class", "")
        assert row["probability"] == str(line.get("probability", ""))
        assert row["error"] == line.get("error", "")


def test_files_are_read_only_a_little_ahead_of_the_answers(learned, monkeypatch):
    """So ten thousand images take no more memory than a hundred."""
    folder, images = learned
    model, about = runs.load_model(folder)
    read, load = [], runs.load_image
    monkeypatch.setattr(runs, "load_image", lambda path, **options: read.append(path) or load(path, **options))
    answers = runs.predict_all(model, about, 80 * sorted(images.rglob("*.png")))
    next(answers)
    assert 32 <= len(read) <= 32 + 2 * runs.cores() + 1
    answers.close()


def test_evaluate_asks_about_every_image_that_the_run_has_not_learned_from(learned, tmp_path, capsys):
    """The oracle: the run's own test split, and predict's answers, counted here."""
    folder, images = learned
    assert run("evaluate", folder, "--data", images, "--out", tmp_path / "out") == 0
    assert "accuracy" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    splits, loaded = load_splits(choose_setting(str(images))), runs.load_run(folder)
    assert found["images"] == len(splits.test) < 30
    assert found.keys() == evaluating.KEYS.keys() | {"data", "environment"}
    named = [runs.predict(loaded.model, loaded.about, path) for path, _ in splits.test]
    right = [splits.classes[label] == name for (name, _), (_, label) in zip(named, splits.test, strict=True)]
    assert found["accuracy"] == pytest.approx(numpy.mean(right))
    assert found["accuracy"] == pytest.approx(loaded.summary["test_accuracy"])
    assert found["log_loss_before"] == pytest.approx(loaded.summary["test_log_loss"], abs=1e-4)
    assert found["temperature"] == loaded.about["temperature"] != 1

    shutil.copytree(images, tmp_path / "more")
    draw_classes(tmp_path / "new", count=5, seed=7)
    for file in (tmp_path / "new").rglob("*.png"):
        file.rename(tmp_path / "more" / file.parent.name / f"new{file.name}")
    assert run("evaluate", folder, "--data", tmp_path / "more", "--out", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["images"] == len(splits.test) + 15


class Page(HTMLParser):
    """The addresses and the images' words in a page."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.words, self.tags, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        self.words += [dict(attributes).get("alt", "") for _ in (tag,) if tag == "img"]

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_page_that_asks_for_nothing_outside(learned, tmp_path):
    folder, images = learned
    runs.evaluate_run(runs.load_run(folder), load_splits(choose_setting(str(images))), folder=tmp_path)
    text = (tmp_path / "evaluation.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert all(page.words)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "url(" not in text
    assert "@import" not in text
    assert all(name in page.text for name in ("ants", "bees", "wasps", "balanced accuracy"))


def test_names_that_look_like_html_are_text_in_the_report():
    name = "<script>alert(1)</script>"
    evaluation = Evaluation(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 1]))
    found = evaluating.measure(evaluation, [Path("a"), Path("b")], [name, "b&b"])
    page = Page(evaluating.as_html(found, evaluation, [Path("a"), Path("b")], [name, "b&b"], title=name))
    assert "script" not in page.tags
    assert name in page.text
    assert "b&b" in page.text


# ---- what a user can cause


def refused(capsys, *arguments):
    """The one line of a command that fails."""
    assert run(*arguments) in (1, 2)
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    return printed.err


def test_folders_of_other_names_one_class_or_none_are_a_line_and_nothing_is_written(learned, tmp_path, capsys):
    folder, _ = learned
    draw_classes(tmp_path / "others", ("cats", "dogs"))
    draw_classes(tmp_path / "one", ("ants",))
    (tmp_path / "empty").mkdir()
    lines = {
        "others": "The run knows the classes ants, bees, wasps; the folders are called cats, dogs.",
        "one": "has one class folder (ants)",
        "empty": "has no class folders",
    }
    for name, expected in lines.items():
        assert expected in refused(capsys, "evaluate", folder, "--data", tmp_path / name, "--out", tmp_path / "out")
    assert "Name it with --data" in refused(capsys, "evaluate", folder, "--out", tmp_path / "out")
    assert "holds no finished run" in refused(capsys, "evaluate", tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_called_like_a_setting_is_not_taken_for_it(learned, tmp_path, capsys):
    """Its run would be asked about the course's own cats and dogs."""
    loaded = runs.load_run(learned[0])
    loaded.about |= {"data": "sample", "classes": ["cats", "dogs"]}
    loaded.model = models.replace_head(models.load_backbone("vgg16", SAMPLE / "vgg16_slim.safetensors"), 2)
    runs.save_run(replace(loaded, strangeness=None), tmp_path / "run")
    assert "Name them with --data DIR" in refused(capsys, "evaluate", tmp_path / "run")


def test_a_run_that_has_seen_all_or_does_not_say_what_is_a_line(learned):
    folder, images = learned
    loaded, splits = runs.load_run(folder), load_splits(choose_setting(str(images)))
    with pytest.raises(BadArgument, match="has learned from every image"):
        runs.unseen(loaded, replace(splits, test=splits.train))
    del loaded.about["seen"]
    with pytest.raises(BadArgument, match="does not say which images it learned from"):
        runs.unseen(loaded, splits)


def test_a_full_disk_leaves_no_half_of_a_report(learned, tmp_path, capsys, monkeypatch):
    folder, images = learned
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("helpers.downloads.os.fsync", lambda number: (_ for _ in ()).throw(full))
    assert "No space left" in refused(capsys, "evaluate", folder, "--data", images, "--out", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_run_without_features_refuses_nothing_and_says_so(learned, tmp_path, capsys):
    """As those from scratch and those of earlier versions are: no such tensors in the file, no such word in it."""
    folder, images = learned
    loaded = runs.load_run(folder)
    del loaded.about["temperature"]
    runs.save_run(replace(loaded, strangeness=None), tmp_path / "old")
    old = runs.load_run(tmp_path / "old")
    assert old.strangeness is None
    some = noise_beside(images, tmp_path / "some")
    assert run("predict", tmp_path / "old", some) == 0
    assert "none of these" not in capsys.readouterr().out
    found = runs.evaluate_run(old, load_splits(choose_setting(str(images))))
    assert (found["temperature"], found["refused"]) == (1.0, None)
    assert found["log_loss"] == pytest.approx(found["log_loss_before"], abs=1e-6)


def test_damage_to_what_a_run_knows_of_its_training_images_is_noticed(learned, tmp_path):
    folder, _ = learned
    file = shutil.copy(folder / "model.safetensors", tmp_path / "model.safetensors")
    tensors, metadata = load_file(file), {"run": json.dumps(json.loads(header(file)["run"]))}
    tensors["strangeness.known"][0, 0] += 1
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(BadArgument, match="is damaged"):
        runs.load_run(tmp_path)


def header(file):
    """The metadata of a safetensors file."""
    content = Path(file).read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]


def test_balanced_training_is_for_stored_features(learned, tmp_path, capsys):
    _, images = learned
    line = refused(capsys, "train", "scratch", "--balanced", "--data", images, "--out", tmp_path / "out")
    assert "training from scratch has none" in line
