//! The child processes that serve one client each: how many there are, and how long each may live.
//!
//! Reaps a child that has ended, and ends a child that has outlived its time. What a child does is
//! `service::resident`'s and `session`'s; the limits come from main.cf.

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

/// The children that are running.
#[derive(Debug)]
pub struct Children {
    /// The largest number of children.
    limit: usize,
    /// The longest life of a child.
    lifetime: Duration,
    running: Vec<Child>,
}

/// The client of a child's connection.
#[derive(Debug)]
pub enum Client {
    /// No clients are counted, or this client is not.
    Uncounted,
    Counted(Network),
    /// A proxy names the client, and the child will ask.
    ToBeNamed(Question),
}

#[derive(Debug)]
struct Child {
    pid: Pid,
    /// The client of the child, where clients are counted.
    client: Option<Network>,
    /// The child's question about a client that a proxy names, until it is answered.
    question: Option<Question>,
    /// When the child gets the signal `signal`.
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

    /// Whether there are as many children as there may be.
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

    /// The questions of the children.
    pub fn questions(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let questions = self.running.iter().flat_map(|child| &child.question);
        questions.map(|question| question.as_fd())
    }

    /// Answers the children that have asked. `admit` returns the client if it may have one more connection.
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

    /// Removes the children that have ended, and calls `ended` with the client of each. A child logs its own failures,
    /// except for a death by a signal, which is logged here.
    pub fn reap(&mut self, mut ended: impl FnMut(Network)) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, _)) => self.remove(pid).map(&mut ended),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    log::warning!("process {pid} killed by signal {}", signal as i32);
                    self.remove(pid).map(&mut ended)
                }
                Err(Errno::EINTR) => None,
                // No other child has ended, or there is none.
                Ok(_) | Err(_) => return,
            };
        }
    }

    /// Forgets the child, and returns its client.
    fn remove(&mut self, pid: Pid) -> Option<Network> {
        let position = self.running.iter().position(|child| child.pid == pid)?;
        self.running.remove(position).client
    }

    /// When the next child has to be ended.
    pub fn due(&self) -> Option<Instant> {
        self.running.iter().map(|child| child.due).min()
    }

    /// Ends the children that have outlived their time. A child watches its time itself, but a stopped child cannot.
    pub fn end_overdue(&mut self, now: Instant) {
        for child in self.running.iter_mut().filter(|child| child.due <= now) {
            // The child has not been reaped, so that its number is not used again.
            ignore(kill(child.pid, child.signal));
            child.signal = Signal::SIGKILL;
            child.due = now + FUSE;
        }
    }
}
