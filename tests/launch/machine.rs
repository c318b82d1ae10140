//! One server on one connection, started as a launcher would, and looked at while it runs.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};

use crate::harness::cleanup::{Cleanup, QUEUE_ID, Script};
use crate::harness::instance::{Instance, LOG_HOST, mail_owner};
use crate::harness::maillog::{MailLog, text_of};
use crate::harness::outcome::Ending;
pub use crate::harness::patience::PATIENCE;
use crate::harness::server::{POSTFIX_QMQPD, Server, our_program};
use crate::harness::{self, master, peers};

/// A small request, and what it is answered by the cleanup of the harness.
pub const REQUEST: &[u8] = b"48:14:Subject: t\n\nb\n,11:s@x.example,11:r@y.example,,";
pub const ACCEPTED: &str = "25:KOk: queued as ABCDEF0123,";

/// Who starts the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    Root,
    /// `$mail_owner`
    Owner,
    /// Nobody in particular.
    Other,
}

/// An account without rights to anything.
pub const OTHER: u32 = 65_534;

/// How the server is started.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    pub server: Server,
    pub user: User,
    /// A command that in the end executes the one that follows it. `DIR` is the directory of the instance.
    pub through: &'a [&'a str],
    pub arguments: &'a [&'a str],
    pub env: &'a [(&'a str, &'a str)],
}

impl Default for How<'_> {
    fn default() -> Self {
        How {
            server: Server::Ours,
            user: User::Root,
            through: &[],
            arguments: &[],
            env: &[],
        }
    }
}

/// A main.cf, a queue directory and a log.
pub struct Machine {
    pub instance: Instance,
    pub log: MailLog,
}

/// Says that a test needs root, if it does not have it; with `CI=true` that is a failure.
pub fn is_not_root(test: &str) -> bool {
    if mail_owner().is_some() {
        return false;
    }
    harness::skip(test, "not root, or no user postfix");
    true
}

impl Machine {
    pub fn new(conf: &[&str]) -> Machine {
        let conf: Vec<String> = conf.iter().map(|&line| line.to_owned()).collect();
        let instance = Instance::new(&conf);
        let log = MailLog::listen(&instance.socket("postlog"));
        Machine { instance, log }
    }

    /// Puts a cleanup there that does as the harness's do.
    pub fn cleanup(&self, lines: &[&str]) -> Cleanup {
        let mut script = Script::default();
        for line in lines {
            script.add(line).unwrap();
        }
        Cleanup::listen(&self.instance.socket("cleanup"), script)
    }

    /// Puts a cleanup there that handles connections, one after another, until the test ends.
    pub fn cleanup_that(&self, serve: impl FnMut(UnixStream) + Send + 'static) -> JoinHandle<()> {
        let listener = UnixListener::bind(self.instance.socket("cleanup")).unwrap();
        self.open_to_all("cleanup");
        thread::spawn(move || listener.incoming().map(Result::unwrap).for_each(serve))
    }

    /// Gives a public socket the rights that master(8) would.
    pub fn open_to_all(&self, socket: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.instance.socket(socket);
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    }

    pub fn stderr(&self) -> PathBuf {
        self.instance.dir.join("stderr")
    }

