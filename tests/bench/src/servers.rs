//! What is measured: each server at a port of its own.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Error};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};

use nix::sys::socket::{Backlog, listen};

use crate::instance::{self, Instance, Service};
use crate::lists::{self, Kept};
use crate::programs::{Program, Programs, options};
use crate::systemd::Systemd;
use crate::{SMALL, load};

/// Connections that wait for a server, at most.
const BACKLOG: i32 = 4096;

/// Who hands over connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// tcpserver: a process for each connection, started as `$mail_owner`.
    Stdin,
    /// master(8), at a port.
    Master,
    /// A listening descriptor 0: one process accepts.
    Accept,
    /// systemd, `Accept=yes`, with the unit that is shipped.
    Systemd,
    /// systemd, `Accept=no`, with the unit that is shipped.
    SystemdAccept,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Stdin => "tcpserver",
            Mode::Master => "master",
            Mode::Accept => "--accept",
            Mode::Systemd => "systemd",
            Mode::SystemdAccept => "systemd, --accept",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    Cleanup,
    File,
    Qmail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// Linked dynamically, as everything but the static one is.
    FloorA,
    FloorAStatic,
    FloorB,
    Postfix,
    Mailfront,
    Ours(Method),
    /// With `qmqpd_sandbox = no`.
    Open(Method),
}

impl Server {
    pub fn name(self) -> &'static str {
        match self {
            Server::FloorA => "floor A",
            Server::FloorAStatic => "floor A, static",
            Server::FloorB => "floor B, static",
            Server::Postfix => "Postfix",
            Server::Mailfront => "mailfront",
            Server::Ours(Method::Cleanup) => "cleanup",
            Server::Ours(Method::File) => "file",
            Server::Ours(Method::Qmail) => "qmail",
            Server::Open(Method::Cleanup) => "cleanup, open",
            Server::Open(Method::File) => "file, open",
            Server::Open(Method::Qmail) => "qmail, open",
        }
    }

    /// The same without the sandbox.
    pub fn open(self) -> Server {
        match self {
            Server::Ours(method) => Server::Open(method),
            other => other,
        }
    }

    /// Where its floor is measured.
    pub fn floor_mode(self, mode: Mode) -> Mode {
        match (self.floor(), mode) {
            (Server::FloorA, Mode::Master | Mode::Accept) => mode,
            _ => Mode::Stdin,
        }
    }

    /// The program that does the least of what this one does.
    pub fn floor(self) -> Server {
        match self {
            Server::FloorA | Server::FloorAStatic | Server::Postfix => Server::FloorA,
            Server::Ours(Method::Cleanup) | Server::Open(Method::Cleanup) => Server::FloorA,
            Server::FloorB | Server::Mailfront => Server::FloorB,
            Server::Ours(_) | Server::Open(_) => Server::FloorB,
        }
    }
}

/// Every server in every mode, in the order of their turns.
pub const ALL: [(Mode, Server); 23] = [
    (Mode::Stdin, Server::FloorA),
    (Mode::Stdin, Server::FloorAStatic),
    (Mode::Stdin, Server::FloorB),
    (Mode::Stdin, Server::Postfix),
    (Mode::Stdin, Server::Ours(Method::Cleanup)),
    (Mode::Stdin, Server::Open(Method::Cleanup)),
    (Mode::Stdin, Server::Ours(Method::File)),
    (Mode::Stdin, Server::Open(Method::File)),
    (Mode::Stdin, Server::Ours(Method::Qmail)),
    (Mode::Stdin, Server::Mailfront),
    (Mode::Master, Server::FloorA),
    (Mode::Master, Server::Postfix),
    (Mode::Master, Server::Ours(Method::Cleanup)),
    (Mode::Master, Server::Open(Method::Cleanup)),
    (Mode::Master, Server::Ours(Method::File)),
    (Mode::Master, Server::Open(Method::File)),
    (Mode::Master, Server::Ours(Method::Qmail)),
    (Mode::Accept, Server::FloorA),
    (Mode::Accept, Server::Ours(Method::Cleanup)),
    (Mode::Accept, Server::Open(Method::Cleanup)),
    (Mode::Accept, Server::Ours(Method::File)),
    (Mode::Systemd, Server::Ours(Method::Cleanup)),
    (Mode::SystemdAccept, Server::Ours(Method::Cleanup)),
];

/// A server at its port.
pub struct Subject {
    pub mode: Mode,
    pub server: Server,
    pub port: u16,
    /// In mode stdin, what is started for each connection.
    pub program: Option<Program>,
    /// The launcher, or the process that accepts: what it and all its children use is what a connection costs.
    pub root: Option<u32>,
}

