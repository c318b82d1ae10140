//! What the scripts do to a machine besides what they are for: which packages they install, and what they leave behind.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use harness::launchers::{Launcher, World, connect_from, program, reply, why_no_namespaces};
use harness::master::{self, request, until};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes the place of apt-get: records its arguments after what has been said so far. `conflicting` can only be installed
/// where another package is removed, and `endless` takes longer than a test.
const APT_GET: &str = r#"#!/bin/sh
here=${0%/*}
cat "$here/said" >>"$here/calls"
echo "apt-get $*" >>"$here/calls"
case "$*" in
*endless*) touch "$here/started"; exec sleep 30 ;;
*conflicting*) echo "E: Packages need to be removed but remove is disabled."; exit 100 ;;
esac
"#;

/// Puts directories of the test's own over those of the machine: `$1` is the scratch directory.
const OVERLAY: &str = "\
mount --make-rprivate / && mkdir \"$1/upper\" \"$1/work\" &&
mount -t overlay -o \"lowerdir=/usr/sbin,upperdir=$1/upper,workdir=$1/work\" overlay /usr/sbin &&
rm -f /usr/sbin/policy-rc.d && shift && exec \"$@\"";

/// A directory that goes away with the test, and whose programs come before the machine's.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("qmqpd-packages-{}-{name}", std::process::id());
        let scratch = Scratch(std::env::temp_dir().join(name));
        fs::create_dir(&scratch.0).unwrap();
        scratch.program("apt-get", APT_GET);
        scratch.program("debconf-set-selections", "#!/bin/sh\ncat >/dev/null\n");
        fs::write(scratch.0.join("said"), "").unwrap();
        scratch
    }

    fn program(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
        fs::set_permissions(self.0.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn path(&self) -> String {
        format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.0.display())
    }

    /// A command of bash that has scripts/peers, in a file system whose /usr/sbin is its own. What it says goes to `said`.
    fn with_peers(&self, text: &str) -> Command {
        let mut command = Command::new("unshare");
        let said = File::create(self.0.join("said")).unwrap();
        command
            .args(["--mount", "sh", "-c", OVERLAY, "sh"])
            .arg(&self.0)
            // A trap counts only for a signal that is not ignored, as under nohup(1).
            .args(["env", "--default-signal=HUP,INT,TERM"])
            .args(["bash", "-c", &format!("set -eu; . scripts/peers; {text}")])
            .arg(&self.0)
            .current_dir(ROOT)
            .env("PATH", self.path())
            .env("QMQPD_SKIPPED", self.0.join("skipped"))
            .env_remove("QMQPD_INSTALL")
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said);
        command
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    /// Whether packages of the machine are still kept from starting daemons.
    fn has_policy(&self) -> bool {
        let path = self.0.join("upper/policy-rc.d");
        fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn is_missing(test: &str) -> bool {
    let reason = why_no_namespaces();
    if let Some(reason) = reason {
        harness::skip(test, reason);
    }
    reason.is_some()
}

#[test]
fn packages_are_named_before_they_are_installed_and_none_is_removed() {
    if is_missing("packages_are_named_before_they_are_installed_and_none_is_removed") {
        return;
    }
    let scratch = Scratch::new("named");
    let status = scratch
        .with_peers("want_peers qmqpd-one conflicting qmqpd-two; install_wanted")
        .status()
        .unwrap();
    let (said, calls) = (scratch.read("said"), scratch.read("calls"));
    assert!(status.success(), "{said}");
    let named = "installing by apt-get, and what they depend on: qmqpd-one conflicting qmqpd-two\n";
    assert!(calls.starts_with(named), "{calls}");
    let calls: Vec<&str> = calls
        .lines()
        .filter(|line| line.starts_with("apt-get "))
        .collect();
    let install = "apt-get install -y --no-remove --no-install-recommends";
    assert_eq!(
        calls,
        [
            "apt-get update".to_owned(),
            format!("{install} qmqpd-one conflicting qmqpd-two"),
            format!("{install} qmqpd-one"),
            format!("{install} conflicting"),
            format!("{install} qmqpd-two"),
        ]
    );
    let why = "not installed: conflicting: it does not go with the packages that are installed\n";
    assert!(said.ends_with(why), "{said}");
    assert_eq!(scratch.read("skipped"), why);
    assert!(!scratch.has_policy());
}

#[test]
fn where_nothing_may_be_installed_apt_get_is_not_started() {
    if is_missing("where_nothing_may_be_installed_apt_get_is_not_started") {
        return;
    }
    let scratch = Scratch::new("forbidden");
    let status = scratch
        .with_peers("want_peers qmqpd-one; install_wanted")
        .env("QMQPD_INSTALL", "no")
        .status()
        .unwrap();
    assert!(status.success(), "{}", scratch.read("said"));
    assert_eq!(scratch.read("calls"), "");
}

/// Takes the place of apt-cache(8), on a system with this rustc and these packages of other versions.
fn has_packages_of_rust(scratch: &Scratch, rustc: &str, names: &str) {
    let policy = format!("rustc:\n  Installed: (none)\n  Candidate: {rustc}\n");
    scratch.program(
        "apt-cache",
        &format!("#!/bin/sh\ncase $1 in policy) printf '{policy}' ;; pkgnames) printf '{names}' ;; esac\n"),
    );
}

#[test]
fn a_rust_that_is_too_old_is_named_and_not_installed() {
    if is_missing("a_rust_that_is_too_old_is_named_and_not_installed") {
        return;
    }
    let numbered = "cargo-1.74\\ncargo-1.91\\ncargo-1.85\\ncargo-1.85-doc\\n";
    for (rustc, names, package) in [
        ("1.63.0+dfsg1-2", "", None),
        ("1.84.1+dfsg1-1", "cargo-1.84\\n", None),
        ("1.85.0+dfsg3-1", numbered, Some("cargo")),
        ("1.100.0+dfsg1-1", "", Some("cargo")),
        ("1.75.0+dfsg0ubuntu1-0ubuntu7", numbered, Some("cargo-1.85")),
    ] {
        let scratch = Scratch::new(&format!("rust-{rustc}"));
        has_packages_of_rust(&scratch, rustc, names);
        scratch.program("cargo", "#!/bin/sh\necho cargo 1.63.0\n");
        let text = "rust_directories=; want_cargo; install_wanted";
        let mut command = scratch.with_peers(text);
        let status = command.env("HOME", &scratch.0).status().unwrap();
        let (said, calls) = (scratch.read("said"), scratch.read("calls"));
        assert_eq!(status.success(), package.is_some(), "{rustc}: {said}");
        let installs = calls
            .lines()
            .find(|line| line.starts_with("apt-get install"));
        let Some(package) = package else {
            assert_eq!(installs, None);
            let found = format!("rustc {rustc}. Nothing has been installed.\n");
            assert!(
                said.contains(&found) && said.contains("https://rustup.rs"),
                "{said}"
            );
            continue;
        };
        let is_wanted = installs.unwrap().split(' ').any(|word| word == package);
        assert!(is_wanted, "{rustc}: {calls}");
    }
}

#[test]
fn the_cargo_that_is_new_enough_is_found() {
    let scratch = Scratch::new("find-cargo");
    let cargo = |directory: &str, version: &str| {
        fs::create_dir_all(scratch.0.join(directory)).unwrap();
        let name = format!("{directory}/cargo");
        scratch.program(
            &name,
            &format!("#!/bin/sh\necho 'cargo {version} (x 2025-01-01)'\n"),
        );
    };
    let find = || {
        let text = "set -eu; . scripts/peers; rust_directories=\"$0/rust-*/bin\"; need_cargo; cargo --version";
        let output = Command::new("bash")
            .args(["-c", text])
            .arg(&scratch.0)
            .current_dir(ROOT)
            .env("PATH", scratch.path())
            .env("HOME", scratch.0.join("home"))
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    cargo(".", "1.84.1");
    let (found, said) = find();
    assert!(
        !found && said.starts_with("cargo 1.84.1 (x 2025-01-01) is too old.\n"),
        "{said}"
    );
    // From the last choice to the first.
    for (directory, version) in [
        ("rust-1.9/bin", "1.86.0"),
        ("rust-1.85/bin", "1.85.1"),
        ("home/.cargo/bin", "1.87.0"),
        (".", "1.85.0"),
    ] {
        cargo(directory, version);
        let expected = format!("cargo {version} (x 2025-01-01)\n");
        assert_eq!(find(), (true, expected));
    }
}

