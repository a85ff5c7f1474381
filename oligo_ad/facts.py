"""Facts that a run records about itself: typed, so that a file of any run is checked when it is read."""

from typing import Annotated, Any

import pandas as pd
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

PARTS = ("train", "validation", "test")  # of a fold
ABOVE_CHANCE = "axes above chance"  # among the facts of a featurizer
# JSON has no NaN: null stands for it.
Number = Annotated[float, BeforeValidator(lambda value: float("nan") if value is None else value)]
Count = Annotated[int, Field(ge=0)]
Auroc = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_MORE_ALLOWED = ConfigDict(extra="ignore")


@dataclass(frozen=True)
class Epoch:
    """One line of the learning curve; `loss`, `cell_auroc` and `donor_auroc` on validation donors."""

    epoch: int
    train_loss: Number
    loss: Number
    cell_auroc: Number
    donor_auroc: Number
    gradient_norm: Number
    learning_rate: Number
    nuclei_per_second: Number

    def score(self, name: str) -> float:
        """What is maximised: an AUROC, or the negative loss."""
        scores = {"loss": -self.loss, "cell_auroc": self.cell_auroc, "donor_auroc": self.donor_auroc}
        return scores[name]


@dataclass(frozen=True)
class ReaderFacts:
    """A reader of donors that is combined with others: its AUROC over the known donors, each of whom it had
    left out, and its weight."""

    auroc: Auroc
    weight: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class FoldHistory:
    """How one fold was trained.

    `donors`: how many in each part. `threshold`: the probability from which a donor is called positive.
    `genes`: those that the model reads; `input`: what its featurizer reports. `parameters`: how many are
    trained. `attention`: the kernels that ran. `seconds`: of the fold, baselines included. `readers`: what is
    combined, by name; empty where the network is alone.
    """

    fold: int
    seed: int
    donors: dict[str, int]
    pos_weight: float
    best_epoch: int
    threshold: float
    genes: list[str]
    input: dict[str, str]
    parameters: int
    attention: list[str]
    seconds: float
    epochs: Annotated[list[Epoch], Field(min_length=1)]
    readers: dict[str, ReaderFacts] = Field(default_factory=dict)


@dataclass(frozen=True)
class DonorFacts:
    """A donor: its label, 0 or 1, its number of nuclei, and hashes of facts about the person, in which two
    runs can be compared; empty in runs of earlier versions."""

    label: Annotated[int, Field(ge=0, le=1)]
    nuclei: Count
    person: str = ""


def donors_of(facts: dict[str, DonorFacts]) -> pd.DataFrame:
    """label and nuclei, indexed by donor id."""
    rows = {donor: {"label": of.label, "nuclei": of.nuclei} for donor, of in facts.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("donor")


# Donors and nuclei of a class after a step, and of a label value that is in neither class.
Flow = TypedDict("Flow", {"step": str, "class": str, "donors": Count, "nuclei": Count})


class Excluded(TypedDict):
    value: Any
    donors: Count
    nuclei: Count


@dataclass(frozen=True)
class Permutation:
    """What a refit on permuted labels reached: donor AUROC by predictor, mean over folds.

    `run`: the identity of the run that was refitted, so that no file of another run counts. `strata`: the
    donor columns within whose levels labels were permuted.
    """

    number: Annotated[int, Field(ge=1)]
    run: str
    strata: list[str]
    auroc: Annotated[dict[str, Auroc], Field(min_length=1)]


@dataclass(frozen=True)
class Source:
    """A file or folder that a run was made of: where it was, and a hash of its content."""

    path: str
    fingerprint: str


@dataclass(frozen=True)
class RunFacts:
    """Data, model and machine of a run, known before anything is trained.

    `cohort`: which columns and values define it. `classes`: names of the negative and the positive class.
    `sample`: what is predicted, nucleus or donor. `flow`, `excluded`: donors and nuclei by step and
    class, and by excluded label value. `covariates`: the columns that the model is given; `label_derived`:
    those that give the label away. `sources`: the `data` and, if there is one, the `checkpoint` (empty for
    runs of earlier versions). `pretrained`: what the reader of a checkpoint reports, if there is one;
    `random_weights`: whether its weights were left out. `environment`: versions and machine. `words`: the
    overrides of the command line. `seconds`: to this point. `confounders`, `subgroups`: by column and donor
    id, as `data/confounders.py` reads them. `locked`: donors in the lockbox; `box_is_open`: whether this run
    scores them.
    """

    cohort: dict[str, str]
    simulated: bool
    classes: tuple[str, str]
    sample: str
    donors: dict[str, DonorFacts]
    flow: Annotated[list[Flow], Field(min_length=1)]
    excluded: list[Excluded]
    notes: list[str]
    covariates: list[str]
    label_derived: list[str]
    pretrained: dict[str, str] | None
    random_weights: bool
    environment: dict[str, str]
    words: list[str]
    seconds: float
    sources: dict[str, Source] = Field(default_factory=dict)
    confounders: dict[str, dict[str, Number]] = Field(default_factory=dict)
    subgroups: dict[str, dict[str, str | None]] = Field(default_factory=dict)
    locked: dict[str, DonorFacts] = Field(default_factory=dict)
    box_is_open: bool = False

    @property
    def confounder_table(self) -> pd.DataFrame:
        """Confounders by donor id, NaN where unknown; without columns for runs of earlier versions."""
        return pd.DataFrame(self.confounders, dtype=float)

    @property
    def donor_table(self) -> pd.DataFrame:
        """label and nuclei, indexed by donor id."""
        return donors_of(self.donors)


@dataclass(frozen=True, config=_MORE_ALLOWED)
class IntervalFacts:
    """An interval in metrics.json."""

    low: Number
    high: Number


@dataclass(frozen=True, config=_MORE_ALLOWED)
class Headline:
    """The first entry of metrics.json: donor AUROC, beside the comparator.

    Runs of earlier versions name the best of their baselines instead, and their gain is over that one. `p`:
    of the permutation test, None where `permutations` is 0.
    """

    value: Auroc
    interval: IntervalFacts
    gain: Number
    gain_interval: IntervalFacts | None
    best_baseline: str | None = None
    comparator: str | None = None
    p: Annotated[float, Field(gt=0, le=1)] | None = None
    permutations: Count = 0
    # On average over folds; unknown of runs of earlier versions.
    trained_donors: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


@dataclass(frozen=True, config=_MORE_ALLOWED)
class Objective:
    """What a search has maximised."""

    name: str
    value: Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, config=_MORE_ALLOWED)
class Result:
    """What a comparison reads of metrics.json."""

    headline: Headline
    simulated: bool
    seconds: Number
    scored_on: str = "test donors"
    cells: dict[str, dict[str, Any]] = Field(default_factory=dict)
    objective: Objective | None = None
    sources: dict[str, Source] = Field(default_factory=dict)


def from_plain(content: dict[str, Any], kind: type) -> Any:
    """An instance of one of these classes, `kind`, from parsed JSON.

    Raises:
        pydantic.ValidationError: a field is missing, unknown, or of another type.
    """
    return TypeAdapter(kind).validate_python(content)


def to_plain(facts: Any) -> dict[str, Any]:
    """The content of an instance of one of these classes, ready for JSON."""
    content: dict[str, Any] = TypeAdapter(type(facts)).dump_python(facts, mode="json")
    return content
