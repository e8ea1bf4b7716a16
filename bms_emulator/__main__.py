"""`python -m bms_emulator run|bench`: see `cli.py`."""

from .cli import main

raise SystemExit(main())
