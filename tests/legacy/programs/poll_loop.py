import select
import socket

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
poll = select.poll()
poll.register(listener, select.POLLIN)
conns = {}
try:
    while True:
        for fd, _ in poll.poll(500):
            if fd == listener.fileno():
                try:
                    conn, addr = listener.accept()
                except OSError:
                    continue
                conns[conn.fileno()] = conn
                poll.register(conn, select.POLLIN)
                continue
            try:
                data = conns[fd].recv(1000)
            except OSError:
                data = b""
            if data:
                conns[fd].sendall(data)
            else:
                poll.unregister(fd)
                conns.pop(fd).close()
except KeyboardInterrupt:
    pass
