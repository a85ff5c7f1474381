"""One person under two ids, or in two cohorts, is found; chance is not taken for a person."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from oligo_ad import tasks
from oligo_ad.config import InspectTask
from oligo_ad.data.overlap import expected_pairs, people_of, shared, twins
from tests import builders


def donors(n: int = 20, seed: int = 0, prefix: str = "D") -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "obs:Age at Death": rng.integers(65, 102, n).astype(float),
            "obs:Sex": rng.choice(["Female", "Male"], n),
            "obs:APOE Genotype": rng.choice(["3/3", "3/4", "2/3"], n),
            "obs:PMI": rng.uniform(2, 20, n).round(2),
        },
        [f"{prefix}{i:02d}" for i in range(n)],
    )


def test_a_donor_under_two_ids_is_named() -> None:
    table = donors()
    assert twins(people_of(table)) == []
    twin = table.iloc[[3]].set_axis(["D03-again"])
    (found,) = twins(people_of(pd.concat([table, twin])))
    assert found.startswith("1 pairs of donors")
    assert "D03 and D03-again" in found


def test_facts_that_chance_repeats_name_nobody() -> None:
    table = donors(60).drop(columns="obs:PMI")
    table["obs:Age at Death"] = 90.0
    assert set(people_of(table).facts) == {""}
    assert twins(people_of(table)) == []


def test_pairs_expected_by_chance_are_those_that_occur() -> None:
    rng, seen, expected = np.random.default_rng(0), [], []
    for _ in range(300):
        facts = pd.DataFrame({"a": rng.integers(0, 6, 20), "b=x": rng.integers(0, 2, 20)}, dtype=float)
        facts["b=y"] = 1 - facts["b=x"]
        counts = facts.value_counts()
        seen.append((counts * (counts - 1) / 2).sum())
        expected.append(expected_pairs(facts))
    assert np.mean(expected) == pytest.approx(np.mean(seen), rel=0.25)


def test_too_few_known_facts_name_nobody() -> None:
    table = donors()[["obs:Sex", "obs:PMI"]]
    assert set(people_of(table).facts) == {""}


def test_donors_of_two_cohorts_are_found_by_id_in_any_spelling_and_by_their_facts() -> None:
    own, other = donors(), donors(12, seed=5, prefix="X")
    other = pd.concat([other, own.iloc[[1]].set_axis(["other name"]), donors().iloc[[2]].set_axis([" d02 "])])
    other.loc[" d02 ", "obs:Age at Death"] = 70.0
    by_id, by_facts = shared(people_of(own), people_of(other))
    assert by_id == "1 donors are in both, by id: D02"
    assert by_facts.startswith("1 more have the facts of a donor there: D01 (other name there)")
    assert shared(people_of(own), people_of(donors(12, seed=6, prefix="Y"))) == []


def test_inspect_tells_the_donors_that_a_run_has_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = builders.write(builders.atlas(), tmp_path)
    config = builders.configuration(
        f"data.path={path}", f"cache.dir={tmp_path / 'cache'}", "fit.epochs=1", "model.network.hidden=[8]"
    )
    tasks.run(config, tmp_path / "run")
    for run, said in ((str(tmp_path / "run"), True), (None, False)):
        tasks.run(replace(config, task=InspectTask(name="inspect", run=run)), tmp_path / "none")
        assert ("15 donors are in both, by id" in capsys.readouterr().out) == said