/// A program that asks for a library nobody has.
#[test]
fn an_unpacked_program_that_cannot_be_started_is_not_used() {
    let scratch = Scratch::new("unpack");
    let peers = scratch.0.join("target/peers/nullmailer");
    fs::create_dir_all(&peers).unwrap();
    let compile = |arguments: &[&str]| {
        let mut cc = Command::new("cc");
        let status = cc.args(arguments).current_dir(&peers).status();
        assert!(status.unwrap().success());
    };
    fs::write(peers.join("empty.c"), "int f(void) { return 0; }").unwrap();
    fs::write(
        peers.join("main.c"),
        "int f(void); int main(void) { return f(); }",
    )
    .unwrap();
    compile(&["-shared", "-o", "libempty.so", "empty.c"]);
    compile(&["-o", "client", "main.c", "./libempty.so"]);
    let unpack = || {
        let output = Command::new("bash")
            .args([
                "-c",
                "set -eu; . \"$0/scripts/peers\" 2>/dev/null; cd \"$1\"; unpack nullmailer client",
                ROOT,
            ])
            .arg(&scratch.0)
            .current_dir(ROOT)
            .env("PATH", scratch.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // The library is looked for where the program is started.
    assert_eq!(unpack(), "");
    fs::copy(peers.join("libempty.so"), scratch.0.join("libempty.so")).unwrap();
    assert_eq!(unpack(), format!("{}/client\n", peers.display()));
}

#[test]
fn an_interrupted_installation_leaves_no_policy_behind() {
    if is_missing("an_interrupted_installation_leaves_no_policy_behind") {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let scratch = Scratch::new(signal.as_str());
        let text = "trap 'echo own >\"$0/own\"' EXIT; want_peers endless; install_wanted; echo >\"$0/went-on\"";
        let mut child = scratch.with_peers(text).process_group(0).spawn().unwrap();
        let started = until(PATIENCE, || scratch.0.join("started").exists());
        assert!(started, "{}", scratch.read("said"));
        assert!(scratch.has_policy());
        killpg(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(signal as i32), "{signal}: {status}");
        let removed = until(PATIENCE, || !scratch.has_policy());
        assert!(removed, "{signal}");
        assert_eq!(scratch.read("own"), "own\n", "{signal}");
        assert!(!scratch.0.join("went-on").exists(), "{signal}");
    }
}

/// A policy of the administrator's stays; one that a killed script has left does not.
#[test]
fn only_a_policy_of_its_own_is_removed() {
    if is_missing("only_a_policy_of_its_own_is_removed") {
        return;
    }
    for (policy, stays) in [("exit 101", true), ("# by scripts/peers of qmqpd", false)] {
        let scratch = Scratch::new(&format!("policy-{stays}"));
        let text =
            format!("echo '{policy}' >/usr/sbin/policy-rc.d; want_peers qmqpd-one; install_wanted");
        let status = scratch.with_peers(&text).status().unwrap();
        assert!(status.success(), "{}", scratch.read("said"));
        assert_eq!(scratch.has_policy(), stays, "{policy}");
    }
}

/// What scripts/install needs of the source tree.
fn copy_of_the_tree(scratch: &Scratch) -> PathBuf {
    let tree = scratch.0.join("tree");
    fs::create_dir_all(tree.join("src")).unwrap();
    for name in [
        "scripts",
        "README.md",
        "LICENSE",
        "inetd.conf.example",
        "Cargo.toml",
        "Cargo.lock",
        "src/qmqpd.8",
        "src/lib.rs",
    ] {
        let copied = Command::new("cp")
            .args(["-rp", &format!("{ROOT}/{name}")])
            .arg(tree.join(name))
            .status();
        assert!(copied.unwrap().success(), "{name}");
    }
    tree
}

fn install(scratch: &Scratch, tree: &Path) -> Output {
    Command::new(tree.join("scripts/install"))
        .env("PATH", scratch.path())
        .env("HOME", &scratch.0)
        .env("DESTDIR", scratch.0.join("root"))
        .env_remove("QMQPD_BINARY")
        .output()
        .unwrap()
}

#[test]
fn a_program_that_is_built_is_installed_without_cargo_and_without_a_package() {
    let scratch = Scratch::new("built");
    let tree = copy_of_the_tree(&scratch);
    // This machine may have a cargo of its own.
    scratch.program(
        "cargo",
        "#!/bin/sh\necho cargo >>\"${0%/*}/calls\"\nexit 1\n",
    );
    let missing = install(&scratch, &tree);
    assert!(!missing.status.success());
    assert!(!scratch.read("calls").contains("apt-get"), "{missing:?}");
    fs::write(scratch.0.join("calls"), "").unwrap();

    let built = tree.join("target/release/qmqpd");
    fs::create_dir_all(built.parent().unwrap()).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_qmqpd"), &built).unwrap();
    let output = install(&scratch, &tree);
    assert!(output.status.success(), "{output:?}");
    assert!(scratch.0.join("root/usr/local/sbin/qmqpd").exists());
    assert_eq!(scratch.read("calls"), "");

    // A page for people is no part of the program.
    fs::write(tree.join("src/README.md"), "newer").unwrap();
    let again = install(&scratch, &tree);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(scratch.read("calls"), "");

    // One that is older than its source is not what the tree has.
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    File::options()
        .write(true)
        .open(&built)
        .unwrap()
        .set_modified(hour_ago)
        .unwrap();
    File::options()
        .write(true)
        .open(tree.join("src/lib.rs"))
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    let stale = install(&scratch, &tree);
    assert!(!stale.status.success(), "{stale:?}");
    assert!(scratch.read("calls").starts_with("cargo\n"), "{stale:?}");
}

#[test]
fn root_does_not_build_in_a_directory_of_another_user() {
    if is_missing("root_does_not_build_in_a_directory_of_another_user") {
        return;
    }
    let scratch = Scratch::new("owner");
    let tree = copy_of_the_tree(&scratch);
    std::os::unix::fs::chown(&tree, Some(1), None).unwrap();
    let output = install(&scratch, &tree);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("\"cargo build --release\" as daemon, then this again"),
        "{said}"
    );
    assert!(!tree.join("target").exists());
}

/// Before systemd: what dpkg and scripts/install write to is put over with memory, and the machine's own stays as it is.
const OWN_SYSTEM: &str = "\
for dir in /usr/sbin /usr/share /usr/lib/systemd /etc/systemd /var/lib/dpkg /var/lib/systemd /var/log /var/cache; do
    [ -d \"$dir\" ] || continue
    mkdir -p \"/run/over$dir/upper\" \"/run/over$dir/work\"
    mount -t overlay -o \"lowerdir=$dir,upperdir=/run/over$dir/upper,workdir=/run/over$dir/work\" overlay \"$dir\"
done
rm -f /usr/sbin/policy-rc.d
";

const SOCKET_LINK: &str = "/etc/systemd/system/sockets.target.wants/qmqpd.socket";
const LOCALHOST: [u8; 4] = [127, 0, 0, 1];

fn message() -> Vec<u8> {
    request(
        b"Subject: t\n\nHello.\n",
        "s@client.example",
        &["r@rcpt.example"],
    )
}

/// A systemd that has none of our units, and /usr/sbin/qmqpd not yet.
struct System(World);

impl System {
    fn boot(test: &str) -> Option<System> {
        System::boot_after(test, "")
    }

    /// As [`System::boot`], after more steps of the shell.
    fn boot_after(test: &str, steps: &str) -> Option<System> {
        if master::is_missing(test) || is_missing(test) {
            return None;
        }
        if program("systemd").is_none() || program("deb-systemd-helper").is_none() {
            harness::skip(test, "systemd or deb-systemd-helper is not installed");
            return None;
        }
        let system = System(World::start_after(
            &(OWN_SYSTEM.to_owned() + steps),
            &Launcher::BareSystemd,
            &[],
        ));
        let up = until(PATIENCE, || {
            system.0.run(&["systemctl", "is-active", "only.target"]).0
        });
        assert!(up, "{}", system.0.console());
        Some(system)
    }

    fn run(&self, words: &[&str]) -> String {
        let (succeeded, said) = self.0.run(words);
        assert!(succeeded, "{words:?}: {said}\n{}", self.0.console());
        said
    }

    fn is_active(&self) -> bool {
        self.0.run(&["systemctl", "is-active", "qmqpd.socket"]).0
    }

    fn is_open(&self) -> bool {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.0.port)).is_ok()
    }

    fn has(&self, path: &str) -> bool {
        self.0.run(&["test", "-L", path]).0 || self.0.run(&["test", "-e", path]).0
    }

    /// Each start of the unit has an id of its own.
    fn invocation(&self) -> String {
        self.run(&[
            "systemctl",
            "show",
            "--value",
            "--property=InvocationID",
            "qmqpd.socket",
        ])
    }

    fn sends(&self) {
        let said = reply(connect_from(LOCALHOST, self.0.port), &message());
        assert!(
            said.contains(":KOk: queued as "),
            "{said:?}\n{}",
            self.0.console()
        );
    }

    fn has_unit(&self) -> bool {
        let path = ["--value", "--property=FragmentPath", "qmqpd.socket"];
        let said = self.run(&[&["systemctl", "show"], &path[..]].concat());
        !said.trim().is_empty()
    }

    /// A client in the middle of its message.
    fn begin(&self) -> TcpStream {
        let mut client = connect_from(LOCALHOST, self.0.port);
        client.write_all(&message()[..20]).unwrap();
        let served = until(PATIENCE, || self.0.queued().1 == 1);
        assert!(served, "{}", self.0.log());
        client
    }

    fn end(&self, mut client: TcpStream) {
        client.write_all(&message()[20..]).unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert!(
            said.contains(":KOk: queued as "),
            "{said:?}\n{}",
            self.0.console()
        );
    }
}

