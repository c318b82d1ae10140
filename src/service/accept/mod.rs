//! The resident process of `--accept`: a launcher listens, this process accepts, and a child serves each connection.
//!
//! [`Resident::run`] is the loop. It holds for many children at once, and reads nothing anew: when main.cf or a table has
//! changed it stops to accept and exits. The launcher still has the sockets, and starts another process for the next
//! connection, with the rights that it takes to open the lists. Children go on to their ends. Does not know the protocol.

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

/// How long a process that cannot serve stays, and tells clients so. A launcher that is asked for the next one more
/// often than it likes closes the port.
const FAILURE_STAY: Duration = Duration::from_secs(1);

/// How many clients are told so in that time.
const FAILURE_CLIENTS: u32 = 100;

/// What a child may have besides a message. The program itself has a quarter of that.
const CHILD_MEMORY: u64 = 4 * 1024 * 1024;

/// How long nothing is accepted after an attempt that failed for want of descriptors, memory or processes: they are
/// given back by others, and no event says when.
const REST: Duration = Duration::from_secs(1);

/// How many times in a row a listener may be ready and have no connection, before that counts as such a failure.
const FRUITLESS: u32 = 100;

/// How long the process is ready when it begins to look whether main.cf or a table has changed. A file that never rests
/// would else keep all clients waiting, and the launcher starting one process after another.
const FRESH: Duration = Duration::from_secs(1);

/// Accepts and serves until it is time for another process. The exit status.
pub fn run(options: &Options, process: &str) -> u8 {
    let mut listeners = match sockets::take() {
        Ok(listeners) => listeners,
        Err(fatal) => {
            say(&fatal);
            // Standard error is no client's: a launcher or a person reads it, and there may be no log yet.
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

/// Gets ready, and runs the loop. A child does not come back from here.
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
        // The port is not to stay open for as long as the longest session, nor what other children ask by.
        resident.listeners.clear();
        drop(resident);
        be_child(&server, options, connection, asker);
    }
    Ok(())
}

/// A child that is made to need more memory than its message takes is refused it, and its neighbours are not. Without
/// /proc, or without a message_size_limit, only the launcher has a limit.
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

/// Serves the connection, and ends the process. It does not die with its parent, which makes room for another one while
/// its children are at work.
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

/// What the process has, and its children must not have.
struct Resident<'a> {
    listeners: &'a mut Vec<Listener>,
    wakeups: Wakeups,
    /// Nothing where main.cf is out of sight.
    watch: Option<Watch>,
    children: Children,
    clients: Clients,
    ready_since: Instant,
    max_idle: Duration,
    /// When the last child ended.
    idle_since: Instant,
    /// The listener whose turn it is, so that clients of one do not keep those of another waiting.
    next: usize,
    /// How often in a row a listener was ready and had no connection.
    fruitless: u32,
    /// Until when nothing is accepted.
    rest_until: Option<Instant>,
    failures: Seldom,
}

/// What a child has from its parent: the connection, and where it asks about the client if a proxy names that.
type Task = (Connection, Option<Asker>);

/// What there is to do.
enum Event {
    /// Signals have come.
    Signal,
    /// A child asks about a client, or will not.
    Question,
    /// This listener has a connection, or had one.
    Connection(usize),
    /// A time is over.
    Time,
}

impl Resident<'_> {
    /// The loop. It ends in the parent with nothing, when the process is to leave, and in each child with the
    /// connection that the child is to serve.
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

    /// When there will have been nothing to do for max_idle.
    fn idle_until(&self) -> Option<Instant> {
        self.children
            .is_empty()
            .then(|| self.idle_since + self.max_idle)
    }

    /// Waits for a signal, a question, a connection if there is a place for one, or the next time that is over.
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

    /// Takes note of what a signal says. One that ends the process comes back.
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

    /// What a new process would find otherwise than this one has it.
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

    /// Takes a connection from a listener and forks a child for it; in the child, the connection.
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

    /// Forks a child, if the client may have one more.
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

    /// Whose connection it is, if that client may have one more. A proxy has the connections of many clients, and no limit:
    /// there the child asks.
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

    /// Accepts nothing for a while. That is logged once in a minute.
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

/// Whether accept failed for want of something that comes back: descriptors of the process or of the system, memory.
fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
}

/// Tells clients that this process cannot serve, for a while: the launcher would start the next one for each of them at
/// once. They keep their mail.
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

/// In a child of its own: the client may take its time.
fn tell_client(connection: Connection) -> u8 {
    let client = Wakeups::leave().and_then(|()| connection.into_client());
    if client.is_ok_and(|client| put_on_descriptors(client).is_ok()) {
        apologize();
    }
    EX_FATAL
}
