//! The resident process of `--accept`: a launcher listens, this process accepts, and a child serves each connection.
//!
//! [`Resident::run`] is the loop, for many children at a time. When main.cf or a table has changed, the process stops
//! accepting and exits; its children continue. The launcher keeps the sockets, and at the next connection it starts
//! another process, which has the rights to open the lists. The protocol is left to `session`. The difference from
//! Postfix is `tests/spec/differences.md`, 18.

mod children;
mod clients;
mod notify;
mod seldom;
mod sockets;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::command;
use crate::config::{Config, Watch};
use crate::exit::{EX_FATAL, EX_OK, Fatal};
use crate::log;
use crate::options::Options;
use crate::session::{Busy, Outcome};
use crate::sys::child::{self, Fork};
use crate::sys::memory;
use crate::sys::wakeup::Wakeups;

use super::listener::{Connection, Listener};
use super::resident::{
    CHILD_GRACE, milliseconds, put_on_descriptors, serve_child, system, whose_turn,
};
use super::server::{Launch, Server, log_warnings};
use super::share::{self, Asker};
use super::{apologize, fail, load, say};

use children::{Children, Client};
use clients::{Clients, Settings};
use notify::Notify;
use seldom::Seldom;

/// How long a process that cannot serve stays and tells clients so. A launcher closes the port if it has to start
/// processes too often.
const FAILURE_STAY: Duration = Duration::from_secs(1);

/// The largest number of clients that hear it in that time.
const FAILURE_CLIENTS: u32 = 100;

/// The memory of a child besides a message. The program itself takes a quarter of it.
const CHILD_MEMORY: u64 = 4 * 1024 * 1024;

/// How long nothing is accepted after an attempt that failed for want of descriptors, memory or processes. No event
/// tells when other processes return them.
const REST: Duration = Duration::from_secs(1);

/// How many times in a row a listener may be ready without a connection before that counts as such a failure.
const FRUITLESS: u32 = 100;

/// How long the process is ready before it looks whether main.cf or a table has changed. Without this pause a file that
/// keeps changing would make the launcher start one process after another.
const FRESH: Duration = Duration::from_secs(1);

/// Accepts and serves connections until another process has to take over. Returns the exit status.
pub fn run(options: &Options, process: &str) -> u8 {
    let mut listeners = match sockets::take() {
        Ok(listeners) => listeners,
        Err(fatal) => {
            say(&fatal);
            // Standard error is not the client: a launcher or a person reads it, and there may be no log yet.
            command::tell(&format!("qmqpd: fatal: {fatal}\n"));
            return EX_FATAL;
        }
    };
    match serve(options, process, &mut listeners) {
        Ok(()) => EX_OK,
        Err(fatal) => {
            say(&fatal);
            tell_clients(listeners);
            EX_FATAL
        }
    }
}

fn serve(options: &Options, process: &str, listeners: &mut Vec<Listener>) -> Result<(), Fatal> {
    let config = load(options, process)?;
    start(options, &config, listeners).inspect_err(|_| log_warnings(&config))
}

/// Prepares the process and runs the loop. A child does not return from here.
fn start(options: &Options, config: &Config, listeners: &mut Vec<Listener>) -> Result<(), Fatal> {
    let server = Server::prepare(config, Launch::Accept)?;
    let children = Children::new(
        config.qmqpd_process_limit()?,
        server.daemon_timeout() + CHILD_GRACE,
    );
    let clients = Clients::new(Settings::from_config(config)?);
    let max_idle = config.max_idle()?;
    limit_memory(config)?;
    let notify = Notify::connect();
    let watch = config
        .watch()
        .map_err(|error| system("open the directory of main.cf", &error))?;
    server.enter(options)?;
    let watch = is_visible(&watch).then_some(watch);
    let caught = [Signal::SIGCHLD, Signal::SIGHUP, Signal::SIGTERM];
    let wakeups = Wakeups::catch(&caught).map_err(|errno| system("signalfd", &errno.into()))?;
    server.confine_resident(options)?;
    log_warnings(config);
    notify.ready();
    let mut resident = Resident {
        listeners,
        wakeups,
        watch,
        children,
        clients,
        ready_since: Instant::now(),
        max_idle,
        idle_since: Instant::now(),
        next: 0,
        fruitless: 0,
        rest_until: None,
        failures: Seldom::default(),
    };
    if let Some((connection, asker)) = resident.run(&server)? {
        // The child must not keep the port, and the questions of other children, open during its session.
        resident.listeners.clear();
        drop(resident);
        be_child(&server, options, connection, asker);
    }
    Ok(())
}

