"""`task=cache` and `task=clear_cache`: what the cache holds, and an empty cache."""

from pathlib import Path

from oligo_ad.config import Config
from oligo_ad.data import cache


def show(config: Config, folder: Path) -> None:
    """Print what the cache holds, where, and how large it is; nothing is written to `folder`."""
    print(cache.describe(config.cache.path))  # noqa: T201 this text is what the user asked for


def clear(config: Config, folder: Path) -> None:
    """Empty the cache and print what was removed; nothing is written to `folder`."""
    print(cache.clear(config.cache.path))  # noqa: T201 this text is what the user asked for
