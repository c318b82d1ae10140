//! Many clients in one thread, each on a socket that is never waited for alone; and one that has mail to send.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc::Sender;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, socket, sockopt,
};

use crate::harness::master::request;
use crate::harness::patience::PATIENCE;

/// How often the clients that send a byte a second are looked after.
const TICK: Duration = Duration::from_millis(100);

/// How many come in one go, and how long it is until the next ones do.
const GROUP: usize = 15;
const BETWEEN_GROUPS: Duration = Duration::from_millis(20);

/// A message of 10 MB as it begins, and how much of it is sent at once by who sends no more.
const ANNOUNCED: &str = "10000100:10000000:";
const SENT_OF_IT: usize = 1024;

/// What a client does with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Silent,
    /// Announces 10 MB and sends a byte of it each second.
    Trickling,
    /// Announces 10 MB and sends a kibibyte of it.
    Announcing,
}

pub const KINDS: [Kind; 3] = [Kind::Trickling, Kind::Announcing, Kind::Silent];

struct Client {
    kind: Kind,
    came: Instant,
    /// Nothing once the server has closed it.
    stream: Option<TcpStream>,
    connected: bool,
    next_byte: Instant,
    said: Vec<u8>,
    cut: Option<Instant>,
}

/// How it ended for one client.
#[derive(Debug)]
pub struct Cut {
    pub kind: Kind,
    pub came: Instant,
    pub said: Vec<u8>,
    /// Nothing: the server would have gone on.
    pub at: Option<Instant>,
}

/// The clients, in the order in which they come, and those who are still to come.
pub struct Crowd {
    port: u16,
    sources: &'static [[u8; 4]],
    here: Vec<Client>,
    /// How many there will be.
    all: usize,
}

impl Crowd {
    /// `each` clients of each kind, who come from the addresses in turn. The last one is silent.
    pub fn new(port: u16, sources: &'static [[u8; 4]], each: usize) -> Crowd {
        Crowd {
            port,
            sources,
            here: Vec::new(),
            all: each * KINDS.len(),
        }
    }

    /// They come, and `everybody_is_here` is told; goes on until the last client has been cut off, for `limit` at most.
    pub fn stay(mut self, limit: Duration, everybody_is_here: &Sender<()>) -> Vec<Cut> {
        let end = Instant::now() + limit;
        while self.here.len() < self.all {
            self.come();
            sleep(BETWEEN_GROUPS);
            self.wait(Duration::ZERO);
        }
        everybody_is_here.send(()).unwrap();
        while Instant::now() < end && self.here.iter().any(|client| client.stream.is_some()) {
            self.wait(TICK);
        }
        let cuts = self.here.into_iter().map(|client| Cut {
            kind: client.kind,
            came: client.came,
            said: client.said,
            at: client.cut,
        });
        cuts.collect()
    }

    /// The next group, nearly at once: the line of clients that the launcher has not looked at yet is only so long, and
    /// whom the kernel has no room for in it may never know.
    fn come(&mut self) {
        let first = self.here.len();
        for number in first..self.all.min(first + GROUP) {
            let source = self.sources[number % self.sources.len()];
            self.here.push(Client {
                kind: KINDS[number % KINDS.len()],
                came: Instant::now(),
                stream: Some(begin_to_connect(source, self.port)),
                connected: false,
                next_byte: Instant::now(),
                said: Vec::new(),
                cut: None,
            });
        }
    }

    /// Waits for news, for so long at most; looks at every client that has some, and at those whose next byte is due.
    fn wait(&mut self, limit: Duration) {
        let mut clients: Vec<&mut Client> = self
            .here
            .iter_mut()
            .filter(|c| c.stream.is_some())
            .collect();
        let mut fds: Vec<PollFd> = clients.iter().map(|client| client.wish()).collect();
        match poll(&mut fds, PollTimeout::try_from(limit).unwrap()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
        let news: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let now = Instant::now();
        for (client, news) in clients.iter_mut().zip(news) {
            if news {
                client.look();
            }
            if client.kind == Kind::Trickling && client.connected && client.next_byte <= now {
                client.next_byte = now + Duration::from_secs(1);
                client.send(b"x");
            }
        }
    }
}

/// A connection that is not waited for.
fn begin_to_connect(from: [u8; 4], port: u16) -> TcpStream {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let client = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    let at = |address: [u8; 4], port| SockaddrStorage::from(SocketAddr::from((address, port)));
    bind(client.as_raw_fd(), &at(from, 0)).unwrap();
    match connect(client.as_raw_fd(), &at([127, 0, 0, 1], port)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(error) => panic!("connect: {error}"),
    }
    TcpStream::from(client)
}

impl Client {
    /// What it waits for. It has not been cut off.
    fn wish(&self) -> PollFd<'_> {
        let wish = if self.connected {
            PollFlags::POLLIN
        } else {
            PollFlags::POLLOUT
        };
        PollFd::new(self.stream.as_ref().unwrap().as_fd(), wish)
    }

    fn look(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        if !self.connected {
            if getsockopt(stream, sockopt::SocketError).unwrap() != 0 {
                return self.end();
            }
            self.connected = true;
            self.next_byte = Instant::now();
            match self.kind {
                Kind::Silent => {}
                Kind::Trickling => self.send(ANNOUNCED.as_bytes()),
                Kind::Announcing => {
                    let content = [b'x'; SENT_OF_IT];
                    self.send(&[ANNOUNCED.as_bytes(), &content].concat());
                }
            }
            return;
        }
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer) {
            Ok(0) => self.end(),
            Ok(length) => self.said.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.end(),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        // Little enough for the buffer of any socket.
        if stream.write_all(bytes).is_err() {
            self.end();
        }
    }

    fn end(&mut self) {
        self.cut = Some(Instant::now());
        self.stream = None;
    }
}

/// Sends a message as a client that means it, from 127.0.0.1: what it was told, and when.
pub fn honest(port: u16) -> (String, Instant) {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let message = request(
        b"Subject: t\n\nHello.\n",
        "s@client.example",
        &["r@rcpt.example"],
    );
    let mut said = Vec::new();
    // A launcher that closes the connection at once leaves nothing to read.
    drop(client.write_all(&message));
    drop(client.read_to_end(&mut said));
    (String::from_utf8_lossy(&said).into_owned(), Instant::now())
}
