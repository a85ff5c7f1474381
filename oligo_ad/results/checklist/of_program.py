"""What a run knows of itself as a program: versions, machine, time, and where everything is."""

from oligo_ad.results.checklist.items import Answer, unknown
from oligo_ad.results.checklist.of_model import training
from oligo_ad.results.sentences import RunSummary, duration
from oligo_ad.words import command_of


def settings(run: RunSummary) -> Answer:
    """Where every hyperparameter is."""
    return Answer(
        "config.yaml in the run directory holds every setting, and so does the end of report.html. "
        f"{training(run)}. This run tunes none of them but the epoch"
    )


def time(run: RunSummary) -> Answer:
    """How long the run took, and where."""
    device = run.record.facts.environment.get("device", "an unknown device")
    return Answer(f"{duration(run.seconds)} for training and evaluation of all folds, on {device}")


def environment(run: RunSummary) -> Answer:
    """Machine and versions."""
    if not run.record.facts.environment:
        return unknown("machine and versions, which this run has not recorded")
    versions = ", ".join(f"{name} {value}" for name, value in run.record.facts.environment.items())
    return Answer(f"{versions}; precision {run.record.config.precision.name}; {time(run).text}")


def program(run: RunSummary) -> Answer:
    """Version and commit, with the README that belongs to them."""
    own = run.record.facts.environment
    if "oligo_ad" not in own:
        return unknown("the version of oligo_ad, which this run has not recorded")
    return Answer(
        f"oligo_ad {own['oligo_ad']}, commit {own.get('git commit', 'unknown')}, with README and docs; "
        "models are in folds/<k>/model.safetensors of the run directory"
    )


def reproduction(run: RunSummary) -> Answer:
    """The command, the seed, and whether the machine repeats the bits."""
    config = run.record.config
    exact = "deterministic algorithms" if config.deterministic else "algorithms that may differ in last bits"
    command = command_of(run.record.facts.words)
    return Answer(f"{command} ; or rerun=RUN with this run directory. Seed {config.seed}, {exact}")


def model_files(run: RunSummary) -> Answer:
    """Where the models are."""
    return Answer(
        f"{len(run.record.folds)} model(s), one a fold, in folds/<k>/model.safetensors: weights, genes, "
        "scaling, threshold; read by load_bundle"
    )


def split_file(run: RunSummary) -> Answer:
    """Where the split is; of the data only their content is known."""
    return Answer("the split, with the id and label of each donor, is split.json in the run directory")


def result_files(run: RunSummary) -> Answer:
    """Where raw predictions and scores are."""
    return Answer(
        "in the run directory: folds/<k>/predictions.parquet of every sample, donors.csv with all "
        "predictors, metrics.json with every score and confusion matrix, permutations"
    )
