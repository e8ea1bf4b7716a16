"""Faults: one file each, and a row here. The word is what a scenario says under `kind:`."""

from __future__ import annotations

from twin.world.faults.cell_outlier import CellOutlier
from twin.world.faults.contactor import ContactorStuck, ContactorWelded
from twin.world.faults.cooling_failure import CoolingFailure
from twin.world.faults.insulation_loss import InsulationLoss
from twin.world.faults.internal_short import InternalShort
from twin.world.faults.open_fuse import OpenFuse
from twin.world.faults.sensor import SensorBias, SensorDropout, SensorStuck

FAULTS: dict[str, type] = {
    "internal_short": InternalShort,
    "cell_outlier": CellOutlier,
    "open_fuse": OpenFuse,
    "cooling_failure": CoolingFailure,
    "contactor_welded": ContactorWelded,
    "contactor_stuck": ContactorStuck,
    "insulation_loss": InsulationLoss,
    "sensor_bias": SensorBias,
    "sensor_stuck": SensorStuck,
    "sensor_dropout": SensorDropout,
}
