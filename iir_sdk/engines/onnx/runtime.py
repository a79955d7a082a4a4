"""What executes an exported graph: the seam between ONNX Runtime and OpenVINO; imports no torch."""

from __future__ import annotations

import ctypes
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakSet, finalize

from numpy.typing import NDArray

from iir_sdk.errors import ConfigError, DeviceError, WeightsError, needed_imports
from iir_sdk.process import ProcessLock

Arrays = Mapping[str, NDArray[Any]]


class Graph(Protocol):
    """An opened graph, by the names of its inputs and outputs; several threads may run it at once."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, outputs: Sequence[str], inputs: Arrays) -> list[NDArray[Any]]:
        """The named outputs, in that order."""
        ...


class GraphRuntime(ABC):
    """Opens graphs on the CPU."""

    name: str  # as ``backend=`` takes it
    version: str  # of the library
    precision: str  # what it computes in, as ``float32``
    threads: int | None  # how many it computes with; None leaves that to it

    def opens_here(self) -> bool:
        """Whether graphs can be opened in this process, which may be forked."""
        return True

    def fallback(self) -> GraphRuntime | None:
        """The same in float32, where it was left to choose and chose less; else None."""
        return None

    @abstractmethod
    def open(self, graph: bytes, name: str, *, image_side: int | None = None, side_by_side: bool = False) -> Graph:
        """Open a graph.

        Args:
            graph: content of the ``.onnx`` file.
            name: of the file, for messages.
            image_side: pictures will be one at a time and of this size; a runtime may build on it.
            side_by_side: threads will run it at the same time, and each run gets one processor of its own.

        Raises:
            WeightsError: the runtime cannot run it.
            DeviceError: it cannot open graphs in this process, see :meth:`opens_here`.
        """


class OnnxRuntime(GraphRuntime):
    """ONNX Runtime, in float32; None leaves the number of threads to it."""

    name = "onnxruntime"
    precision = "float32"

    def __init__(self, threads: int | None = None) -> None:
        with needed_imports("backend='onnxruntime' needs ONNX Runtime. Install it: pip install 'iir-sdk[onnx]'"):
            import onnxruntime
        self._library, self.threads = onnxruntime, threads
        self.version = str(onnxruntime.__version__)

    def __reduce__(self) -> tuple[type[OnnxRuntime], tuple[int | None]]:
        """For copies and pickles."""
        return OnnxRuntime, (self.threads,)

    def open(self, graph: bytes, name: str, *, image_side: int | None = None, side_by_side: bool = False) -> Graph:
        """See :class:`GraphRuntime`."""
        options = self._library.SessionOptions()
        # 0 leaves their number to the library.
        options.intra_op_num_threads = 1 if side_by_side else self.threads or 0
        try:
            return _Session(self._library.InferenceSession(graph, options, providers=["CPUExecutionProvider"]))
        except Exception as error:
            raise WeightsError(f"ONNX Runtime {self._library.__version__} cannot run {name}: {error}") from error


class _Session:
    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = tuple(i.name for i in session.get_inputs())
        self.outputs = tuple(o.name for o in session.get_outputs())

    def run(self, outputs: Sequence[str], inputs: Arrays) -> list[NDArray[Any]]:
        """The named outputs, in that order."""
        arrays: list[NDArray[Any]] = self._session.run(list(outputs), dict(inputs))
        return arrays


class OpenVino(GraphRuntime):
    """OpenVINO, in float32, or in bfloat16: by ``auto`` where the CPU computes in it, else a ConfigError."""

    name = "openvino"

    def __init__(self, dtype: str | None = None, threads: int | None = None) -> None:
        with needed_imports("backend='openvino' needs OpenVINO. Install it: pip install 'iir-sdk[openvino]'"):
            import openvino
        self._library, self._core = openvino, _shared_core(openvino)
        able = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if dtype == "bfloat16" and not able:
            raise ConfigError("dtype='bfloat16': this CPU has no instructions for it; use dtype='auto' or None.")
        self.precision = "bfloat16" if able and dtype in ("bfloat16", "auto") else "float32"
        self._dtype, self.threads = dtype, threads
        self.version = str(openvino.__version__)

    def __reduce__(self) -> tuple[type[OpenVino], tuple[str | None, int | None]]:
        """For copies and pickles."""
        return OpenVino, (self._dtype, self.threads)

    def opens_here(self) -> bool:
        """See :class:`GraphRuntime`."""
        return not _forked_after_closing

    def fallback(self) -> OpenVino | None:
        """See :class:`GraphRuntime`."""
        return OpenVino("float32", self.threads) if self._dtype == "auto" and self.precision != "float32" else None

    def open(self, graph: bytes, name: str, *, image_side: int | None = None, side_by_side: bool = False) -> Graph:
        """See :class:`GraphRuntime`."""
        if not self.opens_here():
            raise DeviceError(
                f"OpenVINO cannot open {name} in this forked process: the one that it was forked from has closed such "
                "graphs, whose threads it would wait for here for ever. Open the segmenter before the fork, start the "
                "process with multiprocessing.get_context('spawn'), or use backend='onnxruntime'."
            )
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bfloat16" else "f32"}
        if side_by_side:
            count = self.threads or processors()
            settings |= {"NUM_STREAMS": count, "INFERENCE_NUM_THREADS": count}
        else:
            settings["PERFORMANCE_HINT"] = "LATENCY"
            settings |= {"INFERENCE_NUM_THREADS": self.threads} if self.threads else {}
        try:
            model = self._core.read_model(graph)
            if image_side is not None:
                model.reshape({"image": self._library.PartialShape([1, 3, image_side, image_side])})
            return _Compiled(self._core.compile_model(model, "CPU", settings))
        except Exception as error:
            raise WeightsError(f"OpenVINO {self._library.__version__} cannot run {name}: {error}") from error


_CORES: list[Any] = []
_ONE_CORE = ProcessLock()


def _shared_core(library: Any) -> Any:
    """One core for the whole process, kept to its end.

    Each core gives its thread another stack for signals and on its own end takes back the one before. Cores that end in
    another order than last in, first out leave a stack that is gone, and the next signal handled in Python (Ctrl-C, a
    child process's end) is a segmentation fault.
    """
    with _ONE_CORE:
        if not _CORES:
            _CORES.append(library.Core())
            never_closed_in_forks(_CORES[0])
        return _CORES[0]


class _Compiled:
    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        # OpenVINO keeps the threads of graphs that were closed, for those opened next.
        finalize(self, _note_closing).atexit = False
        self.inputs = tuple(name for port in compiled.inputs for name in _exported_names(port))
        self.outputs = tuple(name for port in compiled.outputs for name in _exported_names(port))

    def run(self, outputs: Sequence[str], inputs: Arrays) -> list[NDArray[Any]]:
        """The named outputs, in that order; from several threads at once, too."""
        # A request of its own, since one cannot serve two threads; its outputs are copied out.
        arrays = self._compiled.create_infer_request().infer(dict(inputs))
        return [arrays[name] for name in outputs]


def _exported_names(port: Any) -> list[str]:
    """The names that the export gave, several where outputs are equal."""
    return sorted(str(name) for name in port.get_names() if "/" not in name)


def processors() -> int:
    """How many this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


_opened: WeakSet[object] = WeakSet()
_watching_forks = False
_closed = False
_forked_after_closing = False
"""Whether OpenVINO would give graphs opened in this process threads that do not live here, and wait for ever."""


def never_closed_in_forks(graph: object) -> None:
    """Leave an opened graph alone in the children that are forked from now on, even at their end.

    A runtime's threads do not live on in a fork, and closing what they worked for waits for them for ever. The graph
    still runs there, in the thread that asks.
    """
    global _watching_forks
    _opened.add(graph)
    if not _watching_forks and hasattr(os, "register_at_fork"):
        _watching_forks = True
        os.register_at_fork(after_in_child=_go_on_in_child)


def _note_closing() -> None:
    global _closed
    _closed = True


def _go_on_in_child() -> None:
    global _forked_after_closing
    _forked_after_closing = _closed
    for graph in list(_opened):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(graph))
