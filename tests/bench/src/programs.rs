//! The programs that are measured, and how they are started.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Error};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::instance::{DAEMONS, Instance, mail_owner};
use crate::servers::{Method, Mode, Server};

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
        let resident = ["-DRESIDENT"];
        programs.compile("floor_r", include_str!("floor_a.c"), &resident)?;
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
    pub fn new(mode: Mode, server: Server, programs: &Programs, instance: &Instance) -> Program {
        let socket = instance.cleanup();
        let mut env = vec![
            ("MAIL_CONFIG", instance.config_directory().into()),
            ("PATH", "/usr/bin:/bin".into()),
        ];
        let words: Vec<OsString> = match server {
            Server::FloorA if mode == Mode::Accept => {
                vec![programs.path("floor_r").into(), socket.into()]
            }
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
                if mode == Mode::Accept {
                    words.extend(ACCEPT.map(OsString::from));
                }
                words
            }
        };
        Program { words, env }
    }

    /// With one more `-o`.
    pub fn with_option(mut self, option: &str) -> Program {
        self.words.extend(["-o".into(), option.into()]);
        self
    }

    /// With main.cf in another directory.
    pub fn with_config(mut self, directory: PathBuf) -> Program {
        self.env.retain(|(name, _)| *name != "MAIL_CONFIG");
        self.env.push(("MAIL_CONFIG", directory.into()));
        self
    }

    /// The command that runs `launcher`, with the program and its arguments as the last of its own, as `$mail_owner`.
    /// It ends with us.
    pub fn command<W: Into<OsString>>(
        &self,
        launcher: impl IntoIterator<Item = W>,
    ) -> io::Result<Command> {
        let owner = mail_owner()?;
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

/// All clients of the bench have one address.
const ACCEPT: [&str; 5] = [
    "--accept",
    "-o",
    "qmqpd_process_limit=2000",
    "-o",
    "qmqpd_client_connection_count_limit=0",
];

/// The options that make our program this server.
pub fn options(server: Server, programs: &Programs) -> Vec<String> {
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
