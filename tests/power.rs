//! Power cuts: what a client has heard `K` for is on the disk.
//!
//! A queue on a [`disk`] of its own, under each of the file systems that people have. At the moment a client hears `K` the
//! disk is copied, once with what is in its write cache and once without. The copies are mounted, which replays a journal;
//! where there is none e2fsck(8) comes first, as at a start of the machine. The message must be there: its name, all of its
//! bytes, mode 0700. Beside method `file` Postfix's cleanup is tried, and what it loses is printed.
//!
//! That the test can fail is part of it: without the fsync of the file messages are lost. Without that of the directory
//! Linux 6.18 loses none, since each of these file systems puts the name of a new file on the disk with the file. POSIX
//! does not promise it; tests/queue_file.rs sees that the call is made before `K`.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

#[path = "power/disk.rs"]
mod disk;
#[path = "power/volume.rs"]
mod volume;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use disk::{Cache, Content};
use harness::launchers::why_no_namespaces;
use harness::master::{self, Master, queue_id, request};
use harness::queue_file::start;
use volume::{KINDS, Kind, Missing, Volume, run};

/// How many power cuts there are, and how many sessions at once where there is more than one.
const CUTS: usize = 20;
const CROWD: usize = 10;

/// How many power cuts a session gets that leaves out an fsync.
const BROKEN_CUTS: usize = 5;

/// What a client waits for its answer, and what all cuts of a kind of file system may take, in seconds: many times over.
const PATIENCE: Duration = Duration::from_secs(60);
const LIMIT: &str = "300";

/// The directory in which a process of this test works that has a mount namespace of its own.
const INSIDE: &str = "QMQPD_POWER";

/// How a message is put into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    File,
    /// Method `file` with subdirectories, which the first message in each has to make.
    Hashed,
    Cleanup,
    /// Method `file`, where one call of fsync does nothing and says that all is well: 1 is that of the file, 2 that of the
    /// directory.
    Without(usize),
}

impl Way {
    fn tracer(self) -> Vec<String> {
        let Way::Without(number) = self else {
            return Vec::new();
        };
        let inject = format!("inject=fsync:retval=0:when={number}");
        ["strace", "-o", "/dev/null", "-e", &inject]
            .map(str::to_owned)
            .to_vec()
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Way::File => &["qmqpd_queue_method=file"],
            Way::Hashed => &["qmqpd_queue_method=file", "hash_queue_names=incoming"],
            Way::Cleanup => &["qmqpd_queue_method=cleanup"],
            // No filter lets a call pass that strace has not made.
            Way::Without(_) => &["qmqpd_queue_method=file", "qmqpd_sandbox=no"],
        }
    }
}

/// So many power cuts, each with so many sessions at work at once.
#[derive(Debug, Clone, Copy)]
struct Series {
    way: Way,
    crowd: usize,
    count: usize,
}

/// A power cut: what was on the disk, and the messages of which clients had heard by then.
struct Cut {
    content: Content,
    heard: Vec<String>,
}

/// Sends a message, and does `heard` at the moment that the client hears of its queue id.
fn deliver(master: &Master, way: Way, marker: &str, heard: impl FnOnce(String)) {
    let tracer = way.tracer();
    let tracer: Vec<&str> = tracer.iter().map(String::as_str).collect();
    let (mut child, mut client) = start(master, &tracer, way.options());
    let content = format!("Subject: t\n\n{}", format!("{marker}\n").repeat(1500));
    let request = request(content.as_bytes(), "s@x.example", &["r@y.example"]);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(&request).unwrap();
    let mut reply = String::new();
    let mut byte = [0];
    while !reply.ends_with(',') && client.read(&mut byte).unwrap() == 1 {
        reply.push(char::from(byte[0]));
    }
    heard(queue_id(&reply).to_owned());
    drop(client);
    assert!(child.wait().unwrap().success());
}

/// Cuts the power when one of the sessions that are at work at once, another one each `turn`, has heard its answer.
fn cut(master: &Master, volume: &Volume, series: Series, turn: usize) -> Cut {
    let Series { way, crowd, .. } = series;
    let (heard, cut) = (Mutex::new(Vec::new()), Mutex::new(None));
    thread::scope(|scope| {
        for number in 0..crowd {
            let (heard, cut) = (&heard, &cut);
            scope.spawn(move || {
                let marker = format!("{way:?} {crowd} {turn} {number}");
                deliver(master, way, &marker, |id| {
                    let mut heard = heard.lock().unwrap();
                    heard.push(id);
                    if heard.len() == turn % crowd + 1 {
                        let (content, heard) = (volume.disk.content(), heard.clone());
                        *cut.lock().unwrap() = Some(Cut { content, heard });
                    }
                });
            });
        }
    });
    cut.into_inner().unwrap().unwrap()
}

/// The bytes of a message in the queue, if it is mail.
fn mail(incoming: &Path, id: &str) -> Option<Vec<u8>> {
    let hashed = incoming.join(&id[..1]).join(id);
    let path = Some(hashed).filter(|path| path.exists());
    let path = path.unwrap_or_else(|| incoming.join(id));
    let mode = fs::metadata(&path).ok()?.permissions().mode() & 0o7777;
    (mode == 0o700).then(|| fs::read(path).unwrap_or_default())
}

