"""The exit codes of a trainer; they tell the supervisor why it ended."""

from __future__ import annotations

from typing import Final

EXIT_FAILED: Final = 1  # the run failed; `failure.json` has the reason
EXIT_HANDED_BACK: Final = 75  # the run stopped at a checkpoint, as requested (EX_TEMPFAIL of sysexits.h)
EXIT_BUSY: Final = 73  # another trainer holds the run directory (EX_CANTCREAT)
