"""What the library logs, in the terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from landscape.runtime.visible import visible


class _Steps(logging.Handler):
    """Writes a line for each record to standard error, beside the progress bars, with the time and the logger."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        tqdm.write(visible(self.format(record)), file=sys.stderr)


@contextmanager
def logged(verbose: bool) -> Iterator[None]:
    """Within the block, if `verbose`, every step that the library logs is shown."""
    library = logging.getLogger("landscape")
    if not verbose:
        yield
        return
    handler, level = _Steps(), library.level
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    library.addHandler(handler)
    library.setLevel(logging.DEBUG)
    library.propagate = False
    try:
        yield
    finally:
        library.removeHandler(handler)
        library.setLevel(level)
        library.propagate = True
