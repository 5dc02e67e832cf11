"""Rate-distortion benchmark of NNV against x264, x265, SVT-AV1 and VVenC."""
