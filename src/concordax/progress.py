"""A progress bar for `train`, drawn by rich."""


class ProgressBar:
    """A callback that shows steps, loss, damping and strength while a run works.

    Args:
        total: steps at most.

    Raises:
        ImportError: if rich is not installed.
    """

    def __init__(self, total: int):
        try:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        except ImportError as error:
            raise ImportError(
                '`train(progress=True)` needs rich: pip install "concordax[all]", or leave progress=False.'
            ) from error
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self._progress = Progress(*columns)
        self._task = self._progress.add_task("train", total=total, text="")
        self._progress.start()

    def __call__(self, step: int, record: dict[str, float]) -> None:
        """Draws the state after `step`."""
        text = f"loss {record['loss']:.3e}  damping {record['damping']:.1e}  strength {record['strength']:.1e}"
        self._progress.update(self._task, completed=step, text=text)

    def close(self) -> None:
        """Leaves the last line on the screen."""
        self._progress.stop()
