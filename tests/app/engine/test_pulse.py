"""The parent's end of a child's pulse gives its descriptors back once."""

from __future__ import annotations

import os

from app.processes.pulse import Pulse


def test_closing_twice_closes_nothing_of_others() -> None:
    pulse = Pulse()
    pulse.close()
    reading, writing = os.pipe()  # they get the numbers that are free now
    pulse.close()
    os.write(writing, b"!")
    assert os.read(reading, 1) == b"!"
    os.close(reading)
    os.close(writing)
