"""The sweeper, where Hydra looks for plugins. Hydra imports this file at every start: nothing heavy here."""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OligoSweeper(Sweeper):
    """Grids and searches whose trials are recorded, resumed and compared; see oligo_ad/sweeps/sweep.py."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._given = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        from oligo_ad.sweeps.sweep import sweep

        sweep(*self._given, arguments)
