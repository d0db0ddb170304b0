"""A way to a server on which an answer gets lost."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread


class Dropping:
    """Passes on what clients and a server say, until it is told to lose an answer."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._word: bytes | None = None
        self._meanwhile: Callable[[], object] = lambda: None
        self._dropped = Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[Thread] = []
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self._sockets += [client, server]
                asked = Event()
                self._start(self._carry_questions, client, server, asked)
                self._start(self._carry_answers, server, client, asked)

    def _carry_questions(self, client: socket.socket, server: socket.socket, asked: Event) -> None:
        with suppress(OSError):
            while said := client.recv(1 << 20):
                if self._word is not None and self._word in said:
                    self._word = None
                    asked.set()
                server.sendall(said)
        _close(server)

    def _carry_answers(self, server: socket.socket, client: socket.socket, asked: Event) -> None:
        with suppress(OSError):
            while said := server.recv(1 << 20):
                if asked.is_set():
                    self._meanwhile()
                    self._dropped.set()
                    break
                client.sendall(said)
        _close(client)

    @contextmanager
    def dropping_the_answer_to(self, word: bytes, meanwhile: Callable[[], object] = lambda: None) -> Iterator[Event]:
        """Lose the next answer to a question that has *word* in it, and its connection with it.

        Args:
            word: The question that was understood, and whose answer is lost.
            meanwhile: What happens in between.
        """
        self._dropped.clear()
        self._meanwhile, self._word = meanwhile, word
        yield self._dropped

    def close(self) -> None:
        """Break every connection."""
        for each in (self._listener, *self._sockets):
            _close(each)
        for thread in self._threads:
            thread.join(10)
        for each in (self._listener, *self._sockets):
            each.close()


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def dropping(port: int) -> Iterator[Dropping]:
    """Give a way to the server at *port*."""
    way = Dropping(port)
    try:
        yield way
    finally:
        way.close()
