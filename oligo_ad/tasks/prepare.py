"""`task=prepare`: the nuclei of a cohort are read into the cache, where the next run finds them."""

from pathlib import Path

from oligo_ad.config import Config
from oligo_ad.data.cache import load_cohort


def prepare(config: Config, folder: Path) -> None:
    """Read the cohort that `config.data` names; nothing is written to `folder`.

    Raises:
        UserError: what a run would refuse.
    """
    load_cohort(config.data, config.cache.path)
