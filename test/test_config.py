"""Settings: each default once, defaults < file < flag, and mistakes named with the valid choice."""

import dataclasses
import json
from dataclasses import dataclass, field

import pytest

from mde_ros.config import (
    CompletionSettings,
    ConfigError,
    NodeSettings,
    PipelineSettings,
    as_dict,
    build,
    check,
    load,
    setting,
)


@dataclass(frozen=True)
class Inner:
    rate: float = setting(0.5, "", low=0.0, high=1.0)
    steps: int = setting(10, "", low=1)

    def __post_init__(self):
        check(self)


@dataclass(frozen=True)
class Outer:
    name: str = setting("x", "", choices=("x", "y"))
    flag: bool = setting(False, "")
    size: tuple[int, int] | None = setting(None, "")
    names: tuple[str, ...] = setting((), "")
    inner: Inner = field(default_factory=Inner)
    many: tuple[Inner, ...] = setting((), "")

    def __post_init__(self):
        check(self)


@dataclass(frozen=True)
class Middle:
    inner: Inner = field(default_factory=lambda: Inner(rate=0.1, steps=2))


@dataclass(frozen=True)
class Whole:
    inner: Inner = field(default_factory=lambda: Inner(rate=0.3, steps=3))
    middle: Middle = field(default_factory=lambda: Middle(Inner(rate=0.7, steps=7)))


def write(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return path


def test_flag_beats_file_beats_default_also_inside_a_group(tmp_path):
    path = write(tmp_path, "name: y\ninner: {rate: 0.25, steps: 3}\n")
    loaded = load(Outer, path, inner={"steps": 7}, flag=None)
    assert loaded == Outer(name="y", inner=Inner(rate=0.25, steps=7))


def test_empty_file_gives_the_defaults(tmp_path):
    assert load(Outer, write(tmp_path, "")) == Outer()


@pytest.mark.parametrize(("text", "rate"), [("1e-3", 1e-3), ("2.5E-1", 0.25), ("1", 1)])
def test_number_is_read_as_one_however_it_is_written(tmp_path, text, rate):
    """YAML 1.1 takes 1e-3 for a string."""
    assert load(Outer, write(tmp_path, f"inner: {{rate: {text}}}")).inner.rate == rate


def test_lists_become_tuples_and_groups_dataclasses():
    built = build(Outer, {"size": [4, 3], "names": ["a"], "many": [{"steps": 2}, {}]})
    assert built == Outer(size=(4, 3), names=("a",), many=(Inner(steps=2), Inner()))


def test_group_that_is_given_in_part_keeps_the_rest_of_its_own_defaults(tmp_path):
    """Those of the field, at every depth, and not those of the group's class."""

    built = build(Whole, {"inner": {"steps": 4}, "middle": {"inner": {"steps": 5}}})
    assert built == Whole(Inner(rate=0.3, steps=4), Middle(Inner(rate=0.7, steps=5)))
    assert build(Whole, {"inner": {}, "middle": {}}) == Whole()
    assert load(Whole, write(tmp_path, "middle: {inner: {rate: 0.2}}")).middle.inner.steps == 7


def test_settings_survive_the_way_through_json():
    settings = Outer(size=(4, 3), many=(Inner(rate=1.0),), inner=Inner(steps=2))
    assert build(Outer, json.loads(json.dumps(as_dict(settings)))) == settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nmae": "y"}, "unknown key 'nmae'; valid: flag, inner, many, name, names, size"),
        ({"inner": {"stepz": 1}}, r"inner: unknown key 'stepz'; valid: rate, steps"),
        ({"many": [{}, {"stepz": 1}]}, r"many\[1\]: unknown key 'stepz'"),
        ({"name": "z"}, "name: expected one of x, y, got 'z'"),
        ({"inner": {"rate": 1.5}}, r"rate: expected a value in \[0.0, 1.0\], got 1.5"),
        ({"inner": {"rate": -0.1}}, r"rate: expected a value in \[0.0, 1.0\]"),
        ({"inner": {"rate": float("nan")}}, r"rate: expected a value in .* got nan"),
        ({"inner": {"steps": 0}}, "steps: expected a value in"),
        ({"inner": {"steps": 2.0}}, "steps: expected int, got 2.0"),
        ({"inner": {"steps": True}}, "steps: expected int, got True"),
        ({"inner": {"rate": "fast"}}, "rate: expected float, got 'fast'"),
        ({"inner": 3}, "inner: expected Inner, got 3"),
        ({"flag": 1}, "flag: expected bool, got 1"),
        ({"size": [4]}, r"size: expected tuple\[int, int\] | None, got \(4,\)"),
        ({"size": ["a", "b"]}, "size: expected .*, got"),
        ({"size": 4}, "size: expected .*, got 4"),
        ({"names": [1]}, "names: expected .*, got"),
        ({"many": [3]}, r"many\[0\]: expected a mapping .*, got 3"),
        ([1], "expected a mapping of names to values, got"),
    ],
)
def test_what_does_not_fit_is_named_with_expected_and_got(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build(Outer, values, "here")
    assert str(caught.value).startswith("here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "expected a mapping"),
        ("a: [", "not valid YAML"),
        ("inner:\n  steps: 0", r"settings\.yaml.inner: steps"),
    ],
)
def test_malformed_file_is_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(Outer, write(tmp_path, text))


def test_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load(Outer, "nowhere.yaml")


def test_depth_range_must_not_be_empty():
    with pytest.raises(ConfigError, match=r"min_depth: expected less than max_depth \(2.0\)"):
        PipelineSettings(min_depth=3.0, max_depth=2.0)


@pytest.mark.parametrize("cls", [PipelineSettings, NodeSettings, CompletionSettings])
def test_every_field_has_a_description_and_a_default_within_its_bounds(cls):
    check(cls())
    assert all(f.metadata["help"] for f in dataclasses.fields(cls))
