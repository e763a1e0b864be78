"""What a command does to its process before anything heavy is imported."""

import atexit
import gc
from typing import Any

from rela.distributed.ranks import end_with_launcher
from rela.pipeline.cores import limit_threads
from rela.pipeline.late_modules import import_late

_PLOTS = (
    "_AX_TYPE", "_CMAP_TYPE", "_PLOT_OUT_TYPE", "plot_confusion_matrix", "plot_curve",
    "plot_single_or_multi_val",
)  # fmt: skip


def _as_it_is(function: Any = None, *_: Any, **__: Any) -> Any:
    return function or _as_it_is


# Imported by libraries, not needed by commands, and without a switch: a third of the time to the first step
# of a training. PyTorch's compiler: torchvision, Lightning and PyTorch's optimizers import it to keep
# functions from being compiled; as long as it is not imported, nothing is. torchmetrics imports SciPy's
# signals and matplotlib, Numba SciPy's linear algebra, Lightning counters of operations (with Triton).
LATE: dict[str, dict[str, Any]] = {
    "torch._dynamo": {"disable": _as_it_is, "graph_break": lambda: None, "OptimizedModule": None},
    "torch._dynamo.utils": {"is_compile_supported": None},
    "torch.utils.flop_counter": {"FlopCounterMode": None},
    "torchmetrics.utilities.plot": dict.fromkeys(_PLOTS),
    "scipy.signal": {"hamming": None},
    "scipy.linalg": {},
    "scipy.linalg.cython_blas": {},
}


def prepare_process() -> None:
    """End with the launcher, use the cores that there are, import late what is hardly ever used.

    At the end Python looks for cycles among all objects, twice: half a second after PyTorch was imported,
    although the memory goes with the process. Frozen, they are left out.
    """
    end_with_launcher()
    limit_threads()
    import_late(LATE)
    atexit.register(gc.freeze)
