//! What is measured: each server at a port of its own.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Error};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::instance::{self, DAEMONS, Instance, Service};
use crate::systemd::Systemd;

/// Who hands over connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// tcpserver: a process for each connection, started as `$mail_owner`.
    Stdin,
    /// master(8), at a port.
    Master,
    /// systemd, `Accept=yes`, with the unit that is shipped.
    Systemd,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Stdin => "tcpserver",
            Mode::Master => "master",
            Mode::Systemd => "systemd",
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
pub const ALL: [(Mode, Server); 16] = [
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
    (Mode::Master, Server::Postfix),
    (Mode::Master, Server::Ours(Method::Cleanup)),
    (Mode::Master, Server::Open(Method::Cleanup)),
    (Mode::Master, Server::Ours(Method::File)),
    (Mode::Master, Server::Open(Method::File)),
    (Mode::Systemd, Server::Ours(Method::Cleanup)),
];

/// The programs that the bench has compiled, and ours, where every user may run them.
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Compiles into `dir` what is written in C, and copies our program there.
    pub fn make(dir: &Path, ours: &Path) -> io::Result<Programs> {
        fs::create_dir(dir)?;
        fs::copy(ours, dir.join("qmqpd"))?;
        let programs = Programs {
            dir: dir.to_owned(),
        };
        programs.compile("metered", include_str!("metered.c"), &["-static"])?;
        programs.compile("queue", include_str!("queue.c"), &["-static"])?;
        programs.compile("floor_a", include_str!("floor_a.c"), &[])?;
        programs.compile("floor_a_static", include_str!("floor_a.c"), &["-static"])?;
        programs.compile("floor_b", include_str!("floor_b.c"), &["-static"])?;
        Ok(programs)
    }

    fn compile(&self, name: &str, source: &str, options: &[&str]) -> io::Result<()> {
        let file = self.dir.join(name).with_extension("c");
        fs::write(&file, source)?;
        let status = Command::new("cc")
            .args(["-O2", "-Wall"])
            .args(options)
            .arg("-o")
            .args([self.path(name), file])
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::other(format!("cc {name}: {status}")))
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// How a process that serves one connection is started.
#[derive(Clone)]
pub struct Program {
    words: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
}

impl Program {
    fn new(server: Server, programs: &Programs, instance: &Instance) -> Program {
        let socket = instance.cleanup();
        let mut env = vec![
            ("MAIL_CONFIG", instance.config_directory().into()),
            ("PATH", "/usr/bin:/bin".into()),
        ];
        let words: Vec<OsString> = match server {
            Server::FloorA => vec![programs.path("floor_a").into(), socket.into()],
            Server::FloorAStatic => vec![programs.path("floor_a_static").into(), socket.into()],
            Server::FloorB => vec![programs.path("floor_b").into()],
            Server::Postfix => vec![format!("{DAEMONS}/qmqpd").into(), "-S".into()],
            Server::Mailfront => {
                env.push(("QMAILQUEUE", programs.path("queue").into()));
                env.push(("QMAILHOME", "/".into()));
                // What qmqpfront-qmail starts, without its shell and the plug-ins that ask questions.
                [
                    "/usr/sbin/mailfront",
                    "qmqp",
                    "qmail",
                    "accept",
                    "add-received",
                ]
                .map(OsString::from)
                .into()
            }
            Server::Ours(_) | Server::Open(_) => {
                let mut words = vec![programs.path("qmqpd").into()];
                words.extend(options(server, programs).into_iter().map(OsString::from));
                words
            }
        };
        Program { words, env }
    }

    /// The command that runs `launcher`, with the program and its arguments as the last of its own, as `$mail_owner`.
    /// It ends with us.
    pub fn command<W: Into<OsString>>(
        &self,
        launcher: impl IntoIterator<Item = W>,
    ) -> io::Result<Command> {
        let owner = instance::mail_owner()?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        command.args(launcher.into_iter().map(Into::into));
        command
            .args(&self.words)
            .env_clear()
            .envs(self.env.iter().cloned());
        command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(command)
    }
}

