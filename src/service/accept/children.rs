//! The children that serve a client each, and how they end.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::log;
use crate::sys::ignore;

use super::super::share::{Asked, Question};
use super::clients::Network;

/// How long a child that was told to end may take before it is killed.
const FUSE: Duration = Duration::from_secs(1);

/// The children that have not ended.
#[derive(Debug)]
pub struct Children {
    /// How many there may be.
    limit: usize,
    /// How long each may live.
    lifetime: Duration,
    running: Vec<Child>,
}

/// Whose connection a child serves.
#[derive(Debug)]
pub enum Client {
    /// Clients are not counted, or not this one.
    Uncounted,
    Counted(Network),
    /// A proxy will say, and the child will ask.
    ToBeNamed(Question),
}

#[derive(Debug)]
struct Child {
    pid: Pid,
    /// Whose connection it serves, where clients are counted.
    client: Option<Network>,
    /// Where it asks about a client that a proxy names, until it has done so.
    question: Option<Question>,
    /// When it gets the next signal, and which.
    due: Instant,
    signal: Signal,
}

impl Children {
    pub fn new(limit: u32, lifetime: Duration) -> Children {
        Children {
            limit: limit.try_into().unwrap_or(usize::MAX),
            lifetime,
            running: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether the next connection has to wait for the end of a child.
    pub fn are_all(&self) -> bool {
        self.running.len() >= self.limit
    }

    pub fn add(&mut self, pid: Pid, client: Client, now: Instant) {
        let (client, question) = match client {
            Client::Uncounted => (None, None),
            Client::Counted(network) => (Some(network), None),
            Client::ToBeNamed(question) => (None, Some(question)),
        };
        self.running.push(Child {
            pid,
            client,
            question,
            due: now + self.lifetime,
            signal: Signal::SIGTERM,
        });
    }

    /// Where children ask about clients.
    pub fn questions(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let questions = self.running.iter().flat_map(|child| &child.question);
        questions.map(|question| question.as_fd())
    }

    /// Answers the children that have asked. `admit` says who the client is, if it may have one more connection.
    pub fn answer(&mut self, mut admit: impl FnMut(IpAddr) -> Option<Network>) {
        for child in &mut self.running {
            let Some(question) = child.question.take() else {
                continue;
            };
            match question.arrived() {
                Asked::NotYet => child.question = Some(question),
                Asked::Never => {}
                Asked::About(address) => {
                    child.client = admit(address);
                    question.answer(child.client.is_some());
                }
            }
        }
    }

    /// Takes note of the children that have ended. They have logged their failures themselves, except for a death by a
    /// signal. The client of each is named.
    pub fn reap(&mut self, mut ended: impl FnMut(Network)) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, _)) => self.remove(pid).map(&mut ended),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    log::warning!("process {pid} killed by signal {}", signal as i32);
                    self.remove(pid).map(&mut ended)
                }
                Err(Errno::EINTR) => None,
                // The others are still at work, or there are none.
                Ok(_) | Err(_) => return,
            };
        }
    }

    /// The client whose child this was.
    fn remove(&mut self, pid: Pid) -> Option<Network> {
        let position = self.running.iter().position(|child| child.pid == pid)?;
        self.running.remove(position).client
    }

    /// When the first of them has to be ended.
    pub fn due(&self) -> Option<Instant> {
        self.running.iter().map(|child| child.due).min()
    }

    /// Ends those that have outlived their time: they watch it themselves, but one that is stopped cannot.
    pub fn end_overdue(&mut self, now: Instant) {
        for child in self.running.iter_mut().filter(|child| child.due <= now) {
            // Not reaped yet, so the number is still its own; one that has ended is about to be.
            ignore(kill(child.pid, child.signal));
            child.signal = Signal::SIGKILL;
            child.due = now + FUSE;
        }
    }
}
