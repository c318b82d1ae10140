//! `scripts/install` in a scratch directory: what it puts where, what it leaves alone, what it takes away.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const OURS: &str = env!("CARGO_BIN_EXE_qmqpd");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A DESTDIR that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("qmqpd-install-{}-{name}", std::process::id());
        let scratch = Scratch(std::env::temp_dir().join(name));
        fs::create_dir(&scratch.0).unwrap();
        scratch
    }

    fn install(&self, arguments: &[&str]) -> Output {
        let output = Command::new(format!("{ROOT}/scripts/install"))
            .args(arguments)
            .env("DESTDIR", &self.0)
            .env("PREFIX", "/opt/mail")
            .env("QMQPD_BINARY", OURS)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        output
    }

    /// Each file with its mode, without the examples of the launchers.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.0, &mut found);
        let mut found: Vec<String> = found
            .iter()
            .map(|path| {
                let mode = fs::metadata(path).unwrap().permissions().mode() & 0o7777;
                format!("{mode:o} {}", path.strip_prefix(&self.0).unwrap().display())
            })
            .collect();
        found.sort();
        found
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn program_manual_and_examples_are_installed_and_work() {
    let scratch = Scratch::new("install");
    scratch.install(&[]);
    let files = scratch.files();
    for file in [
        "644 opt/mail/share/doc/qmqpd/LICENSE",
        "644 opt/mail/share/doc/qmqpd/README.md",
        "644 opt/mail/share/doc/qmqpd/examples/inetd.conf.example",
        "644 opt/mail/share/doc/qmqpd/examples/postfix/master.cf.example",
        "644 opt/mail/share/doc/qmqpd/examples/systemd/drop-ins/no-network.conf",
        "644 opt/mail/share/doc/qmqpd/examples/systemd/drop-ins/qmail-queue.conf",
        "755 opt/mail/share/doc/qmqpd/examples/tcpserver/run",
        "644 opt/mail/share/man/man8/qmqpd.8.gz",
        "755 opt/mail/sbin/qmqpd",
    ] {
        assert!(
            files.iter().any(|found| found == file),
            "{file}: {files:#?}"
        );
    }
    let outside = |file: &&String| !file.contains(" opt/mail/");
    assert_eq!(files.iter().filter(outside).count(), 0, "{files:#?}");
    let version = Command::new(scratch.0.join("opt/mail/sbin/qmqpd"))
        .arg("--version")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&version.stdout),
        concat!("qmqpd ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let example = scratch.read("opt/mail/share/doc/qmqpd/examples/inetd.conf.example");
    assert!(example.contains(" /opt/mail/sbin/qmqpd "), "{example}");
    assert!(!example.contains("/usr/sbin/qmqpd"), "{example}");
    let readme = scratch.read("opt/mail/share/doc/qmqpd/README.md");
    let manual = Command::new("gzip")
        .arg("-dc")
        .arg(scratch.0.join("opt/mail/share/man/man8/qmqpd.8.gz"))
        .output()
        .unwrap();
    let manual = String::from_utf8(manual.stdout).unwrap();
    for text in [readme, manual] {
        assert!(text.contains("/opt/mail/share/doc/qmqpd/examples"));
        assert!(text.contains("/opt/mail/sbin/qmqpd"));
        assert!(!text.contains("/usr/share/doc/qmqpd") && !text.contains("/usr/sbin/qmqpd"));
    }
}

#[test]
fn what_was_installed_is_taken_away_and_nothing_else() {
    let scratch = Scratch::new("uninstall");
    let own = "opt/mail/share/man/man8/other.8.gz";
    fs::create_dir_all(scratch.0.join(own).parent().unwrap()).unwrap();
    fs::write(scratch.0.join(own), "").unwrap();
    scratch.install(&["--systemd", "--xinetd"]);
    let service = scratch.read("opt/mail/lib/systemd/system/qmqpd@.service");
    assert!(service.contains("=/opt/mail/sbin/qmqpd"), "{service}");
    let said = scratch.install(&["--uninstall"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("until its next SIGHUP"), "{said}");
    let files = scratch.files();
    assert_eq!(files.len(), 1, "{files:#?}");
    assert!(files[0].ends_with(own), "{files:#?}");
}

#[test]
fn configuration_is_neither_overwritten_nor_taken_away() {
    let scratch = Scratch::new("xinetd");
    scratch.install(&["--xinetd"]);
    assert!(
        scratch
            .read("etc/xinetd.d/qmqpd")
            .contains("/opt/mail/sbin/qmqpd")
    );
    fs::write(scratch.0.join("etc/xinetd.d/qmqpd"), "mine\n").unwrap();
    let said = scratch.install(&["--xinetd"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("stays as it is"), "{said}");
    let said = scratch.install(&["--uninstall"]);
    assert_eq!(scratch.read("etc/xinetd.d/qmqpd"), "mine\n");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("no longer there"), "{said}");
}

#[test]
fn an_unknown_option_installs_nothing() {
    let scratch = Scratch::new("usage");
    let output = Command::new(format!("{ROOT}/scripts/install"))
        .arg("--unknown")
        .env("DESTDIR", &scratch.0)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let usage = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(usage.contains("scripts/install --uninstall"), "{usage}");
    assert_eq!(scratch.files(), Vec::<String>::new());
}

#[test]
fn the_package_has_files_that_exist_and_one_version() {
    let read = |name: &str| fs::read_to_string(format!("{ROOT}/{name}")).unwrap();
    let manifest = read("Cargo.toml");
    let (_, package) = manifest.split_once("\n[package.metadata.deb]\n").unwrap();
    let (package, _) = package.split_once("\n[").unwrap();
    let sources: Vec<&str> = package
        .lines()
        .filter_map(|line| line.trim().strip_prefix("[\"")?.split('"').next())
        .collect();
    assert!(sources.len() > 3, "{sources:?}");
    for source in sources {
        let built = source.starts_with("target/release/");
        let named = source.trim_end_matches("/*");
        assert!(built || Path::new(ROOT).join(named).exists(), "{source}");
    }
    let version = env!("CARGO_PKG_VERSION");
    let changelog = read("scripts/debian/changelog");
    let newest = changelog.lines().next().unwrap();
    assert!(
        newest.starts_with(&format!("qmqpd ({version}-")),
        "{newest}"
    );
    // Cargo sees to the other lock file with each build.
    let locked = format!("\nname = \"qmqpd\"\nversion = \"{version}\"\n");
    assert!(
        read("tests/fuzz/Cargo.lock").contains(&locked),
        "tests/fuzz/Cargo.lock"
    );
    let page = read("src/qmqpd.8");
    let title = page.lines().next().unwrap();
    assert!(title.contains(&format!("\"qmqpd {version}\"")), "{title}");
}
