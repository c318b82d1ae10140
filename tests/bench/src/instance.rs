//! A Postfix of the bench's own, in a directory of its own: master(8) and what receives a message, no queue manager.
//!
//! The machine's own configuration and queue are not touched. What is queued stays in `incoming` until it is removed.

use std::fs::{self, Permissions};
use std::io::{self, Error};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Group, Pid, User};

use crate::programs::Programs;

/// Where Postfix has its daemons.
pub const DAEMONS: &str = "/usr/lib/postfix/sbin";

/// A resident process stays to the end, so that what it has used can be read from /proc at any time. Everything else
/// that is set concerns where things are, or would end the bench (limits, and pauses for a queue manager that is not
/// there).
const MAIN_CF: &str = "\
compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
daemon_directory = DIR/daemons
maillog_file = DIR/log
maillog_file_prefixes = DIR
myhostname = mail.bench.example
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
qmqpd_authorized_clients = 127.0.0.1
message_size_limit = 209715200
in_flow_delay = 0
max_use = 1000000
max_idle = 3600s
";

const MASTER_CF: &str = "\
cleanup unix       n - n - 0 cleanup
rewrite unix       - - n - - trivial-rewrite
postlog unix-dgram n - n - 1 postlogd
";

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(15);

/// A line of master.cf.
pub struct Service {
    pub port: u16,
    /// `qmqpd` is ours, `qmqpd-postfix` is Postfix's, `floor_r` the bench's; with its options.
    pub command: String,
}

pub struct Instance {
    pub dir: PathBuf,
    master: Child,
}

impl Instance {
    /// Makes everything in `dir`, and starts master. Returns when mail can be received.
    pub fn start(dir: &Path, programs: &Programs, services: &[Service]) -> io::Result<Instance> {
        make_directories(dir)?;
        let text = MAIN_CF.replace("DIR", &dir.display().to_string());
        fs::write(dir.join("conf/main.cf"), text)?;
        let services = services.iter().map(|service| {
            let Service { port, command } = service;
            format!("127.0.0.1:{port} inet n - n - - {command}\n")
        });
        let text = MASTER_CF.to_owned() + &services.collect::<String>();
        fs::write(dir.join("conf/master.cf"), text)?;
        link_daemons(&dir.join("daemons"), programs)?;
        // A session of its own, as `postfix start` makes it.
        let master = Command::new("setsid")
            .arg(format!("{DAEMONS}/master"))
            .args(["-d", "-c"])
            .arg(dir.join("conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let dir = dir.to_owned();
        let instance = Instance { dir, master };
        let cleanup = instance.cleanup();
        if until(PATIENCE, || UnixStream::connect(&cleanup).is_ok()) {
            Ok(instance)
        } else {
            let log = fs::read_to_string(instance.dir.join("log")).unwrap_or_default();
            Err(Error::other(format!("Postfix does not start: {log}")))
        }
    }

    pub fn config_directory(&self) -> PathBuf {
        self.dir.join("conf")
    }

    /// The socket of cleanup(8).
    pub fn cleanup(&self) -> PathBuf {
        Instance::cleanup_in(&self.dir)
    }

    /// Removes what is queued.
    pub fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.dir.join("queue/incoming"))? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// Where cleanup's socket will be of an instance in `dir`.
    pub fn cleanup_in(dir: &Path) -> PathBuf {
        dir.join("queue/public/cleanup")
    }

    /// The resident processes of the service at this port.
    pub fn residents(&self, port: u16) -> io::Result<Vec<u32>> {
        let service = format!("127.0.0.1:{port}");
        let master = self.master.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"))?;
        let pids = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        let serves = |pid: &u32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command
                .split(|&byte| byte == 0)
                .any(|word| word == service.as_bytes())
        };
        Ok(pids.filter(serves).collect())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.master.id() as i32);
        if kill(pid, Signal::SIGTERM).is_ok() {
            drop(self.master.wait());
        }
    }
}

/// Asks again and again until the answer is yes, for `limit` at most; the last answer.
pub fn until(limit: Duration, mut question: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !question() {
        if Instant::now() >= end {
            return false;
        }
        sleep(Duration::from_millis(10));
    }
    true
}

/// A port that nobody listens on, out of the reach of connecting sockets.
pub fn free_port() -> io::Result<u16> {
    use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 22_000 + (std::process::id() % 900) as u16 * 10;
    for _ in 0..1000 {
        let port = first + NEXT.fetch_add(1, Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::other("no free port"))
}

/// The owner of the queue, as whom servers run.
pub fn mail_owner() -> io::Result<User> {
    User::from_name("postfix")?.ok_or_else(|| Error::other("there is no user postfix"))
}

fn make_directories(dir: &Path) -> io::Result<()> {
    let owner = mail_owner()?.uid.as_raw();
    let postdrop = Group::from_name("postdrop")?;
    let postdrop = postdrop
        .ok_or_else(|| Error::other("there is no group postdrop"))?
        .gid
        .as_raw();
    let make = |name: &str, mode: u32, uid: u32, gid: u32| {
        let path = dir.join(name);
        fs::create_dir_all(&path)?;
        chown(&path, Some(uid), Some(gid))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))
    };
    for name in ["", "conf", "daemons", "queue", "queue/pid"] {
        make(name, 0o755, 0, 0)?;
    }
    make("data", 0o700, owner, 0)?;
    for name in [
        "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private",
        "saved", "trace",
    ] {
        make(&format!("queue/{name}"), 0o700, owner, 0)?;
    }
    make("queue/public", 0o710, owner, postdrop)?;
    make("queue/maildrop", 0o730, owner, postdrop)
}

fn link_daemons(to: &Path, programs: &Programs) -> io::Result<()> {
    for entry in fs::read_dir(DAEMONS)? {
        let name = entry?.file_name();
        let own = if name == *"qmqpd" {
            "qmqpd-postfix".into()
        } else {
            name.clone()
        };
        symlink(Path::new(DAEMONS).join(name), to.join(own))?;
    }
    symlink(programs.path("floor_r"), to.join("floor_r"))?;
    symlink(programs.path("qmqpd"), to.join("qmqpd"))
}
