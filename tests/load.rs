//! Crowds: clients that want nothing but to be waited for, by the hundred, in front of every launcher that has a limit.
//!
//! Fifteen hundred connect at once. A third of them stays silent, a third announces 10 MB and sends a byte of it a
//! second, a third announces as much and sends next to nothing of it. What has to hold: the memory of all the processes together
//! stays small, every one of these clients is cut off at its deadline, and honest clients who come in the middle of it are
//! served: at once where the launcher counts by address, else as soon as those before them in the line have been cut off.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

#[path = "load/crowd.rs"]
mod crowd;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crowd::{Crowd, Cut, KINDS, Kind, honest};
use harness::launchers::{self, Launcher, World, program};
use harness::master::{self, Master};

/// Clients of each kind.
const EACH: usize = 500;

/// Where the clients come from that mean no good.
const SOURCES: [[u8; 4]; 2] = [[127, 0, 0, 2], [127, 0, 0, 3]];

/// qmqpd_timeout and daemon_timeout, in seconds.
const TIMEOUT: u64 = 5;
const SESSION: u64 = 20;

/// How much later than at its deadline a session may end, by the log, on a machine that is busy with other things as well:
/// postlogd(8) has hundreds of lines to write in the same second, and each of the first two lines of a session may wait five
/// seconds for it.
const LATE: u64 = 12;

/// How much shorter than its deadline a session may be by the log: its first line may be the later one.
const EARLY: u64 = 4;

/// How long an honest client may wait where it is served at once, or when its turn has come; and how long if it comes
/// together with the crowd, while the launcher has yet to start processes for that, or to send it away.
const AT_ONCE: Duration = Duration::from_secs(4);
const TOGETHER: Duration = Duration::from_secs(20);

/// What a process may cost that waits for a client, in KiB: its share of all memory (PSS), on the average, and the most
/// that is its own.
const SHARE: u64 = 1024;
const OWN: u64 = 1024;

/// Places where the launcher has one limit for all, and how many may wait in line for them.
const PLACES: usize = 750;
const IN_LINE: usize = 2000;

/// The limits in the units, and in the file for xinetd: for one address, and for all.
const PLACES_PER_SOURCE: usize = 40;
const PLACES_SHIPPED: usize = 100;

/// Honest clients, one after another.
const HONEST: usize = 5;

/// For how long a crowd is watched: one that has to take turns, and one of which those who find no place are sent away.
const IN_TURN: Duration = Duration::from_secs(80);
const ONE_TURN: Duration = Duration::from_secs(40);

/// A thousand cleanup(8) processes are not what is tested: where there is one limit for all, messages go to files.
const MAIN_CF: &str = "\
qmqpd_authorized_clients = 127.0.0.0/8
qmqpd_peername_lookup = no
qmqpd_timeout = 5s
daemon_timeout = 20s
";
const WITHOUT_CLEANUP: &str = "qmqpd_queue_method = file\n";

fn say(line: &str) {
    let mut stderr = std::io::stderr();
    stderr.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Says why `test` cannot run, if it cannot; `needed` is what it starts.
fn is_missing(test: &str, needed: &str) -> bool {
    if master::is_missing(test) {
        return true;
    }
    let sockets = (EACH * KINDS.len() + 500) as u64;
    let reason = if program(needed).is_none() && !needed.is_empty() {
        format!("{needed} is not installed")
    } else if let Some(reason) = launchers::why_no_namespaces() {
        reason.to_owned()
    } else if !may_open(sockets) {
        format!("a process may not have {sockets} descriptors here")
    } else {
        return false;
    };
    harness::skip(test, &reason);
    true
}

fn may_open(descriptors: u64) -> bool {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft >= descriptors {
        return true;
    }
    hard >= descriptors && setrlimit(Resource::RLIMIT_NOFILE, descriptors, hard).is_ok()
}

/// The most that was seen of a set of processes.
#[derive(Debug, Default, Clone, Copy)]
struct Memory {
    processes: usize,
    /// In KiB: all of them together, and the largest one's own.
    share: u64,
    own: u64,
}

impl Memory {
    fn look(&mut self, processes: &[u32]) {
        let found: Vec<(u64, u64)> = processes.iter().filter_map(|&pid| memory_of(pid)).collect();
        self.processes = self.processes.max(found.len());
        self.share = self.share.max(found.iter().map(|(share, _)| share).sum());
        self.own = found.iter().fold(self.own, |own, found| own.max(found.1));
    }
}

/// Share and own memory of a process that has not ended.
fn memory_of(pid: u32) -> Option<(u64, u64)> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some((kib("Pss:")?, kib("Anonymous:")?))
}

