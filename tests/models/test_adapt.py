"""Each way of adapting a network trains what it says and computes the same, whatever the network is."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from oligo_ad import tasks
from oligo_ad.data.cache import load_cohort
from oligo_ad.inputs.batch import Batch, Inputs
from oligo_ad.models import adapt as module
from oligo_ad.models.adapt import LowRank, adapt
from oligo_ad.models.build import make_classifier
from oligo_ad.models.mlp import MLP
from oligo_ad.models.pretrained import Pretrained
from oligo_ad.models.scgpt.network import ScGPT
from oligo_ad.models.transformer import Transformer
from oligo_ad.results import report
from oligo_ad.training.checkpoint import load_bundle
from tests.builders import AS_IT_IS, answer, assert_predicts_as_in_its_run, assert_says, atlas, configuration
from tests.builders import write as write_atlas

N_IDS = 12
SETTINGS = {"width": 16, "heads": 4, "layers": 3, "feedforward": 24, "dropout": 0.2}


def mlp(dropout: float = 0.2) -> nn.Module:
    return MLP(N_IDS, hidden=(16, 8, 6), dropout=dropout)


def transformer(dropout: float = 0.2) -> nn.Module:
    return Transformer(N_IDS, width=16, heads=4, layers=3, feedforward=24, dropout=dropout)


def scgpt(dropout: float = 0.2) -> nn.Module:
    return ScGPT(N_IDS, Pretrained(tuple(map(str, range(N_IDS))), SETTINGS), dropout)


Make = Callable[..., nn.Module]
every_network = pytest.mark.parametrize("make", [mlp, transformer, scgpt])


def made(make: Make, dropout: float = 0.2, **how: Any) -> Any:
    """The same random network each time, adapted."""
    torch.manual_seed(0)
    network = make(dropout)
    adapt(network, replace(AS_IT_IS, **how))
    return network


def cells(n_cells: int = 6) -> Batch:
    """Cells that express every gene, in order: what a dense panel is, and a set of genes as well."""
    values = torch.rand(n_cells, N_IDS, generator=torch.Generator().manual_seed(1)) + 0.1
    ids = torch.arange(N_IDS).expand(n_cells, -1)
    return Batch.of_nuclei(Inputs(ids, values, torch.ones_like(values, dtype=torch.bool)))


def outputs_and_gradients(network: nn.Module) -> dict[str, Tensor]:
    """Of a training step under one seed, with the buffers that it leaves."""
    torch.manual_seed(3)
    network.zero_grad()
    output = network.train()(cells())
    output.square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    return {"output": output.detach(), **gradients, **dict(network.named_buffers())}


def assert_the_same_bits(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not found[name].equal(wanted[name])] == []


# Recomputation


@every_network
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_recomputed_stages_give_the_same_bits(make: Make, dropout: float) -> None:
    plain, saving = made(make, dropout), made(make, dropout, recompute=True)
    assert_the_same_bits(outputs_and_gradients(saving), outputs_and_gradients(plain))
    assert_the_same_bits(saving.state_dict(), plain.state_dict())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The class of each stage that is recomputed."""
    seen: list[str] = []

    def spy(forward: Any, *inputs: Any, **how: Any) -> Any:
        seen.append(type(forward.args[0]).__name__)
        return checkpoint.checkpoint(forward, *inputs, **how)

    monkeypatch.setattr(module, "checkpoint", spy)
    return seen


@every_network
def test_all_stages_but_the_last_are_recomputed_and_only_in_training(make: Make, calls: list[str]) -> None:
    network = made(make, recompute=True)
    network.train()(cells())
    assert calls == [type(stage).__name__ for stage in network.stages[:-1]]
    network.eval()(cells())
    with torch.no_grad():
        network.train()(cells())
    assert len(calls) == len(network.stages) - 1


