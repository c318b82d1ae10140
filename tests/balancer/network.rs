//! Machines of one network: each is a namespace with an address, and one program that runs in it.
//!
//! The test itself goes on in a namespace of its own, in which [`WIRING`] has made a switch. It is the router, and has the
//! addresses of the clients.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::harness::patience::{PATIENCE, output, until};

/// The switch, with the router's address and those of the clients: `$1` to `$2` are the last numbers.
pub const WIRING: &str = "\
set -e
ip link set lo up
ip link add switch type bridge
ip addr add 192.0.2.254/24 dev switch
for number in $(seq \"$1\" \"$2\"); do
    ip addr add 198.51.100.$number/24 dev switch
done
ip link set switch up
";

/// From inside: an address, and the way to the clients.
const CONNECT: &str = "\
ip link set lo up && ip addr add \"$1/24\" dev eth0 && ip link set eth0 up && ip route add default via 192.0.2.254";

/// Says why there are no such networks here.
pub fn why_none() -> Option<&'static str> {
    let steps = format!("{WIRING}\nip link add port type veth peer name eth0");
    let try_it = Command::new("unshare")
        .args([
            "--net", "--pid", "--fork", "sh", "-c", &steps, "sh", "1", "2",
        ])
        .stderr(Stdio::null())
        .status();
    if try_it.is_ok_and(|status| status.success()) {
        None
    } else {
        Some(
            "no networks of its own (root, unshare, ip and a kernel with bridge and veth are needed)",
        )
    }
}

/// From inside: waits until the machine is plugged in, and runs its program. The shell stays the first process, with which
/// all others end. A program that changes its user, as HAProxy does, no longer ends with its parent.
const RUN: &str = "read -r plugged_in || exit 1; \"$0\" \"$@\" & wait";

/// A machine. Its processes end with the value.
pub struct Host {
    name: String,
    child: Child,
    /// What the kernel calls its network.
    network: PathBuf,
    /// The network is there for as long as this is open: what the kernel says to others at the end of a process arrives.
    _network: File,
}

impl Host {
    /// Plugs a machine in, and starts its program, which is found in the words' first one. What it says goes to `log`.
    pub fn start(name: &str, address: &str, words: &[&str], config: &Path, log: &Path) -> Host {
        let log = File::create(log).unwrap();
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(["unshare", "--kill-child=KILL", "--net", "--pid", "--fork"])
            .args(["sh", "-c", RUN])
            .args(words)
            .env("MAIL_CONFIG", config)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let pid = child.id();
        let network = format!("/proc/{pid}/ns/net");
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let is_apart = || fs::read_link(&network).is_ok_and(|its| its != own);
        assert!(until(PATIENCE, is_apart), "{name}: no network");
        let plug = format!(
            "ip link add {name} type veth peer name eth0 netns {pid} && ip link set {name} master switch up"
        );
        run(&["sh", "-c", &plug]);
        run(&[
            "nsenter",
            &format!("--net={network}"),
            "sh",
            "-c",
            CONNECT,
            "sh",
            address,
        ]);
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        Host {
            name: name.to_owned(),
            child,
            _network: File::open(&network).unwrap(),
            network: fs::read_link(&network).unwrap(),
        }
    }

    /// Cuts the machine off from the others, which are not told.
    pub fn unplug(&self) {
        run(&["ip", "link", "set", &self.name, "down"]);
    }

    /// Ends each process of the machine, with no time to do anything.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        self.child.wait().unwrap();
        let are_gone = until(PATIENCE, || !self.is_used());
        assert!(are_gone || thread::panicking(), "processes are left");
    }

    /// Whether a process is in its network.
    fn is_used(&self) -> bool {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let mut networks = processes.flat_map(|entry| fs::read_link(entry.path().join("ns/net")));
        networks.any(|network| network == self.network)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(words: &[&str]) {
    let output = output(Command::new(words[0]).args(&words[1..]));
    assert!(output.status.success(), "{words:?}: {output:?}");
}
