//! Runs one connection through a QMQP server, ours or Postfix's, and sees what comes of it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::cleanup::{Cleanup, Script};
use super::instance::{Instance, LOG_HOST, install_program, mail_owner};
use super::maillog::{MailLog, Watch};
use super::outcome::{Ending, Seen};
use super::patience::PATIENCE;
use super::peers::{self, Act, Client, Launch};

/// Postfix's program, as Debian and most others install it.
pub const POSTFIX_QMQPD: &str = "/usr/lib/postfix/sbin/qmqpd";

/// A program to test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Ours,
    Postfix,
}

/// Why Postfix cannot be asked on this machine, if it cannot.
pub fn why_no_postfix() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root, so that Postfix's qmqpd cannot be given a user of its own");
    }
    if mail_owner().is_none() || !Path::new(POSTFIX_QMQPD).exists() {
        return Some("Postfix is not installed");
    }
    None
}

/// Everything that is put before the server.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Lines of main.cf.
    pub conf: Vec<String>,
    pub launch: Launch,
    /// The client is done before the server is started.
    pub late: bool,
    pub env: Vec<(String, String)>,
    pub cleanup: Script,
    pub client: Vec<Act>,
    /// Further files of the instance: name and content.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Default for Setting {
    fn default() -> Setting {
        Setting {
            conf: Vec::new(),
            launch: Launch::Socketpair,
            late: false,
            env: Vec::new(),
            cleanup: Script::default(),
            client: Vec::new(),
            files: Vec::new(),
        }
    }
}

/// Runs one connection. Returns at the latest after [`PATIENCE`], and leaves no process behind.
pub fn run(server: Server, setting: &Setting) -> Seen {
    let instance = Instance::new(&setting.conf);
    for (name, content) in &setting.files {
        instance.write(name, content);
    }
    let log = MailLog::listen(&instance.socket("postlog"));
    let cleanup = &setting.cleanup;
    let cleanup = cleanup
        .present
        .then(|| Cleanup::listen(&instance.socket("cleanup"), cleanup.clone()));
    let peers::Connection {
        mut client,
        stdin,
        stdout,
        port,
    } = peers::connection(setting.launch);
    let input = client.listener(&setting.client);
    let (acts, watch) = (setting.client.clone(), log.watch());
    let (early, late) = if setting.late {
        (acts, Vec::new())
    } else {
        (Vec::new(), acts)
    };
    let client = client.act(&early, &watch);

    let (started, deadline) = (SystemTime::now(), Instant::now() + PATIENCE);
    let stderr = instance.dir.join("stderr");
    let mut command = command(server, &instance, &setting.env);
    command
        .stdin(stdin)
        .stdout(stdout)
        .stderr(File::create(&stderr).unwrap());
    let mut child = command.spawn().unwrap();
    drop(command);
    let (reply, ending, status) = converse(client, input, &late, &watch, &mut child, deadline);
    Seen {
        reply,
        ending,
        cleanup: cleanup.map(Cleanup::finish).unwrap_or_default(),
        log: log.finish(),
        stderr: fs::read(&stderr).unwrap(),
        exit: describe(status),
        pid: child.id(),
        port,
        started,
        dir: instance.dir.display().to_string(),
        in_full: false,
    }
}

fn converse(
    client: Client,
    input: Option<File>,
    acts: &[Act],
    watch: &Watch,
    child: &mut Child,
    deadline: Instant,
) -> (Vec<u8>, Ending, Option<ExitStatus>) {
    thread::scope(|scope| {
        let speaker = scope.spawn(|| client.act(acts, watch));
        let (reply, ending) = match &input {
            Some(input) => peers::listen(input, deadline),
            None => (Vec::new(), Ending::Unseen),
        };
        if let (Some(input), Ending::Eof | Ending::Reset) = (&input, ending) {
            peers::hang_up(input);
            drop(speaker.join());
        }
        (reply, ending, wait(child, deadline))
    })
}

/// The exit status; nothing if the server had to be killed.
fn wait(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

fn describe(status: Option<ExitStatus>) -> String {
    match status {
        None => "killed".into(),
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => code.to_string(),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        },
    }
}

fn command(server: Server, instance: &Instance, env: &[(String, String)]) -> Command {
    let program = match server {
        Server::Ours => our_program(instance),
        Server::Postfix => PathBuf::from(POSTFIX_QMQPD),
    };
    let mut command = Command::new(program);
    command.arg0("qmqpd").arg("-S").env_clear();
    command
        .env("MAIL_CONFIG", instance.config_directory())
        .env("TZ", "UTC0");
    // Until main.cf has been read, these say where the log is.
    command
        .env("POSTLOG_SERVICE", instance.socket("postlog"))
        .env("POSTLOG_HOSTNAME", LOG_HOST);
    let dir = instance.dir.display().to_string();
    command.envs(
        env.iter()
            .map(|(name, value)| (name, value.replace("DIR", &dir))),
    );
    command.current_dir(instance.queue_directory());
    if let Some(owner) = mail_owner() {
        command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
    }
    command.stdin(Stdio::null());
    command
}

/// Where our program can be run from by any user: a copy, if it was built below a directory that is closed to others. There
/// is one copy in an instance: processes that are being started run it when the next one is.
pub fn our_program(instance: &Instance) -> PathBuf {
    let path = instance.program.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_qmqpd"));
        if built.ancestors().all(is_open_to_all) {
            return built.into();
        }
        let copy = instance.dir.join("qmqpd");
        install_program(built, &copy);
        copy
    });
    path.clone()
}

fn is_open_to_all(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|path| path.permissions().mode() & 0o001 != 0)
}
