"""`task=report run=DIR`: scores, pictures and report of a finished run, made again from its record."""

from pathlib import Path

from oligo_ad.config import Config, ReportTask
from oligo_ad.errors import UserError


def report(config: Config, folder: Path) -> None:
    """Score the run that `config.task` names again and draw its report; nothing is written to `folder`.

    Raises:
        UserError: no run is named, or its directory holds no finished run.
    """
    assert isinstance(config.task, ReportTask)
    if config.task.run is None:
        raise UserError("task=report needs the directory of a run: python run.py task=report run=DIR")
    from oligo_ad.faults import writing
    from oligo_ad.record import open_run
    from oligo_ad.results.report import conclude
    from oligo_ad.storage.shelf import claimed

    record = open_run(config.task.run)
    with claimed(record.folder, f"another process is at work in {record.folder}."), writing(record.folder):
        conclude(record, record.metrics.get("objective"))