/// Limits the memory of each child, so that a client can exhaust that of its own child only. Without /proc, or without
/// a message_size_limit, the launcher's limit is the only one.
fn limit_memory(config: &Config) -> Result<(), Fatal> {
    if let Some(size) = config.message_size_limit()? {
        let limited = memory::limit_data(size.saturating_add(CHILD_MEMORY));
        if let Err(error) = limited {
            let why = log::error_text(&error);
            log::warning!("memory of the children is not limited: {why}");
        }
    }
    Ok(())
}

/// Whether changes of main.cf can be seen after the rights of the start.
fn is_visible(watch: &Watch) -> bool {
    let seen = watch.has_changed();
    if let Err(errno) = seen {
        let why = log::errno_text(errno);
        log::warning!("main.cf: {why}: changes of it are not noticed, and need a SIGHUP");
    }
    seen.is_ok()
}

/// Serves the connection and ends the process. The child does not die with its parent: the parent makes room for
/// another process while its children are at work.
fn be_child(
    server: &Server<'_>,
    options: &Options,
    connection: Connection,
    asker: Option<Asker>,
) -> ! {
    let outcome = Wakeups::leave()
        .map_err(|error| system("sigprocmask", &error))
        .and_then(|()| serve_child(server, options, connection, asker));
    child::exit(match outcome {
        Ok(Outcome::Queued | Outcome::Served) => EX_OK,
        Ok(Outcome::Failed) => EX_FATAL,
        Err(fatal) => fail(&fatal),
    })
}

/// What the process has and its children must not have.
struct Resident<'a> {
    listeners: &'a mut Vec<Listener>,
    wakeups: Wakeups,
    /// `None` where main.cf cannot be seen.
    watch: Option<Watch>,
    children: Children,
    clients: Clients,
    ready_since: Instant,
    max_idle: Duration,
    /// When the last child ended.
    idle_since: Instant,
    /// The listener that is asked first, so that clients of one listener do not make those of another wait.
    next: usize,
    /// How many times in a row a listener was ready and had no connection.
    fruitless: u32,
    /// Until when nothing is accepted.
    rest_until: Option<Instant>,
    failures: Seldom,
}

/// The connection of a child, and the way to ask about the client if a proxy names it.
type Task = (Connection, Option<Asker>);

/// The next act of the loop.
enum Event {
    /// Signals have come.
    Signal,
    /// A child has asked about a client, or has ended.
    Question,
    /// This listener has a connection, or had one.
    Connection(usize),
    /// A time has come.
    Time,
}

