"""How a trainer tells its supervisor why it ended."""

from __future__ import annotations

from typing import Final

EXIT_FAILED: Final = 1  # `failure.json` says why
EXIT_HANDED_BACK: Final = 75  # it stopped at a checkpoint, as asked (EX_TEMPFAIL of sysexits.h)
EXIT_BUSY: Final = 73  # another trainer holds the run directory (EX_CANTCREAT)