/// Makes the package of Cargo.toml as it stands there, with the program under test, where the system finds it.
fn package(system: &System, revision: u32) -> String {
    let manifest = fs::read_to_string(format!("{ROOT}/Cargo.toml")).unwrap();
    let section = manifest.split("[package.metadata.deb]\n").nth(1).unwrap();
    let value = |name: &str| {
        let line = section
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} = \"")));
        line.unwrap().trim_end_matches('"').to_owned()
    };
    let staged = system
        .0
        .master
        .dir
        .join(format!("world/package-{revision}"));
    for line in section.lines().filter(|line| line.starts_with("    [\"")) {
        let words: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        let [from, to, mode] = words[..] else {
            panic!("{line}")
        };
        let from = from.replace("target/release/qmqpd", env!("CARGO_BIN_EXE_qmqpd"));
        let from = if from.starts_with('/') {
            from
        } else {
            format!("{ROOT}/{from}")
        };
        let script = format!("install -D -m {mode} -t \"$1\" {from}");
        let into = if to.ends_with('/') {
            to
        } else {
            to.rsplit_once('/').unwrap().0
        };
        let copied = Command::new("sh")
            .args(["-c", &script, "sh"])
            .arg(staged.join(into))
            .status();
        assert!(copied.unwrap().success(), "{line}");
    }
    let page = staged.join("usr/share/man/man8/qmqpd.8");
    let zipped = Command::new("gzip").arg("-9n").arg(page).status();
    assert!(zipped.unwrap().success());
    let control = format!(
        "Package: qmqpd\nVersion: {}-{revision}\nArchitecture: all\nMaintainer: {}\nDescription: test\n",
        env!("CARGO_PKG_VERSION"),
        value("maintainer")
    );
    fs::create_dir(staged.join("DEBIAN")).unwrap();
    fs::write(staged.join("DEBIAN/control"), control).unwrap();
    for script in ["preinst", "postinst", "prerm", "postrm"] {
        let from = format!("{ROOT}/{}/{script}", value("maintainer-scripts"));
        if Path::new(&from).exists() {
            fs::copy(from, staged.join("DEBIAN").join(script)).unwrap();
        }
    }
    let built = Command::new("dpkg-deb")
        .args(["--build", "--root-owner-group", "-Zgzip", "-z1"])
        .arg(&staged)
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    format!("/run/keep/package-{revision}.deb")
}

