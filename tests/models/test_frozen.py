"""Vectors of a frozen network: any featurizer and network, a donor's its own, computed once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from oligo_ad import tasks
from oligo_ad.components import component
from oligo_ad.data.cohort import Cohort
from oligo_ad.inputs.batch import Batch
from oligo_ad.models.frozen import Frozen
from oligo_ad.models.pretrained import Pretrained
from oligo_ad.models.scgpt.checkpoint import read_folder
from oligo_ad.results import report
from oligo_ad.training.checkpoint import load_bundle
from tests import builders
from tests.builders import answer, assert_says, atlas, configuration, scgpt_folder

CPU = torch.device("cpu")
TRAIN = ("D00", "D01", "D02", "D05", "D06", "D07")
TOKENS = [f"GENE{i}" for i in range(40)]
INPUTS, MODELS = "oligo_ad.inputs.featurizers.", "oligo_ad.models."
SMALL = {"width": 16, "heads": 2, "layers": 2, "feedforward": 16}
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "transformer": (
        {"_target_": f"{INPUTS}ExpressedPanel", "n_genes": 15},
        {"_target_": f"{MODELS}transformer.Transformer", **SMALL},
    ),
    "mlp": (
        {"_target_": f"{INPUTS}StandardisedPanel", "n_genes": 15},
        {"_target_": f"{MODELS}mlp.MLP", "hidden": [16, 8]},
    ),
    "scgpt": (
        {"_target_": f"{MODELS}scgpt.tokens.BinnedGenes", "max_len": 20},
        {"_target_": f"{MODELS}scgpt.network.ScGPT"},
    ),
}
SIZES = {"transformer": 16, "mlp": 8, "scgpt": 32}
every_pair = pytest.mark.parametrize("pair", PAIRS)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """108 nuclei of nine donors."""
    return builders.cohort(atlas(5, 4, nuclei=24, genes=40), tmp_path_factory.mktemp("frozen"))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    return read_folder(str(scgpt_folder(tmp_path_factory.mktemp("checkpoint"), TOKENS)), True)


def make(pair: str, pretrained: Pretrained | None, cache: Path | None = None, **how: Any) -> Frozen:
    featurizer, network = PAIRS[pair]
    node = {"_target_": f"{MODELS}frozen.Frozen", "featurizer": featurizer, "network": network, **how}
    given = {"pretrained": pretrained} if pretrained else {}
    found: Frozen = component(node, "model.featurizer")(cache=cache, device=CPU, **given)
    return found


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of nuclei of each donor whose vectors are computed."""
    seen: list[int] = []
    honest = Frozen._computed

    def spy(self: Frozen, tokens: Any) -> np.ndarray:
        seen.append(len(tokens.offsets) - 1)
        return honest(self, tokens)

    monkeypatch.setattr(Frozen, "_computed", spy)
    return seen


def only(cohort: Cohort, donors: tuple[str, ...]) -> Cohort:
    """The cohort of some donors, as another choice of donors in the same file would have it."""
    rows = cohort.rows_of(donors)
    fewer = builders.exchanged(cohort, builders.counts(cohort))
    mine = cohort.donors.index.isin(donors)
    matrix = fewer.matrix.columns(np.arange(fewer.matrix.shape[1]))[rows]
    return builders.exchanged(
        replace(cohort, cells=cohort.cells.iloc[rows].reset_index(drop=True), donors=cohort.donors[mine]),
        matrix.toarray(),
    )


def by_definition(frozen: Frozen, cohort: Cohort, rows: np.ndarray) -> np.ndarray:
    """The vectors of some nuclei, each in a batch of its own."""
    tokens, network = frozen._input.tokens(cohort), frozen._made_network()
    vectors = []
    for row in rows:
        longest = max(1, int(tokens.offsets.diff()[row]))
        inputs = frozen._input.pack(tokens, torch.tensor([row]), longest, 0)
        with torch.no_grad():
            vectors.append(network(Batch.of_nuclei(inputs)))
    return torch.cat(vectors).numpy()


