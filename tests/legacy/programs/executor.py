"""A ThreadPoolExecutor serves what the main thread accepts."""

import socket
from concurrent.futures import ThreadPoolExecutor


def serve(conn, peer):
    with conn:
        while data := conn.recv(4096):
            conn.sendall(data)


with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(8) as executor:
    print(listener.getsockname()[1], flush=True)
    while True:
        executor.submit(serve, *listener.accept())