/// How many messages each series has lost, and of how many: with the disk's write cache, without it.
fn lost(kind: Kind, directory: &Path, all: &[Series]) -> Vec<[(usize, usize); 2]> {
    let volume = Volume::mount(kind, directory);
    let master = Master::start("", "");
    volume.sync();
    let cuts = all.iter().map(|&series| {
        let turns = 0..series.count;
        turns
            .map(|turn| cut(&master, &volume, series, turn))
            .collect()
    });
    let cuts: Vec<Vec<Cut>> = cuts.collect();
    let incoming = master.dir.join("queue/incoming");
    let mut whole = HashMap::new();
    for id in cuts.iter().flatten().flat_map(|cut| &cut.heard) {
        whole.insert(id, mail(&incoming, id).unwrap());
    }
    let below = incoming.strip_prefix(volume.root()).unwrap();
    drop(master);
    let copies = volume.unmount();
    let count = |cuts: &Vec<Cut>, cache| {
        let (mut lost, mut of) = (0, 0);
        for cut in cuts {
            of += cut.heard.len();
            lost += copies.look(&cut.content, cache, |root| {
                let is_lost = |id: &&String| mail(&root.join(below), id).as_ref() != whole.get(id);
                cut.heard.iter().filter(is_lost).count()
            });
        }
        (lost, of)
    };
    let counts = cuts
        .iter()
        .map(|cuts| [Cache::Kept, Cache::Lost].map(|cache| count(cuts, cache)));
    counts.collect()
}

/// Says why there can be no power cut here.
fn cannot_run(test: &str, kind: Kind) -> bool {
    if let Some(reason) = why_no_namespaces() {
        harness::skip(test, reason);
        return true;
    }
    let device = |name| File::options().read(true).write(true).open(name).is_ok();
    if !device("/dev/fuse") || !device("/dev/loop-control") {
        harness::skip_for_kernel(test, "no /dev/fuse or no /dev/loop-control");
        return true;
    }
    match kind.missing() {
        Some(Missing::Package(what)) => harness::skip(test, &what),
        Some(Missing::Kernel(what)) => harness::skip_for_kernel(test, &what),
        None if !Path::new("/usr/bin/strace").exists() => {
            harness::skip(test, "strace is not installed");
        }
        None => return master::is_missing(test),
    }
    true
}

/// Runs `test` once more, in namespaces: whatever that process ends by, nothing stays mounted, and no process is left.
///
/// It must not be the last one in its mount namespace, nor end by ^C: it would wait for a file system to be unmounted
/// whose disk is in itself. unshare(1) is there until all of them have ended. timeout(1) of coreutils 9.10 fails as the
/// first process of a namespace.
fn in_a_namespace(test: &str) {
    let directory = std::env::temp_dir().join(format!("qmqpd-power-{}-{test}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let status = Command::new("env")
        .args(["--ignore-signal=INT", "unshare", "--mount"])
        .args(["--pid", "--fork", "--mount-proc"])
        .args(["sh", "-c", "timeout \"$@\"; exit $?", "sh"])
        .args(["--kill-after=5", LIMIT])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, &directory)
        .env("TMPDIR", directory.join("mnt"))
        .status()
        .unwrap();
    fs::remove_dir(directory).unwrap();
    assert!(status.success());
}

fn survives(test: &str, kind: Kind) {
    let Some(directory) = std::env::var_os(INSIDE) else {
        if !cannot_run(test, kind) {
            in_a_namespace(test);
        }
        return;
    };
    let directory = Path::new(&directory);
    run(&["mount", "-t", "tmpfs", "tmpfs"], &[directory]);
    fs::create_dir(directory.join("mnt")).unwrap();
    let begin = Instant::now();
    let mut all = Vec::new();
    for way in [Way::File, Way::Cleanup] {
        all.extend([1, CROWD].map(|crowd| Series {
            way,
            crowd,
            count: CUTS,
        }));
    }
    all.push(Series {
        way: Way::Hashed,
        crowd: 1,
        count: CUTS,
    });
    for way in [Way::Without(1), Way::Without(2)] {
        all.push(Series {
            way,
            crowd: 1,
            count: BROKEN_CUTS,
        });
    }
    let mut text = format!(
        "Power cuts on {}: lost with the write cache, without it\n",
        kind.name
    );
    let counts = lost(kind, directory, &all);
    for (series, [kept, lost]) in all.iter().zip(&counts) {
        let Series { way, crowd, .. } = series;
        text += &format!(
            "  {way:?}, {crowd} at once: {} of {}, {} of {}\n",
            kept.0, kept.1, lost.0, lost.1
        );
    }
    text += &format!("  {:?}\n", begin.elapsed());
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    for (series, [kept, lost]) in all.iter().zip(&counts) {
        match series.way {
            Way::File | Way::Hashed => assert_eq!((kept.0, lost.0), (0, 0), "{series:?}"),
            Way::Without(1) => assert!(lost.0 > 0, "the test loses nothing: {series:?}"),
            Way::Without(_) | Way::Cleanup => {}
        }
    }
}

#[test]
fn on_ext4() {
    survives("on_ext4", KINDS[0]);
}

#[test]
fn on_ext4_without_journal() {
    survives("on_ext4_without_journal", KINDS[1]);
}

#[test]
fn on_xfs() {
    survives("on_xfs", KINDS[2]);
}

#[test]
fn on_btrfs() {
    survives("on_btrfs", KINDS[3]);
}