@every_network
def test_a_copy_of_a_recomputing_network_computes_with_its_own_weights(make: Make) -> None:
    network = made(make, recompute=True)
    wanted = outputs_and_gradients(network)
    other = copy.deepcopy(network)
    for parameter in network.parameters():
        parameter.data.zero_()
        parameter.grad = None
    assert_the_same_bits(outputs_and_gradients(other), wanted | dict(other.named_buffers()))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_recomputing_network_is_not_compiled(tmp_path: Path) -> None:
    config = configuration("fit.compile=true", "model.adapt.recompute=true", "data.path=not-reached.h5ad")
    assert_says(answer(tasks.run, config, tmp_path), "fit.compile=true", "model.adapt.recompute=true")
    assert mlp().can_compile


# Frozen stages


@every_network
@pytest.mark.parametrize("n_frozen", [0, 1, 3])
def test_frozen_stages_keep_their_weights_and_the_others_do_not(make: Make, n_frozen: int) -> None:
    network = made(make, frozen_stages=n_frozen)
    before = copy.deepcopy([list(stage.parameters()) for stage in network.stages])
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad] or [Tensor()], lr=0.1)
    output = network.train()(cells()).square().sum()
    if output.requires_grad:
        output.backward()
        optimizer.step()
    moved = [
        any(not now.equal(then) for now, then in zip(stage.parameters(), old, strict=True))
        for stage, old in zip(network.stages, before, strict=True)
    ]
    assert moved == [False] * n_frozen + [True] * (len(network.stages) - n_frozen)


def test_embeddings_are_the_first_stage() -> None:
    for make, names in (
        (transformer, {"embedding.genes.weight", "embedding.cls"}),
        (scgpt, {name for name, _ in scgpt().named_parameters() if "encoder.layers" not in name}),
    ):
        frozen = {name for name, p in made(make, frozen_stages=1).named_parameters() if not p.requires_grad}
        assert frozen == names


# Low rank


@every_network
@pytest.mark.parametrize(("rank", "alpha"), [(1, 16.0), (2, 3.0), (4, 3.0)])
def test_a_low_rank_addition_is_its_product_times_alpha_over_rank(
    make: Make, rank: int, alpha: float
) -> None:
    network = made(make, lora_rank=rank, lora_alpha=alpha)
    additions = [part for part in network.modules() if isinstance(part, LowRank)]
    assert additions
    for addition in additions:
        nn.init.normal_(addition.up)
        weight = torch.zeros(len(addition.up), addition.down.shape[1])
        torch.testing.assert_close(addition(weight), alpha / rank * addition.up @ addition.down)


@every_network
def test_low_rank_adaptation_starts_as_the_network_was(make: Make) -> None:
    wanted, found = (made(make, lora_rank=rank).eval()(cells()) for rank in (None, 2))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("make", "weights"),
    [
        (mlp, [f"layers.{place}.parametrizations.weight" for place in (0, 4, 8)]),
        *(
            (
                make,
                [
                    f"{blocks}.{place}.self_attn.{weight}"
                    for place in range(3)
                    for weight in ("parametrizations.in_proj_weight", "out_proj.parametrizations.weight")
                ],
            )
            for make, blocks in ((transformer, "blocks"), (scgpt, "transformer_encoder.layers"))
        ),
    ],
)
def test_low_rank_adaptation_trains_two_thin_matrices_for_each_weight(make: Make, weights: list[str]) -> None:
    network = made(make, dropout=0.0, lora_rank=2).double()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {f"{weight}.0.{part}" for weight in weights for part in ("up", "down")}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    batch = cells()
    for _ in range(2):  # at first only `up` moves: `down` is multiplied by it
        optimizer.zero_grad()
        network(batch._replace(values=batch.values.double())).sum(0)[0].backward()
        optimizer.step()
    moved = {name for name, p in network.named_parameters() if not p.equal(before[name])}
    assert moved == trained
    path, _, weight = weights[0].replace("parametrizations.", "").rpartition(".")
    now = getattr(network.get_submodule(path), weight)
    assert torch.linalg.matrix_rank(now - before[f"{weights[0]}.original"]) == 2


