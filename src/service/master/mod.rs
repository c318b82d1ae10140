//! The resident process under Postfix's master(8): it accepts connections, and forks one child for each.
//!
//! [`Resident::run`] is the loop. The parent reads no byte from clients: the child has the connection on descriptors 0
//! and 1, and serves it as under inetd. The parent waits until the child has ended, and so master's rule of one client
//! for each process holds. Follows `tests/spec/master.md`, sections 1 to 5. The difference from Postfix is
//! `tests/spec/differences.md`, 36.

mod channel;
mod lock;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::config::Config;
use crate::exit::{EX_FATAL, EX_OK, Fatal};
use crate::log;
use crate::options::{Options, Transport};
use crate::session::Outcome;
use crate::sys::child::{self, Fork};
use crate::sys::{ignore, inherit};

use super::listener::{Connection, Listener};
use super::resident::{CHILD_GRACE, milliseconds, serve_child, system, whose_turn};
use super::server::{Launch, Server, log_warnings};

use channel::{Channel, State};
use lock::Lock;

/// The descriptors that master passes: the two ends of a pipe for flow control, which cleanup(8) and the queue manager
/// use, the status channel, and the listening sockets.
const FLOW_FDS: [i32; 2] = [3, 4];
const STATUS_FD: i32 = 5;
const LISTEN_FD: i32 = 6;

/// The exit status of a child that has queued a message: the parent wakes the queue manager.
const QUEUED: u8 = 2;

/// The descriptors that master passes.
pub struct Inherited {
    transport: Transport,
    channel: OwnedFd,
    listeners: Vec<Listener>,
}

impl Inherited {
    /// Takes them over before other descriptors can get their numbers.
    pub fn take(transport: Transport, options: &Options) -> Result<Inherited, Fatal> {
        let missing = |what: &str, error: &io::Error| {
            Fatal::Text(format!(
                "{what}: {}: this is not how master(8) starts a service",
                log::error_text(error)
            ))
        };
        for number in FLOW_FDS {
            ignore(inherit::inherited(number));
        }
        let channel = inherit::inherited(STATUS_FD).map_err(|e| missing("status channel", &e))?;
        let listeners = (LISTEN_FD..LISTEN_FD.saturating_add(options.socket_count))
            .map(|number| Ok(Listener::new(transport, inherit::inherited(number)?)))
            .collect::<io::Result<_>>()
            .map_err(|e| missing("listening socket", &e))?;
        Ok(Inherited {
            transport,
            channel,
            listeners,
        })
    }
}

/// Serves connections until master ends this generation. A child ends here after its client, and returns only an error,
/// which the caller tells the client.
pub fn run_daemon(
    options: &Options,
    config: &Config,
    inherited: Inherited,
) -> Result<Outcome, Fatal> {
    let generation = std::env::var_os("GENERATION");
    let channel = Channel::new(inherited.channel, generation)?;
    let server = Server::prepare(config, Launch::Master)?;
    let max_use = config.max_use()?;
    let max_idle = config.max_idle()?;
    let lock = if options.single_process {
        Lock::NONE
    } else {
        Lock::open(inherited.transport, &config.service_name()?)?
    };
    server.enter(options)?;
    server.confine_resident(options)?;
    log_warnings(config);
    let mut resident = Resident {
        channel,
        listeners: inherited.listeners,
        lock,
        next: 0,
    };
    match resident.run(&server, max_use, max_idle)? {
        None => Ok(Outcome::Served),
        Some(connection) => {
            drop(resident);
            let outcome = serve_child(&server, options, connection, None)?;
            child::exit(match outcome {
                Outcome::Queued => QUEUED,
                Outcome::Served => EX_OK,
                Outcome::Failed => EX_FATAL,
            })
        }
    }
}

/// What the process has from master and its child must not have.
struct Resident {
    channel: Channel,
    listeners: Vec<Listener>,
    lock: Lock,
    /// The listener that is asked first, so that clients of one listener do not make those of another wait.
    next: usize,
}

/// The next act of the loop.
enum Event {
    /// This listener has a connection, or had one that another process took.
    Connection(usize),
    /// The master process is gone, or has ended this generation of processes.
    MasterGone,
    Idle,
}

/// The result of a listener that was ready.
enum Accepted {
    Connection(Connection),
    NoClient,
    /// A table has changed: a new process has to take the connection.
    Outdated,
}

