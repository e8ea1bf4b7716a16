"""Racks of a fleet over months and years: cells, electrics, temperatures, containers and ageing at speed."""

from pack_models.fleet.daily import DailyTable
from pack_models.fleet.engine import FleetEngine
from pack_models.fleet.mean import MeanFleet
from pack_models.fleet.plant import Container, Converter, Limits

__all__ = ["Container", "Converter", "DailyTable", "FleetEngine", "Limits", "MeanFleet"]
