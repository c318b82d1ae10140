//! The table of system calls (`src/jail/table.rs`) against what the release build does: strace(1) watches sessions in each
//! queue method, under a launcher and under master(8), and each row of the table has to be there for one of them.
//!
//! The release build, because others make calls of their own: the standard library's debug assertions ask the kernel about
//! descriptors.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

#[allow(dead_code, reason = "the filter reads more of it")]
#[path = "../src/jail/table.rs"]
mod table;

#[path = "sandbox/trace.rs"]
mod trace;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use harness::launchers::connect_from;
use harness::master::{self, Master, free_port, handed_over, request, until};
use harness::queue_file::start;
use harness::sinks::fill_datagram;
use table::{TABLE, Why};

const LIMIT: Duration = Duration::from_secs(60);

/// Messages of any size, in lines of any length.
const MAIN_CF: &str = "\
message_size_limit = 0
mailbox_size_limit = 0
line_length_limit = 10000000
qmqpd_error_delay = 0
qmqpd_authorized_clients = 127.0.0.1
";

/// In place of qmail-queue.
const QMAIL_QUEUE: &str = "#!/bin/sh\ncat >/dev/null\ncat <&1 >/dev/null\n";

/// The queue methods, as the parameter has them.
const METHODS: [&str; 3] = ["cleanup", "file", "qmail:DIR/qmail-queue"];

/// The signals that end a session and remove its queue file.
const ENDING: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGXCPU,
    Signal::SIGABRT,
];

/// A sleep with the GNU C library, one with musl, and either after a signal that has stopped the process for its tracer.
const SLEEPS: [libc::c_long; 3] = [
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
];

/// A line of the large message, which has [`LARGE_LINES`] of them: 100 MiB.
const LARGE_LINE: usize = 4 * 1024 * 1024;
const LARGE_LINES: usize = 25;

/// Builds the program as it is shipped; where it is then.
fn shipped() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--release", "--locked", "--quiet"])
            .current_dir(package);
        let status = cargo.arg("--target-dir").arg(target).status().unwrap();
        assert!(status.success(), "cargo build --release: {status}");
        target.join("release/qmqpd")
    })
}

/// What a client does, and what is done to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// It sends a small message.
    Small,
    /// It sends a large one.
    Large,
    /// It sends half a message; from then on the log takes no line; it sends the rest.
    Deaf,
    /// It sends half a message and goes away.
    Lost,
    /// It sends half a message and nothing more.
    Silent,
    /// It sends something else, and more of it than anybody reads. The server is stopped and continued before its reply.
    Garbage,
    /// It may not send, and sends.
    Refused,
    /// It sends half a message; then this signal ends the server.
    Ended(Signal),
}

impl Client {
    /// Those of a queue method.
    fn all(method: &str) -> Vec<Client> {
        let mut all = vec![
            Client::Small,
            Client::Large,
            Client::Deaf,
            Client::Lost,
            Client::Silent,
            Client::Garbage,
            Client::Refused,
        ];
        if method == "file" {
            all.extend(ENDING.map(Client::Ended));
        }
        all
    }

    /// What it sends, at first and later, and how the reply begins.
    fn parts(self) -> (Vec<u8>, Vec<u8>, &'static str) {
        let message = |content: &[u8]| request(content, "s@x.example", &["r@y.example"]);
        let small = message(b"b\n");
        match self {
            Client::Small => (small, Vec::new(), ":K"),
            Client::Large => {
                let line = [&[b'x'; LARGE_LINE - 1][..], b"\n"].concat();
                (message(&line.repeat(LARGE_LINES)), Vec::new(), ":K")
            }
            Client::Deaf => (small[..10].to_vec(), small[10..].to_vec(), ":K"),
            Client::Lost | Client::Silent | Client::Ended(_) => {
                (small[..10].to_vec(), Vec::new(), "")
            }
            Client::Garbage => (vec![b'x'; 1000], vec![b'x'; 1_000_000], ":D"),
            Client::Refused => (small, Vec::new(), ":D"),
        }
    }

    /// Talks to the server, which is the process that `find` says, to the end of the connection. `log` is the socket below
    /// `public` that the server logs to.
    fn talk(
        self,
        mut stream: impl Stream,
        find: impl Fn() -> Option<Pid>,
        master: &Master,
        log: &str,
    ) {
        let (first, rest, expected) = self.parts();
        // A server that has heard enough need not listen to the end.
        drop(stream.write_all(&first));
        match self {
            Client::Deaf => {
                wait_for_call(&find, &[libc::SYS_read], master);
                fill_datagram(&master.socket(log));
            }
            Client::Ended(signal) => {
                kill(wait_for_call(&find, &[libc::SYS_read], master), signal).unwrap();
            }
            Client::Garbage => {
                let pid = wait_for_call(&find, &SLEEPS, master);
                kill(pid, Signal::SIGSTOP).unwrap();
                assert!(until(LIMIT, || status_of(pid, "State:").starts_with(['T', 't'])));
                kill(pid, Signal::SIGCONT).unwrap();
            }
            Client::Lost => return,
            Client::Small | Client::Large | Client::Silent | Client::Refused => {}
        }
        drop(stream.write_all(&rest));
        if self != Client::Silent {
            stream.end();
        }
        let mut reply = Vec::new();
        drop(stream.read_to_end(&mut reply));
        let reply = String::from_utf8_lossy(&reply);
        assert!(reply.contains(expected), "{self:?}: {reply:?}");
    }

