//! One session of a server that something is done to, and everything that came of it.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::harness::cleanup::{Cleanup, Item, Script};
use crate::harness::instance::{Instance, LOG_HOST};
use crate::harness::launchers::why_no_namespaces;
use crate::harness::maillog::MailLog;
use crate::harness::master::request;
use crate::harness::outcome::Ending;
use crate::harness::peers;
use crate::harness::sinks;
use crate::harness::trace::{self, Call};
use crate::queue;
use crate::tracer::{self, Change};

/// What a session may take, many times over: nothing in it waits for longer than [`TIMEOUT`], or for the 15 seconds that
/// connecting to cleanup is tried.
const LIMIT: Duration = Duration::from_secs(30);

/// qmqpd_timeout and ipc_timeout.
const TIMEOUT: &str = "6s";

/// Between two looks at whether a server has ended.
const PAUSE: Duration = Duration::from_micros(500);

pub const SENDER: &str = "s@x.example";
pub const RECIPIENTS: [&str; 2] = ["r@y.example", "a@b.example"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Cleanup,
    File,
    Qmail,
}

pub const METHODS: [Method; 3] = [Method::Cleanup, Method::File, Method::Qmail];

impl Method {
    fn value(self) -> &'static str {
        match self {
            Method::Cleanup => "cleanup",
            Method::File => "file",
            Method::Qmail => "qmail:DIR/program",
        }
    }
}

/// What takes the place of qmail-queue: it has the message when `done` is there.
const RECORDER: &str = "#!/bin/sh
cd DIR/out || exit 61
cat >message || exit 54
cat <&1 >envelope || exit 54
>done
";

pub const HEADER: &[u8] = b"Subject: t\n\n";

/// How much of a [`Setting`]'s content is a message with five lines.
pub const SMALL: usize = HEADER.len() + 500;

/// What is done to the server.
#[derive(Debug, Clone)]
pub enum Meddling {
    Nothing,
    /// strace(1) writes every call down, and does this to some (`-e inject=`).
    Strace(Vec<String>),
    /// SIGALRM, each so long after the one before, the first after the start.
    Alarms(Vec<Duration>),
    /// [`tracer`] makes this change to calls.
    Traced(Change),
}

/// Where log lines go, and whether they get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// To postlogd, which takes them.
    Postlog,
    /// To a postlogd that has stopped.
    DeafPostlog,
    /// To standard error, a pipe whose reader has stopped.
    FullStderr,
    /// To postlogd, which takes them, and to such a pipe.
    FullCopy,
    /// To a syslog daemon that has stopped before it accepts connections.
    FullSyslog,
}

/// Those that take no lines.
pub const BLOCKED: [Sink; 4] = [
    Sink::DeafPostlog,
    Sink::FullStderr,
    Sink::FullCopy,
    Sink::FullSyslog,
];

impl Sink {
    /// Lines of main.cf.
    fn conf(self) -> &'static [&'static str] {
        match self {
            Sink::Postlog | Sink::FullCopy => &[],
            Sink::DeafPostlog => &["postlog_service_name = deaf"],
            Sink::FullStderr => &["qmqpd_log_stderr = yes"],
            Sink::FullSyslog => &["maillog_file ="],
        }
    }

    /// What keeps it from taking lines, for as long as it is kept.
    fn block(self, instance: &Instance) -> Vec<OwnedFd> {
        let open = |path: &Path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        };
        match self {
            Sink::Postlog | Sink::FullStderr | Sink::FullCopy => Vec::new(),
            Sink::DeafPostlog => {
                let path = instance.socket("deaf");
                let daemon = sinks::deaf_datagram(&path);
                open(&path);
                vec![daemon.into()]
            }
            Sink::FullSyslog => {
                let dev = instance.dir.join("dev");
                fs::create_dir(&dev).unwrap();
                fs::write(dev.join("null"), b"").unwrap();
                let all = sinks::full_listener(&dev.join("log"));
                open(&dev.join("log"));
                all
            }
        }
    }
}

