"""The report: whole in one file, and showing what it was given."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from mde_ros.evaluation import render
from mde_ros.evaluation.evaluate import evaluate
from mde_ros.evaluation.pictures import Picture, save_pictures, take_pictures
from mde_ros.evaluation.results import ResultsError, write_json
from mde_ros.frame import Camera, Frame, Prediction

W, H = 96, 64
CAMERA = Camera(W, H, np.array([[90, 0, 47.5], [0, 90, 31.5], [0, 0, 1.0]]))
MAGENTA = (255, 0, 255)


class Sample:
    def __init__(self, i: int) -> None:
        image = np.full((H, W, 3), MAGENTA, np.uint8)
        self.frame = Frame(image, CAMERA, stamp_ns=i * 10**8)
        self.truth_m = np.full((H, W), 2.0 + 0.1 * i, np.float32)
        self.truth_m[20:40, 30:60] = 1.2
        self.name = f"frame{i}"


def models():
    return {
        "near": lambda f: Prediction(np.full((H, W), 1.5, np.float32)),
        "far <b>": lambda f: Prediction(np.full((H, W), 3.0, np.float32)),
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    from mde_ros.evaluation.report import write_report

    data = [Sample(i) for i in range(4)]
    results = evaluate(data, models(), name="planted")
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report([results], take_pictures(data, models(), results), path)
    return path


@pytest.fixture
def no_charts(monkeypatch):
    """Drawing takes seconds, and some tests look at the tables alone."""
    monkeypatch.setattr("mde_ros.evaluation.report._charts", lambda rows: [])


class Links(HTMLParser):
    """Collects everything a page would load or lead to, and the text it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.words.append(data)


def parsed(path) -> Links:
    links = Links()
    links.feed(path.read_text("utf-8"))
    return links


def test_report_loads_nothing_from_outside_and_embeds_its_pictures(page):
    seen = parsed(page)
    assert seen.links and all(link.startswith("data:image/") for link in seen.links)
    text = re.sub(r"data:image/[\w+]+;base64,[A-Za-z0-9+/=]+", "", page.read_text("utf-8"))
    assert not re.search(r"https?:|//\w|@import|url\(|<script|<link", text)
    # 3 frames x (3 depths, 2 errors, camera image, 3 x 2 clouds) and 6 charts
    assert seen.tags.count("img") == 3 * 12 + 6


def test_report_tells_the_numbers_that_the_results_hold(page):
    words = " ".join(" ".join(parsed(page).words).split())
    data = [Sample(i) for i in range(4)]
    for model in evaluate(data, models())["models"]:
        assert f"{model['metrics']['abs_rel']:.3f}" in words
        assert f"{model['median_scaled']['rmse_m']:.3f}" in words
        assert model["name"] in words  # escaped, not taken as a tag
    assert "best frame" in words and "worst frame" in words and "4 / 4" in words


def test_report_of_saved_results_equals_the_direct_one(page, tmp_path):
    from mde_ros.evaluation.report import run_report

    data = [Sample(i) for i in range(4)]
    results = evaluate(data, models(), name="planted")
    write_json(tmp_path / "r.json", results)
    save_pictures(tmp_path / "r.npz", take_pictures(data, models(), results))
    assert run_report([str(tmp_path / "r.json")], output=str(tmp_path / "again.html")) == 0
    assert parsed(tmp_path / "again.html").tags == parsed(page).tags


def test_report_of_several_results_has_a_row_for_each(tmp_path, no_charts):
    from mde_ros.evaluation.report import write_report

    data = [Sample(i) for i in range(2)]
    both = [evaluate(data, models(), name=n) for n in ("kitchen", "corridor")]
    write_report(both, [], tmp_path / "two.html")
    words = " ".join(parsed(tmp_path / "two.html").words)
    for label in ("near · kitchen", "near · corridor", "far <b> · kitchen", "far <b> · corridor"):
        assert label in words


def test_best_is_marked_among_models_on_the_same_data_only(tmp_path, no_charts):
    from mde_ros.evaluation.report import write_report

    one, two = ({k: m} for k, m in models().items())
    alone = [evaluate([Sample(0)], one, name="a"), evaluate([Sample(1)], two, name="b")]
    write_report(alone, [], tmp_path / "apart.html")
    write_report([evaluate([Sample(0)], models())], [], tmp_path / "beside.html")
    assert 'class="best"' not in (tmp_path / "apart.html").read_text("utf-8")
    assert 'class="best"' in (tmp_path / "beside.html").read_text("utf-8")


def test_report_of_one_frame_and_of_a_frame_without_truth(tmp_path):
    from mde_ros.evaluation.report import write_report

    results = evaluate([Sample(0)], models())
    depth = np.full((H, W), 2.0, np.float32)
    picture = Picture("still", "a", np.zeros((H, W, 3), np.uint8), CAMERA, None, {"near": depth})
    write_report([results], [picture], tmp_path / "one.html")
    assert parsed(tmp_path / "one.html").tags.count("img") == 4 + 6


def test_missing_results_file_is_a_user_error(tmp_path):
    from mde_ros.evaluation.report import run_report

    with pytest.raises(ResultsError, match="cannot be read"):
        run_report([str(tmp_path / "none.json")], output=str(tmp_path / "x.html"))


