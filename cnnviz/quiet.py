"""Imports TensorFlow without its talk of missing GPUs on machines that have none.

TensorFlow writes it to the file descriptor of standard error while it is imported, before its log
level counts for anything. Notebooks would show it in red under their first cell.
"""

import os
import sys
from pathlib import Path

if "tensorflow" not in sys.modules and not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # no remark on the processor's instructions
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow

        tensorflow.config.list_physical_devices()  # looks for a GPU now, not at the first tensor
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