@pytest.mark.parametrize(
    "model",
    [
        ("model=mlp", "model.network.hidden=[8,6]"),
        ("model=transformer", "model.network.width=8", "model.network.heads=2"),
        ("model=scgpt", "model.pretrained=false"),
    ],
)
def test_with_low_rank_a_classifier_trains_thin_matrices_fusion_and_head(model: tuple[str, ...]) -> None:
    how = () if model[0] != "model=scgpt" else ("metadata.fusion._target_=oligo_ad.models.classifier.Add",)
    config = configuration(*model, *how, "model.adapt.lora_rank=2")
    pretrained = Pretrained(tuple(map(str, range(N_IDS))), SETTINGS)
    classifier = make_classifier(config.model, config.metadata.fusion, pretrained, N_IDS, 1)
    trained = {name for name, p in classifier.named_parameters() if p.requires_grad}
    thin = {name for name in trained if name.endswith((".up", ".down"))}
    fusion = {"fusion.project.weight", "fusion.project.bias"} if how else set()
    assert thin
    assert trained - thin == {"head.weight", "head.bias"} | fusion


@every_network
def test_adapted_and_recomputed_stages_give_the_same_bits(make: Make) -> None:
    plain, saving = made(make, lora_rank=2), made(make, lora_rank=2, recompute=True)
    assert_the_same_bits(outputs_and_gradients(saving), outputs_and_gradients(plain))


@pytest.mark.parametrize(
    "model",
    [
        ("model=mlp", "model.network.hidden=[8,6]"),
        (
            "model=transformer",
            "model.network.width=8",
            "model.network.heads=2",
            "model.network.feedforward=8",
        ),
    ],
)
def test_a_saved_model_with_low_rank_additions_predicts_as_in_its_run(
    model: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "draw", lambda run: {})
    how = ("model.adapt.lora_rank=2", "model.adapt.recompute=true", "evaluation.baselines=false")
    path = write_atlas(atlas(), tmp_path)
    config = configuration(f"data.path={path}", f"cache.dir={tmp_path / 'cache'}", *model, *how)
    tasks.run(config, tmp_path / "run")
    bundle = load_bundle(tmp_path / "run/folds/1/model.safetensors")
    cohort = load_cohort(config.data, config.cache.path)
    assert_predicts_as_in_its_run(bundle, cohort, tmp_path / "run")


# Mistakes


@every_network
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"lora_rank": 2, "frozen_stages": 1}, ("model.adapt.lora_rank=2", "model.adapt.frozen_stages=1")),
        ({"lora_rank": 99}, ("model.adapt.lora_rank=99", "more than the width")),
        ({"frozen_stages": 5}, ("model.adapt.frozen_stages=5", "stages")),
    ],
)
def test_what_contradicts_itself_or_the_network_is_refused(
    make: Make, how: dict[str, int], words: tuple[str, ...]
) -> None:
    assert_says(answer(lambda: made(make, **how)), *words)


@pytest.mark.parametrize("how", [{"lora_rank": 1}, {"recompute": True}, {"frozen_stages": 1}])
def test_a_network_without_stages_has_nothing_to_adapt(how: dict[str, Any]) -> None:
    message = answer(lambda: made(lambda dropout: MLP(N_IDS, hidden=()), **how))
    assert_says(message, *(f"model.adapt.{name}" for name in how), "network has")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.adapt.lora_rank=0", ["model.adapt.lora_rank=0", "greater than or equal to 1"]),
        ("model.adapt.lora_alpha=0", ["model.adapt.lora_alpha=0", "greater than 0"]),
        ("model.adapt.frozen_stages=-1", ["model.adapt.frozen_stages=-1", "greater than or equal to 0"]),
        ("+model.adapt.lora_rnak=2", ["model.adapt.lora_rnak=2", "Did you mean 'lora_rank'?"]),
    ],
)
def test_an_impossible_number_is_named(override: str, words: list[str]) -> None:
    assert_says(answer(configuration, override), *words)
