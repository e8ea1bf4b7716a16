"""Detectors by their word in a scenario. A new one is a module beside this and a row here."""

from __future__ import annotations

from twin.analytics.detectors.max_min_spread import MaxMinSpread
from twin.analytics.detectors.propagation_risk import PropagationRisk
from twin.analytics.detectors.voltage_spread import VoltageSpread

DETECTORS: dict[str, type] = {
    detector.word: detector
    for detector in (
        MaxMinSpread,
        PropagationRisk,
        VoltageSpread,
    )
}
