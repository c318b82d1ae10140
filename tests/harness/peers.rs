//! The two ends of a client's connection, and what the client does with its own.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt,
    shutdown, socket, sockopt,
};

use super::maillog::Watch;
use super::outcome::Ending;
use super::text;

/// Enough for a server on a busy machine to go back to reading.
const PAUSE: Duration = Duration::from_millis(150);

/// What the server finds on its descriptors 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launch {
    /// Both are one end of a UNIX-domain stream.
    Socketpair,
    /// 0 and 1 are pipes.
    Pipe,
    /// Both are one TCP connection from this address, which the server's socket sees as IPv6 if `mapped`.
    Tcp { from: IpAddr, mapped: bool },
}

impl Launch {
    /// Takes a `launch:` line of a dialogue.
    pub fn read(line: &str) -> Result<Launch, String> {
        let (word, address) = line.split_once(' ').unwrap_or((line, ""));
        let from = |default: &str| {
            let address = if address.is_empty() { default } else { address };
            address
                .parse()
                .map_err(|error| format!("{address:?}: {error}"))
        };
        match word {
            "socketpair" => Ok(Launch::Socketpair),
            "pipe" => Ok(Launch::Pipe),
            "tcp4" => Ok(Launch::Tcp {
                from: from("127.0.0.1")?,
                mapped: false,
            }),
            "mapped" => Ok(Launch::Tcp {
                from: from("127.0.0.1")?,
                mapped: true,
            }),
            "tcp6" => Ok(Launch::Tcp {
                from: from("::1")?,
                mapped: false,
            }),
            _ => Err(format!("a server cannot be launched by {line:?}")),
        }
    }
}

/// The ends of a new connection.
pub struct Connection {
    pub client: Client,
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    /// The client's port.
    pub port: Option<u16>,
}

/// Makes the connection that `launch` says. None of its descriptors is inherited by accident.
pub fn connection(launch: Launch) -> Connection {
    let (client, server, port) = match launch {
        Launch::Pipe => return pipes(),
        Launch::Socketpair => {
            let (client, server) = UnixStream::pair().unwrap();
            (OwnedFd::from(client), OwnedFd::from(server), None)
        }
        Launch::Tcp { from, mapped } => {
            let (client, server) = tcp(from, mapped);
            let port = client.local_addr().unwrap().port();
            (OwnedFd::from(client), OwnedFd::from(server), Some(port))
        }
    };
    let stdout = server.try_clone().unwrap();
    let input = File::from(client.try_clone().unwrap());
    let client = Client {
        output: Some(File::from(client)),
        input: Some(input),
        is_socket: true,
    };
    Connection {
        client,
        stdin: server,
        stdout,
        port,
    }
}

fn pipes() -> Connection {
    let (stdin, to_server) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    let (from_server, stdout) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    let (output, input) = (Some(File::from(to_server)), Some(File::from(from_server)));
    let client = Client {
        output,
        input,
        is_socket: false,
    };
    Connection {
        client,
        stdin,
        stdout,
        port: None,
    }
}

/// Both ends of a TCP connection from this address: the client's and the server's.
pub fn tcp(from: IpAddr, mapped: bool) -> (TcpStream, TcpStream) {
    let at = match from {
        IpAddr::V4(_) if !mapped => "127.0.0.1:0",
        IpAddr::V4(_) => "[::]:0",
        IpAddr::V6(_) => "[::1]:0",
    };
    let listener = TcpListener::bind(at).unwrap();
    let family = if from.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let client = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(
        client.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(from, 0)),
    )
    .unwrap();
    let to: IpAddr = if from.is_ipv4() {
        [127, 0, 0, 1].into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    };
    let to = SocketAddr::new(to, listener.local_addr().unwrap().port());
    connect(client.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
    let (server, _) = listener.accept().unwrap();
    let client = TcpStream::from(client);
    client.set_nodelay(true).unwrap();
    (client, server)
}

/// One thing that a client does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Send(Vec<u8>),
    /// From here on, one byte at a time.
    Slowly,
    /// Lets the server read what was sent and wait for more.
    Pause,
    /// Closes the sending half and goes on listening.
    Eof,
    /// Closes without listening.
    Close,
    /// Closes so that the server's reads fail.
    Reset,
}

impl Act {
    /// Takes a `c:` line of a dialogue.
    pub fn read(line: &str) -> Result<Act, String> {
        Ok(match line {
            "<slowly>" => Act::Slowly,
            "<pause>" => Act::Pause,
            "<eof>" => Act::Eof,
            "<close>" => Act::Close,
            "<reset>" => Act::Reset,
            _ => Act::Send(text::read(line)?),
        })
    }
}

/// The client's end.
pub struct Client {
    /// Nothing once the client has closed it.
    output: Option<File>,
    input: Option<File>,
    is_socket: bool,
}

impl Client {
    /// The half that the client listens at; nothing if it is going to hang up without listening.
    pub fn listener(&mut self, acts: &[Act]) -> Option<File> {
        let input = self.input.take();
        input.filter(|_| {
            !acts
                .iter()
                .any(|act| matches!(act, Act::Close | Act::Reset))
        })
    }

    /// Does everything in `acts`, and then keeps the connection as it is: it has to be held until the server ends.
    /// A server that stops listening is not the client's concern.
    pub fn act(mut self, acts: &[Act], log: &Watch) -> Client {
        let mut slowly = false;
        let mut sent = false;
        for act in acts {
            match act {
                Act::Send(bytes) => {
                    sent |= !bytes.is_empty();
                    self.send(bytes, slowly);
                }
                Act::Slowly => slowly = true,
                Act::Pause => {
                    log.wait_for(if sent { "client=" } else { "connect from" });
                    thread::sleep(PAUSE);
                }
                Act::Eof if self.is_socket => drop(shutdown(self.raw(), Shutdown::Write)),
                Act::Eof | Act::Close => self.output = None,
                Act::Reset => {
                    setsockopt(self.output.as_ref().unwrap(), sockopt::Linger, &NO_LINGER).unwrap();
                    self.output = None;
                }
            }
        }
        self
    }

    fn raw(&self) -> RawFd {
        self.output.as_ref().unwrap().as_raw_fd()
    }

    fn send(&mut self, bytes: &[u8], slowly: bool) {
        let output = self.output.as_mut().unwrap();
        for piece in bytes.chunks(if slowly { 1 } else { bytes.len().max(1) }) {
            if output.write_all(piece).is_err() {
                return;
            }
            if slowly {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// What makes the kernel send a reset as soon as the socket is closed.
pub const NO_LINGER: libc::linger = libc::linger {
    l_onoff: 1,
    l_linger: 0,
};

/// Closes the connection as clients do that have their answer. A client that is still sending gets its error now.
pub fn hang_up(input: &File) {
    // A pipe cannot be shut down; what is sent into one is little, and the writing end is closed when all is sent.
    let _not_a_socket = shutdown(input.as_raw_fd(), Shutdown::Both);
}

/// Everything that the server says until it closes or `deadline` has come.
pub fn listen(mut input: &File, deadline: Instant) -> (Vec<u8>, Ending) {
    let mut reply = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut wait = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wait, timeout) {
            Ok(0) => return (reply, Ending::Open),
            Ok(_) => {}
            Err(nix::Error::EINTR) => continue,
            Err(error) => panic!("poll: {error}"),
        }
        match input.read(&mut buffer) {
            Ok(0) => return (reply, Ending::Eof),
            Ok(length) => reply.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return (reply, Ending::Reset);
            }
            Err(error) => panic!("cannot read the reply: {error}"),
        }
    }
}
