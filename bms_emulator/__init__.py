"""A microcontroller that runs BMS firmware, and that firmware."""
