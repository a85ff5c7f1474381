"""Every option of a run: its type, default, legal values and meaning.

Hydra composes YAML into plain values; `read` and `read_sweep` check them once against these dataclasses,
and no DictConfig exists after that. What varies with the science (featurizer, network, pool, fusion,
optimizer, schedule) stays a mapping with a `_target_`; `components.py` checks it against the constructor it
names. Default values are in `conf/`, except for the few given here.
"""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from oligo_ad.checking import checked, plain

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1)]
# What a search maximises on validation donors, at the best epoch; of the loss, its negative.
Objective = Literal["loss", "cell_auroc", "donor_auroc"]
# A field that takes one name or several in order of preference: `X` means `[X]`.
# Values of a column may be numbers or flags in the file; they are compared as text.
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: [str(word) for word in _listed(value)]),
]
Component = dict[str, Any]
# A baseline of `oligo_ad/baselines`.
Comparator = Literal[
    "majority",
    "covariates",
    "depth",
    "pseudobulk",
    "pls",
    "axes",
    "covariates+pseudobulk",
    "composition",
    "gene_sets",
    "stack",
]


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SimulationConfig:
    """The simulated atlas that `data=demo` writes once and then reads like any other file."""

    nuclei: Annotated[int, Field(ge=500)]  # of all cell types and donors, without those of extra donors
    genes: Annotated[int, Field(ge=200, le=36601)]  # the most expressed ones of the panel
    effect: Annotated[float, Field(ge=0)]  # size of the planted marginal shifts; 1 = as published
    interaction: Annotated[float, Field(ge=0, le=1)]  # strength of the part no linear model sees
    confounding: Annotated[float, Field(ge=0)]  # of nuclei, depth, age and APOE with the label; 1 = as seen
    oligodendrocytes: Fraction  # share of all nuclei
    seed: Seed
    scenario: str = "demo"  # the file of conf/data/simulation that the fields come from, for the record
    # Mean share of affected nuclei in donors that are Not AD, Low, Intermediate, High.
    affected: Annotated[tuple[Fraction, ...], Field(min_length=4, max_length=4)] = (0.20, 0.28, 0.38, 0.55)
    # Which oligodendrocytes carry the marginal shifts: affected ones, whole; or all of a donor, alike, in
    # proportion to its share. With `all` no nucleus is affected, and the interaction plants nothing.
    shifted: Literal["affected", "all"] = "affected"
    states: Annotated[int, Field(ge=0, le=50)] = 0  # programs unrelated to disease: nuclei and donors differ
    extra: Annotated[int, Field(ge=0, le=499)] = 0  # further donors of each class, which no run trains on


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataConfig:
    """Which file, and which of its columns and values define donors, labels and cell type."""

    name: str
    path: str | None  # an .h5ad file
    simulation: SimulationConfig | None  # where set, the file is simulated, and `path` must be null
    donor_key: Names  # obs column; of several names the first one present is taken
    label_key: Names
    positive: Names  # values of the label column that mean 1
    negative: Names  # values that mean 0; every other value is excluded and counted
    cell_type_key: Names
    cell_types: Names  # nuclei to keep; empty keeps all
    counts: str  # auto | X | raw | none | the name of a layer
    min_genes: Annotated[int, Field(ge=0)]  # expressed genes that a nucleus must have
    min_nuclei: Positive  # nuclei that a donor must have
    match_depth: bool = False  # thin counts, so that no donor was sequenced deeper than the poorest


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SplitConfig:
    """How whole donors are divided; see `data/split.py`."""

    kind: Literal["holdout", "cv"]
    test_fraction: Fraction  # of donors (holdout)
    validation_fraction: Fraction  # of the donors that are not test donors
    folds: Annotated[int, Field(ge=2)]  # (cv)
    repeats: Positive  # (cv)
    seed: Seed
    file: str | None  # a split.json to use instead
    only: Positive | None  # this fold alone
    train_fraction: Annotated[float, Field(gt=0, le=1)] = (
        1.0  # of each fold's training donors, for learning curves
    )
    lockbox: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of donors set aside by a hash of their id
    open_lockbox: bool = False  # score them, once and for all, with the models of this run


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MetadataConfig:
    """Donor-level columns given to the model beside expression; see `data/covariates.py`."""

    columns: Names
    fusion: Component
    allow_label_derived: bool  # lifts the leakage guard and stamps every output


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AdaptConfig:
    """Which weights are trained, and what is recomputed to save memory; see `models/adapt.py`."""

    frozen_stages: Annotated[int, Field(ge=0)] | None  # how many keep their weights; embeddings are the first
    lora_rank: Positive | None  # LoRA: weights are kept, and a trained product of this rank is added
    lora_alpha: Annotated[float, Field(gt=0)]  # the product is scaled by lora_alpha / lora_rank
    recompute: bool  # stages are computed again in the backward pass: less memory, a third slower


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelConfig:
    """Featurizer, network and pool of a model, and what is combined with them; for a pretrained one, also the
    reader of its files."""

    name: str
    featurizer: Component
    network: Component
    pool: Component  # decides whether a sample is a nucleus or a donor
    adapt: AdaptConfig
    views: dict[str, Component] = Field(default_factory=dict)  # other readers of a donor, combined with it
    reader: Component | None = None
    checkpoint: str | None = None  # the files of a pretrained model, as downloaded
    pretrained: bool | None = None  # false: its architecture with random weights; stamps every output


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class FitConfig:
    """The training loop; see `training/fit.py`."""

    epochs: Positive
    batch_size: Annotated[int, Field(ge=2)]  # samples per forward pass, over all processes together
    bag_size: Positive  # nuclei of a donor in a bag, drawn anew each epoch (where a donor is a sample)
    bags: Positive  # bags of each donor in an epoch, on average (where a donor is a sample)
    accumulate: Positive  # forward passes per optimizer step
    optimizer: Component
    schedule: Component
    clip: Annotated[float, Field(gt=0)] | None  # largest gradient norm
    pos_weight: Literal["auto"] | Annotated[float, Field(gt=0)]  # auto: negatives / positives
    monitor: Literal["loss", "cell_auroc", "donor_auroc"]  # on validation donors
    patience: Positive  # epochs without improvement before stopping
    layer_decay: Annotated[float, Field(gt=0, le=1)]  # learning rate of a layer, as a share of the next one's
    log_every: Positive  # optimizer steps between reads of the loss from the device
    compile: bool  # torch.compile: about a minute at the start, then faster steps
    # nucleus: an epoch is every nucleus once; donor: classes, and donors of a class, are drawn alike
    sampling: Literal["nucleus", "donor"] = "nucleus"
    nuclei: Positive | None = None  # drawn in an epoch of sampling=donor; null: as many as there are
    keep: Literal["best", "last"] = "best"  # the epoch whose weights are kept; last: all epochs are trained
    members: Positive = 1  # networks, each trained without another inner fold of the development donors
    refit: bool = False  # train again on all development donors, for as many epochs as were kept


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class EvaluationConfig:
    """How predictions become results; see `results/metrics.py`."""

    donor_score: Literal["mean", "mean_logit", "fraction"]
    threshold: Literal["validation"] | Fraction  # probability from which a sample is called positive
    baselines: bool
    comparator: Comparator = "pseudobulk"  # the baseline to beat, named before the result is known
    composition: Names = ()  # obs columns of subclusters; the first one present is a baseline's input
    gene_sets: str | None = None  # a GMT file whose scores are a baseline's input
    strata: Names = ()  # donor columns within whose levels labels are permuted
    parallel: Literal["auto"] | Positive = "auto"  # processes that permute; auto: one a core, one on a GPU
    calibration: Literal["none", "platt"] = "none"  # of donor scores, on the validation donors of each fold
    prevalence: Fraction | None = None  # of the positive class, for which probabilities are given too
    subgroups: Names = ()  # donor columns within whose levels the headline is given too
    depth_matched: bool = True  # score test donors also with counts thinned to a common depth


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PrecisionConfig:
    """Number format of the forward pass."""

    name: Literal["fp32", "bf16", "fp16"]
    tf32: bool  # on Ampere or later, the matrix products of fp32


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CacheConfig:
    """Where prepared cohorts and simulated atlases are kept; see `data/cache.py`."""

    dir: str

    @property
    def path(self) -> Path:
        """The directory, with `~` resolved; a user without a home has it in the current directory."""
        return Path(re.sub("^~", ".", str(os.path.expanduser(self.dir))))


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PlainTask:
    """A task that has no fields of its own."""

    name: Literal["train", "prepare", "cache", "clear_cache"]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ValidateTask:
    """A trial of a search: it scores validation donors; see `tasks/validate.py`."""

    name: Literal["validate"]
    objective: Objective
    seeds: Seeds  # every fold is trained with each of them
    study: str | None  # the file of the study that the trial reports to
    trial: Annotated[int, Field(ge=0)] | None  # its number in the study
    prune: bool  # stop where the median of earlier trials was better
    startup: Positive  # trials of the study before any is stopped


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class InspectTask:
    """What a file holds; see `tasks/inspect.py`."""

    name: Literal["inspect"]
    run: str | None = None  # the directory of a run whose donors are looked for in the file


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ReportTask:
    """The report of a finished run, drawn anew."""

    name: Literal["report"]
    run: str | None  # its directory


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PermuteTask:
    """A finished run, tested against permuted labels; see `tasks/permute.py`."""

    name: Literal["permute"]
    run: str | None  # its directory
    predictors: Literal["all", "baselines"]  # baselines: they alone, in minutes


