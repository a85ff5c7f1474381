"""The whole run, top to bottom: atlas → cohort → folds → fit and predict each → evaluate → report."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate import Accelerator
from filelock import FileLock, Timeout

from oligo_ad.config import Config, MetadataConfig
from oligo_ad.data.cache import load_cohort
from oligo_ad.data.cohort import Cohort
from oligo_ad.data.covariates import COVARIATES, Covariates, fit_standardiser, read_covariates
from oligo_ad.data.split import Fold, make_folds, write_split
from oligo_ad.errors import UserError
from oligo_ad.inputs.loader import Loader, Share
from oligo_ad.models.build import make_classifier, make_featurizer
from oligo_ad.models.pretrained import Pretrained, read_pretrained
from oligo_ad.results import report
from oligo_ad.results.baselines import score_baselines
from oligo_ad.results.environment import environment
from oligo_ad.results.evaluation import FoldPrediction, evaluate
from oligo_ad.results.files import write_files, write_json
from oligo_ad.results.metrics import best_threshold
from oligo_ad.results.sentences import Story
from oligo_ad.results.tracking import track
from oligo_ad.sweeps.search import Pruned, epoch_watcher, score_of
from oligo_ad.sweeps.trials import PRUNED, RESULT
from oligo_ad.training.checkpoint import Trained, save_checkpoint
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
    """A whole run; every mistake that can be found before the data are read is found then."""
    pretrained = read_pretrained(config.model)
    _check_components(config, pretrained)
    accelerator, folder = make_accelerator(config, folder)
    with _claimed(folder) if accelerator.is_main_process else nullcontext():
        try:
            headline = _train_and_evaluate(config, folder, accelerator, pretrained)
        except Pruned as pruned:
            write_json(folder / PRUNED, {"value": pruned.value})
            log.info("stopped: earlier trials were better at this epoch")
            headline = None
    accelerator.end_training()
    return headline


def _train_and_evaluate(
    config: Config, folder: Path, accelerator: Accelerator, pretrained: Pretrained | None
) -> float | None:
    """The straight line; the headline is known to the first process."""
    started = time.perf_counter()
    with accelerator.main_process_first():
        cohort = load_cohort(config.data, config.cache.path)
    covariates = read_covariates(cohort.donors, config.metadata)
    for note in cohort.notes + covariates.notes:
        log.warning(note)
    folds = make_folds(cohort.donors["label"], config.split)
    start_tracker(accelerator, config, folder)
    shared = Run(config, folder, accelerator, cohort, covariates, folds, pretrained)
    if config.task == "validate":
        shared, results = _validate(shared)
    else:
        results = [train_fold(shared, fold) for fold in folds]
    headline = None
    if accelerator.is_main_process:
        try:
            headline = _conclude(shared, results, time.perf_counter() - started)
        except OSError as error:
            raise UserError(f"the results cannot be written to {folder}: {error}.") from error
    accelerator.wait_for_everyone()
    return headline


def _validate(run: Run) -> tuple[Run, list[FoldResult]]:
    """A trial of a search: every fold with every seed, scored on validation donors.

    Seeds are like repeats: folds of their own, of the same donors.
    """
    sweep = run.config.sweep
    results: list[FoldResult] = []
    folds: list[Fold] = []
    done: list[float] = []
    for i, seed in enumerate(sweep.seeds):
        for fold in run.folds:
            numbered = replace(fold, number=fold.number + i * run.folds[-1].number)
            own = replace(run, config=replace(run.config, seed=seed), folds=[*folds, numbered])
            watch = epoch_watcher(sweep, fold.number, done, run.config.fit.epochs)
            result = train_fold(own, numbered, watch)
            folds.append(numbered)
            results.append(result)
            done.append(_objective(result, sweep.objective))
    return replace(run, folds=folds), results


def train_fold(run: Run, fold: Fold, watch: Callable[[Epoch], None] = lambda epoch: None) -> FoldResult:
    """Fit everything on the training donors of one fold, then predict its test donors.

    Nothing of a test donor is looked at before `predict`; with `task=validate`, nothing ever.
    """
    config, accelerator = run.config, run.accelerator
    scored = "validation" if config.task == "validate" else "test"
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
    if accelerator.is_main_process and config.task == "train":
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
    return FoldResult(prediction, fitted, trained.featurizer.gene_names, trained.featurizer.facts(), kernels)


def _prepare(run: Run, fold: Fold) -> tuple[Trained, Loader]:
    """Featurizer and metadata fitted on training donors, an untrained classifier, and its batches."""
    config, cells, accelerator = run.config, run.cohort.cells, run.accelerator
    featurizer = make_featurizer(config.model, run.pretrained, config.cache.path, accelerator.device)
    featurizer.fit(run.cohort, fold.train)
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
    config, cohort, folds = run.config, run.cohort, run.folds
    write_split(folds, cohort.donors["label"], config.split, run.folder / "split.json")
    baselines = None
    # Baselines predict test donors, which a trial of a search must not score.
    if config.evaluation.baselines and config.task == "train":
        baselines = score_baselines(cohort, _baseline_covariates(cohort), folds, config.seed)
    outcome = evaluate(
        cohort,
        [result.prediction for result in results],
        baselines,
        config.evaluation,
        config.seed,
        run.covariates.label_derived,
    )
    story = Story(
        config=config,
        folder=run.folder,
        cohort=cohort,
        covariates=run.covariates,
        folds=folds,
        fitted=[result.fitted for result in results],
        pretrained=run.pretrained,
        gene_names=[result.gene_names for result in results],
        about_input=results[0].about_input,
        attention=results[0].attention,
        outcome=outcome,
        environment=environment(run.accelerator.device, run.accelerator.num_processes),
        seconds=seconds,
        objective=float(np.mean([_objective(result, config.sweep.objective) for result in results])),
    )
    if config.task == "validate":
        track(story, {}, run.accelerator)
        write_files(story, [])
    else:
        report.write(story, run.accelerator)
    return outcome.headline


def _check_components(config: Config, pretrained: Pretrained | None) -> None:
    """Every component is made once, as small as it can be, before any data are read."""
    make_featurizer(config.model, pretrained)
    n_ids = len(pretrained.vocabulary) if pretrained else 2
    classifier = make_classifier(config.model, config.metadata, pretrained, n_ids, n_metadata=1)
    make_optimizer(classifier, config.fit, steps=1)
    if config.fit.compile and not classifier.network.can_compile:
        with_recompute = " with model.adapt.recompute=true" if config.model.adapt.recompute else ""
        raise UserError(
            f"fit.compile=true has no use for model={config.model.name}{with_recompute}: leave it out."
        )


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


def _objective(result: FoldResult, name: str) -> float:
    """What a search maximises, at the epoch kept."""
    return score_of(result.fitted.history[result.fitted.best_epoch - 1], name)


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    probability: np.ndarray = 1 / (1 + np.exp(-logit))
    return probability