#[test]
fn the_package_starts_nothing_is_upgraded_while_it_serves_and_goes_wholly() {
    let test = "the_package_starts_nothing_is_upgraded_while_it_serves_and_goes_wholly";
    let Some(system) = System::boot(test) else {
        return;
    };
    let install = |revision| system.run(&["dpkg", "--install", &package(&system, revision)]);

    install(1);
    assert!(!system.is_active() && !system.is_open() && !system.has(SOCKET_LINK));
    install(2);
    assert!(
        !system.is_active() && !system.has(SOCKET_LINK),
        "nothing ran"
    );

    system.run(&["systemctl", "enable", "--now", "qmqpd.socket"]);
    system.sends();
    let (before, client) = (system.invocation(), system.begin());
    install(3);
    assert!(system.is_active() && system.has(SOCKET_LINK), "it ran");
    assert_ne!(system.invocation(), before, "restarted");
    system.end(client);
    system.sends();

    system.run(&["systemctl", "stop", "qmqpd.socket"]);
    install(4);
    assert!(
        !system.is_active(),
        "enabled, and stopped by the administrator"
    );
    system.run(&["systemctl", "start", "qmqpd.socket"]);

    let client = system.begin();
    system.run(&["dpkg", "--purge", "qmqpd"]);
    assert!(!system.is_open() && !system.is_active());
    assert!(!system.has(SOCKET_LINK));
    let state = system
        .0
        .run(&[
            "find",
            "/var/lib/systemd",
            "/etc/systemd",
            "-name",
            "qmqpd*",
        ])
        .1;
    assert_eq!(state, "");
    assert!(!system.has_unit());
    system.end(client);

    install(5);
    assert!(
        !system.is_active() && !system.has(SOCKET_LINK),
        "as the first time"
    );
}