/// Has the command that follows find a /dev/log of its own.
const OWN_DEV: &str =
    "mount --bind /dev/null DIR/dev/null && mount --rbind DIR/dev /dev && exec \"$@\"";

/// A session to be.
#[derive(Debug, Clone)]
pub struct Setting {
    pub method: Method,
    /// Must be off where strace has calls fail: that makes the number of the call -1, which no filter lets pass.
    pub sandbox: bool,
    /// The client's name is asked of the C library in a child, and not read in the hosts file.
    pub asks: bool,
    pub meddling: Meddling,
    pub sink: Sink,
    pub cleanup: Script,
    pub content: Vec<u8>,
}

impl Setting {
    pub fn new(method: Method, meddling: Meddling) -> Setting {
        Setting {
            method,
            sandbox: true,
            asks: method == Method::Cleanup && can_replace_files(),
            meddling,
            sink: Sink::Postlog,
            cleanup: Script::default(),
            content: HEADER.iter().copied().chain(lines(800)).collect(),
        }
    }
}

/// Enough of them to be read and written in several pieces.
pub fn lines(count: usize) -> impl Iterator<Item = u8> {
    let line = [[b'x'; 99].as_slice(), b"\n"].concat();
    line.into_iter().cycle().take(count * 100)
}

/// Everything that came of a session.
#[derive(Debug)]
pub struct Seen {
    /// What the client was told, to the last byte.
    pub reply: Vec<u8>,
    pub ending: Ending,
    /// A number, `signal N`, or `killed` where it had to be.
    pub exit: String,
    /// Log lines without what changes from run to run: date, pid, queue id, numbers.
    pub log: Vec<String>,
    pub stderr: String,
    /// The whole message is in the queue.
    pub queued: bool,
    /// What is in the queue besides a whole message.
    pub left: Vec<String>,
    /// How many records cleanup was sent.
    pub records: usize,
    pub calls: Vec<Call>,
    pub elapsed: Duration,
}

/// Runs one session: a client on TCP sends a whole message and waits for its answer.
pub fn run(setting: &Setting) -> Seen {
    let instance = set_up(setting);
    let log = MailLog::listen(&instance.socket("postlog"));
    let cleanup = (setting.method == Method::Cleanup)
        .then(|| Cleanup::listen(&instance.socket("cleanup"), setting.cleanup.clone()));
    // Somebody to be woken.
    let qmgr = UnixListener::bind(instance.socket("qmgr")).unwrap();
    fs::set_permissions(instance.socket("qmgr"), fs::Permissions::from_mode(0o666)).unwrap();
    let (client, server) = peers::tcp([127, 0, 0, 1].into(), false);
    let input = File::from(OwnedFd::from(client));
    let request = request(&setting.content, SENDER, &RECIPIENTS);
    let _blocked = setting.sink.block(&instance);
    let begin = Instant::now();
    let (server, _stderr) = start(setting, &instance, server.into());
    let (reply, ending, exit) = thread::scope(|scope| {
        let mut output = input.try_clone().unwrap();
        // A server that does not listen to the end is what this is about.
        let speaker = scope.spawn(move || drop(output.write_all(&request)));
        let (reply, ending) = peers::listen(&input, begin + LIMIT);
        peers::hang_up(&input);
        let exit = server.end(begin + LIMIT);
        speaker.join().unwrap();
        (reply, ending, exit)
    });
    let elapsed = begin.elapsed();
    drop(qmgr);
    let items = cleanup.map(Cleanup::finish).unwrap_or_default();
    let lines = log.finish();
    let trace = instance.dir.join("trace");
    let (queued, left) = queue::look(setting, &instance, &items);
    Seen {
        reply,
        ending,
        exit,
        log: normal(&lines),
        stderr: fs::read_to_string(instance.dir.join("stderr")).unwrap(),
        queued,
        left,
        records: items
            .iter()
            .filter(|item| matches!(item, Item::Record(..)))
            .count(),
        calls: if trace.exists() {
            trace::read(&trace)
        } else {
            Vec::new()
        },
        elapsed,
    }
}

