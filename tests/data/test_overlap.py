"""One person under two ids, or in two cohorts, is found; chance is not taken for a person."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from oligo_ad import tasks
from oligo_ad.config import InspectTask
from oligo_ad.data.overlap import FACTS, alike, people_in, people_of, person, shared, twins
from oligo_ad.record import Record
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


def test_a_donor_under_two_ids_is_named_beside_what_chance_makes() -> None:
    table = donors()
    assert twins(people_of(table)) == []
    twin = table.iloc[[3]].set_axis(["D03-again"])
    (found,) = twins(people_of(pd.concat([table, twin])))
    assert found.startswith("1 pair of donors agrees in all that is known of both")
    builders.assert_says(found, "D03 and D03-again", "(chance makes 0.0", "pairs agree)")


def test_facts_that_chance_repeats_name_nobody() -> None:
    table = donors(80)
    table["obs:Age at Death"] = 90.0
    table["obs:PMI"] = np.arange(80) % 4
    found = alike(people_of(table).facts)
    assert len(found.pairs) > 5
    assert not found.is_telling
    assert twins(people_of(table)) == []


def test_pairs_expected_by_chance_are_as_many_as_occur() -> None:
    rng, seen, expected = np.random.default_rng(0), [], []
    for _ in range(200):
        facts = pd.DataFrame({fact: rng.integers(0, 3, 24).astype(str) for fact in FACTS}, dtype=object)
        facts = facts.where(rng.random(facts.shape) < 0.7, "")
        found = alike(facts[:12], facts[12:])
        seen.append(len(found.pairs))
        expected.append(found.by_chance)
    assert np.mean(seen) > 0.5
    assert np.mean(expected) == pytest.approx(np.mean(seen), rel=0.15)


def test_three_known_facts_are_too_few() -> None:
    table = donors(6).drop(columns="obs:PMI")
    assert alike(people_of(pd.concat([table, table.set_axis([*"abcdef"])])).facts).pairs == []


def test_what_one_cohort_does_not_know_does_not_count() -> None:
    """Four facts known of both suffice, however many one of them has beside."""
    more = donors().assign(**{"obs:Years of education": np.arange(20) % 9 + 8.0})
    less = donors().iloc[[4, 7]].set_axis(["x", "y"])
    assert alike(people_of(more).facts, people_of(less).facts).pairs == [("D04", "x"), ("D07", "y")]
    other = less.assign(**{"obs:education": [12.0, 30.0]})
    assert alike(people_of(more).facts, people_of(other).facts).pairs == [("D04", "x")]


def test_a_whole_cohort_under_other_ids_is_found() -> None:
    own = donors(48)
    (found,) = shared(people_of(own), people_of(own.set_axis([f"patient {i}" for i in range(48)])))
    assert "48 pairs of donors agree" in found


def test_facts_may_be_spelled_and_rounded_otherwise() -> None:
    names = ("obs:Age at Death", "obs:Sex", "obs:APOE Genotype", "obs:PMI")
    one = pd.DataFrame([["88.4", "F", "E3/E4", 5.2666]], ["a"], names)
    names = ("obs:age_death", "obs:msex", "obs:APOE", "obs:post_mortem_interval")
    two = pd.DataFrame([[88, 0, "43", "5.27 hours"]], ["b"], names)
    assert alike(people_of(one).facts, people_of(two).facts).pairs == [("a", "b")]
    two["obs:msex"] = 1
    assert alike(people_of(one).facts, people_of(two).facts).pairs == []


def test_donors_of_two_cohorts_are_found_by_id_in_any_spelling_and_by_their_facts() -> None:
    own, other = donors(), donors(12, seed=5, prefix="X")
    other = pd.concat([other, own.iloc[[1]].set_axis(["other name"]), donors().iloc[[2]].set_axis([" d02 "])])
    other.loc[" d02 ", "obs:Age at Death"] = 70.0
    by_id, by_facts = shared(people_of(own), people_of(other))
    assert by_id == "1 donor is in both, by id: D02"
    builders.assert_says(by_facts, "by other ids, 1 pair of donors agrees", "D01 (other name there)")
    assert shared(people_of(own), people_of(donors(12, seed=6, prefix="Y"))) == []


def test_the_same_ids_of_other_people_are_told_apart() -> None:
    own = donors()
    (told,) = shared(people_of(own), people_of(own.assign(**{"obs:Sex": "Male"}).iloc[:6]))
    women = int((own["obs:Sex"].iloc[:6] == "Female").sum())
    assert f"({women} of them with another sex or genotype there: other people)" in told


def nuclei(n: int, seed: int, donor: str, form: str = "{}") -> pd.DataFrame:
    letters = np.random.default_rng(seed).choice([*"ACGT"], (n, 16))
    return pd.DataFrame({"donor": donor, "barcode": [form.format("".join(row)) for row in letters]})


def shared_nuclei(own: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    return shared(*(people_of(pd.DataFrame(index=sorted(set(c["donor"]))), c) for c in (own, other)))


def test_the_same_barcodes_are_found_whatever_stands_around_them() -> None:
    own = pd.concat([nuclei(60, 1, "a", "{}-1"), nuclei(60, 2, "b", "{}-1")])
    others = [nuclei(200, 3, "x", "library7_{}"), nuclei(60, 4, "y", "library7_{}")]
    assert shared_nuclei(own, pd.concat(others)) == []
    again = nuclei(60, 1, "x", "library7_{}")
    said = ["by other ids, 1 donor is there by their barcodes: a (x there, 30 barcodes)"]
    assert shared_nuclei(own, pd.concat([*others, again[:30]])) == said
    assert shared_nuclei(own, pd.concat([*others, again[:9]])) == []


def test_barcodes_that_only_count_nuclei_tell_nothing() -> None:
    own, other = (pd.DataFrame({"donor": name, "barcode": [str(i) for i in range(50)]}) for name in "ab")
    assert shared_nuclei(own, other) == []


def test_a_run_keeps_the_facts_of_its_donors_in_hashes() -> None:
    words = person(people_of(donors()), "D03").split()
    assert len(words) == len(FACTS)
    assert words[4:] == ["-", "-", "-"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """On an atlas beside which there is another with the same donors under other ids."""
    folder = tmp_path_factory.mktemp("overlap")
    adata = builders.atlas(PMI=3 + np.arange(15) * 1.7)
    adata.obs["PMI"] = adata.obs["PMI"].astype(float)
    adata.obs_names = nuclei(adata.n_obs, 0, "", "{}-1")["barcode"]
    path = builders.write(adata, folder)
    words = (f"data.path={path}", f"cache.dir={folder / 'cache'}", "evaluation.depth_matched=false")
    config = builders.configuration(*words, "fit.epochs=1", "model.network.hidden=[8]", "split.lockbox=0.2")
    tasks.run(config, folder / "run")
    adata.obs["Donor ID"] = adata.obs["Donor ID"].cat.rename_categories(lambda name: f"patient {name}")
    builders.write(adata, folder, "renamed.h5ad")
    return Record(folder / "run")


def told(record: Record, file: str, run: str | None, capsys: pytest.CaptureFixture[str]) -> str:
    config = replace(record.config, data=replace(record.config.data, path=str(record.folder.parent / file)))
    capsys.readouterr()
    tasks.run(replace(config, task=InspectTask(name="inspect", run=run)), record.folder.parent / "none")
    return capsys.readouterr().out


def test_inspect_tells_the_donors_that_a_run_has_seen(
    run: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those in its lockbox too; by id, or under other ids by their facts and barcodes."""
    assert run.facts.locked
    assert "15 donors are in both, by id" in told(run, "atlas.h5ad", str(run.folder), capsys)
    assert "in both" not in told(run, "atlas.h5ad", None, capsys)
    text = told(run, "renamed.h5ad", str(run.folder), capsys)
    n = len(run.facts.donors)
    builders.assert_says(text, "15 pairs of donors agree", f"{n} donors are there by their barcodes")


def test_a_run_of_an_earlier_version_is_compared_by_id_alone(run: Record, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    facts = json.loads((run.folder / "facts.json").read_text())
    for of in facts["donors"].values():
        del of["person"]
    (tmp_path / "run/facts.json").write_text(json.dumps(facts))
    people = people_in(Record(tmp_path / "run"))
    assert set(people.facts.loc[list(facts["donors"])].to_numpy().ravel()) == {""}
    assert len(people.key) == 15


def test_of_nobody_nothing_is_known() -> None:
    people = people_of(donors().astype(str).iloc[:0])
    assert twins(people) == []
