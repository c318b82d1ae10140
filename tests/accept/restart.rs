//! The end of the process, and what becomes of connections and sessions.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::launchers::{connect_from, reply, send_with_postfix};
use crate::harness::patience::{PATIENCE, until};
use crate::launcher::{
    LOCALHOST, Launcher, finish, hears_nothing, is_running, message, sees_descriptors, signal,
    wait_for_end,
};

/// And a little more.
const A_SECOND: Duration = Duration::from_millis(1100);

#[test]
fn many_clients_are_served_by_one_process_and_each_by_a_child() {
    let launcher = Launcher::start(&[]);
    let sessions: Vec<_> = (0..10).map(|_| launcher.begin()).collect();
    assert_eq!(launcher.children().len(), 10);
    let test = "many_clients_are_served_by_one_process_and_each_by_a_child";
    if sees_descriptors(test) {
        let children = sessions.iter().map(|(_, child)| *child);
        have_only_the_log_in_common(&launcher, children);
    }
    for (client, _) in sessions {
        assert!(finish(client).contains(":KOk: queued as "));
    }
    assert_eq!(launcher.queued(), 10);
    assert!(until(PATIENCE, || launcher.children().is_empty()));
    assert_eq!(launcher.processes().len(), 1, "{}", launcher.log());
}

/// None of the children has anything of the process's but the log.
fn have_only_the_log_in_common(launcher: &Launcher, children: impl Iterator<Item = u32>) {
    let own = descriptors(launcher.resident());
    assert!(own.iter().any(|to| to.contains("signalfd")), "{own:?}");
    for child in children {
        let shared = descriptors(child)
            .intersection(&own)
            .cloned()
            .collect::<Vec<_>>();
        let log = launcher.instance.dir.join("log");
        assert_eq!(shared, [log.to_str().unwrap()]);
    }
}

/// What the descriptors of a process lead to.
fn descriptors(pid: u32) -> BTreeSet<String> {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    all.map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
        .map(|to| to.to_string_lossy().into_owned())
        .collect()
}

/// The process is to go, the session stays and is served, and the next client has a new process.
fn makes_room(what: &str, launcher: &Launcher, go: impl FnOnce(u32)) {
    let (client, child) = launcher.begin();
    let resident = launcher.resident();
    go(resident);
    wait_for_end(resident);
    assert!(is_running(child), "{what}");
    let said = launcher.send();
    assert!(said.contains(":KOk: queued as "), "{what}: {said}");
    assert_ne!(launcher.resident(), resident, "{what}");
    let said = finish(client);
    assert!(said.contains(":KOk: queued as "), "{what}: {said}");
    wait_for_end(child);
}

#[test]
fn sessions_go_on_when_the_process_makes_room_for_another_one() {
    let launcher = Launcher::start(&[]);
    makes_room("SIGHUP", &launcher, |pid| signal(pid, Signal::SIGHUP));
    makes_room("SIGTERM", &launcher, |pid| signal(pid, Signal::SIGTERM));
    makes_room("SIGKILL", &launcher, |pid| signal(pid, Signal::SIGKILL));
    makes_room("main.cf", &launcher, |_| {
        // In its first second the process does not look.
        thread::sleep(A_SECOND);
        launcher.set(&["qmqpd_authorized_clients = 127.0.0.1"]);
        // The next connection finds that out.
        drop(launcher.connect());
    });
    assert_eq!(
        launcher.count_in_log("main.cf has changed -- restarting"),
        1
    );
    assert_eq!(launcher.queued(), 8);
}

#[test]
fn what_main_cf_and_its_tables_say_holds_from_the_next_connection_on() {
    let launcher = Launcher::start(&[]);
    for (round, lines) in [
        ["qmqpd_authorized_clients = 127.0.0.2"],
        ["qmqpd_authorized_clients = 127.0.0.1"],
        ["qmqpd_timeout = soon"],
        ["qmqpd_timeout = 10s"],
    ]
    .iter()
    .enumerate()
    {
        // A process in its first second does not look, and one that cannot serve says so for a second.
        thread::sleep(A_SECOND);
        launcher.set(lines);
        let expected = [":D", ":K", ":ZError: server configuration error", ":K"][round];
        let said = launcher.send();
        assert!(
            said.contains(expected),
            "{lines:?}: {said:?}\n{}",
            launcher.log()
        );
    }
}

