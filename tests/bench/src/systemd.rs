//! A systemd that starts our program with the units that are shipped.
//!
//! It is the first process of namespaces in which /etc/postfix and the queue are those of the bench's Postfix; so the
//! units are used as they stand, but for the port and the directory of the program. The network is the machine's, and
//! when systemd ends, everything in there has ended.

use std::fs::{self, File};
use std::io::{self, Error};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::instance::{self, Instance, until};
use crate::load;

const SOCKET: &str = include_str!("../../../scripts/systemd/qmqpd.socket");
const SERVICE: &str = include_str!("../../../scripts/systemd/qmqpd@.service");
const ACCEPT_SOCKET: &str = include_str!("../../../scripts/systemd/qmqpd-accept.socket");
const ACCEPT_SERVICE: &str = include_str!("../../../scripts/systemd/qmqpd-accept.service");

/// There is no system around them that they could wait for.
const ALONE: &str = "[Unit]\nDefaultDependencies=no\n";

/// `$1` is a directory with main.cf, units and console, `$2` the queue, `$3` our program, `$4` a name of our own.
const BOOT: &str = "\
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind \"$1\" /etc/postfix
mount --bind \"$2\" /var/spool/postfix
mount -t tmpfs -o mode=755 tmpfs /usr/local/sbin
: >/usr/local/sbin/qmqpd
mount --bind \"$3\" /usr/local/sbin/qmqpd
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd /run/lock
cp -r \"$1/units\" /run/systemd/system
for unit in tmpfiles-setup tmpfiles-setup-dev tmpfiles-clean journald udevd; do
    ln -s /dev/null /run/systemd/system/systemd-$unit.service
done
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
own=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/$4
mkdir \"$own\"
echo $$ >\"$own/cgroup.procs\"
mount --bind \"$1/console\" /dev/console
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /var/tmp
exec unshare --cgroup sh -c 'umount /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs tmpfs /dev/shm
exec env -i container=private PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    /lib/systemd/systemd --system --unit=only.target --log-target=console'
";

/// Removes the control groups that a killed systemd leaves. `$1` is the name of its own.
const REMOVE_GROUPS: &str = "\
mount --make-rprivate /
mount -t tmpfs tmpfs /tmp
mkdir /tmp/groups
mount -t cgroup2 none /tmp/groups
find /tmp/groups -depth -type d -path \"*/$1*\" -exec rmdir {} +
";

pub struct Systemd {
    pub port: u16,
    child: Child,
}

impl Systemd {
    /// Boots, and returns when a message has been received.
    pub fn start(instance: &Instance, ours: &Path, accept: bool) -> io::Result<Systemd> {
        let port = instance::free_port()?;
        let world = instance
            .dir
            .join(if accept { "world-accept" } else { "world" });
        install(&world, instance, port, accept)?;
        let console = File::create(world.join("console"))?;
        // The first process of the namespaces ends with unshare, and unshare with us.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(["unshare", "--kill-child=KILL", "--pid", "--fork"])
            .args(["--mount", "--uts", "--ipc", "sh", "-c", BOOT, "boot"])
            .args([&world, &instance.dir.join("queue")])
            .arg(ours)
            .arg(name(port))
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()?;
        let systemd = Systemd { port, child };
        let request = crate::SMALL.request();
        if until(Duration::from_secs(10), || {
            load::message(port, &request).is_ok()
        }) {
            return Ok(systemd);
        }
        let console = fs::read(world.join("console"))?;
        let console = String::from_utf8_lossy(&console);
        let last = console.trim().lines().next_back().unwrap_or("nothing");
        Err(Error::other(format!("no reply; the console says: {last}")))
    }
}

impl Systemd {
    /// The process that starts its processes in there.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // The last processes may still be on their way out.
        until(Duration::from_secs(2), || {
            let mut remove = Command::new("unshare");
            remove
                .args(["--mount", "sh", "-c", REMOVE_GROUPS, "remove"])
                .arg(name(self.port));
            remove
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        });
    }
}

/// A name that no other systemd has.
fn name(port: u16) -> String {
    format!("qmqpd-bench-{}-{port}", std::process::id())
}

/// Writes what is /etc/postfix inside.
fn install(world: &Path, instance: &Instance, port: u16, accept: bool) -> io::Result<()> {
    let write = |name: &str, text: &str| {
        let path = world.join(name);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, text)
    };
    let main_cf = fs::read_to_string(instance.config_directory().join("main.cf"))?;
    let queue = instance.dir.join("queue").display().to_string();
    // All clients have one address.
    let limits = "qmqpd_process_limit = 2000\nqmqpd_client_connection_count_limit = 0\n";
    let main_cf = main_cf.replace(&queue, "/var/spool/postfix") + limits;
    write("main.cf", &main_cf)?;
    let listen = format!("ListenStream=127.0.0.1:{port}\n");
    let in_there = |service: &str| service.replace("/usr/sbin/qmqpd", "/usr/local/sbin/qmqpd");
    if accept {
        write(
            "units/only.target",
            "[Unit]\nDefaultDependencies=no\nWants=qmqpd-accept.socket\n",
        )?;
        let socket = ACCEPT_SOCKET.replace("ListenStream=628\n", &listen);
        write("units/qmqpd-accept.socket", &socket)?;
        write("units/qmqpd-accept.service", &in_there(ACCEPT_SERVICE))?;
        write("units/qmqpd-accept.socket.d/bench.conf", ALONE)?;
        return write("units/qmqpd-accept.service.d/bench.conf", ALONE);
    }
    write(
        "units/only.target",
        "[Unit]\nDefaultDependencies=no\nWants=qmqpd.socket\n",
    )?;
    write(
        "units/qmqpd.socket",
        &SOCKET.replace("ListenStream=628\n", &listen),
    )?;
    // All clients have one address.
    let many = "[Socket]\nMaxConnectionsPerSource=100\n";
    write("units/qmqpd.socket.d/bench.conf", &format!("{ALONE}{many}"))?;
    write("units/qmqpd@.service", &in_there(SERVICE))?;
    write("units/qmqpd@.service.d/bench.conf", ALONE)
}