def test_depth_picture_is_red_near_blue_far_and_grey_without_depth():
    depth = np.array([[1.0, 5.0, 0.0, np.nan]], np.float32)
    near, far, none, nan = render.depth_picture(depth, 1.0, 5.0)[0].astype(int)
    assert near[0] > 2 * near[2] and far[2] > 1.5 * far[0]
    assert none.tolist() == nan.tolist() == render.NOTHING.tolist()


def test_scan_picture_has_a_dot_in_the_colour_of_its_depth_where_the_point_projects():
    image = np.full((H, W, 3), MAGENTA, np.uint8)
    points = np.float32(
        [[0.51, 0.02, 3], [-0.26, 0.11, 1.5], [0, 0, -1], [9, 0, 1]]
    )  # two are unseen
    picture = render.scan_picture(image, points, CAMERA, 1.0, 4.0)
    for point in points[:2]:
        u, v = np.rint(90 * point[:2] / point[2] + (47.5, 31.5)).astype(int)
        assert picture[v, u].tolist() == render.depth_picture(point[2:], 1.0, 4.0)[0].tolist()
        picture[v - 4 : v + 5, u - 4 : u + 5] = MAGENTA
    np.testing.assert_array_equal(picture, image)
    np.testing.assert_array_equal(render.scan_picture(image, points[2:], CAMERA, 1.0, 4.0), image)


def test_error_picture_is_white_when_exact_red_too_far_blue_too_near():
    truth = np.full((1, 3), 2.0, np.float32)
    exact, far, near = render.error_picture(np.float32([[2, 3, 1]]), truth)[0].astype(int)
    assert exact.min() > 240
    assert far[0] > 2 * far[2] and near[2] > 2 * near[0]


def test_cloud_from_above_puts_a_wall_at_its_distance():
    """A wall at 4 m of a far end of 8 m is a line across the middle of the map, its width true."""
    size = (400, 300)
    image = np.full((H, W, 3), MAGENTA, np.uint8)
    depth = np.full((H, W), 4.0, np.float32)
    _, above = render.cloud_pictures(depth, image, CAMERA, (4.0, 8.0), size)
    rows, cols = np.nonzero((above[..., :3] == MAGENTA).all(-1))
    scale = 0.86 * size[1] / 8.0  # pixels per metre
    assert np.abs(rows - (0.95 * size[1] - 4 * scale)).max() <= 1
    assert cols.max() - cols.min() == pytest.approx(4 * (W - 1) / 90 * scale, abs=2)


def test_report_of_metrics_alone_has_no_chart_but_the_latency(tmp_path):
    from mde_ros.evaluation.report import write_report

    results = evaluate([Sample(0)], models())
    keep = ("name", "weights_sha256", "metrics", "median_scaled", "aggregation")
    results["models"] = [{k: m[k] for k in keep} for m in results["models"]]
    write_report([results], [], tmp_path / "bare.html")
    assert parsed(tmp_path / "bare.html").tags.count("img") == 1  # the latency of the run


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_browser_shows_the_pictures(page, tmp_path):
    """The magenta camera images take up their share of the screenshot."""
    shot = tmp_path / "shot.png"
    subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1240,5000",
         f"--screenshot={shot}", page.as_uri()],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    pixels = cv2.cvtColor(cv2.imread(str(shot)), cv2.COLOR_BGR2RGB).astype(int)
    magenta = (np.abs(pixels - MAGENTA).max(-1) < 12).sum()
    assert magenta > 3 * 300 * 200  # three camera images of a third of the page's width


def test_report_tells_what_moves_how_sure_it_is_what_the_node_did_and_each_part(
    tmp_path, no_charts
):
    from mde_ros.evaluation.report import write_report

    results = evaluate([Sample(0)], models(), name="fleet")
    near = results["models"][0]
    near["static"], near["dynamic"] = {"abs_rel": 0.1111}, {"abs_rel": 0.2222, "delta1": 0.3333}
    sure = {"within_1_sigma": 0.444, "within_2_sigma": 0.5, "ause": 0.0555, "aurg": 0.1}
    latency = {"p50": 6.66, "p95": 7.77, "p99": 8.88}
    live = {"fps": 29.97, "latency_ms": latency, "frames_in": 99, "frames_out": 97}
    live.update(dropped={"stale": 2}, max_difference_m=0.0042)
    near.update(uncertainty=sure, live=live)
    part = [{"name": n, "metrics": {"abs_rel": 0.1234}} for n in ("near", "far <b>")]
    results["parts"] = [
        {"name": "monday.mcap", "frames_in": 7, "frames_out": 6, "models": part},
        {"name": "tuesday.mcap", "problem": "tuesday.mcap: cut off"},
    ]
    write_report([results], [], tmp_path / "r.html")
    words = " ".join(" ".join(parsed(tmp_path / "r.html").words).split())
    for told in ("0.111", "0.222", "0.333", "44.4 %", "0.0555", "30.0", "8.9", "2 stale", "4.2 mm",
                 "monday.mcap 7 6", "0.123", "tuesday.mcap: cut off", "frames/s"):  # fmt: skip
        assert told in words, told
    write_report([evaluate([Sample(0)], models())], [], tmp_path / "plain.html")
    words = " ".join(parsed(tmp_path / "plain.html").words)
    for heading in ("what moves", "when it is wrong", "In the real node", "Data set by data set"):
        assert heading not in words
