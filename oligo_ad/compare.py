"""Compares any runs: writes leaderboard.csv and leaderboard.html.

python -m oligo_ad.compare outputs/2026-11-22 multirun_sweeps/2026-11-22/*
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from oligo_ad.errors import UserError
from oligo_ad.launch import settle_environment, write_any_text


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m oligo_ad.compare`: exits with 1 after a mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m oligo_ad.compare",
        description="Compare runs: leaderboard.csv and leaderboard.html of all runs at or under folders.",
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="where both files go; without it, the first folder")
    options = parser.parse_args(arguments)
    write_any_text()
    settle_environment()
    # Imported now, so that nothing in the environment decides how pictures are drawn.
    from oligo_ad.record import RESULT
    from oligo_ad.sweeps.comparison import compare, find_runs
    from oligo_ad.sweeps.leaderboard import write

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        runs = find_runs(options.folders)
        if not runs:
            where = ", ".join(str(folder) for folder in options.folders)
            raise UserError(f"no run in {where}: a run leaves {RESULT} in its directory.")
        board = compare(runs)
        write(board, options.out or options.folders[0])
        if (board.table["status"] == "damaged").all():
            raise UserError(f"nothing can be compared: {board.table['failure'][0]}")
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
