"""What a run can be asked to do, one verb a file."""

from pathlib import Path

from oligo_ad.config import Config


def run(config: Config, folder: Path) -> float | None:
    """Do one run and leave its results in `folder`.

    Returns:
        The headline, donor AUROC as a mean over folds; None for a task that trains nothing. Task `validate`
        scores validation donors and does not look at test donors: for searches.

    Raises:
        UserError: a mistake in the configuration or the data; no result is written then.
    """
    match config.task:
        case "train" | "validate":
            from oligo_ad.tasks.train import train

            return train(config, folder)
        case "prepare":
            from oligo_ad.data.cache import load_cohort

            load_cohort(config.data, config.cache.path)
        case "inspect":
            from oligo_ad.tasks.inspect import inspect

            print(inspect(config))  # noqa: T201 this text is what the user asked for
        case "cache":
            from oligo_ad.data import cache

            print(cache.describe(config.cache.path))  # noqa: T201 the same
        case "clear_cache":
            from oligo_ad.data import cache

            print(cache.clear(config.cache.path))  # noqa: T201 the same
    return None
