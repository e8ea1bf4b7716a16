"""What lives on the SimPy clock: sites, racks, packs, sensors, dispatch, faults; ports, never engines."""
