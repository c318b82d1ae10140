//! How many sessions there are, whose, and what they may take; and what is done when the system has no more to give.

use std::fs;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

use crate::harness::instance::mail_owner;
use crate::harness::launchers::reply;
use crate::harness::patience::{PATIENCE, is_readable, output, until};
use crate::harness::skip;
use crate::launcher::{Launcher, finish, message};

const OTHER: [u8; 4] = [127, 0, 0, 2];

/// How long a client waits that must not be served.
const A_WHILE: Duration = Duration::from_secs(1);

#[test]
fn past_the_limit_of_processes_clients_wait() {
    let launcher = Launcher::start(&["qmqpd_process_limit = 3"]);
    let mut sessions: Vec<_> = (0..3).map(|_| launcher.begin().0).collect();
    let waiting = launcher.connect_from(OTHER);
    let port = launcher.port;
    thread::scope(|scope| {
        let heard = scope.spawn(move || reply(waiting, &message()));
        thread::sleep(A_WHILE);
        assert!(!heard.is_finished());
        assert_eq!(launcher.children().len(), 3, "{port}");
        assert!(finish(sessions.pop().unwrap()).contains(":KOk: queued as "));
        let said = heard.join().unwrap();
        assert!(said.contains(":KOk: queued as "), "{said}");
    });
}

/// What a client hears that sends nothing.
fn heard(mut client: TcpStream) -> String {
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn a_client_has_its_share_and_hears_z_past_it() {
    let launcher = Launcher::start(&["qmqpd_client_connection_count_limit = 2"]);
    let mut sessions: Vec<_> = (0..2).map(|_| launcher.begin().0).collect();
    for _ in 0..5 {
        let said = heard(launcher.connect());
        assert_eq!(said, "43:ZError: too many connections from 127.0.0.1,");
    }
    // Others are served meanwhile.
    let said = reply(launcher.connect_from(OTHER), &message());
    assert!(said.contains(":KOk: queued as "), "{said}");
    launcher.wait_for_log(
        "warning: too many connections from 127.0.0.1: it has 2, and 1 more",
        "",
    );
    assert_eq!(
        launcher.count_in_log("too many connections"),
        1,
        "{}",
        launcher.log()
    );
    // A place that is free again is free for it.
    assert!(finish(sessions.pop().unwrap()).contains(":KOk: queued as "));
    assert!(until(PATIENCE, || launcher.children().len() == 1));
    assert!(launcher.send().contains(":KOk: queued as "));
    assert_eq!(launcher.queued(), 3);
}

#[test]
fn addresses_of_one_network_are_one_client_where_main_cf_says_so() {
    let launcher = Launcher::start(&[
        "qmqpd_client_connection_count_limit = 1",
        "qmqpd_client_ipv4_prefix_length = 24",
    ]);
    let _session = launcher.begin();
    let said = heard(launcher.connect_from(OTHER));
    assert!(
        said.contains(":ZError: too many connections from 127.0.0.2"),
        "{said}"
    );
    launcher.wait_for_log("too many connections from 127.0.0.0/24: ", "");
    let said = reply(launcher.connect_from([127, 0, 1, 1]), &message());
    assert!(said.contains(":KOk: queued as "), "{said}");
}

/// Set inside of the network namespace in which a test goes on.
const INSIDE: &str = "QMQPD_TEST_NETWORK";

/// One host has a whole /64, and takes an address of it for each connection. It gets no more than its share.
#[test]
fn a_host_with_a_network_of_ipv6_has_one_share() {
    let test = "a_host_with_a_network_of_ipv6_has_one_share";
    if std::env::var_os(INSIDE).is_none() {
        return in_a_network(&format!("limits::{test}"));
    }
    let launcher = Launcher::start(&["qmqpd_client_connection_count_limit = 3"]);
    let from = |address: &str| connect_from_ipv6(address, launcher.port);
    let hosts: Vec<String> = (1..=8).map(|host| format!("2001:db8::{host}")).collect();
    let sessions: Vec<TcpStream> = hosts.iter().map(|host| from(host)).collect();
    let (served, turned_away) = sessions.split_at(3);
    for client in turned_away {
        let said = heard(client.try_clone().unwrap());
        assert!(
            said.contains(":ZError: too many connections from 2001:db8::"),
            "{said}"
        );
    }
    launcher.wait_for_log("too many connections from 2001:db8::/64: it has 3", "");
    let said = reply(from("2001:db8:0:1::1"), &message());
    assert!(said.contains(":KOk: queued as "), "{said}");
    for client in served {
        let said = reply(client.try_clone().unwrap(), &message());
        assert!(said.contains(":KOk: queued as "), "{said}");
    }
}

/// Runs a test once more, in a network of its own with addresses of two IPv6 networks.
fn in_a_network(test: &str) {
    let addresses: String = (1..=8)
        .map(|host| format!("2001:db8::{host}"))
        .chain(["2001:db8:0:1::1".to_owned()])
        .map(|address| format!("ip -6 addr add {address}/64 dev lo nodad && "))
        .collect();
    let steps = format!("ip link set lo up && {addresses} exec \"$0\" --exact \"$1\" --nocapture");
    let unshare = |steps: &str| {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", steps]);
        command
    };
    let can = unshare("ip link set lo up && ip -6 addr add 2001:db8::9/64 dev lo nodad")
        .stderr(Stdio::null())
        .status();
    if !can.is_ok_and(|status| status.success()) {
        return skip(
            test,
            "no network with IPv6 of its own (root, unshare and ip are needed)",
        );
    }
    let mut command = unshare(&steps);
    command
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(INSIDE, "1");
    let output = output(&mut command);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{output:?}"
    );
}

