//! A machine of its own for one run: a temporary directory with a main.cf and an empty mail queue.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use nix::unistd::User;

/// What every run starts from; a dialogue's `conf:` lines replace those of the same name.
const MAIN_CF: &str = "\
compatibility_level = 3.6
myhostname = mail.spec.example
mynetworks = 127.0.0.0/8 [::1]/128
maillog_file = /var/log/x
qmqpd_authorized_clients = 127.0.0.1 [::1]
qmqpd_error_delay = 0
";

/// The host name that has to stand in a log line.
pub const LOG_HOST: &str = "mail";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A configuration directory and a queue directory, removed when the value is dropped.
pub struct Instance {
    pub dir: PathBuf,
    /// Where our program is run from, once it has been.
    pub program: OnceLock<PathBuf>,
}

impl Instance {
    /// Makes the directories and writes main.cf, with the lines of `conf` at its end. `DIR` in them is the directory of
    /// the instance.
    pub fn new(conf: &[String]) -> Instance {
        let number = COUNT.fetch_add(1, Relaxed);
        let dir = std::env::temp_dir().join(format!("qmqpd-test-{}-{number}", std::process::id()));
        let program = OnceLock::new();
        let instance = Instance { dir, program };
        for name in [
            "conf",
            "data",
            "queue",
            "queue/public",
            "queue/private",
            "queue/pid",
            "queue/incoming",
        ] {
            make_directory(&instance.dir.join(name));
        }
        instance.write_main_cf(conf);
        instance
    }

    fn write_main_cf(&self, conf: &[String]) {
        let dir = self.dir.display().to_string();
        let name = |line: &str| line.split('=').next().map(|name| name.trim().to_string());
        let own = MAIN_CF
            .lines()
            .filter(|line| !conf.iter().any(|other| name(other) == name(line)));
        let mut text = format!("queue_directory = {dir}/queue\ndata_directory = {dir}/data\n");
        for line in own.chain(conf.iter().map(String::as_str)) {
            text.push_str(&line.replace("DIR", &dir));
            text.push('\n');
        }
        self.write("conf/main.cf", text.as_bytes());
    }

    /// Writes a file that looks an hour old: Postfix reads a main.cf of this second again and again until it has aged.
    pub fn write(&self, name: &str, content: &[u8]) {
        let path = self.dir.join(name);
        fs::write(&path, content).unwrap();
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(hour_ago)
            .unwrap();
    }

    /// Writes a program.
    pub fn write_program(&self, name: &str, text: &str) {
        let draft = format!("{name}.draft");
        self.write(&draft, text.as_bytes());
        install_program(&self.dir.join(draft), &self.dir.join(name));
    }

    pub fn config_directory(&self) -> PathBuf {
        self.dir.join("conf")
    }

    pub fn queue_directory(&self) -> PathBuf {
        self.dir.join("queue")
    }

    /// Where the service `name` listens, with the rights that master(8) would give the socket.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.queue_directory().join("public").join(name)
    }
}

/// Copies a program to where it is run from. Another process does it: a fork of this one, made for another test at that
/// moment, would hold the file open for writing, and whoever runs it would hear "Text file busy".
pub fn install_program(from: &Path, to: &Path) {
    let mut install = Command::new("install");
    let status = install
        .args(["-m", "755"])
        .args([from, to])
        .status()
        .unwrap();
    assert!(status.success(), "install {}: {status}", to.display());
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            assert!(
                std::thread::panicking(),
                "cannot remove {}: {error}",
                self.dir.display()
            );
        }
    }
}

fn make_directory(path: &Path) {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    if let Some(owner) = mail_owner() {
        chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).unwrap();
    }
}

/// The account that the servers run under, if there is one and we may use it.
pub fn mail_owner() -> Option<User> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    User::from_name("postfix").ok().flatten()
}
