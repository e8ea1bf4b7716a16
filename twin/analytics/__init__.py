"""What the measured data say: detectors, their run over a folder or in the loop, their score."""
