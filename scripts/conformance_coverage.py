#!/usr/bin/env python3
import shutil,sys
shutil.copy(sys.argv[-1], "/work/scratch/trust2/lcov")
