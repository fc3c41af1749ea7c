"""Messages between kernel and worker: a JSON header and raw arrays, over one local socket; and shared memory.

Nothing is pickled: the worker reads files that nobody vouches for, so what it says is data, never code. Large results
go through `SharedBlock`, anonymous memory whose file descriptor travels over the socket: it has no name, so neither
a crash nor a kill on either side can leave it behind.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import socket
import struct
import tempfile
import threading
from collections.abc import Mapping
from multiprocessing.connection import wait
from typing import Any

import numpy as np

Message = dict[str, Any]
_HEAD = struct.Struct("<QQ")  # bytes of the JSON header, bytes of the arrays


class Disconnected(Exception):
    """The other side has closed its end."""


class Wire:
    """One end of the conversation. Sending is safe from any thread; receiving belongs to one thread at a time.

    Parameters
    ----------
    end : socket.socket
        A connected stream socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._sending = threading.Lock()

    def send(self, message: Mapping[str, Any], fd: int | None = None) -> None:
        """Send one message; NumPy arrays may stand anywhere at its top level. `fd` travels with it."""
        arrays = {name: np.ascontiguousarray(value) for name, value in message.items() if isinstance(value, np.ndarray)}
        header = {name: value for name, value in message.items() if name not in arrays}
        header["#"] = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
        header["fd"] = fd is not None
        text = json.dumps(header).encode()
        body = [array.data.cast("B") for array in arrays.values() if array.size]
        head = _HEAD.pack(len(text), sum(len(part) for part in body)) + text
        try:
            with self._sending:
                self._socket.sendall(head)
                for part in body:
                    self._socket.sendall(part)
                if fd is not None:
                    socket.send_fds(self._socket, [b"F"], [fd])
        except OSError as gone:
            raise Disconnected from gone

    def receive(self, timeout: float | None = None) -> Message | None:
        """The next message, or None when none begins within `timeout` seconds. Its descriptor stands in ``"fd"``."""
        try:
            if not wait([self._socket], timeout):  # the socket itself stays blocking: another thread may be sending
                return None
        except (OSError, ValueError) as gone:
            raise Disconnected from gone
        n_header, n_body = _HEAD.unpack(self._exactly(_HEAD.size))
        message: Message = json.loads(bytes(self._exactly(n_header)))
        body = self._exactly(n_body)
        at = 0
        for name, dtype, shape in message.pop("#"):
            array = np.frombuffer(body, dtype, int(np.prod(shape, dtype=np.int64)), at).reshape(shape)
            message[name] = array
            at += array.nbytes
        message["fd"] = self._descriptor() if message.pop("fd") else None
        return message

    def close(self) -> None:
        """Close this end; the other sees `Disconnected`."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            try:
                n = self._socket.recv_into(view)
            except OSError as gone:
                raise Disconnected from gone
            if not n:
                raise Disconnected
            view = view[n:]
        return data

    def _descriptor(self) -> int:
        _, fds, _, _ = socket.recv_fds(self._socket, 1, 1)
        if not fds:
            raise Disconnected
        return int(fds[0])


class SharedBlock:
    """Anonymous memory that two processes see. The arrays made from it keep it alive; the last one frees it.

    Parameters
    ----------
    size : int
        Bytes.
    fd : int, optional
        Descriptor received from the side that made the block; without it a new block is made. The descriptor is
        closed once mapped, except on the side that made it, which hands it on and then calls `release`.
    """

    def __init__(self, size: int, fd: int | None = None) -> None:
        self.size = max(size, 1)
        self.fd = _anonymous(self.size) if fd is None else fd
        self._map = mmap.mmap(self.fd, self.size)
        if fd is not None:
            self.release()

    def array(self, offset: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """A view of the block as an array."""
        return np.frombuffer(self._map, dtype, int(np.prod(shape, dtype=np.int64)), offset).reshape(shape)

    def release(self) -> None:
        """Close the descriptor; the mapping stays as long as arrays look at it."""
        os.close(self.fd)


def _anonymous(size: int) -> int:
    """A descriptor of memory without a name; /dev/shm is avoided, since containers cap it at 64 MB."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("llamatelemetry")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