/// A main.cf that is wrong is told to each client at once, and nothing has to be mended but that. The launcher does not
/// have to start a process for each of them.
#[test]
fn a_process_that_cannot_serve_tells_clients_so() {
    let launcher = Launcher::start(&["qmqpd_timeout = soon"]);
    let begin = Instant::now();
    for _ in 0..20 {
        let said = launcher.send();
        assert!(
            said.contains(":ZError: server configuration error"),
            "{said:?}"
        );
    }
    let seconds = begin.elapsed().as_secs();
    assert!(launcher.processes().len() as u64 <= seconds + 1);
    launcher.set(&["qmqpd_timeout = 10s"]);
    let fails = || launcher.send().contains(":Z");
    assert!(until(PATIENCE, || !fails()));
}

#[test]
fn a_process_without_a_session_ends_after_max_idle() {
    let launcher = Launcher::start(&["max_idle = 1s"]);
    let (client, _) = launcher.begin();
    let resident = launcher.resident();
    thread::sleep(Duration::from_secs(2));
    assert!(is_running(resident));
    assert!(finish(client).contains(":KOk: queued as "));
    wait_for_end(resident);
}

/// Clients that wait for a place when the process is killed are served by the next one.
#[test]
fn the_end_of_the_process_loses_no_connection_in_line() {
    const IN_LINE: usize = 50;
    let launcher = Launcher::start(&["qmqpd_process_limit = 1"]);
    let (client, child) = launcher.begin();
    let (resident, port) = (launcher.resident(), launcher.port);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..IN_LINE)
            .map(|_| scope.spawn(move || reply(connect_from(LOCALHOST, port), &message())))
            .collect();
        // The line cannot be looked at; all clients have a second to get there.
        thread::sleep(Duration::from_secs(1));
        assert_eq!(launcher.children(), [child]);
        signal(resident, Signal::SIGKILL);
        for client in clients {
            let said = client.join().unwrap();
            assert!(said.contains(":KOk: queued as "), "{said:?}");
        }
    });
    assert!(finish(client).contains(":KOk: queued as "));
    assert_eq!(launcher.queued(), IN_LINE + 1);
}

/// A main.cf that never rests: each process reads it, serves clients, and makes room for the next one.
#[test]
fn no_message_is_lost_while_main_cf_changes_all_the_time() {
    const MESSAGES: usize = 2000;
    let launcher = Launcher::start(&[]);
    let path = launcher.instance.config_directory().join("main.cf");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                let file = fs::File::options().append(true).open(&path).unwrap();
                file.set_modified(std::time::SystemTime::now()).unwrap();
                thread::sleep(Duration::from_millis(500));
            }
        });
        let to = format!("inet:127.0.0.1:{}", launcher.port);
        let begin = Instant::now();
        for _ in 0..20 {
            send_with_postfix(&to, MESSAGES / 20, 10);
        }
        let line = format!(
            "{MESSAGES} messages in {:.1?}, by {} processes\n",
            begin.elapsed(),
            launcher.processes().len()
        );
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        done.store(true, Relaxed);
    });
    assert_eq!(launcher.queued(), MESSAGES);
    assert!(launcher.processes().len() > 1);
    assert!(launcher.count_in_log("main.cf has changed -- restarting") > 0);
}

/// A child that is ended from outside costs its own client the session, and no other client anything.
#[test]
fn a_child_that_is_killed_or_stopped_costs_no_other_client_anything() {
    let launcher = Launcher::start(&["daemon_timeout = 1s", "qmqpd_process_limit = 2"]);
    let (client, child) = launcher.begin();
    signal(child, Signal::SIGKILL);
    assert!(hears_nothing(&client));
    launcher.wait_for_log(&format!("process {child} killed by signal 9"), "warning");
    assert!(launcher.send().contains(":KOk: queued as "));

    let (client, child) = launcher.begin();
    signal(child, Signal::SIGSTOP);
    assert!(launcher.send().contains(":KOk: queued as "));
    // It does not watch its time any more; its parent does, and some more.
    assert!(until(PATIENCE, || !is_running(child)), "{}", launcher.log());
    assert!(hears_nothing(&client));
    assert!(launcher.send().contains(":KOk: queued as "));
    assert_eq!(launcher.queued(), 3);
    assert_eq!(launcher.processes().len(), 1, "{}", launcher.log());
}
