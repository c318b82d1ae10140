//! Launchers as an administrator has them: the files that we ship, in a machine that looks like theirs.
//!
//! A [`World`] is a set of namespaces in which /etc/postfix and /var/spool/postfix are those of a test's own Postfix, and
//! in which a launcher is the first process. So the shipped files are used as they stand, but for the port and for the
//! directory of the program, which nobody else is to find in /usr/sbin. The network is the caller's: loopback ports meet.
//! /run, /tmp and /var/tmp are empty in there. When the first process ends, all others do, and it ends with the test.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

use super::master::{Master, until};
pub use super::patience::PATIENCE;
use super::patience::{output, output_of};

/// The port of QMQP, which the shipped files have.
const QMQP: &str = "628";

/// Before the launcher: `$1` is the directory of the Postfix, `$2` the program, `$3` a launcher that is not installed,
/// `$4` a name that no other world has. The launcher's own steps follow.
const PREPARE: &str = "\
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind \"$1/world\" /etc/postfix
mount --bind \"$1/queue\" /var/spool/postfix
mount -t tmpfs -o mode=755 tmpfs /usr/local/sbin
: >/usr/local/sbin/qmqpd
mount --bind \"$2\" /usr/local/sbin/qmqpd
: >/usr/local/sbin/launcher
[ -z \"$3\" ] || mount --bind \"$3\" /usr/local/sbin/launcher
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/keep
mount --bind \"$1/world\" /run/keep
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /var/tmp
";

/// A systemd that starts nothing but the socket. Units of the machine that would touch it are out of the way.
const SYSTEMD: &str = "\
mount -t tmpfs tmpfs /dev/shm
mkdir -p /run/systemd /run/lock
cp -r /run/keep/units /run/systemd/system
for unit in tmpfiles-setup tmpfiles-setup-dev tmpfiles-clean journald udevd; do
    ln -s /dev/null /run/systemd/system/systemd-$unit.service
done
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
own=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/$4
mkdir \"$own\"
echo $$ >\"$own/cgroup.procs\"
mount --bind /run/keep/console /dev/console
exec unshare --cgroup sh -c 'umount /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
exec env -i container=private PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    /lib/systemd/systemd --system --unit=only.target --log-target=console'
";

const XINETD: &str = "exec xinetd -dontfork -f /etc/postfix/xinetd -pidfile /run/xinetd.pid\n";
const INETD: &str = "exec /usr/local/sbin/launcher -i /etc/postfix/inetd.conf\n";

/// Removes what a systemd leaves in the tree of control groups when it is killed: in a group of the same name the next one
/// would find the limits and filters of the last. `$1` is the name of its own group.
const REMOVE_GROUPS: &str = "\
mount --make-rprivate /
mount -t tmpfs tmpfs /tmp
mkdir /tmp/groups
mount -t cgroup2 none /tmp/groups
find /tmp/groups -depth -type d -path \"*/$1*\" -exec rmdir {} +
";

/// A shipped file.
pub fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A shipped file for this machine. `from` is how it names the port.
fn adapted(name: &str, from: &str, port: u16) -> String {
    let text = shipped(name);
    assert!(text.contains(from), "{name} has no {from:?}");
    text.replace(from, &from.replace(QMQP, &port.to_string()))
        .replace("/usr/sbin/qmqpd", "/usr/local/sbin/qmqpd")
}

/// Says why launchers cannot be started here.
pub fn why_no_namespaces() -> Option<&'static str> {
    let try_it = Command::new("unshare")
        .args(["--pid", "--fork", "--mount", "--uts", "--ipc", "--cgroup"])
        .args(["mount", "-t", "tmpfs", "tmpfs", "/tmp"])
        .stderr(Stdio::null())
        .status();
    if try_it.is_ok_and(|status| status.success()) {
        None
    } else {
        Some("no namespaces of its own (root and unshare are needed)")
    }
}

/// The program `name`, if it can be found.
pub fn program(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/lib/systemd"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists())
}

/// The version of the systemd that is installed, if one is.
pub fn systemd_version() -> Option<u32> {
    let output = Command::new("systemctl").arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.split_whitespace().nth(1)?.parse().ok()
}

/// The drop-in for sockets that this systemd knows, and needs so that a host's flood does not keep others waiting.
pub fn poll_limit() -> Vec<&'static str> {
    let is_known = systemd_version().is_some_and(|version| version >= 255);
    is_known.then_some("poll-limit").into_iter().collect()
}

