"""Wrong fields of a configuration: each is named, in one message."""

from dataclasses import asdict

import pytest

from oligo_ad.checking import checked
from oligo_ad.config import CacheConfig, SimulationConfig, SplitConfig
from tests.builders import answer, assert_says, configuration


def test_every_wrong_field_is_named_with_what_was_given() -> None:
    given = {
        "nuclei": 1,
        "genes": "many",
        "effect": -1,
        "interaction": 2,
        "confounding": 1,
        "oligodendrocytes": 0.5,
    }
    message = answer(checked, SimulationConfig, given | {"sead": 3}, "data.simulation")
    wrong = ("nuclei=1", "genes=many", "effect=-1", "interaction=2", "sead=3")
    assert_says(
        message, *(f"data.simulation.{field}" for field in wrong), "data.simulation.seed", "Did you mean"
    )
    assert not [word for word in ("confounding=", "oligodendrocytes=") if word in message]
    assert len(message.splitlines()) == 6


def test_right_fields_become_an_instance_whatever_text_they_were() -> None:
    assert checked(CacheConfig, {"dir": "here"}) == CacheConfig(dir="here")


@pytest.mark.parametrize("share", [0, 1, -0.2, 1.5, float("nan")])
def test_a_share_is_above_zero_and_below_one(share: float) -> None:
    split = asdict(configuration().split)
    for field in ("test_fraction", "validation_fraction"):
        assert_says(answer(checked, SplitConfig, split | {field: share}, "split"), f"split.{field}={share}")
    assert checked(SplitConfig, split | {"test_fraction": 0.01}).test_fraction == 0.01