@every_pair
def test_values_are_the_networks_vectors_standardised_on_training_nuclei(
    pair: str, cohort: Cohort, pretrained: Pretrained
) -> None:
    frozen = make(pair, pretrained).fit(cohort, TRAIN)
    tokens = frozen.tokens(cohort)
    rows = np.arange(len(cohort.cells))
    ids, values, mask = frozen.pack(tokens, torch.from_numpy(rows), frozen.n_ids, 1)
    assert frozen.n_ids == SIZES[pair] == len(frozen.names_of_ids())
    assert ids.tolist() == [list(range(frozen.n_ids))] * len(rows)
    assert mask.all()
    vectors, mine = by_definition(frozen, cohort, rows), cohort.rows_of(TRAIN)
    sd = vectors[mine].std(axis=0)
    wanted = (vectors - vectors[mine].mean(axis=0)) / np.where(sd > 0, sd, 1)
    np.testing.assert_allclose(values, wanted, atol=2e-4)


@every_pair
def test_a_restored_featurizer_has_the_same_vectors_without_what_it_came_from(
    pair: str, cohort: Cohort, pretrained: Pretrained
) -> None:
    fitted = make(pair, pretrained).fit(cohort, TRAIN)
    bare = Pretrained(pretrained.vocabulary, pretrained.settings)
    restored = make(pair, bare, seed=9).restore(fitted.gene_names, fitted.state())
    for one, other in zip(fitted.tokens(cohort), restored.tokens(cohort), strict=True):
        assert torch.equal(one, other)


@every_pair
def test_a_restored_featurizer_takes_its_vectors_from_the_cache(
    pair: str, cohort: Cohort, pretrained: Pretrained, tmp_path: Path, computed: list[int]
) -> None:
    fitted = make(pair, pretrained, tmp_path).fit(cohort, TRAIN)
    assert len(computed) == 9
    bare = Pretrained(pretrained.vocabulary, pretrained.settings)
    make(pair, bare, tmp_path).restore(fitted.gene_names, fitted.state()).tokens(cohort)
    assert len(computed) == 9


def test_each_donor_is_computed_once_and_a_new_one_alone(
    cohort: Cohort, pretrained: Pretrained, tmp_path: Path, computed: list[int]
) -> None:
    make("scgpt", pretrained, tmp_path).fit(only(cohort, TRAIN), TRAIN)
    assert computed == [12] * 6
    make("scgpt", pretrained, tmp_path).fit(cohort, ("D00", "D08"))
    assert computed == [12] * 9
    assert len(list(tmp_path.glob("embedding-*.safetensors"))) == 9


@pytest.mark.parametrize("pair", ["scgpt", "transformer"])
def test_a_donors_vectors_depend_on_that_donor_alone_to_the_bit(
    pair: str, cohort: Cohort, pretrained: Pretrained
) -> None:
    frozen = make(pair, pretrained).fit(cohort, TRAIN)
    together = frozen._vectors(cohort)[cohort.rows_of(("D03",))]
    alone = frozen._vectors(only(cohort, ("D03",)))
    np.testing.assert_array_equal(alone, together)