/// Our processes in the launcher's namespace of processes.
fn processes_of(world: &World) -> Vec<u32> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(world.launcher());
    let all = fs::read_dir("/proc").unwrap();
    let numbers = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let ours = |pid: &u32| {
        let path = format!("/proc/{pid}/comm");
        fs::read_to_string(Path::new(&path)).is_ok_and(|name| name == "qmqpd\n")
            && namespace(*pid) == own
    };
    numbers.filter(ours).collect()
}

/// What came of it all.
struct Course {
    cuts: Vec<Cut>,
    memory: Memory,
    /// For each honest client: what it heard, when it came and when it had its answer.
    honest: Vec<(String, Instant, Instant)>,
}

/// Lets the crowd come, then honest clients, one after another.
fn course(port: u16, limit: Duration, processes: impl Fn() -> Vec<u32>) -> Course {
    let crowd = Crowd::new(port, &SOURCES, EACH);
    let (everybody_is_here, wait_for_everybody) = channel();
    let mut memory = Memory::default();
    thread::scope(|scope| {
        let crowd = scope.spawn(|| crowd.stay(limit, &everybody_is_here));
        let honest = scope.spawn(move || {
            wait_for_everybody.recv().unwrap();
            let clients = (0..HONEST).map(|_| {
                let came = Instant::now();
                let (said, at) = honest(port);
                thread::sleep(Duration::from_millis(500));
                (said, came, at)
            });
            clients.collect()
        });
        while !crowd.is_finished() {
            memory.look(&processes());
            thread::sleep(Duration::from_millis(500));
        }
        Course {
            cuts: crowd.join().unwrap(),
            memory,
            honest: honest.join().unwrap(),
        }
    })
}

/// How long the sessions lasted that ended at a deadline, in whole seconds: the shortest and the longest, and how many.
fn sessions(log: &str) -> HashMap<Kind, (u64, u64, usize)> {
    let mut begun: HashMap<&str, u64> = HashMap::new();
    let mut found = HashMap::new();
    for line in log.lines().filter(|line| line.contains("/qmqpd[")) {
        let (head, text) = line.split_once("]: ").unwrap();
        let (before, pid) = head.split_once('[').unwrap();
        let time = before.split_whitespace().nth(2).unwrap();
        let time = time
            .split(':')
            .fold(0, |sum, part| sum * 60 + part.parse::<u64>().unwrap());
        let kind = if text.starts_with("connect from") {
            begun.insert(pid, time);
            continue;
        } else if text == "fatal: watchdog timeout" {
            Kind::Trickling
        } else if text.contains("timeout while receiving message content") {
            Kind::Announcing
        } else if text.contains("timeout while receiving QMQP packet header") {
            Kind::Silent
        } else {
            continue;
        };
        // A day ends at midnight.
        let lasted = (time + 86_400 - begun[pid]) % 86_400;
        let (least, most, count) = found.entry(kind).or_insert((u64::MAX, 0, 0));
        *least = lasted.min(*least);
        *most = lasted.max(*most);
        *count += 1;
    }
    found
}

/// Everything that holds for any launcher. `places` is how many sessions there can be at a time, and `each` how many
/// processes make one.
fn is_withstood(name: &str, course: &Course, log: &str, places: usize, each: usize) {
    let memory = course.memory;
    say(&format!(
        "{name}: {} processes have {} MiB in all, none more than {} KiB of its own",
        memory.processes,
        memory.share / 1024,
        memory.own
    ));
    assert!(memory.processes <= places * each, "{name}: {memory:?}");
    assert!(
        memory.share <= memory.processes as u64 * SHARE && memory.own <= OWN,
        "{name}: {memory:?}"
    );
    for cut in &course.cuts {
        // Who is silent, and was in line where there was no room, may never hear that it was forgotten.
        let unknown = cut.at.is_none() && cut.kind == Kind::Silent;
        assert!(cut.at.is_some() || unknown, "{name}: {cut:?}");
        let said = String::from_utf8_lossy(&cut.said);
        let is_turned_away = said.contains(":ZError: too many connections from 127.0.0.");
        assert!(said.is_empty() || is_turned_away, "{name}: {cut:?}");
    }
    let sessions = sessions(log);
    for kind in KINDS {
        let (least, most, count) = sessions[&kind];
        say(&format!(
            "{name}: {kind:?}: {count} sessions of {least} to {most} s"
        ));
        let deadline = deadline(kind);
        assert!(
            least + EARLY >= deadline,
            "{name}: {kind:?} after {least} s"
        );
        assert!(most <= deadline + LATE, "{name}: {kind:?} after {most} s");
    }
    for (said, came, at) in &course.honest {
        say(&format!(
            "{name}: an honest client waited {:.1?}",
            *at - *came
        ));
        assert!(said.contains(":KOk: queued as "), "{name}: {said:?}");
    }
}

fn deadline(kind: Kind) -> u64 {
    match kind {
        Kind::Silent | Kind::Announcing => TIMEOUT,
        Kind::Trickling => SESSION,
    }
}