fn set_up(setting: &Setting) -> Instance {
    let mut conf = vec![
        format!("qmqpd_queue_method = {}", setting.method.value()),
        format!(
            "qmqpd_sandbox = {}",
            if setting.sandbox { "yes" } else { "no" }
        ),
        format!("qmqpd_timeout = {TIMEOUT}"),
        format!("ipc_timeout = {TIMEOUT}"),
        "hash_queue_names = incoming".to_owned(),
    ];
    conf.extend(setting.sink.conf().iter().map(|&line| line.to_owned()));
    let instance = Instance::new(&conf);
    if setting.method == Method::Qmail {
        let out = instance.dir.join("out");
        fs::create_dir(&out).unwrap();
        fs::set_permissions(&out, fs::Permissions::from_mode(0o777)).unwrap();
        let dir = instance.dir.display().to_string();
        instance.write_program("program", &RECORDER.replace("DIR", &dir));
    }
    instance
}

/// A server that runs. Strace and the queue's program are in its process group.
struct Server {
    child: Child,
    /// Who meddles with it from outside. A tracer reaps it, and knows how it ended.
    meddler: Option<JoinHandle<Option<String>>>,
}

/// Starts it; and the other end of its standard error, if that is a pipe.
fn start(setting: &Setting, instance: &Instance, connection: OwnedFd) -> (Server, Option<OwnedFd>) {
    let mut command = command(setting, instance);
    let early = match setting.sink {
        Sink::DeafPostlog => instance.socket("deaf"),
        Sink::FullSyslog => PathBuf::new(),
        Sink::Postlog | Sink::FullStderr | Sink::FullCopy => instance.socket("postlog"),
    };
    let mut held = None;
    let stderr = match setting.sink {
        Sink::FullStderr | Sink::FullCopy => {
            let (output, input) = sinks::full_pipe();
            held = Some(output);
            File::create(instance.dir.join("stderr")).unwrap();
            Stdio::from(input)
        }
        Sink::Postlog | Sink::DeafPostlog | Sink::FullSyslog => {
            File::create(instance.dir.join("stderr")).unwrap().into()
        }
    };
    if setting.sink == Sink::FullCopy {
        command.arg("-V");
    }
    command
        .arg("-S")
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("MAIL_CONFIG", instance.config_directory())
        .env("TZ", "UTC0")
        .env("POSTLOG_SERVICE", early)
        .env("POSTLOG_HOSTNAME", LOG_HOST)
        .current_dir(instance.queue_directory())
        .stdin(connection.try_clone().unwrap())
        .stdout(Stdio::from(connection))
        .stderr(stderr)
        .process_group(0);
    let child = command.spawn().unwrap();
    let pid = pid(&child);
    let meddler = match setting.meddling.clone() {
        Meddling::Nothing | Meddling::Strace(_) => None,
        Meddling::Alarms(pauses) => Some(thread::spawn(move || {
            // Nobody reaps the child before this is done, and so the number stays its own.
            for pause in pauses {
                thread::sleep(pause);
                kill(pid, Signal::SIGALRM).unwrap();
            }
            None
        })),
        Meddling::Traced(change) => Some(thread::spawn(move || Some(tracer::trace(pid, change)))),
    };
    (Server { child, meddler }, held)
}

/// The order in which names are looked up, for [`Setting::asks`]: an action behind `files` is for the C library to
/// understand. It never comes to ask the network.
const NSSWITCH: &str = "hosts: files [SUCCESS=return]\n";