    /// What the server is told besides the queue method.
    fn options(self, log: &str) -> Vec<String> {
        match self {
            Client::Deaf => vec![format!("postlog_service_name={log}")],
            Client::Silent => vec!["qmqpd_timeout=1s".to_owned()],
            // Time for it to be found and stopped.
            Client::Garbage => vec!["qmqpd_error_delay=10s".to_owned()],
            Client::Refused => vec!["qmqpd_authorized_clients=192.0.2.1".to_owned()],
            Client::Small | Client::Large | Client::Lost | Client::Ended(_) => Vec::new(),
        }
    }
}

trait Stream: Read + Write {
    /// Says that nothing more will come.
    fn end(&self);
}

impl Stream for UnixStream {
    fn end(&self) {
        drop(self.shutdown(Shutdown::Write));
    }
}

impl Stream for TcpStream {
    fn end(&self) {
        drop(self.shutdown(Shutdown::Write));
    }
}

/// Returns when the process that `find` says waits in one of these system calls; its number.
fn wait_for_call(find: impl Fn() -> Option<Pid>, numbers: &[libc::c_long], master: &Master) -> Pid {
    let call_of = |pid: Pid| fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let mut pid = None;
    let is_there = || {
        pid = find().filter(|pid| {
            let call = call_of(*pid);
            numbers
                .iter()
                .any(|number| call.starts_with(&format!("{number} ")))
        });
        pid.is_some()
    };
    assert!(
        until(LIMIT, is_there),
        "no server waits in a call of {numbers:?}, but {:?} in these:\n{}",
        find().map(|pid| (pid, call_of(pid))),
        master.log()
    );
    pid.unwrap()
}

/// What /proc says of a process behind this word.
fn status_of(pid: Pid, word: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(word));
    line.unwrap_or_default().trim().to_owned()
}

/// Runs sessions under a launcher; the numbers of their processes.
fn under_a_launcher(master: &Master) -> BTreeSet<i32> {
    let dir = master.dir.display().to_string();
    thread::scope(|scope| {
        let mut sessions = Vec::new();
        for (at, method) in METHODS.iter().enumerate() {
            for client in Client::all(method) {
                let log = format!("launched-{at}");
                let mut options = client.options(&log);
                options.push(format!(
                    "qmqpd_queue_method={}",
                    method.replace("DIR", &dir)
                ));
                sessions.push(scope.spawn(move || {
                    let options: Vec<&str> = options.iter().map(String::as_str).collect();
                    let (mut child, stream) = start(master, &[], &options);
                    let pid = i32::try_from(child.id()).unwrap();
                    client.talk(stream, || Some(Pid::from_raw(pid)), master, &log);
                    let status = child.wait().unwrap();
                    if let Client::Ended(signal) = client {
                        assert_eq!(status.signal(), Some(signal as i32));
                    }
                    pid
                }));
            }
        }
        let sessions = sessions.into_iter();
        sessions.map(|session| session.join().unwrap()).collect()
    })
}

/// A service of master(8), and whom it is for.
struct Service {
    at: usize,
    client: Client,
    port: u16,
}

/// The services, and their lines of master.cf.
fn services() -> (Vec<Service>, String) {
    let mut services = Vec::new();
    // A queue with directories to be made, on a disk whose free space counts.
    let mut master_cf = "clients unix n - n - - qmqpd -o qmqpd_queue_method=file \
                         -o hash_queue_names=incoming -o queue_minfree=1\n\
                         handed pass n - n - - qmqpd -o qmqpd_queue_method=file\n"
        .to_owned();
    for (at, method) in METHODS.iter().enumerate() {
        for client in Client::all(method) {
            let port = free_port();
            let options = client.options(&format!("resident-{at}"));
            let options: String = options
                .iter()
                .map(|option| format!(" -o {option}"))
                .collect();
            let line = format!("inet n - n - - qmqpd -o qmqpd_queue_method={method}{options}");
            master_cf.push_str(&format!("127.0.0.1:{port} {line}\n"));
            services.push(Service { at, client, port });
        }
    }
    (services, master_cf)
}

fn under_master(master: &Master, services: &[Service]) {
    // The child that looks mail_owner up, before a resident process is confined, is no server.
    let find = || {
        let all = master.processes("qmqpd");
        let is_server = |pid: &Pid| {
            let parent = status_of(*pid, "PPid:").parse().map(Pid::from_raw);
            let is_child = parent.is_ok_and(|parent| all.contains(&parent));
            is_child && status_of(*pid, "Seccomp:") == "2"
        };
        all.iter().copied().find(is_server)
    };
    for Service { at, client, port } in services {
        let log = format!("resident-{at}");
        client.talk(connect_from([127, 0, 0, 1], *port), find, master, &log);
        // The next server is to be the only one.
        assert!(until(LIMIT, || find().is_none()), "{client:?} goes on");
    }
    let public = UnixStream::connect(master.socket("clients")).unwrap();
    Client::Small.talk(public, find, master, "");
    let handed = handed_over(&master.socket("handed"));
    Client::Small.talk(handed, find, master, "");
}