/// A launcher to test.
#[derive(Debug, Clone)]
pub enum Launcher {
    Systemd {
        /// Drop-ins of scripts/systemd/drop-ins, for the socket and for the service.
        socket: Vec<&'static str>,
        service: Vec<&'static str>,
    },
    /// A systemd without our units, for those that are installed in there: at the test's port, and without a system around
    /// them.
    BareSystemd,
    /// The same with a network of its own, in which they are at the port that they name.
    LoneSystemd,
    Xinetd,
    /// OpenBSD's inetd; where it is.
    Inetd(PathBuf),
    Tcpserver,
    /// Those that leave the accepting to the program.
    SystemdAccept {
        service: Vec<&'static str>,
    },
    XinetdAccept,
    InetdAccept(PathBuf),
}

impl Launcher {
    fn not_installed(&self) -> &Path {
        match self {
            Launcher::Inetd(program) | Launcher::InetdAccept(program) => program,
            Launcher::Systemd { .. }
            | Launcher::SystemdAccept { .. }
            | Launcher::BareSystemd
            | Launcher::LoneSystemd
            | Launcher::Xinetd
            | Launcher::XinetdAccept
            | Launcher::Tcpserver => Path::new(""),
        }
    }

    /// The option of unshare(1) for a network of its own, if it has one.
    fn own_network(&self) -> &[&str] {
        let has_one = matches!(self, Launcher::LoneSystemd);
        if has_one { &["--net"] } else { &[] }
    }
}

/// A launcher at work before a Postfix of its own.
pub struct World {
    pub master: Master,
    pub port: u16,
    child: Child,
}

impl World {
    /// Starts the launcher, and returns when it is there. `main_cf` is added to that of the Postfix.
    pub fn start(launcher: &Launcher, main_cf: &str) -> World {
        World::boot("", &[], launcher, main_cf)
    }

    /// Starts the launcher after `steps` of the shell, which find `files` in /run/keep.
    pub fn start_after(steps: &str, launcher: &Launcher, files: &[(&str, &str)]) -> World {
        World::boot(steps, files, launcher, "")
    }

    fn boot(before: &str, files: &[(&str, &str)], launcher: &Launcher, main_cf: &str) -> World {
        let port = super::master::free_port();
        let mut steps = PREPARE.to_owned() + before;
        let master = Master::start_with(main_cf, "", |dir| {
            let world = dir.join("world");
            fs::create_dir(&world).unwrap();
            fs::write(world.join("console"), "").unwrap();
            for (name, text) in files {
                fs::write(world.join(name), text).unwrap();
            }
            steps += &install(launcher, &world, port);
        });
        write_main_cf(&master, "");
        let console = File::create(master.dir.join("world/console")).unwrap();
        // The first process of the namespaces ends with unshare, and unshare with this thread.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(["unshare", "--kill-child=KILL", "--pid", "--fork"])
            .args(["--mount", "--uts", "--ipc"])
            .args(launcher.own_network())
            .args(["sh", "-c", &steps, "boot"])
            .arg(&master.dir)
            .arg(env!("CARGO_BIN_EXE_qmqpd"))
            .arg(launcher.not_installed())
            .arg(name_of(port))
            .env_remove("MAIL_CONFIG")
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .spawn()
            .unwrap();
        World {
            master,
            port,
            child,
        }
    }

