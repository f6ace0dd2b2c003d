"""What a measurement may do to earlier ones in its file: nothing, until it is whole, and only on the same machine."""

import json
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks import accuracy, claims, curve, worth
from helpers.settings import environment

ELSEWHERE = environment() | {"cpu": "another"}


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _own_results(tmp_path, monkeypatch):
    for benchmark in (accuracy, curve, worth):
        monkeypatch.setattr(benchmark, "RESULTS", tmp_path)
    monkeypatch.setattr("benchmarks.pages.RESULTS", tmp_path)


# ------------------------------------------------------------------------------------------ claims


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A file with three seeds of a claim, and a function that measures it again by `effect(seed)`."""
    file, name = tmp_path / "claims.json", next(iter(claims.CLAIMS))
    old = claims.record({"seeds": [], "effects": []}, dict.fromkeys((0, 1, 2), (0.5, 1.0)), "float32")
    file.write_text(json.dumps({"claims": {name: {"float32": old}}}))
    monkeypatch.setattr(claims, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    monkeypatch.setattr(claims.torch, "set_num_threads", lambda count: None)

    def again(effect, seeds, add=False):
        monkeypatch.setattr(claims, "measure", lambda names, seed, precision: {names[0]: (effect(seed), 1.0)})
        options = Namespace(seeds=seeds, precision=["float32"], only=[name], add=add)
        claims.measure_all(options, file)

    return file, again


def of_claim(file):
    one = next(iter(read(file)["claims"].values()))["float32"]
    return dict(zip(one["seeds"], one["effects"], strict=True))


def test_a_claim_is_replaced_when_all_its_seeds_are_there(measured):
    file, again = measured

    def effect(seed):
        assert of_claim(file) == {0: 0.5, 1: 0.5, 2: 0.5}
        return seed / 10

    again(effect, [3, 4])
    assert of_claim(file) == {3: 0.3, 4: 0.4}


def test_a_claim_stays_as_it_was_if_a_seed_fails_and_the_others_are_not_awaited(measured):
    file, again = measured
    before, begun = file.read_bytes(), []

    def effect(seed):
        begun.append(seed)
        if seed == 1:
            raise ZeroDivisionError
        time.sleep(0.05)
        return 0.1

    with pytest.raises(ZeroDivisionError):
        again(effect, list(range(50)))
    assert read(file) == json.loads(before)
    assert len(begun) < 50


def test_seeds_are_added_on_the_same_machine_only(measured):
    file, again = measured
    again(lambda seed: 0.7, [5], add=True)
    assert of_claim(file) == {0: 0.5, 1: 0.5, 2: 0.5, 5: 0.7}
    content = read(file)
    next(iter(content["claims"].values()))["float32"]["environment"] = ELSEWHERE
    file.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=r"another.*anew"):
        again(lambda seed: 0.7, [6], add=True)
    assert read(file) == content


# ------------------------------------------------------------------------------------------- curve


def curve_of(monkeypatch, backbone, seeds, counts, transfer=0.9):
    """Measure a curve on which `count` images from scratch are right with a share of count / 400, or a part of that."""

    def measure_one(splits, setting, count, *, seed):
        about = {"data": splits.name, "backbone": setting.backbone, "seed": seed, "images": count}
        return about | {"scratch": count / 400 / (1 + seed), "transfer": transfer}

    monkeypatch.setattr(curve, "measure_one", measure_one)
    curve.measure(Namespace(data="sample", backbone=backbone, weights=None, seeds=seeds, counts=counts))


def test_a_curve_takes_more_counts_and_seeds_but_no_other_network(tmp_path, monkeypatch):
    file = tmp_path / "curve_sample.json"
    curve_of(monkeypatch, "vgg16", [0, 1], [10, 400])
    curve_of(monkeypatch, "vgg16", [0], [100])
    places = [(run["seed"], run["images"]) for run in read(file)["runs"]]
    assert places == [(0, 10), (0, 100), (0, 400), (1, 10), (1, 400)]
    assert {run["environment"]["cpu"] for run in read(file)["runs"]} == {environment()["cpu"]}
    curve_of(monkeypatch, "vgg16_bn", [1], [10])
    assert [(run["backbone"], run["seed"]) for run in read(file)["runs"]] == [("vgg16_bn", 1)]


def test_a_curve_is_read_draw_by_draw(tmp_path, monkeypatch):
    """Seed 0 is as good with 100 images, seed 1 a third of the way from 100 to 400 on a log scale, with 159.

    Also where a draw has fewer numbers of images than another, and where 10 was not measured.
    """
    curve_of(monkeypatch, "vgg16", [0, 1], [40, 100, 400], transfer=0.25)
    curve_of(monkeypatch, "vgg16", [0], [200], transfer=0.25)
    assert curve.readings(read(tmp_path / "curve_sample.json")["runs"]) == [
        "- 40 images transferred do as well as 100 to 159 from scratch, by the draw."
    ]
    assert "| `sample` | 200 | 50.0%" in curve.table()


# ------------------------------------------------------------------------------- accuracy, and worth


def test_one_model_alone_is_not_measured_beside_another_machines(tmp_path, monkeypatch):
    content = {"runs": [{"seed": 0, "environment": ELSEWHERE, "models": {"transfer": {}}}]}
    file = tmp_path / "accuracy_sample_vgg16.json"
    file.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=r"another.*anew"):
        accuracy.measure(Namespace(data="sample", backbone=None, weights=None, seeds=[0], only="scratch"))
    assert read(file) == content


def test_fine_tuned_networks_need_a_curve_to_stand_beside(tmp_path):
    given = {"data": "sample", "backbones": worth.SLIM, "seeds": [0], "fine_tune": [2]}
    with pytest.raises(SystemExit, match="without --fine-tune"):
        worth.measure(Namespace(**given))
    assert list(tmp_path.iterdir()) == []
