"""Rate-distortion benchmark of NNV against x264, x265 and SVT-AV1."""