/// A package that has the manual page of Postfix's program, as Debian 13's postfix has it.
fn package_with_a_page(system: &System) -> String {
    let staged = system.0.master.dir.join("world/page");
    let page = staged.join("usr/share/man/man8/qmqpd.8.gz");
    fs::create_dir_all(page.parent().unwrap()).unwrap();
    fs::write(page, "theirs").unwrap();
    fs::create_dir(staged.join("DEBIAN")).unwrap();
    let control =
        "Package: page\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: test\n";
    fs::write(staged.join("DEBIAN/control"), control).unwrap();
    let mut build = Command::new("dpkg-deb");
    build.args(["--build", "--root-owner-group", "-Zgzip", "-z1"]);
    let built = build.arg(&staged).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    "/run/keep/page.deb".to_owned()
}

#[test]
fn the_manual_page_of_postfix_moves_aside_and_comes_back() {
    const PAGE: &str = "/usr/share/man/man8/qmqpd.8.gz";
    const ASIDE: &str = "/usr/share/man/man8/qmqpd.postfix.8.gz";
    let test = "the_manual_page_of_postfix_moves_aside_and_comes_back";
    let Some(system) = System::boot(test) else {
        return;
    };
    let theirs = package_with_a_page(&system);
    let ours = package(&system, 1);
    let script = |argument: &str| {
        let shell = format!("cd {ROOT} && PREFIX=/usr scripts/install {argument}");
        let binary = format!("QMQPD_BINARY={}", env!("CARGO_BIN_EXE_qmqpd"));
        system.run(&["env", &binary, "sh", "-ec", &shell]);
    };
    let dpkg = |words: &[&str]| drop(system.run(&[&["dpkg"], words].concat()));
    let is_theirs = |path: &str| system.0.run(&["grep", "-q", "theirs", path]).0;
    // The machine that runs the tests can have the page of its own Postfix.
    system.run(&["rm", "-f", PAGE]);
    for (install, remove) in [
        (
            &(|| script("")) as &dyn Fn(),
            &(|| script("--uninstall")) as &dyn Fn(),
        ),
        (&|| dpkg(&["--install", &ours]), &|| {
            dpkg(&["--remove", "qmqpd"])
        }),
    ] {
        // Postfix is there first, or comes later.
        for is_first in [true, false] {
            if is_first {
                dpkg(&["--install", &theirs]);
            }
            install();
            dpkg(&["--install", &theirs]);
            assert!(is_theirs(ASIDE) && !is_theirs(PAGE), "{is_first}");
            system.run(&["gzip", "-t", PAGE]);
            remove();
            assert!(is_theirs(PAGE) && !system.has(ASIDE), "{is_first}");
            dpkg(&["--remove", "page"]);
            assert!(!system.has(PAGE));
        }
    }
}

