//! Every launcher for real, with the files that we ship, in front of a real Postfix.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::fs;
use std::io::Write;
use std::net::{Ipv6Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::launchers::{
    self, Launcher, PATIENCE, World, accepting_units, connect_from, program, reply, send_many,
    send_with_postfix, shipped, units,
};
use harness::master::{self, Master, request, until};
use harness::outcome::NO_NAME;

/// Messages by way of each launcher, and how many at a time.
const MESSAGES: usize = 200;
const PARALLEL: usize = 10;

/// Over IPv6, where the launcher has it.
const MESSAGES_IPV6: usize = 20;

const LOCALHOST: [u8; 4] = [127, 0, 0, 1];

/// In 127.0.0.0/8, and not in qmqpd_authorized_clients of the tests.
const STRANGER: [u8; 4] = [127, 0, 0, 2];

fn message() -> Vec<u8> {
    request(
        b"Subject: t\n\nHello.\n",
        "s@client.example",
        &["r@rcpt.example"],
    )
}

/// Says why `test` cannot run; `needed` is what it starts, if that can be found.
fn is_missing<T>(test: &str, needed: Option<T>, name: &str) -> bool {
    if master::is_missing(test) {
        return true;
    }
    let reason = match (needed, launchers::why_no_namespaces()) {
        (None, _) => format!("{name} is not installed"),
        (Some(_), Some(reason)) => reason.to_owned(),
        (Some(_), None) => return false,
    };
    harness::skip(test, &reason);
    true
}

/// Tells a person, past the capture of the test runner.
fn say(line: &str) {
    std::io::stderr()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}

/// Lines of our program that speak of something wrong.
fn trouble(world: &World) -> Vec<String> {
    let log = world.log();
    let ours = log
        .lines()
        .filter(|line| line.contains("/qmqpd[") && !line.contains(NO_NAME));
    ours.filter(|line| {
        ["warning: ", "error: ", "fatal: ", "panic: "]
            .iter()
            .any(|word| line.contains(word))
    })
    .map(str::to_owned)
    .collect()
}

/// Everything that has to work whatever the launcher is.
fn exercise(name: &str, world: &mut World, ipv6: bool) {
    world.wait_for_port();
    let start = Instant::now();
    send_many(&world.master, world.port, MESSAGES, PARALLEL);
    say(&format!(
        "{name}: {MESSAGES} messages in {:.1?}",
        start.elapsed()
    ));
    let mut expected = MESSAGES;
    if ipv6 {
        let to = format!("inet:[::1]:{}", world.port);
        send_with_postfix(&to, MESSAGES_IPV6, PARALLEL);
        expected += MESSAGES_IPV6;
        world.wait_for_log("[::1]");
    }
    assert_eq!(world.queued(), (expected, 0), "{name}");

    let said = reply(connect_from(STRANGER, world.port), &message());
    assert!(
        said.contains("not authorized to use this service"),
        "{name}: {said:?}"
    );
    world.wait_for_log("NOQUEUE: reject: CONNECT from ");

    drop(connect_from(LOCALHOST, world.port));
    world.wait_for_log("lost connection while receiving QMQP packet header");
    leave_in_the_middle(world);
    assert!(
        until(PATIENCE, || world.queued() == (expected, 0)),
        "{name}"
    );
    assert_eq!(trouble(world), Vec::<String>::new(), "{name}");

    fail_and_recover(name, world);
    expected += 1;
    assert_eq!(world.queued(), (expected, 0), "{name}");

    world.add_to_main_cf("qmqpd_queue_method = file\n");
    let_it_notice(name);
    let start = Instant::now();
    send_many(&world.master, world.port, MESSAGES, PARALLEL);
    let took = start.elapsed();
    say(&format!(
        "{name}, without cleanup: {MESSAGES} messages in {took:.1?}"
    ));
    world.add_to_main_cf("");
    assert_eq!(world.queued(), (expected + MESSAGES, 0), "{name}");
    assert!(world.is_running(), "{name}");
}

/// A client that goes away while it sends. What the queue has of it must not stay.
fn leave_in_the_middle(world: &World) {
    let mut client = connect_from(LOCALHOST, world.port);
    client.write_all(&message()[..20]).unwrap();
    assert!(until(PATIENCE, || world.queued().1 == 1), "{}", world.log());
    drop(client);
    world.wait_for_log("lost connection while receiving message content");
}

/// A process that accepts looks for changes of main.cf from its second second on, and says for a second that it cannot
/// serve.
fn let_it_notice(name: &str) {
    if name.contains("--accept") {
        std::thread::sleep(Duration::from_millis(1100));
    }
}

/// A mistake in main.cf is told to the client, and when it is mended there is nothing else to mend.
fn fail_and_recover(name: &str, world: &World) {
    world.add_to_main_cf("qmqpd_timeout = soon\n");
    let_it_notice(name);
    for _ in 0..20 {
        let said = reply(connect_from(LOCALHOST, world.port), &message());
        assert!(
            said.contains(":ZError: server configuration error"),
            "{name}: {said:?}"
        );
    }
    assert!(world.log().contains("fatal: "), "{name}: {}", world.log());
    world.add_to_main_cf("");
    let_it_notice(name);
    let said = reply(connect_from(LOCALHOST, world.port), &message());
    assert!(said.contains(":KOk: queued as "), "{name}: {said:?}");
}

/// Nothing of the failed attempts is left, nor of the others, and the socket listens.
fn is_tidy(world: &World) {
    let instances = || {
        let all = world.systemctl(&["list-units", "--all", "--no-legend", "qmqpd@*"]);
        all.trim().to_owned()
    };
    assert!(
        until(PATIENCE, || instances().is_empty()),
        "{}",
        instances()
    );
    let state = world.systemctl(&["is-active", "qmqpd.socket"]);
    assert_eq!(state.trim(), "active");
}

fn systemd(socket: &[&'static str], service: &[&'static str]) -> Launcher {
    Launcher::Systemd {
        socket: socket.to_vec(),
        service: service.to_vec(),
    }
}

#[test]
fn systemd_serves_with_the_unit_as_it_is() {
    let test = "systemd_serves_with_the_unit_as_it_is";
    if is_missing(test, program("systemd"), "systemd") {
        return;
    }
    let mut world = World::start(&systemd(&[], &[]), "");
    exercise("systemd", &mut world, true);
    a_message_of_the_largest_size(&world);
    a_table_that_postmap_reads("systemd", &world);
    is_tidy(&world);
}

/// MemoryMax= of the unit is enough for the message_size_limit that Postfix has by default.
fn a_message_of_the_largest_size(world: &World) {
    let line = [b"x".repeat(99).as_slice(), b"\n"].concat();
    let content = [b"Subject: t\n\n".as_slice(), &line.repeat(100_000)].concat();
    let large = request(&content, "s@client.example", &["r@rcpt.example"]);
    let said = reply(connect_from(LOCALHOST, world.port), &large);
    assert!(
        said.contains(":KOk: queued as "),
        "{said:?}\n{}",
        world.log()
    );
}

/// The unit lets the process start postmap(1), which reads the tables that it does not read itself.
fn a_table_that_postmap_reads(name: &str, world: &World) {
    world.add_to_main_cf("qmqpd_authorized_clients = unionmap:{static:yes}\n");
    let_it_notice(name);
    let said = reply(connect_from(STRANGER, world.port), &message());
    world.add_to_main_cf("");
    let_it_notice(name);
    assert!(
        said.contains(":KOk: queued as "),
        "{said:?}\n{}",
        world.log()
    );
}

#[test]
fn systemd_serves_with_the_resolver_of_the_host_alone() {
    let test = "systemd_serves_with_the_resolver_of_the_host_alone";
    if is_missing(test, program("systemd"), "systemd") {
        return;
    }
    let mut world = World::start(&systemd(&[], &["local-resolver"]), "");
    exercise("systemd, local resolver", &mut world, true);
    is_tidy(&world);
}

#[test]
fn systemd_serves_without_a_network() {
    let test = "systemd_serves_without_a_network";
    if is_missing(test, program("systemd"), "systemd") {
        return;
    }
    let mut world = World::start(&systemd(&[], &["no-network"]), "");
    exercise("systemd, no network", &mut world, true);
    world.wait_for_log("connect from unknown[127.0.0.1]");
    a_table_that_postmap_reads("systemd", &world);
    is_tidy(&world);
    one_host_does_not_keep_others_out(&world);
}

/// MaxConnectionsPerSource= of the socket unit; and who meets it again and again does not close the socket for all.
fn one_host_does_not_keep_others_out(world: &World) {
    let idle: Vec<TcpStream> = (0..40)
        .map(|_| connect_from(LOCALHOST, world.port))
        .collect();
    for _ in 0..300 {
        let said = reply(connect_from(LOCALHOST, world.port), &message());
        assert_eq!(said, "");
    }
    let said = reply(connect_from(STRANGER, world.port), &message());
    assert!(said.contains("not authorized"), "{said:?}");
    drop(idle);
    is_tidy(world);
}

/// Sends what it is given, and says what it hears by the end.
const UNIX_CLIENT: &str = r#"
use IO::Socket::UNIX;
alarm 60;
my $server = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "connect: $!";
print $server $ARGV[1];
$server->flush;
print <$server>;
"#;

#[test]
fn systemd_serves_by_a_unix_domain_socket() {
    let test = "systemd_serves_by_a_unix_domain_socket";
    if is_missing(test, program("systemd"), "systemd") {
        return;
    }
    let launcher = systemd(&["unix-socket"], &["no-network"]);
    let mut world = World::start(&launcher, "");
    let path = format!("/proc/{}/root/run/qmqp", world.launcher());
    let there = until(PATIENCE, || {
        world.systemctl(&["is-active", "qmqpd.socket"]).trim() == "active"
    });
    assert!(there, "{}", world.console());
    let mode = fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    // systemd gives the socket up where a client's process has no number in its own namespace: this one has.
    let message = String::from_utf8(message()).unwrap();
    let (_, said) = world.run(&["perl", "-we", UNIX_CLIENT, "/run/qmqp", &message]);
    assert!(
        said.contains(":KOk: queued as "),
        "{said:?}\n{}",
        world.log()
    );
    world.wait_for_log("client=localhost[127.0.0.1]");
    assert!(world.is_running());
    is_tidy(&world);
}

/// Takes the place of qmail-queue(8): both descriptors to their ends, in that order, and whose process it was.
const RECORDER: &str = r#"
#include <stdio.h>
#include <unistd.h>
static int copy(int from, const char *name) {
    char buffer[4096];
    ssize_t length;
    FILE *to = fopen(name, "w");
    if (!to) return 1;
    while ((length = read(from, buffer, sizeof buffer)) > 0) fwrite(buffer, 1, length, to);
    return fclose(to) || length < 0;
}
int main(void) {
    FILE *ids;
    if (chdir("/var/qmail/queue")) return 61;
    if (copy(0, "message") || copy(1, "envelope")) return 53;
    if (!(ids = fopen("ids", "w"))) return 53;
    fprintf(ids, "%d %d", (int)getuid(), (int)geteuid());
    return fclose(ids) ? 53 : 0;
}
"#;

/// Who owns the program, and the queue that only its owner can write.
const QUEUE_OWNER: &str = "daemon";

/// Before systemd: a /var like the machine's, but for a qmail of which the machine knows nothing.
const QMAIL: &str = "\
mkdir /run/var
mount --rbind /var /run/var
mount -t tmpfs -o mode=755 tmpfs /var
for entry in /run/var/*; do
    copy=/var/${entry#/run/var/}
    if [ -h \"$entry\" ]; then cp -P \"$entry\" \"$copy\"
    elif [ -d \"$entry\" ]; then mkdir \"$copy\"; mount --rbind \"$entry\" \"$copy\"; fi
done
mkdir -p /var/qmail/bin /var/qmail/queue
cc -o /var/qmail/bin/qmail-queue /run/keep/qmail-queue.c
chown daemon /var/qmail/queue /var/qmail/bin/qmail-queue
chmod 700 /var/qmail/queue
chmod 4755 /var/qmail/bin/qmail-queue
";

#[test]
fn systemd_lets_a_set_uid_qmail_queue_become_its_owner() {
    let test = "systemd_lets_a_set_uid_qmail_queue_become_its_owner";
    if is_missing(test, program("systemd").and(program("cc")), "systemd or cc") {
        return;
    }
    let owner = nix::unistd::User::from_name(QUEUE_OWNER).unwrap().unwrap();
    let ours = harness::instance::mail_owner().unwrap();
    let method = "qmqpd_queue_method = qmail:/var/qmail/bin/qmail-queue\n";
    // With the unit as it is the program is refused before it could fail in some odd way.
    let mut world = World::start_after(QMAIL, &systemd(&[], &[]), &[("qmail-queue.c", RECORDER)]);
    world.add_to_main_cf(method);
    world.wait_for_port();
    let said = reply(connect_from(LOCALHOST, world.port), &message());
    assert!(said.contains(":Z"), "{said:?}");
    world.wait_for_log("started with no_new_privs");
    drop(world);

    let launcher = systemd(&[], &["qmail-queue"]);
    let mut world = World::start_after(QMAIL, &launcher, &[("qmail-queue.c", RECORDER)]);
    world.add_to_main_cf(method);
    world.wait_for_port();
    let said = reply(connect_from(LOCALHOST, world.port), &message());
    assert!(
        said.contains(":KOk: queued as qp "),
        "{said:?}\n{}",
        world.log()
    );
    let queue = format!("/proc/{}/root/var/qmail/queue", world.launcher());
    let recorded = |name: &str| fs::read_to_string(format!("{queue}/{name}")).unwrap();
    assert_eq!(recorded("ids"), format!("{} {}", ours.uid, owner.uid));
    assert_eq!(
        recorded("envelope"),
        "Fs@client.example\0Tr@rcpt.example\0\0"
    );
    let content = recorded("message");
    assert!(content.ends_with("\nSubject: t\n\nHello.\n"), "{content}");
    assert_eq!(trouble(&world), Vec::<String>::new());
    is_tidy(&world);
}

/// One process that accepts serves as many processes that were started do.
#[test]
fn systemd_serves_by_a_process_that_accepts() {
    let test = "systemd_serves_by_a_process_that_accepts";
    if is_missing(test, program("systemd"), "systemd") {
        return;
    }
    let launcher = Launcher::SystemdAccept {
        service: Vec::new(),
    };
    let mut world = World::start(&launcher, "");
    exercise("systemd, --accept", &mut world, true);
    a_message_of_the_largest_size(&world);
    a_table_that_postmap_reads("systemd, --accept", &world);
    sessions_outlive_the_units(&world);
}

#[test]
fn systemd_serves_by_a_process_that_accepts_without_a_network() {
    let test = "systemd_serves_by_a_process_that_accepts_without_a_network";
    if is_missing(test, program("systemd"), "systemd") {
        return;
    }
    let launcher = Launcher::SystemdAccept {
        service: vec!["no-network-accept"],
    };
    let mut world = World::start(&launcher, "");
    exercise("systemd, --accept, no network", &mut world, true);
    world.wait_for_log("connect from unknown[127.0.0.1]");
}

/// A session goes on while its process is told to read everything anew, is stopped, and loses its socket; a connection
/// that waits has another one.
fn sessions_outlive_the_units(world: &World) {
    let request = message();
    let (queued, _) = world.queued();
    let state = |unit: &str| world.systemctl(&["is-active", unit]).trim().to_owned();
    let begin = || {
        let mut client = connect_from(LOCALHOST, world.port);
        client.write_all(&request[..20]).unwrap();
        assert!(until(PATIENCE, || world.queued().1 > 0), "{}", world.log());
        client
    };
    let finish = |client: TcpStream| {
        let said = reply(client, &request[20..]);
        assert!(said.contains(":KOk: queued as "), "{said:?}");
    };
    for command in ["reload", "stop"] {
        let client = begin();
        assert_eq!(state("qmqpd-accept.service"), "active");
        let said = world.systemctl(&[command, "qmqpd-accept.service"]);
        assert!(!said.contains("failed"), "{command}: {said}");
        assert!(until(PATIENCE, || state("qmqpd-accept.service") == "inactive"));
        let said = reply(connect_from(LOCALHOST, world.port), &request);
        assert!(said.contains(":KOk: queued as "), "{command}: {said:?}");
        finish(client);
    }
    let client = begin();
    world.systemctl(&[
        "kill",
        "--kill-whom=main",
        "--signal=KILL",
        "qmqpd-accept.service",
    ]);
    let said = reply(connect_from(LOCALHOST, world.port), &request);
    assert!(said.contains(":KOk: queued as "), "{said:?}");
    finish(client);

    let client = begin();
    world.systemctl(&["stop", "qmqpd-accept.socket"]);
    let closed = || TcpStream::connect(("127.0.0.1", world.port)).is_err();
    assert!(until(PATIENCE, closed), "{}", world.console());
    finish(client);
    assert_eq!(world.queued(), (queued + 7, 0));
    assert_eq!(state("qmqpd-accept.service"), "inactive");

    world.systemctl(&["start", "qmqpd-accept.socket"]);
    let client = begin();
    world.systemctl(&["kill", "qmqpd-accept.service"]);
    assert_eq!(reply(client, &request[20..]), "");
    assert!(until(PATIENCE, || world.queued() == (queued + 7, 0)));
}

#[test]
fn xinetd_serves_by_a_process_that_accepts() {
    let test = "xinetd_serves_by_a_process_that_accepts";
    if is_missing(test, program("xinetd"), "xinetd") {
        return;
    }
    let mut world = World::start(&Launcher::XinetdAccept, "");
    exercise("xinetd, --accept", &mut world, true);
}

#[test]
fn openbsd_inetd_serves_by_a_process_that_accepts() {
    let test = "openbsd_inetd_serves_by_a_process_that_accepts";
    let inetd = std::env::var_os("QMQPD_INETD").map(PathBuf::from);
    let inetd = inetd.filter(|path| path.exists());
    if is_missing(test, inetd.as_ref(), "openbsd-inetd") {
        return;
    }
    let mut world = World::start(&Launcher::InetdAccept(inetd.unwrap()), "");
    exercise("openbsd-inetd, --accept", &mut world, true);
}

#[test]
fn xinetd_serves() {
    if is_missing("xinetd_serves", program("xinetd"), "xinetd") {
        return;
    }
    let mut world = World::start(&Launcher::Xinetd, "");
    exercise("xinetd", &mut world, true);
}

#[test]
fn openbsd_inetd_serves() {
    let inetd = std::env::var_os("QMQPD_INETD").map(PathBuf::from);
    let inetd = inetd.filter(|path| path.exists());
    if is_missing("openbsd_inetd_serves", inetd.as_ref(), "openbsd-inetd") {
        return;
    }
    let mut world = World::start(&Launcher::Inetd(inetd.unwrap()), "");
    exercise("openbsd-inetd", &mut world, true);
}

#[test]
fn tcpserver_serves() {
    if is_missing("tcpserver_serves", program("tcpserver"), "ucspi-tcp") {
        return;
    }
    let mut world = World::start(&Launcher::Tcpserver, "");
    exercise("tcpserver", &mut world, false);
    assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, world.port)).is_err());
}

/// The line of master.cf.example that starts our program beside Postfix's.
#[test]
fn spawn_serves_and_fail2ban_sees_who_was_refused() {
    let test = "spawn_serves_and_fail2ban_sees_who_was_refused";
    if master::is_missing(test) {
        return;
    }
    let port = master::free_port();
    let example = shipped("scripts/postfix/master.cf.example");
    let line = example.split("#qmqp ").nth(1).unwrap();
    let line = line.split("\n\n").next().unwrap().replace("\n#", "\n");
    let line = format!("{port} {line}").replace("/usr/sbin/", "DIR/sbin/");
    let master = Master::start_with("", &line, |dir| {
        fs::create_dir(dir.join("sbin")).unwrap();
        harness::instance::install_program(
            env!("CARGO_BIN_EXE_qmqpd").as_ref(),
            &dir.join("sbin/qmqpd"),
        );
    });
    send_many(&master, port, MESSAGES, PARALLEL);
    send_with_postfix(&format!("inet:[::1]:{port}"), MESSAGES_IPV6, PARALLEL);
    assert_eq!(master.incoming().0.len(), MESSAGES + MESSAGES_IPV6);
    let said = reply(connect_from(STRANGER, port), &message());
    assert!(said.contains("not authorized"), "{said:?}");
    master.wait_for_log("NOQUEUE: reject: CONNECT from ");
    assert_eq!(master.trouble(), Vec::<String>::new());
    if program("fail2ban-regex").is_none() {
        return harness::skip(test, "fail2ban is not installed");
    }
    fail2ban_finds(&master, "127.0.0.2\n");
}

/// Lines of `qmqpd_log_stderr = yes`: the first three as journalctl wrote them.
const OTHER_LOGS: &str = "\
Nov 26 11:41:41 mail qmqpd[11]: postfix/qmqpd[11]: connect from unknown[192.0.2.5]
Nov 26 11:41:41 mail qmqpd[11]: postfix/qmqpd[11]: NOQUEUE: reject: CONNECT from unknown[192.0.2.5]: Error: unknown[192.0.2.5] is not authorized to use this service
Nov 26 11:41:41 mail qmqpd[11]: postfix/qmqpd[11]: disconnect from unknown[192.0.2.5]
2026-11-26T11:41:41.123456+00:00 postfix/qmqpd[13]: NOQUEUE: reject: CONNECT from mx.example[192.0.2.6]:4711: Error: mx.example[192.0.2.6]:4711 is not authorized to use this service
2026-11-26 11:41:42 mx/qmqpd[14]: NOQUEUE: reject: CONNECT from unknown[2001:db8::7]: Error: unknown[2001:db8::7] is not authorized to use this service
2026-11-26 11:41:43 mx/qmqpd[15]: warning: NOQUEUE: unknown[192.0.2.8]: Error: server configuration error
";

/// The filter finds this in the log and nothing else, and the jail is one that fail2ban accepts.
fn fail2ban_finds(master: &Master, addresses: &str) {
    let config = master.dir.join("fail2ban");
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    run(Command::new("cp")
        .arg("-r")
        .args([Path::new("/etc/fail2ban"), &config]));
    // Debian's jail for a server that need not be here.
    drop(fs::remove_file(config.join("jail.d/defaults-debian.conf")));
    for name in ["filter.d/qmqpd.conf", "jail.d/qmqpd.conf"] {
        let text = shipped(&format!("scripts/fail2ban/{name}"));
        let log = master.dir.join("log").display().to_string();
        fs::write(config.join(name), text.replace("%(syslog_mail)s", &log)).unwrap();
    }
    let found = run(Command::new("fail2ban-regex")
        .arg("-c")
        .arg(&config)
        .args(["-o", "ip"])
        .arg(master.dir.join("log"))
        .arg("qmqpd"));
    assert_eq!(found, addresses);
    // As `journalctl` and a supervisor write what was on standard error.
    let others = master.dir.join("others");
    fs::write(&others, OTHER_LOGS).unwrap();
    let found = run(Command::new("fail2ban-regex")
        .arg("-c")
        .arg(&config)
        .args(["-o", "ip"])
        .arg(&others)
        .arg("qmqpd"));
    assert_eq!(found, "192.0.2.5\n192.0.2.6\n2001:db8::7\n");
    run(Command::new("fail2ban-client")
        .arg("-c")
        .arg(&config)
        .arg("-t"));
}

/// What systemd-analyze(1) makes of the units with a drop-in, and the most that it may.
const SCORES: [(&str, &str, f64); 4] = [
    ("the unit as it is", "", 1.3),
    ("with local-resolver.conf", "local-resolver", 1.1),
    ("with no-network.conf", "no-network", 0.2),
    ("with qmail-queue.conf", "qmail-queue", 2.4),
];

/// The same of the unit that accepts.
const ACCEPTING_SCORES: [(&str, &str, f64); 3] = [
    ("the unit that accepts", "", 1.1),
    ("that one with local-resolver.conf", "local-resolver", 1.1),
    (
        "that one with no-network-accept.conf",
        "no-network-accept",
        0.2,
    ),
];

/// A directory that is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let dir = std::env::temp_dir().join(format!("qmqpd-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Directory(dir)
    }

    /// The units, for a program that exists.
    fn write_units(&self, socket: &[&str], service: &[&str]) {
        self.write(units(628, socket, service));
    }

    fn write(&self, units: Vec<(String, String)>) {
        for (name, text) in units {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let program = env!("CARGO_BIN_EXE_qmqpd");
            fs::write(path, text.replace("/usr/local/sbin/qmqpd", program)).unwrap();
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn systemd_analyze(arguments: &[&str], unit: &Path) -> (bool, String) {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .arg("--no-pager")
        .arg(unit)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said.into_owned())
}

fn has_systemd_analyze(test: &str) -> bool {
    let found = program("systemd-analyze").is_some();
    if !found {
        harness::skip(test, "systemd is not installed");
    }
    found
}

#[test]
fn the_exposure_of_the_units_is_low() {
    let test = "the_exposure_of_the_units_is_low";
    if !has_systemd_analyze(test) {
        return;
    }
    let help = Command::new("systemd-analyze").arg("--help").output();
    if !String::from_utf8_lossy(&help.unwrap().stdout).contains("--offline") {
        return harness::skip(test, "systemd-analyze is older than 250");
    }
    for (what, drop_in, limit) in SCORES {
        let dir = Directory::new(&format!("score-{drop_in}"));
        let drop_ins: Vec<&str> = [drop_in]
            .into_iter()
            .filter(|name| !name.is_empty())
            .collect();
        dir.write_units(&[], &drop_ins);
        is_little_exposed(what, &dir.0.join("qmqpd@.service"), limit);
    }
    for (what, drop_in, limit) in ACCEPTING_SCORES {
        let dir = Directory::new(&format!("accept-score-{drop_in}"));
        let drop_ins: Vec<&str> = [drop_in]
            .into_iter()
            .filter(|name| !name.is_empty())
            .collect();
        dir.write(accepting_units(628, &drop_ins));
        is_little_exposed(what, &dir.0.join("qmqpd-accept.service"), limit);
    }
}

fn is_little_exposed(what: &str, unit: &Path, limit: f64) {
    let (_, said) = systemd_analyze(&["security", "--offline=yes"], unit);
    let line = said.lines().last().unwrap();
    let score = line.split("service: ").nth(1).unwrap();
    let score: f64 = score.split(' ').next().unwrap().parse().unwrap();
    say(&format!("exposure, {what}: {score}, of {limit} at most"));
    assert!(score <= limit, "{what}\n{said}");
}

#[test]
fn systemd_has_nothing_to_say_against_the_units() {
    if !has_systemd_analyze("systemd_has_nothing_to_say_against_the_units") {
        return;
    }
    for (number, (socket, service)) in [
        (&[][..], &[][..]),
        (&[], &["local-resolver"]),
        (&["unix-socket"], &["no-network"]),
        (&[], &["qmail-queue"]),
        (&[], &["no-network", "qmail-queue"]),
        (&launchers::poll_limit(), &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = Directory::new(&format!("verify-{number}"));
        dir.write_units(socket, service);
        for unit in ["qmqpd.socket", "qmqpd@.service"] {
            has_nothing_against_it(&dir.0.join(unit));
        }
    }
    for (number, service) in [&[][..], &["local-resolver"], &["no-network-accept"]]
        .into_iter()
        .enumerate()
    {
        let dir = Directory::new(&format!("verify-accept-{number}"));
        // The one that its socket excludes has to be there.
        dir.write_units(&[], &[]);
        dir.write(accepting_units(628, service));
        for unit in ["qmqpd-accept.socket", "qmqpd-accept.service"] {
            has_nothing_against_it(&dir.0.join(unit));
        }
    }
}

/// systemd-analyze reads units of the machine as well, and says what it has against those. That of Debian 11 also
/// speaks of its own control group.
fn has_nothing_against_it(unit: &Path) {
    let (good, said) = systemd_analyze(&["verify", "--man=no"], unit);
    let said: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("qmqpd") || !line.starts_with('/'))
        .filter(|line| !line.contains("Couldn't move remaining userspace processes"))
        .collect();
    assert!(good && said.is_empty(), "{}: {said:?}", unit.display());
}