/// Has the command that follows find this instance's nsswitch.conf.
const REPLACE: &str = "mount --bind DIR/nsswitch.conf /etc/nsswitch.conf && exec \"$@\"";

/// Whether a process can be given files of its own in the places of the machine's.
pub fn can_replace_files() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| why_no_namespaces().is_none())
}

fn command(setting: &Setting, instance: &Instance) -> Command {
    let dir = instance.dir.display().to_string();
    let mut words: Vec<String> = Vec::new();
    if setting.asks {
        instance.write("nsswitch.conf", NSSWITCH.as_bytes());
        words.extend(["unshare", "--mount", "sh", "-c"].map(str::to_owned));
        words.extend([REPLACE.replace("DIR", &dir), "sh".to_owned()]);
    }
    if setting.sink == Sink::FullSyslog {
        words.extend(["unshare", "--mount", "sh", "-c"].map(str::to_owned));
        words.extend([OWN_DEV.replace("DIR", &dir), "sh".to_owned()]);
    }
    match &setting.meddling {
        Meddling::Nothing | Meddling::Alarms(_) => {}
        Meddling::Traced(_) => words.extend(tracer::COMMAND.map(str::to_owned)),
        Meddling::Strace(faults) => {
            // A shell that runs tests in the background has them ignore it.
            words.extend(["env", "--default-signal=INT"].map(str::to_owned));
            words.extend(["strace", "-y", "-o"].map(str::to_owned));
            words.push(format!("{dir}/trace"));
            for fault in faults {
                words.extend(["-e".to_owned(), format!("inject={fault}")]);
            }
        }
    }
    words.push(env!("CARGO_BIN_EXE_qmqpd").to_owned());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

impl Server {
    /// Waits for the end of everything that was started, and says how the server ended.
    fn end(mut self, deadline: Instant) -> String {
        let group = pid(&self.child);
        let mut exit = None;
        // A program that was started for the queue ends by itself once nobody writes to it.
        while exit.is_none() || killpg(group, None).is_ok() {
            if Instant::now() > deadline {
                killpg(group, Signal::SIGKILL).unwrap_or_default();
                if let Some(meddler) = self.meddler {
                    meddler.join().unwrap();
                }
                // An error means that a tracer has reaped it.
                drop(self.child.wait());
                return "killed".to_owned();
            }
            thread::sleep(PAUSE);
            exit = exit.or_else(|| self.ended());
        }
        exit.unwrap()
    }

    /// How the server ended, if it has.
    fn ended(&mut self) -> Option<String> {
        if let Some(meddler) = self.meddler.take_if(|meddler| meddler.is_finished()) {
            let exit = meddler.join().unwrap();
            if exit.is_some() {
                return exit;
            }
        }
        if self.meddler.is_some() {
            return None;
        }
        self.child.try_wait().unwrap().map(describe)
    }
}

/// A number, or `signal N`.
fn describe(status: ExitStatus) -> String {
    let signal = || format!("signal {}", status.signal().unwrap_or_default());
    status.code().map_or_else(signal, |code| code.to_string())
}

/// Log lines without what changes from run to run: date, pid, queue id, and all numbers.
fn normal(lines: &[Vec<u8>]) -> Vec<String> {
    let texts: Vec<String> = lines
        .iter()
        .map(|line| {
            let line = String::from_utf8_lossy(line);
            let text = line.split_once("]: ").map_or(&*line, |(_, text)| text);
            text.to_owned()
        })
        .collect();
    let id = texts.iter().find_map(|text| text.split_once(": client="));
    let id = id.map_or("NOQUEUE", |(id, _)| id);
    let number = |text: String| {
        let mut general = String::new();
        for c in text.chars() {
            match c {
                '0'..='9' if general.ends_with('#') => {}
                '0'..='9' => general.push('#'),
                _ => general.push(c),
            }
        }
        general
    };
    texts
        .iter()
        .map(|text| number(text.replace(id, "QID")))
        .collect()
}
