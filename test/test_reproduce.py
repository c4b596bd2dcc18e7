"""Reproductions: what a record holds comes out again, and every experiment names its claims."""

import importlib
import json

import pytest

from mde_ros.cli import main
from mde_ros.config import ConfigError
from mde_ros.reproduce import EXPERIMENTS
from mde_ros.reproduce.record import Record, ReproduceSettings, table


@pytest.fixture
def record(tmp_path):
    made = Record("x", "A table", "Somebody 2020", ReproduceSettings(out=str(tmp_path)))
    made.paper = [{"name": "theirs", "RMSE, m": 0.5}]
    made.ours = [{"name": "ours", "RMSE, m": 0.25, "± RMSE": 0.01}]
    made.claim("ours is better", True, "0.25 against 0.5 m")
    made.claim("ours is faster", False, "2 against 1 ms")
    return made


def test_record_comes_back_with_every_key_of_its_format(record, tmp_path):
    page = record.save()
    values = json.loads((tmp_path / "x.json").read_text())
    keys = {"source", "paper", "ours", "claims", "scale", "seeds", "seconds", "settings"}
    assert set(values) == keys and page == tmp_path / "x.md"
    assert values["ours"] == record.ours and values["seeds"] == [0, 1, 2]
    assert [c["holds"] for c in values["claims"]] == [True, False]


def test_claim_that_does_not_hold_stays_on_the_page(record):
    text = record.save().read_text()
    assert "**does not hold**: ours is faster (2 against 1 ms)" in text
    assert "1 of 2 claims hold" in text and "mde reproduce x --seeds 0 1 2" in text


def test_table_has_a_column_for_every_figure_and_blanks_where_there_is_none():
    lines = table([{"name": "a", "x": 1.0}, {"name": "b", "y": 2}]).splitlines()
    assert lines == [
        "| name | x | y |", "| --- | --- | --- |", "| a | 1.000 |  |", "| b |  | 2 |"
    ]  # fmt: skip


def test_data_of_the_full_scale_is_asked_for_by_name():
    settings = ReproduceSettings(data=("train=/a", "val=/b"))
    assert settings.path("val") == "/b"
    with pytest.raises(ConfigError, match=r"data: expected test=PATH"):
        settings.path("test")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_listed_experiment_runs_from_settings_and_has_published_rows(name):
    module = importlib.import_module(f"mde_ros.reproduce.{name.replace('-', '_')}")
    assert callable(module.run)
    assert module.PAPER


def test_unknown_experiment_is_refused_with_the_list(capsys):
    assert main(["reproduce", "everything"]) == 2
    assert "single-line" in capsys.readouterr().err
