import select
import socket

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
socks = [listener]
try:
    while True:
        readable, _, _ = select.select(socks, [], [])
        for sock in readable:
            if sock is listener:
                try:
                    conn, addr = listener.accept()
                except OSError:
                    continue
                socks.append(conn)
                continue
            try:
                data = sock.recv(1000)
            except OSError:
                data = b""
            if data:
                sock.sendall(data)
            else:
                socks.remove(sock)
                sock.close()
except KeyboardInterrupt:
    pass