/// One limit for all: everybody has a session in the end, and honest clients their turn, at the latest when the last
/// client before them has been cut off.
fn are_served_in_turn(name: &str, course: &Course) {
    assert!(course.memory.processes > PLACES / 2, "{name}");
    for cut in &course.cuts {
        let lasted = cut.at.map(|at| at - cut.came);
        let deadline = Duration::from_secs(deadline(cut.kind));
        assert!(lasted.is_some_and(|it| it >= deadline), "{name}: {cut:?}");
    }
    let last = course.cuts.last().unwrap();
    assert_eq!(last.kind, Kind::Silent);
    let last = last.at.unwrap();
    for (_, came, at) in &course.honest {
        assert!(
            *at <= last.max(*came) + AT_ONCE,
            "{name}: {:?}",
            *at - *came
        );
    }
}

/// A limit for each address: whoever else comes from there is sent away, and nobody from elsewhere waits.
fn are_served_at_once(name: &str, course: &Course, log: &str) {
    let sessions: usize = sessions(log).values().map(|found| found.2).sum();
    assert!(sessions >= PLACES_PER_SOURCE, "{name}: {sessions} sessions");
    let limits = [TOGETHER].into_iter().chain(std::iter::repeat(AT_ONCE));
    for ((_, came, at), limit) in course.honest.iter().zip(limits) {
        assert!(*at <= *came + limit, "{name}: {:?}", *at - *came);
    }
}

#[test]
fn tcpserver_serves_everybody_in_turn() {
    if is_missing("tcpserver_serves_everybody_in_turn", "tcpserver") {
        return;
    }
    // To the log with times in it.
    let steps = format!(
        "sed -i -e 's/-c 100 -b 1000/-c {PLACES} -b {IN_LINE}/' -e s/stderr=yes/stderr=no/ /etc/postfix/run\n"
    );
    let mut world = World::start_after(&steps, &Launcher::Tcpserver, &[]);
    world.add_to_main_cf(&format!("{MAIN_CF}{WITHOUT_CLEANUP}"));
    world.wait_for_port();
    let course = course(world.port, IN_TURN, || processes_of(&world));
    is_withstood("tcpserver", &course, &world.log(), PLACES, 1);
    are_served_in_turn("tcpserver", &course);
    assert_eq!(world.queued(), (HONEST, 0));
}

/// A process that waits for its child counts as well. The line is as long as the larger one of two limits.
#[test]
fn master_serves_everybody_in_turn() {
    if is_missing("master_serves_everybody_in_turn", "") {
        return;
    }
    let port = master::free_port();
    let master = Master::start(
        &format!("{MAIN_CF}{WITHOUT_CLEANUP}default_process_limit = {IN_LINE}\n"),
        &format!("{port} inet n - n - {PLACES} qmqpd"),
    );
    let processes = || {
        let ours = master.processes("qmqpd").into_iter();
        ours.map(|pid| pid.as_raw().unsigned_abs()).collect()
    };
    let course = course(port, IN_TURN, processes);
    is_withstood("master", &course, &master.log(), PLACES, 2);
    are_served_in_turn("master", &course);
    assert_eq!(master.incoming().0.len(), HONEST);
    assert_eq!(master.incoming().1, Vec::<String>::new());
}

#[test]
fn systemd_keeps_a_place_for_others() {
    if is_missing("systemd_keeps_a_place_for_others", "systemd") {
        return;
    }
    let launcher = Launcher::Systemd {
        socket: launchers::poll_limit(),
        service: Vec::new(),
    };
    keeps_a_place_for_others("systemd", &launcher, 0);
}

#[test]
fn xinetd_keeps_a_place_for_others() {
    if is_missing("xinetd_keeps_a_place_for_others", "xinetd") {
        return;
    }
    keeps_a_place_for_others("xinetd", &Launcher::Xinetd, 0);
}

#[test]
fn a_process_that_accepts_keeps_a_place_for_others() {
    if is_missing("a_process_that_accepts_keeps_a_place_for_others", "systemd") {
        return;
    }
    let launcher = Launcher::SystemdAccept {
        service: Vec::new(),
    };
    keeps_a_place_for_others("systemd, --accept", &launcher, 1);
}

/// With the shipped files, in front of a real cleanup(8). So many processes are there besides the sessions, and stay.
fn keeps_a_place_for_others(name: &str, launcher: &Launcher, resident: usize) {
    let mut world = World::start(launcher, "");
    world.add_to_main_cf(MAIN_CF);
    world.wait_for_port();
    let course = course(world.port, ONE_TURN, || processes_of(&world));
    is_withstood(name, &course, &world.log(), PLACES_SHIPPED + resident, 1);
    are_served_at_once(name, &course, &world.log());
    assert_eq!(processes_of(&world).len(), resident, "{name}");
    assert_eq!(world.queued(), (HONEST, 0));
}
