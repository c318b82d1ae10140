//! A whole Postfix of its own: master(8) with the services that a test asks for, and everything else Debian's.
//!
//! `daemon_directory` is a directory of links: `qmqpd` is our program, `qmqpd-postfix` is Postfix's, the rest is
//! Postfix's under its own name. There is no queue manager, so messages stay in the incoming queue to be looked at.
//! Whatever happens, no process is left: a dropped [`Master`] ends its whole session, each process by its number.

use std::fs::{self, File};
use std::io::{ErrorKind, IoSlice, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use nix::unistd::{Group, Pid};

use super::instance::mail_owner;
use super::outcome::{Ending, NO_NAME};
pub use super::patience::until;
use super::patience::{PATIENCE, end_of};
use super::peers;
use super::server::why_no_postfix;
use super::versions;

/// Where Debian's Postfix has its daemons.
const DAEMONS: &str = "/usr/lib/postfix/sbin";

/// What every instance starts from. A later line of the same name, the test's own, replaces one of these.
const MAIN_CF: &str = "\
compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
daemon_directory = DIR/daemons
maillog_file = DIR/log
maillog_file_prefixes = DIR
myhostname = mail.spec.example
mynetworks = 127.0.0.0/8 [::1]/128
inet_interfaces = 127.0.0.1, ::1
inet_protocols = all
qmqpd_authorized_clients = 127.0.0.1 [::1]
qmqpd_error_delay = 0
in_flow_delay = 0
";

/// What receives a message, and where it is logged.
const MASTER_CF: &str = "\
cleanup unix       n - n - 0 cleanup
rewrite unix       - - n - - trivial-rewrite
postlog unix-dgram n - n - 1 postlogd
";

/// Log lines that no run of a healthy service has, whichever program wrote them.
const TROUBLE: [&str; 8] = [
    "warning: ",
    "error: ",
    "fatal: ",
    "panic: ",
    "bad command startup",
    "killed by signal",
    "throttling",
    "ignoring status update",
];

/// What cleanup(8) says because there is no queue manager.
const NO_QUEUE_MANAGER: &str = "unable to look up public/qmgr";

/// What cleanup says where a message took long enough that its file's time is another second.
const CLOCK: [&str; 2] = ["file system clock is ", "resetting file time stamps"];

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A running Postfix.
pub struct Master {
    pub dir: PathBuf,
    child: Child,
    gone: bool,
}

/// Says why no Postfix can be started on this machine; with `CI=true` that is a failure.
pub fn is_missing(test: &str) -> bool {
    let Some(reason) = why_no_postfix() else {
        return false;
    };
    super::skip(test, reason);
    true
}

/// A port that nobody listens on, on either loopback address, out of the reach of connecting sockets.
pub fn free_port() -> u16 {
    let start = u16::try_from(std::process::id() % 900).unwrap() * 10;
    for _ in 0..10_000 {
        let next = u16::try_from(COUNT.fetch_add(1, Relaxed) % 10_000).unwrap();
        let port = 12_000 + (start + next) % 10_000;
        let free = |host: &str| TcpListener::bind((host, port)).is_ok();
        if free("127.0.0.1") && free("::1") {
            return port;
        }
    }
    panic!("no free port");
}

impl Master {
    /// Makes the directories and starts master(8). `DIR` in the lines of `main_cf` and `master_cf` is the directory of
    /// the instance. Returns when services can be reached.
    pub fn start(main_cf: &str, master_cf: &str) -> Master {
        Master::start_with(main_cf, master_cf, |_| {})
    }

    /// As [`Master::start`]; `prepare` is given the directory before master is started.
    pub fn start_with(main_cf: &str, master_cf: &str, prepare: impl FnOnce(&Path)) -> Master {
        let number = COUNT.fetch_add(1, Relaxed);
        let dir = std::env::temp_dir().join(format!("qmqpd-pf-{}-{number}", std::process::id()));
        make_directories(&dir);
        link_daemons(&dir.join("daemons"));
        write_main_cf(&dir, main_cf);
        write(&dir, "conf/master.cf", MASTER_CF, master_cf);
        prepare(&dir);
        // A session of its own and no terminal, as `postfix start` makes it: what is in it can be found again.
        let child = Command::new("setsid")
            .arg(format!("{DAEMONS}/master"))
            .args(["-d", "-c"])
            .arg(dir.join("conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let gone = false;
        let mut master = Master { dir, child, gone };
        let started = until(PATIENCE, || {
            assert!(
                master.child.try_wait().unwrap().is_none(),
                "master ends: {}",
                master.log()
            );
            // The log's service stands last in master.cf but for the test's own.
            master.socket("postlog").exists() && master.log_has("daemon started")
        });
        assert!(started, "master does not start: {}", master.log());
        master
    }

    /// Master's process id, which is also that of the session of all its children.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Does what `postfix reload` does.
    pub fn reload(&self) {
        kill(self.pid(), Signal::SIGHUP).unwrap();
    }

    /// Does what `postfix stop` does, and waits for master's end.
    pub fn stop(&mut self) {
        self.end_with(Signal::SIGTERM);
    }

    /// Ends master by a signal, and waits for its end.
    pub fn end_with(&mut self, signal: Signal) {
        if !self.gone {
            kill(self.pid(), signal).unwrap();
            end_of(&mut self.child);
            self.gone = true;
        }
    }

    /// Where the public UNIX-domain service `name` listens.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.dir.join("queue/public").join(name)
    }

    /// Replaces the test's own lines of main.cf, for the next reload.
    pub fn write_main_cf(&self, main_cf: &str) {
        write_main_cf(&self.dir, main_cf);
    }

    /// Everything that was logged so far.
    pub fn log(&self) -> String {
        let log = fs::read(self.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    pub fn log_has(&self, part: &str) -> bool {
        self.log().contains(part)
    }

    /// Returns when `part` has been logged; fails if that takes too long.
    pub fn wait_for_log(&self, part: &str) {
        assert!(
            until(PATIENCE, || self.log_has(part)),
            "no {part:?} in {}",
            self.log()
        );
    }

    /// Lines that speak of something wrong.
    pub fn trouble(&self) -> Vec<String> {
        let log = self.log();
        let lines = log
            .lines()
            .filter(|line| TROUBLE.iter().any(|word| line.contains(word)))
            .filter(|line| {
                ![NO_QUEUE_MANAGER, NO_NAME]
                    .iter()
                    .chain(&CLOCK)
                    .any(|part| line.contains(part))
            })
            .filter(|line| !versions::is_passed_on(line));
        lines.map(str::to_owned).collect()
    }

    /// The processes of this Postfix, master included, that run `program`.
    pub fn processes(&self, program: &str) -> Vec<Pid> {
        let found = session(self.pid()).into_iter();
        found
            .filter(|(name, _)| name == program)
            .map(|(_, pid)| pid)
            .collect()
    }

    /// All processes of this Postfix.
    pub fn everything(&self) -> Vec<(String, Pid)> {
        session(self.pid())
    }

    /// The names of the incoming queue's messages, and of those that are not complete.
    pub fn incoming(&self) -> (Vec<String>, Vec<String>) {
        let directory = fs::read_dir(self.dir.join("queue/incoming")).unwrap();
        // cleanup removes what it cannot finish, and may do so just now.
        let files = directory.filter_map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().ok()?.permissions().mode();
            Some((entry.file_name().into_string().unwrap(), mode))
        });
        let (complete, partial): (Vec<_>, Vec<_>) = files.partition(|(_, mode)| mode & 0o100 != 0);
        let names = |files: Vec<(String, u32)>| files.into_iter().map(|(name, _)| name).collect();
        (names(complete), names(partial))
    }

    /// What postcat(1) shows of a message in the incoming queue, without what changes from message to message.
    pub fn postcat(&self, queue_id: &str) -> String {
        let output = Command::new("postcat")
            .arg("-c")
            .arg(self.dir.join("conf"))
            .arg(self.dir.join("queue/incoming").join(queue_id))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        shown
            .lines()
            .map(|line| normal(line, queue_id) + "\n")
            .collect()
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let session_id = self.pid();
        self.end_with(Signal::SIGTERM);
        if !until(Duration::from_secs(5), || session(session_id).is_empty()) {
            for (_, pid) in session(session_id) {
                kill(pid, Signal::SIGKILL).unwrap_or_default();
            }
        }
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// A request with one recipient after another.
pub fn request(content: &[u8], sender: &str, recipients: &[&str]) -> Vec<u8> {
    let mut inner = netstring(content);
    inner.extend(netstring(sender.as_bytes()));
    for recipient in recipients {
        inner.extend(netstring(recipient.as_bytes()));
    }
    netstring(&inner)
}

fn netstring(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.len().to_string().into_bytes();
    out.push(b':');
    out.extend_from_slice(bytes);
    out.push(b',');
    out
}

/// Sends a whole request and reads until EOF; the reply.
pub fn send(mut stream: impl Write + AsFd, request: &[u8]) -> std::io::Result<String> {
    stream.write_all(request)?;
    let input = File::from(stream.as_fd().try_clone_to_owned()?);
    let (reply, ending) = peers::listen(&input, Instant::now() + PATIENCE);
    match ending {
        Ending::Eof => Ok(String::from_utf8_lossy(&reply).into_owned()),
        Ending::Reset => Err(ErrorKind::ConnectionReset.into()),
        Ending::Open | Ending::Unseen => Err(ErrorKind::TimedOut.into()),
    }
}

/// The client's end of a connection that is accepted as by postscreen(8), and handed on to the service at `path`.
pub fn handed_over(path: &Path) -> TcpStream {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let mut service = UnixStream::connect(path).unwrap();
    let fds = [accepted.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    let byte = [IoSlice::new(b"\0")];
    let raw = service.as_raw_fd();
    sendmsg::<UnixAddr>(raw, &byte, &control, MsgFlags::empty(), None).unwrap();
    service
        .write_all(b"client_address\x00192.0.2.9\0\0")
        .unwrap();
    client
}

/// The queue id in a reply that accepts.
pub fn queue_id(reply: &str) -> &str {
    let id = reply.split("queued as ").nth(1);
    id.unwrap_or_else(|| panic!("not accepted: {reply:?}"))
        .trim_end_matches(',')
}

fn make_directories(dir: &Path) {
    let owner = mail_owner().unwrap();
    let postdrop = Group::from_name("postdrop").unwrap().unwrap().gid;
    let make = |name: &str, mode: u32, uid: u32, gid: u32| {
        let path = dir.join(name);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(uid), Some(gid)).unwrap();
    };
    let (uid, postdrop) = (owner.uid.as_raw(), postdrop.as_raw());
    for name in ["", "conf", "daemons", "queue", "queue/pid"] {
        make(name, 0o755, 0, 0);
    }
    make("data", 0o700, uid, 0);
    for name in
        "active bounce corrupt defer deferred flush hold incoming private saved trace".split(' ')
    {
        make(&format!("queue/{name}"), 0o700, uid, 0);
    }
    make("queue/public", 0o710, uid, postdrop);
    make("queue/maildrop", 0o730, uid, postdrop);
}

fn link_daemons(to: &Path) {
    for entry in fs::read_dir(DAEMONS).unwrap() {
        let name = entry.unwrap().file_name();
        let own = if name == *"qmqpd" {
            "qmqpd-postfix".into()
        } else {
            name.clone()
        };
        symlink(Path::new(DAEMONS).join(name), to.join(own)).unwrap();
    }
    symlink(env!("CARGO_BIN_EXE_qmqpd"), to.join("qmqpd")).unwrap();
}

fn write_main_cf(dir: &Path, own: &str) {
    let name = |line: &str| line.split('=').next().map(|name| name.trim().to_owned());
    let kept = MAIN_CF
        .lines()
        .filter(|line| !own.lines().any(|other| name(other) == name(line)));
    let kept: String = kept.map(|line| format!("{line}\n")).collect();
    write(dir, "conf/main.cf", &kept, own);
}

fn write(dir: &Path, name: &str, first: &str, second: &str) {
    let text = format!("{first}{second}\n").replace("DIR", &dir.display().to_string());
    fs::write(dir.join(name), text).unwrap();
}

/// Name and number of every process of a session, as /proc has them. Those that only wait to be reaped do not count.
fn session(id: Pid) -> Vec<(String, Pid)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some((start, rest)) = stat.rsplit_once(") ") else {
            continue;
        };
        let program = start.split_once('(').map_or("", |(_, program)| program);
        // state, parent, process group, session
        let fields: Vec<&str> = rest.split(' ').take(4).collect();
        if fields[0] != "Z" && fields[3] == id.to_string() {
            found.push((program.to_owned(), Pid::from_raw(pid)));
        }
    }
    found
}

/// A line of postcat(1) without queue id, times and the client's port. A Date: or Message-Id: may be cleanup's own.
fn normal(line: &str, queue_id: &str) -> String {
    for start in [
        "*** ENVELOPE RECORDS ",
        "*** MESSAGE CONTENTS ",
        "*** HEADER EXTRACTED ",
        "*** MESSAGE FILE END ",
        "message_arrival_time: ",
        "create_time: ",
        "named_attribute: client_port=",
        "named_attribute: log_client_port=",
        "named_attribute: message_id=<",
        "Message-Id: <",
        "Date: ",
    ] {
        if line.starts_with(start) && !line.ends_with("=0") {
            return format!("{start}...");
        }
    }
    if let Some(sizes) = line.strip_prefix("message_size: ") {
        return normal_sizes(sizes, queue_id);
    }
    let line = line.replace(queue_id, "ID");
    match line.rsplit_once("; ") {
        Some((before, date)) if line.starts_with('\t') && date.ends_with(')') => {
            format!("{before}; DATE")
        }
        _ => line,
    }
}

/// The first number is the size of the content, with a Received: header that has the queue id in it; the second one is
/// where the content starts, after a time and a port of so many digits.
fn normal_sizes(sizes: &str, queue_id: &str) -> String {
    let mut numbers = sizes.split_whitespace();
    let content: usize = numbers.next().unwrap().parse().unwrap();
    let rest: Vec<&str> = numbers.skip(1).collect();
    format!(
        "message_size: {} ... {}",
        content - queue_id.len(),
        rest.join(" ")
    )
}