impl Resident<'_> {
    /// The loop. Returns `None` in the parent when the process has to end, and in each child the connection that the
    /// child has to serve.
    fn run(&mut self, server: &Server<'_>) -> Result<Option<Task>, Fatal> {
        loop {
            match self.wait()? {
                Event::Signal => {
                    if let Some(signal) = self.heed()? {
                        return Ok(leave(signal.as_str()));
                    }
                }
                Event::Question => self.answer(),
                Event::Connection(ready) => {
                    if let Some(reason) = self.outdated(server) {
                        log::info!("{reason} has changed -- restarting");
                        return Ok(None);
                    }
                    if let Some(task) = self.accept(ready, server)? {
                        return Ok(Some(task));
                    }
                }
                Event::Time => {
                    let now = Instant::now();
                    self.children.end_overdue(now);
                    self.clients.report(now);
                    self.rest_until = self.rest_until.filter(|until| now < *until);
                    if self.idle_until().is_some_and(|until| until <= now) {
                        return Ok(leave("idle timeout"));
                    }
                }
            }
        }
    }

    /// When the process will have been without a session for max_idle.
    fn idle_until(&self) -> Option<Instant> {
        self.children
            .is_empty()
            .then(|| self.idle_since + self.max_idle)
    }

    /// Waits for a signal, for a connection if there is a place for one, or for the next time in `Event::Time`.
    fn wait(&mut self) -> Result<Event, Fatal> {
        let times = [
            self.idle_until(),
            self.rest_until,
            self.children.due(),
            self.clients.due(),
        ];
        let until = times.into_iter().flatten().min();
        let accepting = !self.children.are_all() && self.rest_until.is_none();
        let questions: Vec<BorrowedFd<'_>> = self.children.questions().collect();
        let sockets = self.listeners.iter().filter(|_| accepting);
        let mut fds: Vec<PollFd<'_>> = [self.wakeups.as_fd()]
            .into_iter()
            .chain(questions.iter().copied())
            .chain(sockets.map(|listener| listener.as_fd()))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let timeout = until.map_or(PollTimeout::NONE, |until| {
            milliseconds(until.saturating_duration_since(Instant::now()))
        });
        match poll(&mut fds, timeout) {
            Ok(0) | Err(Errno::EINTR) => return Ok(Event::Time),
            Ok(_) => {}
            Err(errno) => return Err(system("poll", &errno.into())),
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
        if ready.next() == Some(true) {
            return Ok(Event::Signal);
        }
        if ready
            .by_ref()
            .take(questions.len())
            .any(|is_ready| is_ready)
        {
            return Ok(Event::Question);
        }
        Ok(whose_turn(ready, self.next).map_or(Event::Time, Event::Connection))
    }

    /// Handles the signals that have come, and returns a signal that ends the process.
    fn heed(&mut self) -> Result<Option<Signal>, Fatal> {
        let signal = self.wakeups.next();
        match signal.map_err(|errno| system("read signals", &errno.into()))? {
            Some(Signal::SIGCHLD) => {
                let now = Instant::now();
                let clients = &mut self.clients;
                self.children.reap(|client| clients.end(client, now));
                self.idle_since = now;
                Ok(None)
            }
            other => Ok(other),
        }
    }

    /// Counts the clients that proxies name, and tells the children whether they may have their connections.
    fn answer(&mut self) {
        let now = Instant::now();
        let clients = &mut self.clients;
        self.children.answer(|address| {
            let client = clients.admit(address, now)?;
            clients.begin(client);
            Some(client)
        });
    }

    /// What has changed since the start: main.cf, or the name of a table.
    fn outdated(&self, server: &Server<'_>) -> Option<String> {
        if self.ready_since.elapsed() < FRESH {
            return None;
        }
        let changed = |watch: &Watch| watch.has_changed() != Ok(false);
        if self.watch.as_ref().is_some_and(changed) {
            return Some("main.cf".to_owned());
        }
        let table = server.changed_table()?;
        Some(format!("table {table}"))
    }

    /// Accepts a connection and forks a child for it. Returns the connection in the child.
    fn accept(&mut self, ready: usize, server: &Server<'_>) -> Result<Option<Task>, Fatal> {
        self.next = ready + 1;
        let connection = match self.listeners.get(ready).map(Listener::accept) {
            Some(Ok(Some(connection))) => connection,
            Some(Ok(None)) | None => {
                self.fruitless += 1;
                if self.fruitless >= FRUITLESS {
                    self.rest("accept connection", &Errno::ENOBUFS.into());
                }
                return Ok(None);
            }
            Some(Err(error)) if is_shortage(&error) => {
                self.rest("accept connection", &error);
                return Ok(None);
            }
            Some(Err(error)) => return Err(system("accept connection", &error)),
        };
        self.fruitless = 0;
        self.begin(connection, server)
    }

    /// Forks a child, if the client may have one more connection. A proxy carries the connections of many clients, and
    /// has no limit.
    fn begin(
        &mut self,
        connection: Connection,
        server: &Server<'_>,
    ) -> Result<Option<Task>, Fatal> {
        let now = Instant::now();
        let (client, asker) = match self.client_of(&connection, server, now) {
            Ok(client) => client,
            Err(busy) => {
                connection.turn_away(busy);
                return Ok(None);
            }
        };
        match child::fork() {
            Ok(Fork::Child { .. }) => return Ok(Some((connection, asker))),
            Ok(Fork::Parent { child }) => {
                if let Client::Counted(network) = client {
                    self.clients.begin(network);
                }
                self.children.add(child, client, now);
            }
            Err(error) => {
                connection.turn_away(Busy::NoProcess);
                self.rest("fork", &error);
            }
        }
        Ok(None)
    }

    /// The client of the connection, if it may have one more. A proxy carries the connections of many clients, and has no
    /// limit: its children ask.
    fn client_of(
        &mut self,
        connection: &Connection,
        server: &Server<'_>,
        now: Instant,
    ) -> Result<(Client, Option<Asker>), Busy> {
        let Some(address) = connection.address() else {
            return Ok((Client::Uncounted, None));
        };
        if !server.is_proxy(address) {
            let network = self.clients.admit(address, now);
            let network = network.ok_or(Busy::Share(address.to_canonical()))?;
            return Ok((Client::Counted(network), None));
        }
        if !self.clients.have_a_limit() {
            return Ok((Client::Uncounted, None));
        }
        let (asker, question) = share::pair().map_err(|error| {
            self.rest("socketpair", &error);
            Busy::NoProcess
        })?;
        Ok((Client::ToBeNamed(question), Some(asker)))
    }

    /// Accepts nothing for a while, and logs that once in a minute.
    fn rest(&mut self, call: &str, error: &io::Error) {
        let now = Instant::now();
        self.fruitless = 0;
        self.rest_until = Some(now + REST);
        if let Some(count) = self.failures.happened(now) {
            let why = log::error_text(error);
            log::warning!("{call}: {why}: {count} failures, nothing is accepted for a second");
        }
    }
}