/// Another Debian that has no Postfix: /etc and /var/spool are in memory as well.
const NO_POSTFIX: &str = "\
umount /etc/postfix /var/spool/postfix
umount /etc/systemd
for dir in /etc /var/spool; do
    mkdir -p \"/run/over$dir/upper\" \"/run/over$dir/work\"
    mount -t overlay -o \"lowerdir=$dir,upperdir=/run/over$dir/upper,workdir=/run/over$dir/work\" overlay \"$dir\"
done
rm -rf /etc/postfix /var/spool/postfix
";

/// The commands that README.md gives for a machine without Postfix.
fn commands_without_postfix() -> Vec<String> {
    let readme = fs::read_to_string(format!("{ROOT}/README.md")).unwrap();
    let (_, section) = readme.split_once("\n### Without Postfix\n").unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    let (block, _) = block.split_once("```\n").unwrap();
    // The harness knows this unit.
    let block = block.replace("qmqpd-accept.socket", "qmqpd.socket");
    block.lines().map(str::to_owned).collect()
}

#[test]
fn the_package_queues_mail_on_a_machine_without_postfix() {
    let test = "the_package_queues_mail_on_a_machine_without_postfix";
    let Some(system) = System::boot_after(test, NO_POSTFIX) else {
        return;
    };
    system.run(&["dpkg", "--install", &package(&system, 1)]);
    let commands = commands_without_postfix();
    assert_eq!(commands.len(), 3);
    for command in commands {
        system.run(&["sh", "-ec", &command]);
    }
    system.sends();
    let queue = "/var/spool/qmqpd/incoming";
    let file = system.run(&[
        "find", queue, "-type", "f", "-user", "qmqpd", "-perm", "0700",
    ]);
    let message = system.run(&["qmqpd", "--cat", file.trim()]);
    assert!(
        message.contains("Subject: t\n") && message.contains("\n\nHello.\n"),
        "{message}"
    );
    // A group of Postfix's that such a machine does not have.
    system.run(&["sed", "-i", "/^postdrop:/d", "/etc/group"]);
    let check = ["env", "MAIL_CONFIG=/etc/qmqpd", "qmqpd", "--check"];
    let said = system.run(&check);
    // The warning: no syslog daemon runs in there.
    let log = "the log is out of reach: /dev/log";
    assert!(
        said.contains(log) && said.contains("no errors, 1 warning\n"),
        "{said}"
    );
    // The same with one process that accepts, at the port of the test and without a system around it.
    system.run(&["sh", "-ec", OTHER_UNITS]);
    system.sends();
    let files = system.run(&["find", queue, "-type", "f", "-user", "qmqpd"]);
    assert_eq!(files.lines().count(), 2, "{files}");
}

