"""`python -m app.cli`: the same as `fovea`."""

from app.cli import main

main()
