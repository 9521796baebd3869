"""`python -m hatch_mar`: the program `hatch-mar`."""

from __future__ import annotations

from hatch_mar.cli import main

if __name__ == "__main__":
    main()