Task = Annotated[
    PlainTask | InspectTask | ValidateTask | ReportTask | PermuteTask, Field(discriminator="name")
]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Config:
    """One run."""

    task: Task
    data: DataConfig
    split: SplitConfig
    metadata: MetadataConfig
    model: ModelConfig
    fit: FitConfig
    evaluation: EvaluationConfig
    precision: PrecisionConfig
    tracker: Literal["tensorboard", "wandb", "mlflow", "none"]
    device: Literal["auto", "cpu"]
    deterministic: bool
    seed: Seed
    cache: CacheConfig
    permutations: Annotated[int, Field(ge=0)] = 0  # of donor labels, each with a whole refit; 0: not tested


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SweepConfig:
    """A search for settings, and how a sweep is resumed; see `sweeps/`. No part of a run's configuration."""

    name: str
    # Field: its values, written as on the command line; empty for a grid.
    space: Annotated[dict[str, str], BeforeValidator(lambda value: _flat(value))]
    trials: Positive  # of the search, in each outer fold
    hours: Annotated[float, Field(gt=0)] | None  # no trial is started after so many
    seeds: Seeds  # a trial is the mean over them
    objective: Objective
    parallel: Positive  # trials that are launched together
    sampler: Literal["tpe", "random", "grid"]  # grid: every combination of the space, on test donors
    prune: bool  # stop trials that are worse than the median of those before
    startup: Positive  # trials at random, before any is proposed or pruned
    resume: str | None  # the directory of a sweep to go on with