/// What the harness adds to the units that it knows, added to the others; and these in the place of those.
const OTHER_UNITS: &str = "\
cd /run/systemd/system
cp -r qmqpd.socket.d qmqpd-accept.socket.d
cp -r qmqpd@.service.d qmqpd-accept.service.d
systemctl daemon-reload
systemctl stop qmqpd.socket
systemctl start qmqpd-accept.socket
";

/// A package that is removed and installed again is as it was before, but for the socket, which nobody opens.
#[test]
fn a_package_that_is_removed_keeps_what_was_enabled() {
    let test = "a_package_that_is_removed_keeps_what_was_enabled";
    let Some(system) = System::boot(test) else {
        return;
    };
    system.run(&["dpkg", "--install", &package(&system, 1)]);
    system.run(&["systemctl", "enable", "--now", "qmqpd.socket"]);
    system.run(&["dpkg", "--remove", "qmqpd"]);
    assert!(!system.is_open() && !system.is_active());
    assert!(system.has(SOCKET_LINK));
    system.run(&["dpkg", "--install", "/run/keep/package-1.deb"]);
    assert!(!system.is_active());
    assert_eq!(
        system.run(&["systemctl", "is-enabled", "qmqpd.socket"]),
        "enabled\n"
    );
    system.run(&["dpkg", "--remove", "qmqpd"]);
    system.run(&["dpkg", "--purge", "qmqpd"]);
    assert!(!system.has(SOCKET_LINK));
}

