"""The tasks of the program, as `task=NAME` on the command line; one file each."""

from pathlib import Path
from pkgutil import resolve_name

from oligo_ad.config import Config

# Imported only when one is run, since most of them import much.
FUNCTIONS = {
    "train": "oligo_ad.tasks.train:train",
    "validate": "oligo_ad.tasks.validate:validate",
    "report": "oligo_ad.tasks.report:report",
    "inspect": "oligo_ad.tasks.inspect:inspect",
    "prepare": "oligo_ad.tasks.prepare:prepare",
    "cache": "oligo_ad.tasks.cache:show",
    "clear_cache": "oligo_ad.tasks.cache:clear",
}


def run(config: Config, folder: Path) -> float | None:
    """Do the task of one run and leave its results in `folder`.

    Returns:
        The headline, donor AUROC as a mean over folds; None for a task that trains nothing.

    Raises:
        UserError: a mistake in the configuration or the data; no result is written then.
    """
    headline: float | None = resolve_name(FUNCTIONS[config.task.name])(config, folder)
    return headline
