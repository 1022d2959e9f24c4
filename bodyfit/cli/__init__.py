"""The command line. It is imported before numpy, so that this is the place to say how numpy's BLAS runs."""

import os

# The fit runs its own two threads over views; BLAS threads beside them only fight for the same cores (a fifth more CPU
# time for a cold fit on two cores), and their number would change the last bits of a result. What a user set, stays.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