/// Whether the C library's malloc(3) asks for memory by brk(2) in confined processes, too. With glibc 2.43 (Debian's sid)
/// no session is seen to do that.
fn allocates_by_brk() -> bool {
    let getconf = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let version = String::from_utf8(getconf.unwrap().stdout).unwrap();
    let minor = version.trim().strip_prefix("glibc 2.");
    minor.is_none_or(|minor| minor.parse::<u32>().unwrap() < 43)
}

/// A program in the place of qmqpd that has strace(1) write down what qmqpd does, and keeps its process number.
fn traced(dir: &Path, program: &Path) -> String {
    let (dir, form, program) = (dir.display(), trace::FORM, program.display());
    // A shell that runs tests in the background has them ignore SIGINT. The tracer is not in the process group that
    // master(8) ends.
    format!(
        "#!/bin/sh\nexec env --default-signal=INT strace -DD {form} -o {dir}/traces/$$ {program} \"$@\"\n"
    )
}

#[test]
fn each_row_of_the_table_is_used_or_says_why_it_is_there() {
    let test = "each_row_of_the_table_is_used_or_says_why_it_is_there";
    if cannot_trace(test) {
        return;
    }
    let (master, launched) = run_all(shipped());
    let mut used = BTreeSet::new();
    for trace in trace::read_all(&master.dir.join("traces")) {
        used.extend(if launched.contains(&trace.root) {
            trace.uses_of_session()
        } else {
            trace.uses_of_resident()
        });
    }
    let mut all = trace::all_uses(Why::Seen);
    if !allocates_by_brk() {
        all.retain(|(_, call, _)| *call != libc::SYS_brk);
    }
    let idle: Vec<String> = all
        .difference(&used)
        .map(|(at, call, number)| format!("{:?}: call {call} {number:?}", TABLE[*at].who))
        .collect();
    assert!(idle.is_empty(), "no session makes these calls: {idle:#?}");
}

/// A C library of another kind makes other calls. That each client hears what it should is seen in [`Client::talk`].
#[test]
fn a_static_program_serves_in_every_mode() {
    let test = "a_static_program_serves_in_every_mode";
    let Some(program) = std::env::var_os("QMQPD_STATIC") else {
        return harness::skip_for_maintainers(test, "no $QMQPD_STATIC; scripts/machines builds it");
    };
    if cannot_trace(test) {
        return;
    }
    let (master, _) = run_all(Path::new(&program));
    assert!(!master.log_has("not allowed"), "{}", master.log());
    // The answer of the resident process's filter.
    let refused = Command::new("grep")
        .args(["-rF", "ENOSYS"])
        .arg(master.dir.join("traces"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&refused.stdout), "");
}

fn cannot_trace(test: &str) -> bool {
    let strace = Path::new("/usr/bin/strace").exists();
    if !strace {
        harness::skip(test, "strace is not installed");
    }
    !strace || master::is_missing(test)
}

/// Runs sessions of `program` in every mode; the stopped Postfix, and the processes that the launcher has started.
fn run_all(program: &Path) -> (Master, BTreeSet<i32>) {
    let (services, master_cf) = services();
    let mut logs = Vec::new();
    let mut master = Master::start_with(MAIN_CF, &master_cf, |dir| {
        fs::create_dir(dir.join("traces")).unwrap();
        fs::remove_file(dir.join("daemons/qmqpd")).unwrap();
        let programs = [
            ("daemons/qmqpd", traced(dir, program)),
            ("qmail-queue", QMAIL_QUEUE.to_owned()),
        ];
        for (name, text) in programs {
            fs::write(dir.join(name), text).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        for name in ["launched", "resident"] {
            for at in 0..METHODS.len() {
                let path = dir.join(format!("queue/public/{name}-{at}"));
                logs.push(UnixDatagram::bind(&path).unwrap());
                fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
            }
        }
    });
    let launched = under_a_launcher(&master);
    under_master(&master, &services);
    master.stop();
    (master, launched)
}

/// What is left of the queue file is no mail: a crash removes nothing.
#[test]
fn a_crash_of_a_confined_process_is_seen_as_one() {
    let test = "a_crash_of_a_confined_process_is_seen_as_one";
    if master::is_missing(test) {
        return;
    }
    let master = Master::start_with(MAIN_CF, "", |dir| {
        fs::remove_file(dir.join("daemons/qmqpd")).unwrap();
        std::os::unix::fs::symlink(shipped(), dir.join("daemons/qmqpd")).unwrap();
    });
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        let (mut child, stream) = start(&master, &[], &["qmqpd_queue_method=file"]);
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        Client::Ended(signal).talk(stream, || Some(pid), &master, "");
        assert_eq!(child.wait().unwrap().signal(), Some(signal as i32));
    }
    let (complete, partial) = master.incoming();
    assert_eq!((complete.len(), partial.len()), (0, 2));
}
