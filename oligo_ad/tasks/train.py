"""The whole run, top to bottom: atlas → cohort → folds → fit and predict each → evaluate → report."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from accelerate import Accelerator
from filelock import FileLock, Timeout

from oligo_ad.config import Config, MetadataConfig, Objective
from oligo_ad.data.cache import load_cohort
from oligo_ad.data.cohort import Cohort
from oligo_ad.data.covariates import COVARIATES, Covariates, fit_standardiser, read_covariates
from oligo_ad.data.split import Fold, make_folds, write_split
from oligo_ad.errors import UserError
from oligo_ad.inputs.loader import Loader, Share
from oligo_ad.models.pretrained import Pretrained, read_pretrained
from oligo_ad.results import report
from oligo_ad.results.baselines import score_baselines
from oligo_ad.results.environment import environment
from oligo_ad.results.evaluation import FoldPrediction, evaluate
from oligo_ad.results.metrics import best_threshold
from oligo_ad.results.sentences import Story
from oligo_ad.sweeps.study import score_of
from oligo_ad.sweeps.trials import RESULT
from oligo_ad.training.checkpoint import Trained, make_classifier, make_featurizer, save_checkpoint
from oligo_ad.training.fit import EVALUATION_BATCH, Cells, Epoch, Fitted, fit, make_optimizer
from oligo_ad.training.machine import make_accelerator, seed_everything, start_tracker
from oligo_ad.training.predict import attention_kernels, predict

log = logging.getLogger(__name__)

TRIAL_BATCH = 16  # cells to see which attention kernel runs
SLOW_ATTENTION = (
    "attention leaves the flash kernel: slower, and more memory. It needs attention_dropout=0 on a CPU, "
    "and precision=bf16 or fp16 on a GPU"
)
ELSEWHERE = "Choose another hydra.run.dir, or leave it out."


@dataclass(frozen=True)
class Run:
    """What all folds share."""

    config: Config
    folder: Path
    accelerator: Accelerator
    cohort: Cohort
    covariates: Covariates
    folds: list[Fold]
    pretrained: Pretrained | None


@dataclass(frozen=True)
class FoldResult:
    """One fold, trained and predicted."""

    prediction: FoldPrediction
    fitted: Fitted
    gene_names: list[str]
    about_input: dict[str, str]
    attention: list[str]


def train(config: Config, folder: Path) -> float | None:
    """A whole run: every fold is trained and its test donors are scored."""
    started = time.perf_counter()
    with opened(config, folder) as run:
        results = [train_fold(run, fold) for fold in run.folds]
        return write_results(run, lambda: _conclude(run, results, time.perf_counter() - started))


@contextmanager
def opened(config: Config, folder: Path) -> Iterator[Run]:
    """What all folds share; every mistake that can be found before the data are read is found then."""
    pretrained = read_pretrained(config.model)
    _check_components(config, pretrained)
    accelerator, folder = make_accelerator(config, folder)
    with _claimed(folder) if accelerator.is_main_process else nullcontext():
        with accelerator.main_process_first():
            cohort = load_cohort(config.data, config.cache.path)
        covariates = read_covariates(cohort.donors, config.metadata)
        for note in cohort.notes + covariates.notes:
            log.warning(note)
        folds = make_folds(cohort.donors["label"], config.split)
        start_tracker(accelerator, config, folder)
        yield Run(config, folder, accelerator, cohort, covariates, folds, pretrained)
    accelerator.end_training()


def write_results(run: Run, write: Callable[[], float]) -> float | None:
    """Let the first process write, which then knows the headline; the others wait."""
    headline = None
    if run.accelerator.is_main_process:
        try:
            headline = write()
        except OSError as error:
            raise UserError(f"the results cannot be written to {run.folder}: {error}.") from error
    run.accelerator.wait_for_everyone()
    return headline


def train_fold(
    run: Run,
    fold: Fold,
    scored: Literal["validation", "test"] = "test",
    watch: Callable[[Epoch], None] = lambda epoch: None,
) -> FoldResult:
    """Fit everything on the training donors of one fold, then predict its donors of the part `scored`.

    Nothing of a test donor is looked at before `predict`; where validation donors are scored, nothing ever.
    """
    config, accelerator = run.config, run.accelerator
    name = f"fold_{fold.number}/" if len(run.folds) > 1 else ""
    rows = {part: run.cohort.rows_of(getattr(fold, part)) for part in ("train", "validation", "test")}
    label = run.cohort.cells["label"].to_numpy()
    seed_everything(config.seed, fold.number)
    trained, loader = _prepare(run, fold)
    kernels = _kernels(run, trained, loader, rows["train"])
    if fold is run.folds[0] and not all("flash" in kernel for kernel in kernels):
        log.warning("%s (attention runs on: %s)", SLOW_ATTENTION, ", ".join(kernels))
    cells = Cells(rows["train"], rows["validation"], label, run.cohort.cells["donor"].to_numpy(str))
    fitted = fit(trained.classifier, loader, cells, config.fit, config.seed, accelerator, name, watch)
    batch_size = EVALUATION_BATCH * config.fit.batch_size
    probability = {
        part: _sigmoid(predict(fitted.model, loader, own, batch_size, accelerator))
        for part, own in rows.items()
        if part in ("train", "validation", scored)
    }
    if accelerator.is_main_process and scored == "test":
        file = "model.safetensors" if len(run.folds) == 1 else f"model_fold_{fold.number}.safetensors"
        save_checkpoint(trained, config.model, config.metadata, run.folder / file)
    accelerator.free_memory()
    threshold = config.evaluation.threshold
    prediction = FoldPrediction(
        fold=fold,
        threshold=best_threshold(label[rows["validation"]], probability["validation"])
        if threshold == "validation"
        else float(threshold),
        test=rows[scored],
        test_probability=probability[scored],
        train=rows["train"],
        train_probability=probability["train"],
    )
    return FoldResult(prediction, fitted, trained.featurizer.gene_names, trained.featurizer.about, kernels)


def _prepare(run: Run, fold: Fold) -> tuple[Trained, Loader]:
    """Featurizer and metadata fitted on training donors, an untrained classifier, and its batches."""
    config, cells, accelerator = run.config, run.cohort.cells, run.accelerator
    featurizer = make_featurizer(config.model, run.pretrained).fit(run.cohort, fold.train)
    standardiser = fit_standardiser(run.covariates.values, fold.train)
    metadata = standardiser.apply(run.covariates.values).loc[cells["donor"]].to_numpy()
    n_metadata = metadata.shape[1]
    classifier = make_classifier(config.model, config.metadata, run.pretrained, featurizer.n_ids, n_metadata)
    share = Share(accelerator.process_index, accelerator.num_processes)
    label, donor = cells["label"].to_numpy(), cells["donor"].to_numpy(str)
    loader = Loader(
        featurizer, featurizer.tokens(run.cohort), metadata, label, donor, accelerator.device, share
    )
    return Trained(classifier, featurizer, standardiser, run.pretrained), loader


def _kernels(run: Run, trained: Trained, loader: Loader, train: np.ndarray) -> list[str]:
    """The attention kernels of a step like those to come."""
    batch_size = min(run.config.fit.batch_size, TRIAL_BATCH, len(train))
    with run.accelerator.autocast():
        batch = next(loader.shuffled(train, batch_size, run.config.seed, epoch=0))
        return attention_kernels(trained.classifier.to(run.accelerator.device), batch)


def _conclude(run: Run, results: list[FoldResult], seconds: float) -> float:
    """Baselines, scores, and every file of the run directory."""
    config, cohort = run.config, run.cohort
    write_split(run.folds, cohort.donors["label"], config.split, run.folder / "split.json")
    baselines = None
    if config.evaluation.baselines:
        baselines = score_baselines(cohort, _baseline_covariates(cohort), run.folds, config.seed)
    story = story_of(run, results, baselines, "loss", seconds)
    report.write(story, run.accelerator)
    return story.outcome.headline


def story_of(
    run: Run, results: list[FoldResult], baselines: pd.DataFrame | None, objective: Objective, seconds: float
) -> Story:
    """The scores, and all that the files of a run directory tell."""
    outcome = evaluate(
        run.cohort,
        [result.prediction for result in results],
        baselines,
        run.config.evaluation,
        run.config.seed,
        run.covariates.label_derived,
    )
    return Story(
        config=run.config,
        folder=run.folder,
        cohort=run.cohort,
        covariates=run.covariates,
        folds=run.folds,
        fitted=[result.fitted for result in results],
        pretrained=run.pretrained,
        gene_names=[result.gene_names for result in results],
        about_input=results[0].about_input,
        attention=results[0].attention,
        outcome=outcome,
        environment=environment(run.accelerator.device, run.accelerator.num_processes),
        seconds=seconds,
        objective_name=objective,
        objective=float(np.mean([best_score(result, objective) for result in results])),
    )


def _check_components(config: Config, pretrained: Pretrained | None) -> None:
    """Every component is made once, as small as it can be, before any data are read."""
    make_featurizer(config.model, pretrained)
    n_ids = len(pretrained.vocabulary) if pretrained else 2
    classifier = make_classifier(config.model, config.metadata, pretrained, n_ids, n_metadata=1)
    make_optimizer(classifier, config.fit, steps=1)
    if config.fit.compile and not getattr(classifier.network, "can_compile", True):
        raise UserError(f"fit.compile=true has no use for model={config.model.name}: leave it out.")


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Keep a folder to this run; refuse one that another run works in or has finished in."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(f"another run is at work in {folder}. {ELSEWHERE}") from None
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}. {ELSEWHERE}") from None
    try:
        if (folder / RESULT).exists():
            raise UserError(f"{folder} already holds a finished run. {ELSEWHERE}")
        yield
    finally:
        (folder / ".lock").unlink(missing_ok=True)
        lock.release()


def _baseline_covariates(cohort: Cohort) -> pd.DataFrame:
    """Age, sex and APOE alleles for the covariates-only baseline, whatever the model is given."""
    wanted = MetadataConfig(columns=COVARIATES, fusion={}, allow_label_derived=False)
    try:
        return read_covariates(cohort.donors, wanted).values
    except UserError as error:
        log.warning("no covariates-only baseline: %s", error)
        return pd.DataFrame(index=cohort.donors.index)


def best_score(result: FoldResult, objective: Objective) -> float:
    """What a search maximises, at the epoch kept."""
    return score_of(result.fitted.history[result.fitted.best_epoch - 1], objective)


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    probability: np.ndarray = 1 / (1 + np.exp(-logit))
    return probability
