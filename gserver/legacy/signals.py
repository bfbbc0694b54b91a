"""Signal handlers run where the program expects them: in its main thread.

CPython runs them in the main thread, and under gevent every greenlet is in it: a Ctrl-C, or the
``sys.exit()`` of a SIGTERM handler, would come up in whichever connection happens to run, and
end that one. Here handlers run beside the program, and what they raise is raised in its main
greenlet.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import gevent

__all__ = ["deliver_to_main"]


def deliver_to_main() -> None:
    """From now on, and for the handlers that are set already. In another thread than the main
    one, which alone may set handlers, nothing is done."""
    hub: Any = gevent.get_hub()
    if not hub.main_hub:
        return
    main, loop = hub.parent, hub.loop
    set_handler, get_handler = signal.signal, signal.getsignal

    class Delivered:
        __slots__ = ("handler",)

        def __init__(self, handler: Callable[..., object]) -> None:
            self.handler = handler

        def __call__(self, number: int, frame: FrameType | None) -> None:
            if gevent.getcurrent() is main:
                self.handler(number, frame)
            else:
                loop.run_callback_threadsafe(gevent.spawn_raw, self._run, number, frame)

        def _run(self, number: int, frame: FrameType | None) -> None:
            try:
                self.handler(number, frame)
            except BaseException as error:
                loop.run_callback(main.throw, error)

    def as_given(handler: Any) -> Any:
        return handler.handler if isinstance(handler, Delivered) else handler

    def capped_signal(number: int, handler: Any, /) -> Any:
        return as_given(set_handler(number, Delivered(handler) if callable(handler) else handler))

    def capped_getsignal(number: int, /) -> Any:
        return as_given(get_handler(number))

    signal.signal = capped_signal  # type: ignore[assignment]  # its overloads
    signal.getsignal = capped_getsignal  # type: ignore[assignment]
    for number in signal.valid_signals():
        handler = get_handler(number)
        if callable(handler):  # Python's own for SIGINT, or one of the program's
            capped_signal(number, handler)
