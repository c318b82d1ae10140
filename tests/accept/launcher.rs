//! A launcher that listens, and whose only process accepts.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::instance::Instance;
use crate::harness::launchers::{connect_from, reply};
use crate::harness::master::request;
use crate::harness::patience::{PATIENCE, is_readable, until};
use crate::harness::skip;

pub const LOCALHOST: [u8; 4] = [127, 0, 0, 1];

/// What every test has in its main.cf; the lines of a test come behind it, and count.
const MAIN_CF: [&str; 7] = [
    "qmqpd_queue_method = file",
    "qmqpd_authorized_clients = 127.0.0.0/8 [::1] [2001:db8::]/32",
    "qmqpd_peername_lookup = no",
    "qmqpd_log_stderr = yes",
    "maillog_file =",
    "qmqpd_error_delay = 0",
    "compatibility_level = 3.6",
];

/// The message of every client.
pub fn message() -> Vec<u8> {
    request(
        b"Subject: t\n\nHello.\n",
        "s@client.example",
        &["r@rcpt.example"],
    )
}

pub struct Launcher {
    pub instance: Instance,
    pub port: u16,
    /// The processes that were started, the last one at the end.
    started: Arc<Mutex<Vec<u32>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Launcher {
    pub fn start(conf: &[&str]) -> Launcher {
        Launcher::start_with(conf, &[])
    }

    /// Listens, and starts the program with `options` when a client comes.
    pub fn start_with(conf: &[&str], options: &[&str]) -> Launcher {
        let conf: Vec<String> = [&MAIN_CF, conf]
            .concat()
            .iter()
            .map(|&l| l.to_owned())
            .collect();
        let instance = Instance::new(&conf);
        let incoming = instance.queue_directory().join("incoming");
        fs::set_permissions(&incoming, fs::Permissions::from_mode(0o700)).unwrap();
        let socket = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let (started, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let mut command = Command::new(env!("CARGO_BIN_EXE_qmqpd"));
        command
            .arg("--accept")
            .args(options)
            .env("MAIL_CONFIG", instance.config_directory());
        let log = File::create(instance.dir.join("log")).unwrap();
        let thread = {
            let (started, stop) = (Arc::clone(&started), Arc::clone(&stop));
            thread::spawn(move || launch(&socket, &mut command, &log, &started, &stop))
        };
        Launcher {
            instance,
            port,
            started,
            stop,
            thread: Some(thread),
        }
    }

    pub fn connect(&self) -> TcpStream {
        connect_from(LOCALHOST, self.port)
    }

    /// A connection from this address.
    pub fn connect_from(&self, from: [u8; 4]) -> TcpStream {
        connect_from(from, self.port)
    }

    /// Sends the message and hears the reply.
    pub fn send(&self) -> String {
        reply(self.connect(), &message())
    }

    /// A session in progress: a client that has sent the beginning of its message.
    pub fn begin(&self) -> (TcpStream, u32) {
        let before = self.children();
        let begun = self.count_in_log("client=");
        let mut client = self.connect();
        client.write_all(&message()[..20]).unwrap();
        // Where the queue has an id for the message, it is received. Before that the process may have other children.
        let is_received = until(PATIENCE, || self.count_in_log("client=") > begun);
        assert!(is_received, "{}", self.log());
        // The thread that has started the process may not have said so yet.
        let mut child = None;
        until(PATIENCE, || {
            let mut children = self.children().into_iter();
            child = children.find(|child| !before.contains(child));
            child.is_some()
        });
        (client, child.unwrap())
    }

    /// Waits for a line that has both.
    pub fn wait_for_log(&self, one: &str, other: &str) {
        let has_both = |line: &str| line.contains(one) && line.contains(other);
        let there = until(PATIENCE, || self.log().lines().any(has_both));
        assert!(there, "no {one:?} with {other:?} in\n{}", self.log());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.instance.dir.join("log")).unwrap()
    }

    /// How many lines have this.
    pub fn count_in_log(&self, part: &str) -> usize {
        self.log()
            .lines()
            .filter(|line| line.contains(part))
            .count()
    }

    pub fn processes(&self) -> Vec<u32> {
        self.started.lock().unwrap().clone()
    }

    /// The process that was started last. The first client makes it start.
    pub fn resident(&self) -> u32 {
        *self.processes().last().expect("no client has come")
    }

    /// The children of the process that was started last.
    pub fn children(&self) -> Vec<u32> {
        let Some(resident) = self.processes().last().copied() else {
            return Vec::new();
        };
        let path = format!("/proc/{resident}/task/{resident}/children");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
    }

    pub fn queued(&self) -> usize {
        let whole = fs::read_dir(self.instance.queue_directory().join("incoming")).unwrap();
        whole
            .filter(|entry| {
                let mode = entry
                    .as_ref()
                    .unwrap()
                    .metadata()
                    .unwrap()
                    .permissions()
                    .mode();
                mode & 0o777 == 0o700
            })
            .count()
    }

    /// Changes main.cf. The file looks old, so that it is read at once.
    pub fn set(&self, lines: &[&str]) {
        let path = self.instance.config_directory().join("main.cf");
        let text = fs::read_to_string(&path).unwrap();
        let kept: Vec<&str> = text.split("#\n").take(1).collect();
        let text = format!("{}#\n{}\n", kept[0], lines.join("\n"));
        self.instance.write("conf/new", text.as_bytes());
        fs::rename(self.instance.config_directory().join("new"), path).unwrap();
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// What a launcher does that leaves the accepting to its process.
fn launch(
    socket: &TcpListener,
    command: &mut Command,
    log: &File,
    started: &Mutex<Vec<u32>>,
    stop: &AtomicBool,
) {
    const LOOK: Duration = Duration::from_millis(20);
    let fd = |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
    while !stop.load(Relaxed) {
        if !is_readable(socket, LOOK) {
            continue;
        }
        command
            .stdin(fd(socket))
            .stdout(fd(socket))
            .stderr(log.try_clone().unwrap());
        let mut child = command.spawn().unwrap();
        started.lock().unwrap().push(child.id());
        while child.try_wait().unwrap().is_none() {
            if stop.load(Relaxed) {
                end(&mut child);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Ends the process and what it has started.
fn end(child: &mut Child) {
    let path = format!("/proc/{0}/task/{0}/children", child.id());
    let children = fs::read_to_string(path).unwrap_or_default();
    let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    drop(child.kill());
    for pid in children {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default();
    }
}

/// Sends a signal.
pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Whether the descriptors of our processes can be seen; if not, `test` says so. They are not dumpable, and show them to
/// root alone.
pub fn sees_descriptors(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip(&format!("{test} (descriptors)"), "not root");
    }
    is_root
}

pub fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Returns when the process has ended.
pub fn wait_for_end(pid: u32) {
    assert!(until(PATIENCE, || !is_running(pid)), "{pid} goes on");
}

/// Sends the rest of the message that [`Launcher::begin`] has begun.
pub fn finish(client: TcpStream) -> String {
    reply(client, &message()[20..])
}

/// Whether the other end of the connection has closed it without a word.
pub fn hears_nothing(client: &TcpStream) -> bool {
    let mut client = client;
    matches!(client.read(&mut [0]), Ok(0) | Err(_))
}