    pub fn command(&self, how: &How) -> Command {
        let dir = self.instance.dir.display().to_string();
        let program = match how.server {
            Server::Ours => our_program(&self.instance),
            Server::Postfix => POSTFIX_QMQPD.into(),
        };
        let through = how.through.iter().map(|word| word.replace("DIR", &dir));
        let mut words: Vec<OsString> = through.map(OsString::from).collect();
        words.push(program.into());
        words.extend(how.arguments.iter().map(OsString::from));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear();
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("MAIL_CONFIG", self.instance.config_directory())
            .env("TZ", "UTC0")
            .env("POSTLOG_SERVICE", self.instance.socket("postlog"))
            .env("POSTLOG_HOSTNAME", LOG_HOST)
            .envs(how.env.iter().copied())
            .current_dir(self.instance.queue_directory())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.stderr()).unwrap());
        // Who is not root can only start it as itself.
        let ids = match (how.user, mail_owner()) {
            (User::Root, _) | (_, None) => None,
            (User::Owner, Some(owner)) => Some((owner.uid.as_raw(), owner.gid.as_raw())),
            (User::Other, Some(_)) => Some((OTHER, OTHER)),
        };
        if let Some((uid, gid)) = ids {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Starts the server on a UNIX-domain socket.
    pub fn start(&self, how: &How) -> Session {
        let (client, server) = UnixStream::pair().unwrap();
        self.start_on(how, client.into(), server.into())
    }

    /// The same with another standard error.
    pub fn start_to(&self, how: &How, stderr: OwnedFd) -> Session {
        let (client, server) = UnixStream::pair().unwrap();
        let mut command = self.command(how);
        command.stderr(stderr);
        Session::spawn(command, client.into(), server.into())
    }

    /// Starts the server on a TCP connection from this address.
    pub fn start_tcp(&self, how: &How, from: &str) -> Session {
        let from: IpAddr = from.parse().unwrap();
        let (client, server) = peers::tcp(from, false);
        self.start_on(how, client.into(), server.into())
    }

    fn start_on(&self, how: &How, client: OwnedFd, server: OwnedFd) -> Session {
        Session::spawn(self.command(how), client, server)
    }

    /// The log lines of `session`, without date, host, tag and process id.
    pub fn finish(self, session: &Session) -> Vec<String> {
        let lines = self.log.finish();
        let texts = lines.iter().map(|line| text_of(line, session.child.id()));
        texts
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .collect()
    }
}

/// A server that runs, and its client. The server does not outlive the value.
pub struct Session {
    pub child: Child,
    pub client: File,
    pub started: Instant,
}

impl Session {
    fn spawn(mut command: Command, client: OwnedFd, server: OwnedFd) -> Session {
        command
            .stdin(server.try_clone().unwrap())
            .stdout(Stdio::from(server));
        Session {
            child: command.spawn().unwrap(),
            client: File::from(client),
            started: Instant::now(),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).unwrap();
    }

    /// What the server says until it hangs up; fails if it does not for so long.
    pub fn reply(&self, within: Duration) -> String {
        let (reply, ending) = peers::listen(&self.client, Instant::now() + within);
        assert!(ending != Ending::Open, "no end after {within:?}: {reply:?}");
        String::from_utf8_lossy(&reply).into_owned()
    }

    /// Says that nothing more will come, and waits for the end: [`Session::end`].
    pub fn exit(&mut self) -> String {
        // Not connected: the server has closed already.
        let told = shutdown(self.client.as_raw_fd(), Shutdown::Write);
        assert!(matches!(told, Ok(()) | Err(Errno::ENOTCONN)), "{told:?}");
        self.end()
    }

    /// The exit status as a number, or `signal N`; fails if the server goes on.
    pub fn end(&mut self) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let signal = || format!("signal {}", status.signal().unwrap_or_default());
                return status.code().map_or_else(signal, |code| code.to_string());
            }
            assert!(Instant::now() < end, "the server does not end");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What stands behind `NAME:` in the process's status, as the kernel shows it.
    pub fn status(&self, name: &str) -> String {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).unwrap();
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let value = value.unwrap_or_else(|| panic!("no {name} in {status}"));
        value.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// A size of memory, in KiB.
    pub fn kib(&self, name: &str) -> u64 {
        let value = self.status(name);
        value.split(' ').next().unwrap().parse().unwrap()
    }

    /// Returns when the process sleeps in the same system call for a while.
    pub fn wait_until_it_waits(&self) {
        let mut calm = 0;
        let settled = master::until(PATIENCE, || {
            calm = if self.status("State").starts_with('S') {
                calm + 1
            } else {
                0
            };
            calm > 10
        });
        assert!(settled, "the server does not come to rest");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // An error means that it has ended.
        if self.child.kill().is_ok() {
            self.child.wait().unwrap();
        }
    }
}

/// What cleanup greets with.
pub fn greeting() -> Vec<u8> {
    format!("protocol\0cleanup_protocol\0queue_id\0{QUEUE_ID}\0\0").into_bytes()
}

/// Writes past the capture of the test runner: figures that a reader of the test's output wants to see.
pub fn tell(text: &str) {
    let mut stderr = std::io::stderr();
    stderr.write_all(format!("{text}\n").as_bytes()).unwrap();
}
