"""Couples everything: scenario, world, telemetry, analytics, report (see twin/README.md)."""
