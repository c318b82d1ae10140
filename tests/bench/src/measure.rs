//! What a server costs: processor time, memory, page faults.

use std::fs;
use std::io::{self, BufRead, BufReader, Error};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::load;
use crate::programs::{Program, Programs};

/// What processes have used, in all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// In milliseconds.
    pub user: f64,
    pub system: f64,
    pub faults: f64,
}

impl Usage {
    pub fn cpu(self) -> f64 {
        self.user + self.system
    }

    pub fn plus(self, other: Usage) -> Usage {
        Usage {
            user: self.user + other.user,
            system: self.system + other.system,
            faults: self.faults + other.faults,
        }
    }

    pub fn since(self, before: Usage) -> Usage {
        Usage {
            user: self.user - before.user,
            system: self.system - before.system,
            faults: self.faults - before.faults,
        }
    }

    pub fn per(self, messages: usize) -> Usage {
        let messages = messages.max(1) as f64;
        Usage {
            user: self.user / messages,
            system: self.system / messages,
            faults: self.faults / messages,
        }
    }
}

/// A program that is started for each connection by `metered`, which says what it took.
pub struct Metered {
    pub port: u16,
    child: Child,
    reports: BufReader<ChildStdout>,
}

/// One process that has served one connection.
#[derive(Debug, Clone, Copy)]
pub struct Session {
    pub usage: Usage,
    /// Peak memory, in bytes.
    pub memory: f64,
    pub elapsed: Duration,
}

impl Metered {
    /// Starts `program`, below `tracer` if there is one.
    pub fn start(program: &Program, programs: &Programs, tracer: &[&str]) -> io::Result<Metered> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let metered = programs.path("metered").into_os_string();
        let launcher = std::iter::once(metered).chain(tracer.iter().map(Into::into));
        let mut child = program
            .command(launcher)?
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::piped())
            .spawn()?;
        let reports = child.stdout.take().ok_or_else(|| Error::other("no pipe"))?;
        Ok(Metered {
            port,
            child,
            reports: BufReader::new(reports),
        })
    }

    /// Serves one message, and waits for the end of the process.
    pub fn session(&mut self, request: &[u8]) -> io::Result<Session> {
        let elapsed = load::message(self.port, request)?;
        let mut line = String::new();
        self.reports.read_line(&mut line)?;
        let numbers: Vec<f64> = line
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [user, system, kilobytes, faults, status] = numbers[..] else {
            return Err(Error::other(format!("metered ends: {line:?}")));
        };
        if status != 0.0 {
            return Err(Error::other(format!("wait status {status}")));
        }
        let usage = Usage {
            user: user / 1e3,
            system: system / 1e3,
            faults,
        };
        Ok(Session {
            usage,
            memory: kilobytes * 1024.0,
            elapsed,
        })
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Milliseconds of processor time of a program that ends by itself.
pub fn to_the_end(command: &mut Command) -> io::Result<f64> {
    let used = || -> io::Result<f64> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let times = [usage.user_time(), usage.system_time()];
        Ok(times
            .map(|time| time.num_microseconds() as f64 / 1e3)
            .iter()
            .sum())
    };
    let before = used()?;
    let status = command.stdout(Stdio::null()).status()?;
    if status.success() {
        Ok(used()? - before)
    } else {
        let program = command.get_program().to_string_lossy();
        Err(Error::other(format!("{program}: {status}")))
    }
}

/// What these processes and the children they have waited for have used so far. The kernel counts exactly, and rounds
/// to 10 ms what it shows.
pub fn used(pids: &[u32]) -> io::Result<Usage> {
    let tick = 10.0;
    let mut sum = Usage::default();
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, rest) = stat
            .rsplit_once(") ")
            .ok_or_else(|| Error::other("/proc/PID/stat"))?;
        // proc(5) counts from 1, and the first here is its third.
        let fields: Vec<f64> = rest
            .split(' ')
            .map(|field| field.parse().unwrap_or(0.0))
            .collect();
        let field = |number: usize| fields[number - 3];
        sum.faults += field(10) + field(11);
        sum.user += tick * (field(14) + field(16));
        sum.system += tick * (field(15) + field(17));
    }
    Ok(sum)
}

/// The same of processes of which some may have ended: their parents have what they used.
pub fn used_by_all(pids: &[u32]) -> Usage {
    let found = pids.iter().filter_map(|pid| used(&[*pid]).ok());
    found.fold(Usage::default(), Usage::plus)
}

/// The process and everything below it.
pub fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        found.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
        next += 1;
    }
    found
}

/// Messages per second by Postfix's own generator.
pub fn qmqp_source(port: u16, content: usize, clients: usize, count: usize) -> io::Result<f64> {
    let start = Instant::now();
    let status = Command::new("qmqp-source")
        .args(["-f", "s@client.example", "-t", "r@rcpt.example"])
        .args([
            "-l",
            &content.to_string(),
            "-s",
            &clients.to_string(),
            "-m",
            &count.to_string(),
        ])
        .arg(format!("inet:127.0.0.1:{port}"))
        .status()?;
    if status.success() {
        Ok(count as f64 / start.elapsed().as_secs_f64())
    } else {
        Err(Error::other(format!("qmqp-source: {status}")))
    }
}
