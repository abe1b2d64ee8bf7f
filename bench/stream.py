"""Bytes and connections over TCP, each end a program in a network namespace: ``python3 -m bench.stream WORDS``.

``serve ADDRESS`` answers until it is sent away; ``send`` and ``connect`` print the seconds that they took, of which the
start of Python is no part.
"""

import socket
import sys
import threading
import time

PORTS = (5201, 5202)
"""Where bytes are taken, and where connections."""
_BUFFER = 128 << 10  # what iperf3 gives to one write
_ENOUGH = b"."
_PATIENCE = 60.0  # seconds


def serve(address: str) -> None:
    """Take what comes, say when all of it is there; ends when somebody opens a connection and sends nothing."""
    with socket.create_server((address, PORTS[0])) as streams, socket.create_server((address, PORTS[1])) as others:
        threading.Thread(target=_accept, args=(others,), daemon=True).start()
        while _take(streams):
            pass


def _take(server: socket.socket) -> int:
    buffer = bytearray(_BUFFER)
    connection, _ = server.accept()
    total = 0
    with connection:
        while size := connection.recv_into(buffer):
            total += size
        connection.sendall(_ENOUGH)
    return total


def _accept(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        connection.close()


def send(address: str, amount: int) -> float:
    """Send ``amount`` bytes; the seconds until the other side has read the last of them."""
    buffer = bytes(_BUFFER)
    with _reach(address) as connection:
        begun = time.perf_counter()
        for _ in range(amount // _BUFFER):
            connection.sendall(buffer)
        connection.shutdown(socket.SHUT_WR)
        if connection.recv(1) != _ENOUGH:
            raise ConnectionError("the other side has ended")
        return time.perf_counter() - begun


def _reach(address: str) -> socket.socket:
    """A connection to the other side, which may have been started just now."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return socket.create_connection((address, PORTS[0]), timeout=_PATIENCE)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def connect(address: str, times: int) -> float:
    """Open connections one after the other, each closed by the other side; the seconds for all of them."""
    begun = time.perf_counter()
    for _ in range(times):
        with socket.create_connection((address, PORTS[1])) as connection:
            connection.recv(1)
    return time.perf_counter() - begun


def main() -> None:
    """Do what the words say."""
    word, address, *number = sys.argv[1:]
    if word == "serve":
        serve(address)
    else:
        print({"send": send, "connect": connect}[word](address, int(number[0])))


if __name__ == "__main__":
    main()
