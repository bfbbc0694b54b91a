import socket
import threading


def echo(conn):
    with conn:
        while data := conn.recv(1000):
            conn.sendall(data)


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
try:
    while True:
        conn, addr = listener.accept()
        threading.Thread(target=echo, args=(conn,), daemon=True).start()
except KeyboardInterrupt:
    pass
