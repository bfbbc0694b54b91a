//! The article's two servers in Rust with Tokio, and a third, echoing what clients send.
//!
//! * `sequential` (the article's first): one connection after another; the next client waits in
//!   the kernel's queue;
//! * `reject N` (the article's second): every connection is accepted and given a task; the task
//!   tries to take one of the semaphore's permits and, without one, ends, which closes the
//!   connection at once;
//! * `wait N` (what many write instead, mini-redis too): a permit first, and only then the
//!   connection; without one nothing is accepted, and the next client waits in the kernel's queue.
//!
//! The article's servers print what they read. These echo it, so that a client can tell "served"
//! from "connected". With THREADS above 1 they have Tokio's runtime of several threads, as
//! `#[tokio::main]` makes one; with 1 its runtime of one thread.

use std::env;
use std::io;
use std::net::SocketAddr;
use std::process;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

const USAGE: &str = "usage: tokio-limit HOST:PORT BACKLOG THREADS (sequential | reject N | wait N)";

async fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}

async fn sequential(listener: TcpListener) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        // A client's reset is that client's business.
        let _ = echo(&mut stream).await;
    }
}

async fn reject(listener: TcpListener, max_connections: usize) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(max_connections));
    loop {
        let (mut stream, _) = listener.accept().await?;
        let slots = Arc::clone(&slots);
        tokio::spawn(async move {
            let _permit = match slots.try_acquire() {
                Ok(permit) => permit,
                Err(_) => return, // drops the stream: FIN
            };
            let _ = echo(&mut stream).await;
            // Closed before the permit goes back: a freed permit then means a closed connection.
            drop(stream);
        });
    }
}

async fn wait(listener: TcpListener, max_connections: usize) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(max_connections));
    loop {
        let permit = Arc::clone(&slots).acquire_owned().await.expect("is never closed");
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let _ = echo(&mut stream).await;
            drop(stream);
            drop(permit);
        });
    }
}

/// What `TcpListener::bind` does, with a queue of another length than its 1,024.
fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

fn runtime(threads: usize) -> io::Result<Runtime> {
    match threads {
        1 => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

fn usage() -> ! {
    eprintln!("{USAGE}");
    process::exit(2)
}

/// A whole number above 0, or the end with the usage.
fn number(text: &str) -> usize {
    text.parse().ok().filter(|value| *value > 0).unwrap_or_else(|| usage())
}

fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [address, backlog, threads, mode @ ..] = words.as_slice() else { usage() };
    let address = address.parse().unwrap_or_else(|_| usage());
    let backlog = number(backlog) as u32;
    runtime(number(threads))?.block_on(async {
        match mode {
            ["sequential"] => sequential(listen(address, backlog)?).await,
            ["reject", cap] => reject(listen(address, backlog)?, number(cap)).await,
            ["wait", cap] => wait(listen(address, backlog)?, number(cap)).await,
            _ => usage(),
        }
    })
}