fn connect_from_ipv6(from: &str, port: u16) -> TcpStream {
    let flags = SockFlag::SOCK_CLOEXEC;
    let client = socket(AddressFamily::Inet6, SockType::Stream, flags, None).unwrap();
    let at = |address: &str, port| {
        let address: IpAddr = address.parse().unwrap();
        SockaddrStorage::from(SocketAddr::from((address, port)))
    };
    bind(client.as_raw_fd(), &at(from, 0)).unwrap();
    connect(client.as_raw_fd(), &at("::1", port)).unwrap();
    let client = TcpStream::from(client);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// The soft limit of data of a process, in bytes.
fn data_limit(pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max data size"));
    line.unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .ok()
}

#[test]
fn a_child_may_have_its_message_and_four_mebibytes_more() {
    for (limit, message) in [("0", None), ("1000000", Some(1_000_000))] {
        let launcher = Launcher::start(&[&format!("message_size_limit = {limit}")]);
        let (client, child) = launcher.begin();
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmData:"));
        let has: u64 = line
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        match (message, data_limit(child)) {
            (None, limit) => assert_eq!(limit, None),
            (Some(message), Some(limit)) => {
                let more = limit - message - (4 << 20);
                // What it has, and the stack. A child has taken a little by now.
                let most = has * 1024 + (256 << 10);
                assert!(more > 0 && more <= most, "{more} of {most}");
            }
            (Some(_), None) => panic!("no limit"),
        }
        assert!(finish(client).contains(":KOk: queued as "));
    }
}

#[test]
fn the_largest_message_fits_into_that() {
    let launcher = Launcher::start(&["message_size_limit = 20000000"]);
    let line = [b"x".repeat(99).as_slice(), b"\n"].concat();
    let content = [b"Subject: t\n\n".as_slice(), &line.repeat(190_000)].concat();
    let large = crate::harness::master::request(&content, "s@client.example", &["r@rcpt.example"]);
    let said = reply(launcher.connect(), &large);
    assert!(
        said.contains(":KOk: queued as "),
        "{said}\n{}",
        launcher.log()
    );
}

/// A program in the place of qmail-queue has needs of its own.
#[test]
fn a_program_has_the_limit_that_the_launcher_has() {
    let launcher = Launcher::start(&["qmqpd_queue_method = qmail:DIR/queue/program"]);
    let text = "#!/bin/sh\ncat >/dev/null\ncat <&1 >/dev/null\nulimit -d >limit\n";
    launcher.instance.write_program("queue/program", text);
    let said = launcher.send();
    assert!(
        said.contains(":KOk: queued as "),
        "{said}\n{}",
        launcher.log()
    );
    let limit = fs::read_to_string(launcher.instance.queue_directory().join("limit")).unwrap();
    assert_eq!(limit.trim(), "unlimited");
}

fn cannot_limit(test: &str) -> bool {
    let programs = ["/usr/bin/prlimit", "/usr/bin/setpriv"].map(Path::new);
    let cannot = mail_owner().is_none() || !programs.iter().all(|program| program.exists());
    if cannot {
        skip(
            test,
            "root, the user postfix, prlimit and setpriv are needed",
        );
    }
    cannot
}

/// Sets a limit of a process of mail_owner's from outside.
fn prlimit(pid: u32, what: &str) -> bool {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=postfix",
        "--regid=postfix",
        "--init-groups",
        "prlimit",
    ]);
    command.arg(format!("--pid={pid}")).arg(what);
    output(&mut command).status.success()
}