def test_an_interrupted_computation_keeps_the_donors_that_it_has(
    cohort: Cohort, pretrained: Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, seen = Frozen._computed, []

    def interrupted(self: Frozen, tokens: Any) -> np.ndarray:
        seen.append(tokens)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return honest(self, tokens)

    monkeypatch.setattr(Frozen, "_computed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make("scgpt", pretrained, tmp_path).fit(cohort, TRAIN)
    make("scgpt", pretrained, tmp_path).fit(cohort, TRAIN)
    assert len(seen) == 4 + 1 + 5


@pytest.mark.parametrize(
    ("pair", "change"),
    [
        ("scgpt", {"featurizer": PAIRS["scgpt"][0] | {"cls_value": -2.0}}),
        ("scgpt", {"featurizer": PAIRS["scgpt"][0] | {"max_len": 19}}),
        ("mlp", {"seed": 1}),
        ("transformer", {"network": PAIRS["transformer"][1] | {"heads": 4}}),
    ],
)
def test_what_changes_the_vectors_computes_them_anew(
    pair: str, change: dict[str, Any], cohort: Cohort, pretrained: Pretrained, tmp_path: Path
) -> None:
    first = make(pair, pretrained, tmp_path).fit(cohort, TRAIN)._vectors(cohort)
    other = make(pair, pretrained, tmp_path, **change).fit(cohort, TRAIN)._vectors(cohort)
    assert not np.array_equal(first, other)
    assert len(list(tmp_path.glob("embedding-*.safetensors"))) == 18


@pytest.mark.parametrize("pair", ["mlp", "transformer"])
def test_random_weights_follow_from_their_seed_and_leave_the_runs_random_numbers_alone(
    pair: str, cohort: Cohort
) -> None:
    vectors = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        vectors.append(make(pair, None).fit(cohort, TRAIN)._vectors(cohort))
        assert torch.get_rng_state().equal(before)
    np.testing.assert_array_equal(*vectors)


def test_the_report_is_told_whose_vectors_these_are_and_what_was_fitted(
    cohort: Cohort, pretrained: Pretrained
) -> None:
    facts = make("scgpt", pretrained).fit(cohort, TRAIN).facts()
    assert_says(facts["values"], "32 dimensions", "ScGPT", "pretrained weights", "quantiles of its own")
    assert_says(facts["fitted"], "every gene with a token", "mean and SD of each dimension: training donors")
    assert facts["with a token"] == "40 (100.0%)"
    random = make("mlp", None, seed=4).fit(cohort, TRAIN).facts()
    assert_says(random["values"], "MLP", "random weights (seed 4)", "ln(1 + counts per 10,000)")
    assert_says(random["fitted"], "choice of genes: training donors; mean and SD of each gene")


def test_mistakes_name_the_field_where_it_stands(cohort: Cohort, pretrained: Pretrained) -> None:
    few = Pretrained((*TOKENS[:3], "<pad>", "<cls>"), pretrained.settings)
    frozen = make("scgpt", few, featurizer=PAIRS["scgpt"][0] | {"min_matched": 0.9})
    assert_says(answer(frozen.fit, cohort, TRAIN), "model.featurizer.featurizer.min_matched=0.9")
    wide = make("transformer", None, network=PAIRS["transformer"][1] | {"width": 15})
    assert_says(answer(wide.fit, cohort, TRAIN), "model.featurizer.network.width=15")


@pytest.mark.parametrize("pair", ["mlp", "transformer"])
def test_a_run_on_any_pair_is_saved_and_restored_without_a_path(
    pair: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "draw", lambda run: {})
    path = builders.write(atlas(), tmp_path)
    scgpt = scgpt_folder(tmp_path / "checkpoint", [f"GENE{i}" for i in range(60)])
    config = configuration(
        f"data.path={path}",
        f"cache.dir={tmp_path / 'cache'}",
        "model=scgpt_frozen",
        f"model.checkpoint={scgpt}",
        "evaluation.baselines=false",
    )
    featurizer, network = PAIRS[pair]
    own = {"_target_": f"{MODELS}frozen.Frozen", "featurizer": featurizer, "network": network}
    config = replace(config, model=replace(config.model, featurizer=own))
    tasks.run(config, tmp_path / "run")
    saved = tmp_path / "run/folds/1/model.safetensors"
    assert str(tmp_path).encode() not in saved.read_bytes()
    cohort = builders.load(path)
    builders.assert_predicts_as_in_its_run(load_bundle(saved), cohort, tmp_path / "run")
