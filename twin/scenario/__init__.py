"""Scenarios: text an operator can read → frozen, typed data in SI, or every mistake at once.

schema.py      what a scenario is (dataclasses; fields.py says what each field may hold)
load.py        YAML → Scenario      source.py (YAML with places) · build.py · build_profile.py · checks.py
                                    · targets.py · overrides.py (--set) · errors.py (what is shown)
resolved.py    Scenario → operator's units, hash      json_schema.py   for editors
profiles.py    time series          datasets.py · packages.py · bdew.py · user_files.py · series.py
                                    · placing.py (calendar) · synthetic.py
"""