fn leave(reason: &str) -> Option<Task> {
    log::debug!(1, "{reason} -- exiting");
    None
}

/// Whether accept failed for want of descriptors or memory, which come back.
fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
}

/// Tells clients for a while that this process cannot serve; they keep their mail. Otherwise the launcher would start
/// the next process at once for each client.
fn tell_clients(listeners: Vec<Listener>) {
    let until = Instant::now() + FAILURE_STAY;
    let mut told = 0;
    while told < FAILURE_CLIENTS {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds: Vec<PollFd<'_>> = listeners
            .iter()
            .map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN))
            .collect();
        if left.is_zero() || poll(&mut fds, milliseconds(left)).is_err() {
            break;
        }
        let accepted: Vec<Connection> = listeners
            .iter()
            .filter_map(|listener| listener.accept().ok().flatten())
            .collect();
        for connection in accepted {
            told += 1;
            if let Ok(Fork::Child { .. }) = child::fork() {
                drop(listeners);
                child::exit(tell_client(connection));
            }
        }
    }
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
}

/// Runs in a child: the client may be slow.
fn tell_client(connection: Connection) -> u8 {
    let client = Wakeups::leave().and_then(|()| connection.into_client());
    if client.is_ok_and(|client| put_on_descriptors(client).is_ok()) {
        apologize();
    }
    EX_FATAL
}
