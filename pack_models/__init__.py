"""Battery physics: cells, pack electrics, thermal, ageing, propagation. Numpy in, numpy out."""
