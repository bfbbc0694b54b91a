"""A chat server: a thread a client, and every line goes to everybody."""

import socket
import threading

clients = {}
lock = threading.Lock()


def broadcast(line, sender):
    with lock:
        targets = list(clients)
    for conn in targets:
        try:
            conn.sendall(line)
        except OSError:
            pass


def serve(conn, addr):
    with lock:
        clients[conn] = addr
    try:
        buffer = b""
        while True:
            data = conn.recv(1024)
            if not data:
                break
            buffer += data
            while b"\n" in buffer:
                line, buffer = buffer.split(b"\n", 1)
                broadcast(line + b"\n", conn)
    except ConnectionError:
        pass
    finally:
        with lock:
            del clients[conn]
        conn.close()


def main():
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", 0))
    server.listen(5)
    print(server.getsockname()[1], flush=True)
    try:
        while True:
            conn, addr = server.accept()
            threading.Thread(target=serve, args=(conn, addr), daemon=True).start()
    except KeyboardInterrupt:
        print("bye", flush=True)
    finally:
        server.close()


if __name__ == "__main__":
    main()