/// Seconds of CPU that a process has used.
fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// What a shortage comes to: a line in the log, no busy loop, and service when it is over.
fn goes_on(launcher: &Launcher, line: &str, end: impl FnOnce(u32)) {
    let resident = launcher.resident();
    launcher.wait_for_log(line, "nothing is accepted for a second");
    let (begin, before) = (Instant::now(), cpu(resident));
    thread::sleep(Duration::from_secs(3));
    let share = (cpu(resident) - before) / begin.elapsed().as_secs_f64();
    assert!(share < 0.1, "{line}: {share} of a processor");
    assert_eq!(launcher.count_in_log(line), 1, "{}", launcher.log());
    end(resident);
    let served = until(PATIENCE, || launcher.send().contains(":KOk: queued as "));
    assert!(served, "{}", launcher.log());
    assert_eq!(launcher.resident(), resident);
}

#[test]
fn without_descriptors_it_waits_and_goes_on() {
    let test = "without_descriptors_it_waits_and_goes_on";
    if cannot_limit(test) {
        return;
    }
    let launcher = Launcher::start(&[]);
    assert!(launcher.send().contains(":KOk: queued as "));
    let resident = launcher.resident();
    let open = fs::read_dir(format!("/proc/{resident}/fd"))
        .unwrap()
        .count();
    assert!(prlimit(resident, &format!("--nofile={open}:1024")));
    let waiting = launcher.connect();
    goes_on(
        &launcher,
        "accept connection: Too many open files",
        |resident| {
            assert!(!is_readable(&waiting, Duration::ZERO));
            assert!(prlimit(resident, "--nofile=1024:1024"));
        },
    );
    let said = reply(waiting, &message());
    assert!(said.contains(":KOk: queued as "), "{said}");
}

#[test]
fn without_processes_it_says_so_and_goes_on() {
    let test = "without_processes_it_says_so_and_goes_on";
    if cannot_limit(test) {
        return;
    }
    let launcher = Launcher::start(&[]);
    assert!(launcher.send().contains(":KOk: queued as "));
    let resident = launcher.resident();
    assert!(prlimit(resident, "--nproc=1:1000"));
    let said = heard(launcher.connect());
    assert_eq!(
        said,
        "55:ZError: no process for this connection, try again later,"
    );
    goes_on(
        &launcher,
        "fork: Resource temporarily unavailable",
        |resident| {
            assert!(prlimit(resident, "--nproc=1000:1000"));
        },
    );
}

#[test]
fn a_long_table_of_expressions_leaves_a_child_the_memory_for_its_message() {
    let rules: String = (0..2000)
        .map(|number| format!("{{/^10\\.0\\.{number}\\./ x}} "))
        .collect();
    let table = format!("qmqpd_authorized_clients = regexp:{{ {rules} {{/^127\\./ x}} }}");
    let launcher = Launcher::start(&[&table, "message_size_limit = 65536"]);
    for _ in 0..2 {
        let said = launcher.send();
        assert!(
            said.contains(":KOk: queued as "),
            "{said} {}",
            launcher.log()
        );
    }
}