#[test]
fn scripts_install_closes_the_port_of_the_program_that_it_takes_away() {
    let test = "scripts_install_closes_the_port_of_the_program_that_it_takes_away";
    let Some(system) = System::boot(test) else {
        return;
    };
    // The directories of the caller that lie below /tmp are not in there.
    let built = system.0.master.dir.join("world/qmqpd");
    fs::copy(env!("CARGO_BIN_EXE_qmqpd"), built).unwrap();
    let scripts = Scratch::new("uninstall");
    let tree = copy_of_the_tree(&scripts);
    let to = system.0.master.dir.join("world/tree");
    assert!(
        Command::new("cp")
            .arg("-r")
            .args([&tree, &to])
            .status()
            .unwrap()
            .success()
    );
    let install = |prefix: &str, argument: &str| {
        let prefix = format!("PREFIX={prefix}");
        let script = "/run/keep/tree/scripts/install";
        system.run(&[
            "env",
            "QMQPD_BINARY=/run/keep/qmqpd",
            &prefix,
            script,
            argument,
        ])
    };
    install("/usr", "--systemd");
    assert!(!system.is_active());
    system.run(&["systemctl", "daemon-reload"]);
    system.run(&["systemctl", "enable", "--now", "qmqpd.socket"]);
    system.sends();

    install("/opt/other", "--uninstall");
    system.sends();
    assert!(system.has(SOCKET_LINK), "another program's");

    let client = system.begin();
    let said = install("/usr", "--uninstall");
    assert!(
        said.contains("qmqpd.socket is stopped and disabled"),
        "{said}"
    );
    assert!(!system.is_open() && !system.is_active());
    assert!(!system.has(SOCKET_LINK));
    assert!(!system.has_unit());
    system.end(client);
    install("/usr", "--uninstall");
}