    /// Returns when the launcher listens at its port. Whoever asks is a client that connects and leaves.
    pub fn wait_for_port(&mut self) {
        let there = until(PATIENCE, || {
            assert!(self.is_running(), "{}", self.console());
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
        });
        assert!(there, "{}", self.console());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What launcher and program have written to their terminal, if they had one.
    pub fn console(&self) -> String {
        let bytes = fs::read(self.master.dir.join("world/console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Every line of the log, wherever it went.
    pub fn log(&self) -> String {
        self.master.log() + &self.console()
    }

    pub fn wait_for_log(&self, part: &str) {
        let there = until(PATIENCE, || self.log().contains(part));
        assert!(there, "no {part:?} in {}", self.log());
    }

    /// Adds lines to the main.cf that the program reads.
    pub fn add_to_main_cf(&self, lines: &str) {
        write_main_cf(&self.master, lines);
    }

    /// How many messages are in the queue, whole ones and others.
    pub fn queued(&self) -> (usize, usize) {
        let (complete, partial) = self.master.incoming();
        (complete.len(), partial.len())
    }

    /// The number of the launcher's process, outside of its namespaces.
    pub fn launcher(&self) -> u32 {
        let unshare = self.child.id();
        let path = format!("/proc/{unshare}/task/{unshare}/children");
        let mut found = None;
        until(PATIENCE, || {
            let children = fs::read_to_string(&path).unwrap();
            found = children.trim().parse().ok();
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("no launcher: {}", self.console()))
    }

    /// What systemctl(1) says in there.
    pub fn systemctl(&self, arguments: &[&str]) -> String {
        self.run(&[&["systemctl", "--no-pager", "--plain"], arguments].concat())
            .1
    }

    /// Runs a command in there: whether it succeeds, and what it says.
    pub fn run(&self, words: &[&str]) -> (bool, String) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.launcher()));
        let output = output(command.args(["--mount", "--pid", "--net"]).args(words));
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        let remove = || {
            let removed = Command::new("unshare")
                .args(["--mount", "sh", "-c", REMOVE_GROUPS, "remove"])
                .arg(name_of(self.port))
                .stderr(Stdio::null())
                .status();
            removed.is_ok_and(|status| status.success())
        };
        // The last processes may still be on their way out.
        until(Duration::from_secs(2), remove);
    }
}

/// A name that no other world has.
fn name_of(port: u16) -> String {
    format!("qmqpd-test-{}-{port}", std::process::id())
}

/// The main.cf of the Postfix as it reads from inside.
fn write_main_cf(master: &Master, more: &str) {
    let dir = master.dir.display().to_string();
    let text = fs::read_to_string(master.dir.join("conf/main.cf")).unwrap();
    let text = text.replace(&format!("{dir}/queue"), "/var/spool/postfix") + more;
    // In one step: a process that reads it meanwhile is not to see half of it.
    let new = master.dir.join("world/new");
    fs::write(&new, text).unwrap();
    fs::rename(new, master.dir.join("world/main.cf")).unwrap();
}

fn write(world: &Path, name: &str, text: &str) {
    let path = world.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Puts units into `world`, of which the socket is all that is started.
fn install_units(
    world: &Path,
    socket: &str,
    service: &str,
    units: Vec<(String, String)>,
) -> String {
    for (name, text) in units {
        write(world, &format!("units/{name}"), &text);
    }
    let only = format!("[Unit]\nDefaultDependencies=no\nWants={socket}\n");
    write(world, "units/only.target", &only);
    // There is no system around them that they could wait for.
    let alone = "[Unit]\nDefaultDependencies=no\n";
    write(world, &format!("units/{socket}.d/alone.conf"), alone);
    // A call that the unit forbids is to be noticed, and not only to fail.
    let strict = format!("{alone}[Service]\nSystemCallErrorNumber=kill\n");
    write(world, &format!("units/{service}.d/alone.conf"), &strict);
    SYSTEMD.to_owned()
}

/// A systemd that starts nothing; units that a test starts have no system around them that they could wait for.
fn install_lone_systemd(world: &Path) -> String {
    let alone = "[Unit]\nDefaultDependencies=no\n";
    write(world, "units/only.target", alone);
    for unit in [
        "qmqpd.socket",
        "qmqpd@.service",
        "qmqpd-accept.socket",
        "qmqpd-accept.service",
        "stunnel@.service",
    ] {
        write(world, &format!("units/{unit}.d/alone.conf"), alone);
    }
    format!("ip link set lo up\n{SYSTEMD}")
}

/// Puts the launcher's files into `world`, which is /etc/postfix and /run/keep inside; the steps that start it.
fn install(launcher: &Launcher, world: &Path, port: u16) -> String {
    let write = |name: &str, text: &str| write(world, name, text);
    match launcher {
        Launcher::Systemd { socket, service } => {
            let units = units(port, socket, service);
            install_units(world, "qmqpd.socket", "qmqpd@.service", units)
        }
        Launcher::SystemdAccept { service } => {
            let units = accepting_units(port, service);
            install_units(world, "qmqpd-accept.socket", "qmqpd-accept.service", units)
        }
        Launcher::BareSystemd => {
            let alone = "[Unit]\nDefaultDependencies=no\n";
            write("units/only.target", alone);
            let socket = format!("{alone}[Socket]\nListenStream=\nListenStream={port}\n");
            write("units/qmqpd.socket.d/alone.conf", &socket);
            write("units/qmqpd@.service.d/alone.conf", alone);
            SYSTEMD.to_owned()
        }
        Launcher::LoneSystemd => install_lone_systemd(world),
        Launcher::Xinetd => {
            write("xinetd", &adapted("scripts/xinetd/qmqpd", "= 628\n", port));
            XINETD.to_owned()
        }
        Launcher::XinetdAccept => {
            let text = adapted("scripts/xinetd/qmqpd-accept", "= 628\n", port);
            write("xinetd", &text);
            XINETD.to_owned()
        }
        Launcher::Inetd(_) => {
            let text = adapted("inetd.conf.example", "qmqpd", port);
            write(
                "inetd.conf",
                &text.replace("\nqmqp ", &format!("\n{port} ")),
            );
            INETD.to_owned()
        }
        Launcher::InetdAccept(_) => {
            let text = adapted("inetd.conf.example", "qmqpd", port);
            let lines = text.lines().filter(|line| line.ends_with(" --accept"));
            let lines: String = lines
                .map(|line| line.replace("#qmqp ", &format!("{port} ")) + "\n")
                .collect();
            write("inetd.conf", &lines);
            INETD.to_owned()
        }
        Launcher::Tcpserver => {
            let run = adapted("scripts/tcpserver/run", " 0 628 ", port);
            write("run", &run.replace("/etc/qmqpd/", "/etc/postfix/"));
            write("tcp.qmqp", &shipped("scripts/tcpserver/tcp.qmqp"));
            // Not with exec: a process that changes its user, as tcpserver does, is no longer ended with its parent. As
            // a child it goes with the shell, which is the first process of the namespace.
            "cd /etc/postfix\ntcprules tcp.qmqp.cdb tcp.qmqp.tmp <tcp.qmqp\nsh ./run &\nwait\n"
                .to_owned()
        }
    }
}

/// The units and the drop-ins asked for, by their names below /etc/systemd/system.
pub fn units(port: u16, socket: &[&str], service: &[&str]) -> Vec<(String, String)> {
    let mut files = vec![
        (
            "qmqpd.socket".to_owned(),
            adapted("scripts/systemd/qmqpd.socket", "ListenStream=628\n", port),
        ),
        (
            "qmqpd@.service".to_owned(),
            adapted("scripts/systemd/qmqpd@.service", "", port),
        ),
    ];
    for (unit, names) in [("qmqpd.socket", socket), ("qmqpd@.service", service)] {
        files.extend(names.iter().map(|name| {
            let text = adapted(&format!("scripts/systemd/drop-ins/{name}.conf"), "", port);
            (format!("{unit}.d/{name}.conf"), text)
        }));
    }
    files
}

/// The units that leave the accepting to the program, and drop-ins of the service.
pub fn accepting_units(port: u16, service: &[&str]) -> Vec<(String, String)> {
    let socket = "scripts/systemd/qmqpd-accept.socket";
    let mut files = vec![
        (
            "qmqpd-accept.socket".to_owned(),
            adapted(socket, "ListenStream=628\n", port),
        ),
        (
            "qmqpd-accept.service".to_owned(),
            adapted("scripts/systemd/qmqpd-accept.service", "", port),
        ),
    ];
    files.extend(service.iter().map(|name| {
        let text = adapted(&format!("scripts/systemd/drop-ins/{name}.conf"), "", port);
        (format!("qmqpd-accept.service.d/{name}.conf"), text)
    }));
    files
}

/// Sends `count` messages, `parallel` at a time, with nullmailer's client, or Postfix's where that is not to be had. Fails
/// if one is not accepted.
pub fn send_many(master: &Master, port: u16, count: usize, parallel: usize) {
    let nullmailer = std::env::var_os("QMQPD_NULLMAILER").map(PathBuf::from);
    let Some(nullmailer) = nullmailer.filter(|path| path.exists()) else {
        return send_with_postfix(&format!("inet:127.0.0.1:{port}"), count, parallel);
    };
    let message = master.dir.join("message");
    let text = "s@client.example\nr@rcpt.example\n\nSubject: t\n\nHello.\n";
    fs::write(&message, text).unwrap();
    thread::scope(|scope| {
        for _ in 0..parallel {
            scope.spawn(|| {
                for _ in 0..count / parallel {
                    send_with_nullmailer(&nullmailer, &message, port);
                }
            });
        }
    });
}

fn send_with_nullmailer(client: &Path, message: &Path, port: u16) {
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$0\" 3<\"$1\""])
        .args([client, message])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let where_to = format!("host=127.0.0.1\nport={port}\n\n");
    let mut input = child.stdin.take().unwrap();
    input.write_all(where_to.as_bytes()).unwrap();
    drop(input);
    let output = output_of(child);
    assert!(output.status.success(), "{output:?}");
}

/// Sends with qmqp-source(1) to an address in Postfix's form.
pub fn send_with_postfix(to: &str, count: usize, parallel: usize) {
    let mut source = Command::new("qmqp-source");
    source.args(["-f", "s@client.example", "-t", "r@rcpt.example"]);
    source.args(["-m", &count.to_string(), "-s", &parallel.to_string(), to]);
    let output = output(&mut source);
    assert!(output.status.success(), "{output:?}");
}

/// A connection from this address of the loopback network.
pub fn connect_from(from: [u8; 4], port: u16) -> TcpStream {
    let flags = SockFlag::SOCK_CLOEXEC;
    let client = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    let at = |address: [u8; 4], port| SockaddrStorage::from(SocketAddr::from((address, port)));
    bind(client.as_raw_fd(), &at(from, 0)).unwrap();
    connect(client.as_raw_fd(), &at([127, 0, 0, 1], port)).unwrap();
    let client = TcpStream::from(client);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Everything that the server says. It may close before it has read, so errors end what is said.
pub fn reply(mut client: impl Read + Write, request: &[u8]) -> String {
    drop(client.write_all(request));
    let mut said = Vec::new();
    drop(client.read_to_end(&mut said));
    String::from_utf8_lossy(&said).into_owned()
}