/// A Postfix and all servers around it.
pub struct Place {
    pub name: &'static str,
    pub instance: Instance,
    pub subjects: Vec<Subject>,
    pub kept: Vec<Kept>,
    /// What does not run, and why.
    pub missing: Vec<String>,
    launchers: Vec<Child>,
    systemd: Vec<Systemd>,
}

impl Place {
    pub fn start(name: &'static str, dir: &Path, programs: &Programs) -> io::Result<Place> {
        let ours = programs.path("qmqpd");
        let mut resident = Vec::new();
        let mut services = Vec::new();
        for (mode, server) in ALL.into_iter().filter(|(mode, _)| *mode == Mode::Master) {
            let port = instance::free_port()?;
            let (name, options) = match server {
                Server::Postfix => ("qmqpd-postfix", String::new()),
                Server::FloorA => ("floor_r", Instance::cleanup_in(dir).display().to_string()),
                _ => ("qmqpd", options(server, programs).join(" ")),
            };
            services.push(Service {
                port,
                command: format!("{name} {options}"),
            });
            resident.push(Subject {
                mode,
                server,
                port,
                program: None,
                root: None,
            });
        }
        let (kept, with_lists) = lists::services(&lists::directory(dir)?, programs)?;
        services.extend(with_lists);
        let instance = Instance::start(dir, programs, &services)?;
        let (subjects, missing, launchers) = (Vec::new(), Vec::new(), Vec::new());
        let mut place = Place {
            name,
            instance,
            subjects,
            kept,
            missing,
            launchers,
            systemd: Vec::new(),
        };
        for (mode, server) in ALL.into_iter().filter(|(mode, _)| *mode == Mode::Stdin) {
            let program = Program::new(mode, server, programs, &place.instance);
            let port = place.tcpserver(&program);
            place.add(mode, server, port, Some(program));
        }
        for (mode, server) in ALL.into_iter().filter(|(mode, _)| *mode == Mode::Accept) {
            let program = Program::new(mode, server, programs, &place.instance);
            let port = place.accepting(&program);
            place.add(mode, server, port, None);
        }
        for subject in resident {
            place.add(subject.mode, subject.server, Ok((subject.port, 0)), None);
        }
        for mode in [Mode::Systemd, Mode::SystemdAccept] {
            let systemd = Systemd::start(&place.instance, &ours, mode == Mode::SystemdAccept);
            let port = systemd.map(|systemd| {
                let started = (systemd.port, systemd.pid());
                place.systemd.push(systemd);
                started
            });
            place.add(mode, Server::Ours(Method::Cleanup), port, None);
        }
        Ok(place)
    }

    /// A server that accepts a message takes part; another one is said not to run.
    fn add(
        &mut self,
        mode: Mode,
        server: Server,
        started: io::Result<(u16, u32)>,
        program: Option<Program>,
    ) {
        let accepted = started
            .and_then(|(port, root)| load::message(port, &SMALL.request()).map(|_| (port, root)));
        match accepted {
            Ok((port, root)) => self.subjects.push(Subject {
                mode,
                server,
                port,
                program,
                root: (root != 0).then_some(root),
            }),
            Err(error) => {
                self.missing.push(format!(
                    "{}: {} under {}: {error}",
                    self.name,
                    server.name(),
                    mode.name()
                ));
            }
        }
    }

    /// A process that listens on its descriptor 0: its port and its number.
    fn accepting(&mut self, program: &Program) -> io::Result<(u16, u32)> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listen(&listener, Backlog::new(BACKLOG)?)?;
        let port = listener.local_addr()?.port();
        let mut command = program.command(std::iter::empty::<OsString>())?;
        let child = command.stdin(OwnedFd::from(listener)).spawn()?;
        let pid = child.id();
        self.launchers.push(child);
        Ok((port, pid))
    }

    fn tcpserver(&mut self, program: &Program) -> io::Result<(u16, u32)> {
        let options = format!("-1 -H -R -l localhost -c 2000 -b {BACKLOG} 127.0.0.1 0");
        let launcher = ["tcpserver"].into_iter().chain(options.split(' '));
        let mut child = program.command(launcher)?.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or_else(|| Error::other("no pipe"))?;
        let pid = child.id();
        self.launchers.push(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let port = line.trim().parse();
        port.map(|port| (port, pid))
            .map_err(|_| Error::other("tcpserver does not start"))
    }

    pub fn find(&self, mode: Mode, server: Server) -> Option<&Subject> {
        self.subjects
            .iter()
            .find(|subject| subject.mode == mode && subject.server == server)
    }
}

impl Drop for Place {
    /// Whoever uses the Postfix ends before it.
    fn drop(&mut self) {
        self.systemd.clear();
        for launcher in &mut self.launchers {
            drop(launcher.kill());
            drop(launcher.wait());
        }
    }
}
