//! What the scripts do to a machine besides what they are for: which packages they install, and what they leave behind.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use harness::launchers::why_no_namespaces;
use harness::master::until;

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