/// The options that make our program this server.
fn options(server: Server, programs: &Programs) -> Vec<String> {
    let (method, sandbox) = match server {
        Server::Ours(method) => (method, "yes"),
        Server::Open(method) => (method, "no"),
        _ => return Vec::new(),
    };
    let method = match method {
        Method::Cleanup => "cleanup".to_owned(),
        Method::File => "file".to_owned(),
        Method::Qmail => format!("qmail:{}", programs.path("queue").display()),
    };
    let set = |value: String| ["-o".to_owned(), value];
    [
        set(format!("qmqpd_queue_method={method}")),
        set(format!("qmqpd_sandbox={sandbox}")),
    ]
    .concat()
}

/// A server at its port.
pub struct Subject {
    pub mode: Mode,
    pub server: Server,
    pub port: u16,
    /// In mode stdin, what is started for each connection.
    pub program: Option<Program>,
}

/// A Postfix and all servers around it.
pub struct Place {
    pub name: &'static str,
    pub instance: Instance,
    pub subjects: Vec<Subject>,
    /// What does not run, and why.
    pub missing: Vec<String>,
    launchers: Vec<Child>,
    /// It is ended before the Postfix that it uses.
    _systemd: Option<Systemd>,
}

impl Place {
    pub fn start(name: &'static str, dir: &Path, programs: &Programs) -> io::Result<Place> {
        let ours = programs.path("qmqpd");
        let mut resident = Vec::new();
        let mut services = Vec::new();
        for (mode, server) in ALL.into_iter().filter(|(mode, _)| *mode == Mode::Master) {
            let port = instance::free_port()?;
            let name = if server == Server::Postfix {
                "qmqpd-postfix"
            } else {
                "qmqpd"
            };
            let options = options(server, programs).join(" ");
            services.push(Service {
                port,
                command: format!("{name} {options}"),
            });
            resident.push(Subject {
                mode,
                server,
                port,
                program: None,
            });
        }
        let instance = Instance::start(dir, &ours, &services)?;
        let (subjects, missing, launchers) = (Vec::new(), Vec::new(), Vec::new());
        let mut place = Place {
            name,
            instance,
            subjects,
            missing,
            launchers,
            _systemd: None,
        };
        for (mode, server) in ALL.into_iter().filter(|(mode, _)| *mode == Mode::Stdin) {
            let program = Program::new(server, programs, &place.instance);
            let port = place.tcpserver(&program);
            place.add(mode, server, port, Some(program));
        }
        for subject in resident {
            place.add(subject.mode, subject.server, Ok(subject.port), None);
        }
        match Systemd::start(&place.instance, &ours) {
            Ok(systemd) => {
                place.add(
                    Mode::Systemd,
                    Server::Ours(Method::Cleanup),
                    Ok(systemd.port),
                    None,
                );
                place._systemd = Some(systemd);
            }
            Err(error) => place.add(
                Mode::Systemd,
                Server::Ours(Method::Cleanup),
                Err(error),
                None,
            ),
        }
        Ok(place)
    }

    /// A server that takes a message takes part; another one is said not to run.
    fn add(&mut self, mode: Mode, server: Server, port: io::Result<u16>, program: Option<Program>) {
        let request = crate::load::Shape {
            content: 4096,
            recipients: 1,
        }
        .request();
        match port.and_then(|port| crate::load::message(port, &request).map(|_| port)) {
            Ok(port) => self.subjects.push(Subject {
                mode,
                server,
                port,
                program,
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

    fn tcpserver(&mut self, program: &Program) -> io::Result<u16> {
        let launcher = [
            "tcpserver",
            "-1",
            "-H",
            "-R",
            "-l",
            "localhost",
            "-c",
            "100",
            "-b",
            "100",
            "127.0.0.1",
            "0",
        ];
        let mut child = program.command(launcher)?.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or_else(|| Error::other("no pipe"))?;
        self.launchers.push(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        line.trim()
            .parse()
            .map_err(|_| Error::other("tcpserver does not start"))
    }

    pub fn find(&self, mode: Mode, server: Server) -> Option<&Subject> {
        self.subjects
            .iter()
            .find(|subject| subject.mode == mode && subject.server == server)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for launcher in &mut self.launchers {
            drop(launcher.kill());
            drop(launcher.wait());
        }
    }
}
