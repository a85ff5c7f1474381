"""`task=prepare`: read the nuclei of a cohort into the cache, where the next run finds them."""

from pathlib import Path

from oligo_ad.config import Config
from oligo_ad.data.cache import load_cohort
from oligo_ad.data.contrast import prepared_cohort


def prepare(config: Config, folder: Path) -> None:
    """Read the cohort that `config.data` names; nothing is written to `folder`.

    Labels are checked where they are named, so that a run finds no mistake in them later.

    Raises:
        UserError: what a run would refuse.
    """
    if config.data.label_key:
        prepared_cohort(config.data, config.cache.path)
    else:
        load_cohort(config.data, config.cache.path)
