"""From a run folder to report.html and PNGs; reads the disk only, and writes the same bytes each time."""
