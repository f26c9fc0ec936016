"""One call finds each planted fault, and none in a healthy model; its page and program say so."""

import json
import re
import subprocess
import sys

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import cnnviz
from cnnviz.diagnosis.findings import SEVERITIES
from cnnviz.diagnosis.measures import difference, interval
from cnnviz.diagnosis.questions import QUESTIONS

diagnose = cnnviz.diagnose
N = 120


def squares(seed, n=N, noise=0.1):
    """-> (noisy images of 16x16 in 0..1 with a blue (0) or a red (1) square, labels)."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(n) % 2).astype(np.int32)
    images = random.normal(0.5, noise, (n, 16, 16, 3)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        top, left = random.integers(0, 9, 2)
        image[top : top + 6, left : left + 6] = [1, 0, 0] if label else [0, 0, 1]
    return images, labels


@pytest.fixture(scope="module")
def data():
    return squares(0)


@pytest.fixture(scope="module", name="color_model")
def fixture_color_model(color_model):
    """The color model as if it was trained: biases of exactly 0 are those of an untrained one."""
    return copy(color_model)


def copy(model, gain=1.0, bias=0.01, hidden=0.001):
    """The color model with another scale and bias of its logit, and of its filters."""
    model = keras.models.clone_model(model)
    kernel = np.array([[1, -1], [0, 0], [-1, 1]], np.float32)[None, None]
    model.get_layer("conv").set_weights([kernel, np.full(2, hidden, np.float32)])
    model.get_layer("head").set_weights([gain * np.array([[20.0], [-20]]), np.full(1, bias)])
    return model


def kinds(found, severity="fault"):
    return [one.kind for one in found.findings if one.severity == severity]


@pytest.mark.parametrize("pick", [slice(None), slice(40)])
def test_a_healthy_model_has_no_fault_and_every_check_says_what_it_did(color_model, data, pick):
    found = diagnose(color_model, (data[0][pick], data[1][pick]), train=squares(1))
    assert found.faults == () and kinds(found, "suspicion") == []
    assert found.n_images == {"validation": len(data[1][pick]), "train": N}
    assert [check.name for check in found.checks] == list(QUESTIONS)
    assert all(check.result and check.limits for check in found.checks)
    failed = [check.name for check in found.checks if not check.ran]
    assert failed == ["new data", "shortcuts"] and "2 could not run" in found.verdict
    assert "0 faults" in str(found) and "- overfitting: accuracy 100.0%" in str(found)


def nan_weights(model, x, y):
    model = copy(model)
    model.get_layer("head").kernel.assign([[np.nan], [1.0]])
    return model, (x, y), {}


def nan_outputs(model, x, y):
    return copy(model, 1e37), (np.where(np.arange(N)[:, None, None, None] < 9, 1e3 * x, x), y), {}


def mislabeled(model, x, y):
    return model, (x, np.where(np.arange(N) % 8 == 0, 1 - y, y)), {}


def leaked(model, x, y):
    others = squares(1)
    train = np.concatenate([others[0], x[:30]]), np.concatenate([others[1], y[:30]])
    return model, (x, y), {"train": train}


def overfitted(model, x, y):
    train = squares(1)
    wrong = np.random.default_rng(2).random(N) < 0.3
    x = np.where(wrong[:, None, None, None], x[..., ::-1], x)
    return model, (x, y), {"train": train}


def elsewhere(model, x, y):
    x = np.where((np.arange(N) % 3 == 0)[:, None, None, None], x[..., ::-1], x)
    return model, squares(3), {"test": (x, y)}


def repeated(model, x, y):
    return model, (np.concatenate([x[:60], np.repeat(x[:1], 60, 0)]), y), {}


PLANTED = {
    "nan": (nan_weights, "nan", "'head' hold"),
    "nan out": (nan_outputs, "nan", "9 images"),
    "collapse": (lambda m, x, y: (copy(m, bias=1e6), (x, y), {}), "collapse", "for 100.0%"),
    "inputs": (lambda m, x, y: (m, (x[..., ::-1], y), {}), "inputs", "BGR"),
    "chance": (lambda m, x, y: (m, (x, np.roll(np.sort(y), 1)), {}), "mistakes", "not above"),
    "labels": (mislabeled, "label errors", "labels are wrong"),
    "leakage": (leaked, "leakage", "25.0%"),
    "overfitting": (overfitted, "overfitting", "in train"),
    "elsewhere": (elsewhere, "mistakes", "in test"),
    "repeated": (repeated, "images", "image"),
    "dead": (lambda m, x, y: (copy(m, hidden=-1e4), (x, y), {}), "dead filters", "never fire"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_and_named(color_model, data, fault):
    plant, kind, words = PLANTED[fault]
    model, validation, more = plant(color_model, *data)
    found = diagnose(model, validation, **more)
    assert kind in kinds(found), str(found)
    one = next(one for one in found.faults if one.kind == kind)
    assert re.search(words, one.sentence) and one.remedy and one.call
    if fault != "overfitting":  # which may be wrong labels, too
        assert found.findings[0].kind == kind


def test_findings_name_the_images_and_their_files(color_model, data):
    images, labels = data
    wrong = np.arange(0, N, 8)
    labels = labels.copy()
    labels[wrong] = 1 - labels[wrong]
    paths = [f"{index}.png" for index in range(N)]
    found = diagnose(color_model, (images, labels), paths=paths, class_names=("blue", "red"))
    one = found.faults[0]
    assert set(one.indices[:15]) == set(wrong)
    assert one.files == tuple(f"{index}.png" for index in one.indices)
    assert one.low <= 15 <= one.high and one.cost == len(one.indices) / N == one.number / N
    shuffled = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(N).batch(16)
    found = diagnose(color_model, shuffled)
    assert found.findings[0].kind == "label errors" and len(found.findings[0].indices) == 0
    assert "shuffled" in found.checks[1].result


def test_the_other_checks_use_repaired_images(color_model, data):
    images, labels = data
    labels = np.where(np.arange(N) % 8 == 0, 1 - labels, labels)
    found = diagnose(color_model, (images[..., ::-1], labels))
    assert kinds(found)[0] == "inputs" and "label errors" in kinds(found)
    assert "accuracy 87.5%" in next(c.result for c in found.checks if c.name == "accuracy")


def test_one_sided_imbalance_and_calibration_are_no_faults(color_model, data):
    images, labels = data
    keep = np.flatnonzero((labels == 0) | (np.cumsum(labels) < 5))
    found = diagnose(copy(color_model, 0.2), (images[keep], labels[keep]))
    assert "imbalance" in kinds(found, "note") and found.faults == ()
    half = (labels == 0) & (np.arange(N) % 2 == 0)
    mixed = np.where(half[:, None, None, None], images[..., ::-1], images)
    found = diagnose(color_model, (mixed, labels))
    assert {"mistakes", "calibration"} <= set(kinds(found, "suspicion"))


def test_a_collapse_by_a_bias_is_no_fault_of_the_inputs(color_model, data):
    """Though in 0..255 the images would drown the bias."""
    found = diagnose(copy(color_model, bias=99), data)
    assert kinds(found) == ["collapse"]
    labels = next(check for check in found.checks if check.name == "label errors")
    assert not labels.ran


def test_findings_are_ranked_by_severity_then_cost(color_model, data):
    found = diagnose(*leaked(color_model, *data)[:2], **leaked(color_model, *data)[2])
    order = [(SEVERITIES.index(o.severity), -(o.cost or 0)) for o in found.findings]
    assert order == sorted(order)


def test_the_page_stands_alone_and_the_json_has_no_nan(color_model, data, tmp_path):
    found = diagnose(*mislabeled(color_model, *data)[:2])
    found.save(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert len(text) < 5e6 and 'lang="en"' in text and found.verdict.replace("'", "&#x27;") in text
    images = re.findall("<img[^>]*>", text)
    assert len(images) == sum(one.figure is not None for one in found.findings) > 0
    assert all(re.search('alt="[^"]{9,}" .*src="data:image/', one) for one in images)
    assert not re.search(r'(src|href)="(?!data:)', text)
    found.save(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert read == json.loads(json.dumps(found.to_dict())) and read["schema"] == 1
    assert read["findings"][0].keys() == {
        *("severity", "kind", "sentence", "remedy", "call", "number", "low", "high", "cost"),
        *("indices", "files", "split"),
    }
    with pytest.raises(ValueError, match="'.html' or '.json'"):
        found.save(tmp_path / "report.pdf")


@pytest.fixture
def folders(tmp_path, color_model):
    """A saved model, and a folder of images for each class."""
    for index, (image, label) in enumerate(zip(*squares(5, 40), strict=True)):
        folder = tmp_path / "photos" / ("blue", "red")[label]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.uint8(255 * np.clip(image, 0, 1))
        PIL.Image.fromarray(pixels).save(folder / f"{index}.png")
    color_model.save(tmp_path / "model.keras")
    return tmp_path


def test_the_program_tells_by_its_exit_code(folders, capsys):
    from cnnviz.__main__ import main

    model, photos = str(folders / "model.keras"), str(folders / "photos")
    options = ["--range", "0", "1", "--trusted"]
    pages = ["--html", str(folders / "a.html"), "--json", str(folders / "a.json")]
    assert main([model, photos, *options, *pages]) == 0
    assert "0 faults" in capsys.readouterr().out
    assert json.loads((folders / "a.json").read_text())["images"] == {"validation": 40}
    assert main([model, photos, *options, "--train", photos]) == 1
    assert "FAULT, leakage" in capsys.readouterr().out
    names = ["--classes", "red", "green"]
    for wrong in ([model, str(folders / "none")], [photos, photos], [model, photos, *names]):
        assert main([*wrong, *options]) == 2
        error = capsys.readouterr().err
        assert error.startswith("cnnviz: ") and error.count("\n") == 1


def test_the_program_starts_as_a_module():
    run = [sys.executable, "-m", "cnnviz", "--help"]
    assert "Exit code" in subprocess.run(run, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paths": ["a"]}, r"`paths` \(1\) must be one for each of 120"),
        ({"train": squares(0)[0]}, "`train` .of images without labels"),
        ({"test": "/nowhere"}, r"`test` \(='/nowhere'\) must hold one folder"),
    ],
)
def test_data_that_do_not_fit_are_errors(color_model, data, change, message):
    with pytest.raises(ValueError, match=message):
        diagnose(color_model, data, **change)


def test_intervals_are_those_of_the_papers():
    """Newcombe 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I,
    table II, method 10, and Wilson's by its formula."""
    np.testing.assert_allclose(difference(56, 70, 48, 80), (0.2, 0.0524, 0.3339), atol=5e-5)
    np.testing.assert_allclose(difference(9, 10, 3, 10), (0.6, 0.1705, 0.8090), atol=5e-5)
    z, n, p = 1.959964, 50, 0.9
    center, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n * n)) ** 0.5
    ends = (center - half) / (1 + z * z / n), (center + half) / (1 + z * z / n)
    np.testing.assert_allclose(interval(45, 50), (p, *ends), rtol=1e-6)