def _flat(value: Any, prefix: str = "") -> Any:
    """`{"fit": {"epochs": "range(3)"}}`, as the command line gives it, → `{"fit.epochs": "range(3)"}`."""
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {f"{prefix}{key}": inner}
    # The whole is read first: null takes a field out that stands before it.
    return found if prefix else {field: str(values) for field, values in found.items() if values is not None}


# Fields that the command itself reads; they are no part of a run's configuration.
COMMAND_FIELDS = ("sweep", "rerun", "run")
# Fields of earlier versions that have no successor, and why: ignored on a command line and in a saved run.
REMOVED = {"evaluation.bootstrap": "intervals are computed from the donors, no longer from resamples of them"}


def read(composed: DictConfig) -> Config:
    """Check the configuration of a run; the fields of a sweep are checked too, and left out.

    Raises:
        UserError: naming each field that is wrong, what was given and what is legal.
    """
    if "sweep" in composed:
        read_sweep(composed)
    return read_plain(plain(composed))


def read_plain(given: dict[str, Any]) -> Config:
    """Check the configuration of a run, given as plain values.

    Raises:
        UserError: as `read`.
    """
    return checked(Config, _current({n: value for n, value in given.items() if n not in COMMAND_FIELDS}))


def _current(given: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Plain values without the fields in `REMOVED`."""
    return {
        name: _current(value, f"{prefix}{name}.") if isinstance(value, dict) else value
        for name, value in given.items()
        if f"{prefix}{name}" not in REMOVED
    }


def located(config: Config) -> Config:
    """The same configuration with whole paths, so that it means the same in any directory."""

    def whole(path: str | None) -> str | None:
        return path and str(Path(path).expanduser().absolute())

    cache = str(config.cache.path.absolute())
    return replace(
        config,
        data=replace(config.data, path=whole(config.data.path)),
        split=replace(config.split, file=whole(config.split.file)),
        model=replace(config.model, checkpoint=whole(config.model.checkpoint)),
        evaluation=replace(config.evaluation, gene_sets=whole(config.evaluation.gene_sets)),
        cache=replace(config.cache, dir=cache),
    )


def read_sweep(composed: DictConfig) -> SweepConfig:
    """Check the fields of a sweep.

    Raises:
        UserError: as `read`.
    """
    return checked(SweepConfig, plain(composed.sweep), under="sweep")
