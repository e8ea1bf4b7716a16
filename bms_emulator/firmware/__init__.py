"""BMS firmware in C11: sources (`app/` pure, `host/` for the native rung) and their builds (`build.py`)."""
