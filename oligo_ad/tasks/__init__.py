"""The tasks of the program, as `task=NAME` on the command line; one file each."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from pkgutil import resolve_name

from oligo_ad.config import Config
from oligo_ad.launch import is_first_process

# Imported only when one is run, since most of them import much.
FUNCTIONS = {
    "train": "oligo_ad.tasks.train:train",
    "validate": "oligo_ad.tasks.validate:validate",
    "report": "oligo_ad.tasks.report:report",
    "permute": "oligo_ad.tasks.permute:permute",
    "inspect": "oligo_ad.tasks.inspect:inspect",
    "prepare": "oligo_ad.tasks.prepare:prepare",
    "cache": "oligo_ad.tasks.cache:show",
    "clear_cache": "oligo_ad.tasks.cache:clear",
}
TRAINING = ("train", "validate")  # these alone write to a directory of their own


def run(config: Config, folder: Path, words: Sequence[str] = ()) -> float | None:
    """Do the task of one run and leave its results in `folder`, with the words of the command line.

    Returns:
        The headline, donor AUROC as a mean over folds; None for a task that trains nothing.

    Raises:
        UserError: a mistake in the configuration or the data; no result is written then.
    """
    with _begun(config, folder, words):
        headline: float | None = resolve_name(FUNCTIONS[config.task.name])(config, folder)
        return headline


def _begun(config: Config, folder: Path, words: Sequence[str]) -> AbstractContextManager[None]:
    if config.task.name not in TRAINING or not is_first_process():
        return nullcontext()
    from oligo_ad.directory import begun

    return begun(folder, words)