impl Resident {
    /// The loop. Returns `None` in the parent when the process has to end, and in each child the connection that the
    /// child has to serve.
    fn run(
        &mut self,
        server: &Server<'_>,
        max_use: u32,
        max_idle: Duration,
    ) -> Result<Option<Connection>, Fatal> {
        let mut served = 0;
        let mut idle_until = Instant::now() + max_idle;
        while served < max_use {
            if !self.lock.acquire(&self.channel)? {
                return Ok(leave("master disconnect"));
            }
            let ready = match self.wait(idle_until)? {
                Event::Connection(ready) => ready,
                Event::MasterGone => return Ok(leave("master disconnect")),
                Event::Idle => return Ok(leave("idle timeout")),
            };
            let connection = match self.accept(ready, server)? {
                Accepted::Connection(connection) => connection,
                Accepted::NoClient => continue,
                Accepted::Outdated => return Ok(None),
            };
            log::debug!(1, "connection established");
            match child::fork() {
                Ok(Fork::Child { parent }) => {
                    child::die_with(parent).map_err(|error| system("prctl", &error))?;
                    return Ok(Some(connection));
                }
                Ok(Fork::Parent { child }) => {
                    drop(connection);
                    self.say_taken();
                    if reap(child, server.daemon_timeout() + CHILD_GRACE) == Some(QUEUED) {
                        server.announce();
                    }
                }
                // The connection is closed, and the client keeps its mail.
                Err(error) => {
                    self.say_taken();
                    log::error!("fork: {}", log::error_text(&error))?;
                }
            }
            if self.channel.tell(State::Available).is_err() {
                return Ok(leave("master disconnect"));
            }
            log::debug!(1, "connection closed");
            served += 1;
            idle_until = Instant::now() + max_idle;
        }
        Ok(None)
    }

    /// Tells master after the fork, so that no client waits for it. An error is ignored: the accepted connection is
    /// served.
    fn say_taken(&self) {
        ignore(self.channel.tell(State::Taken));
    }

    /// Waits for a connection, for the end of the channel to master, or until `until`.
    fn wait(&self, until: Instant) -> Result<Event, Fatal> {
        let sockets = self.listeners.iter().map(|listener| listener.as_fd());
        let mut fds: Vec<PollFd<'_>> = [self.channel.as_fd()]
            .into_iter()
            .chain(sockets)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match poll(&mut fds, milliseconds(left)) {
                Ok(0) if left.is_zero() => return Ok(Event::Idle),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(errno) => return Err(system("poll", &errno.into())),
            }
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
        // The channel can be read only when it has ended. A waiting connection stays for the next process.
        if ready.next() == Some(true) {
            return Ok(Event::MasterGone);
        }
        Ok(whose_turn(ready, self.next).map_or(Event::Idle, Event::Connection))
    }

    /// Accepts a connection, and lets another process wait for the next one.
    fn accept(&mut self, ready: usize, server: &Server<'_>) -> Result<Accepted, Fatal> {
        if let Some(table) = server.changed_table() {
            log::info!("table {table} has changed -- restarting");
            return Ok(Accepted::Outdated);
        }
        self.next = ready + 1;
        let accepted = self.listeners.get(ready).map(Listener::accept);
        self.lock.release()?;
        match accepted {
            Some(Ok(Some(connection))) => Ok(Accepted::Connection(connection)),
            Some(Ok(None)) | None => Ok(Accepted::NoClient),
            Some(Err(error)) => {
                log::error!("accept connection: {}", log::error_text(&error))?;
                Ok(Accepted::NoClient)
            }
        }
    }
}

/// Waits until the child has ended, and returns its exit status, if any. The child logs its own failures, except for a
/// death by a signal, which is logged here.
fn reap(child: Pid, limit: Duration) -> Option<u8> {
    match child::wait(child, limit) {
        Ok(WaitStatus::Exited(_, status)) => return u8::try_from(status).ok(),
        Ok(WaitStatus::Signaled(pid, signal, _)) => {
            log::warning!("process {pid} killed by signal {}", signal as i32);
        }
        Ok(_) => {}
        Err(error) => log::warning!("wait for process {child}: {}", log::error_text(&error)),
    }
    None
}

fn leave(reason: &str) -> Option<Connection> {
    log::debug!(1, "{reason} -- exiting");
    None
}
