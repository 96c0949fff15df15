"""What every rank of a test needs; imported once by the fork server, so that a rank starts at once."""

import gc
import os
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore")

from gptdist.device.device import prepare_deepspeed  # noqa: E402

prepare_deepspeed()

import s3fs  # noqa: E402, F401

import gptdist.train.build  # noqa: E402
import gptdist.train.inference  # noqa: E402
import gptdist.train.loop  # noqa: E402, F401

gc.freeze()  # else each rank's collector walks through, and copies, what the fork server has loaded: 0.3 s a time
