//! The article's two servers in Rust with Tokio, echoing what clients send.
//!
//! * default: every connection is accepted and given a task; the task tries to take one of the
//!   semaphore's permits and, without one, ends, which closes the connection at once;
//! * `--sequential`: one connection after another; the next client waits in the kernel's queue.
//!
//! The article's servers print what they read. These echo it, so that a client can tell "served"
//! from "connected". `--threads N` runs N workers; without it everything is on one thread.

use std::env;
use std::io;
use std::process;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

const USAGE: &str =
    "usage: tokio-limit --listen HOST:PORT (--max-connections N [--threads N] | --sequential)";

struct Options {
    listen: String,
    max_connections: Option<usize>,
    threads: Option<usize>,
    sequential: bool,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            listen: String::new(),
            max_connections: None,
            threads: None,
            sequential: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--listen" => options.listen = value()?,
                "--max-connections" => options.max_connections = Some(number(&value()?)?),
                "--threads" => options.threads = Some(number(&value()?)?),
                "--sequential" => options.sequential = true,
                _ => return Err(format!("unknown option {word}")),
            }
        }
        if options.listen.is_empty() {
            return Err("--listen is missing".into());
        }
        if options.sequential == options.max_connections.is_some() {
            return Err("give --max-connections or --sequential".into());
        }
        Ok(options)
    }
}

fn number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if value > 0 => Ok(value),
        _ => Err(format!("{text} is not a whole number above 0")),
    }
}

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

async fn serve_one_by_one(listener: TcpListener) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        // A client's reset is that client's business.
        let _ = echo(&mut stream).await;
    }
}

async fn serve_limited(listener: TcpListener, max_connections: usize) -> io::Result<()> {
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

fn runtime(threads: Option<usize>) -> io::Result<Runtime> {
    match threads {
        Some(count) => Builder::new_multi_thread()
            .worker_threads(count)
            .enable_all()
            .build(),
        None => Builder::new_current_thread().enable_all().build(),
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse(env::args().skip(1)).unwrap_or_else(|error| {
        eprintln!("{error}\n{USAGE}");
        process::exit(2);
    });
    runtime(options.threads)?.block_on(async {
        let listener = TcpListener::bind(&options.listen).await?;
        match options.max_connections {
            Some(cap) => serve_limited(listener, cap).await,
            None => serve_one_by_one(listener).await,
        }
    })
}
