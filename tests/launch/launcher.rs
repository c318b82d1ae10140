//! What a launcher, or the hand of an administrator, may put the program into.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{mkfifo, pipe2};

use crate::harness::instance::mail_owner;
use crate::machine::{ACCEPTED, How, Machine, OTHER, PATIENCE, REQUEST, User, is_not_root};

const CONFIGURATION_ERROR: &str = "34:ZError: server configuration error,";

/// And its line.
const TOLD: &str = "warning: NOQUEUE: localhost[127.0.0.1]: Error: server configuration error";

/// Starts the server with these words before it, sends a request, and sees it accepted.
fn accepts(through: &[&str]) {
    let machine = Machine::new(&[]);
    let cleanup = machine.cleanup(&[]);
    let how = How {
        through,
        ..How::default()
    };
    let mut session = machine.start_tcp(&how, "127.0.0.1");
    session.send(REQUEST);
    assert_eq!(session.reply(PATIENCE), ACCEPTED, "{through:?}");
    assert_eq!(session.exit(), "0", "{through:?}");
    cleanup.finish();
    let log = machine.finish(&session);
    let expected = [
        "connect from localhost[127.0.0.1]",
        "ABCDEF0123: client=localhost[127.0.0.1]",
        "disconnect from localhost[127.0.0.1]",
    ];
    assert_eq!(log, expected, "{through:?}");
}

const SIGNALS: [&str; 2] = [
    "--ignore-signal=CHLD,ALRM,TERM,HUP,SYS",
    "--block-signal=CHLD,ALRM,TERM,HUP,SYS,ABRT",
];

/// The name lookup needs its child's exit code, and every wait its alarm.
#[test]
fn signals_that_a_launcher_ignores_or_blocks_work() {
    accepts(&["env", SIGNALS[0], SIGNALS[1]]);
    let machine = Machine::new(&["qmqpd_timeout = 1s"]);
    let through = ["env", SIGNALS[0], SIGNALS[1]];
    let how = How {
        through: &through,
        ..How::default()
    };
    let mut session = machine.start(&how);
    assert_eq!(session.reply(Duration::from_secs(5)), "");
    assert_eq!(session.exit(), "0");
    let log = machine.finish(&session);
    assert!(
        log[1].ends_with("read/write timeout while receiving QMQP packet header"),
        "{log:?}"
    );
}

#[test]
fn a_closed_standard_error_is_no_obstacle() {
    accepts(&["sh", "-c", "exec \"$@\" 2>&-", "sh"]);
}

#[test]
fn limits_that_a_launcher_sets_are_no_obstacle() {
    accepts(&["prlimit", "--nofile=8", "--core=unlimited", "--fsize=1"]);
    accepts(&["prlimit", "--as=64000000", "--stack=262144"]);
    accepts(&["env", "-i", "MAIL_CONFIG=DIR/conf"]);
    accepts(&[
        "nice",
        "env",
        "LD_BIND_NOW=1",
        "LC_ALL=tr_TR.UTF-8",
        "RUST_BACKTRACE=full",
    ]);
}

/// Without a client there is nothing to do, and nothing may hang.
#[test]
fn closed_standard_descriptors_end_the_session() {
    for closed in ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-", "</dev/null", "</"] {
        let machine = Machine::new(&[]);
        let script = format!("exec \"$@\" {closed}");
        let how = How {
            through: &["sh", "-c", &script, "sh"],
            ..How::default()
        };
        let cleanup = machine.cleanup(&[]);
        let begin = Instant::now();
        let mut session = machine.start(&how);
        drop(std::mem::replace(
            &mut session.client,
            File::open("/dev/null").unwrap(),
        ));
        session.end();
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(5), "{closed}: {took:?}");
        cleanup.finish();
        let log = machine.finish(&session);
        assert!(log[0].starts_with("connect from "), "{closed}: {log:?}");
        assert!(
            !log.iter().any(|line| line.contains("panic")),
            "{closed}: {log:?}"
        );
    }
}

/// Under inetd's `wait` and systemd's `Accept=no` there is no connection yet, and the next start finds none either.
#[test]
fn a_listening_socket_is_not_taken_for_a_client() {
    let machine = Machine::new(&[]);
    let tcp = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let unix = OwnedFd::from(UnixListener::bind(machine.instance.dir.join("listener")).unwrap());
    for listener in [tcp, unix] {
        let mut command = machine.command(&How::default());
        command
            .stdin(listener.try_clone().unwrap())
            .stdout(listener);
        let status = command.spawn().unwrap().wait().unwrap();
        assert_eq!(status.code(), Some(1));
    }
    let log = machine.log.finish();
    assert_eq!(log.len(), 2, "{log:?}");
    for line in log {
        let line = String::from_utf8(line).unwrap();
        let fatal =
            "fatal: standard input is a listening socket: the launcher has to accept connections ";
        assert!(line.contains(fatal), "{line}");
    }
}

/// A name that is not in the hosts file is asked for in a child, which may not be to be had.
#[test]
fn without_a_child_the_client_has_no_name() {
    if is_not_root("without_a_child_the_client_has_no_name") {
        return;
    }
    let through = [
        "setpriv",
        "--reuid=postfix",
        "--regid=postfix",
        "--clear-groups",
        "prlimit",
        "--nproc=0",
    ];
    let how = How {
        through: &through,
        ..How::default()
    };
    let log_of = |client: &str| {
        let machine = Machine::new(&["qmqpd_authorized_clients = 127.0.0.0/8"]);
        let cleanup = machine.cleanup(&[]);
        let mut session = machine.start_tcp(&how, client);
        session.send(REQUEST);
        assert_eq!(session.reply(PATIENCE), ACCEPTED);
        session.exit();
        cleanup.finish();
        machine.finish(&session)
    };
    let warning =
        "warning: the name of 127.0.0.9 cannot be looked up: Resource temporarily unavailable";
    assert_eq!(
        log_of("127.0.0.9")[..2],
        [warning, "connect from unknown[127.0.0.9]"]
    );
    assert_eq!(log_of("127.0.0.1")[0], "connect from localhost[127.0.0.1]");
}

/// Everything that the client is told while its connection is on descriptor 2 as well: by inetd all three are one
/// socket; behind two pipes, 2 may be the one that the reply goes through.
fn said_with_stderr_on_the_client(conf: &[&str], arguments: &[&str], pipes: bool) -> String {
    let machine = Machine::new(conf);
    let cleanup = machine.cleanup(&[]);
    let how = How {
        through: &["sh", "-c", "exec \"$@\" 2>&1", "sh"],
        arguments,
        env: if pipes {
            &[("TCPREMOTEIP", "127.0.0.1")]
        } else {
            &[]
        },
        ..How::default()
    };
    let reply = if pipes {
        let mut command = machine.command(&how);
        let (stdin, to_server) = pipe2(OFlag::O_CLOEXEC).unwrap();
        command.stdin(stdin).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        std::io::Write::write_all(&mut File::from(to_server), REQUEST).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    } else {
        let mut session = machine.start(&how);
        session.send(REQUEST);
        let reply = session.reply(PATIENCE);
        session.exit();
        reply
    };
    cleanup.finish();
    machine.log.finish();
    reply
}

#[test]
fn nothing_but_the_reply_reaches_a_client_on_descriptor_2() {
    for pipes in [false, true] {
        for (conf, arguments, reply) in [
            (&[][..], &["-S"][..], ACCEPTED),
            (&[], &["-V", "-v", "-v", "-v"], ACCEPTED),
            (&["qmqpd_log_stderr = yes"], &["-V"], ACCEPTED),
            (&["qmqpd_timeout = x"], &["-V"], CONFIGURATION_ERROR),
            (
                &["qmqpd_authorized_clients = !"],
                &["-V"],
                CONFIGURATION_ERROR,
            ),
            (
                &["mail_owner = nobody-of-that-name"],
                &["-V", "-c"],
                CONFIGURATION_ERROR,
            ),
            (&[], &["-V", "stray"], CONFIGURATION_ERROR),
            (&[], &["-V", "--no-such-option"], CONFIGURATION_ERROR),
        ] {
            let said = said_with_stderr_on_the_client(conf, arguments, pipes);
            if conf
                .first()
                .is_some_and(|line| line.starts_with("mail_owner"))
                && mail_owner().is_none()
            {
                continue;
            }
            assert_eq!(said, reply, "{conf:?} {arguments:?}, pipes: {pipes}");
        }
    }
}

/// One session that is expected to fail at the start: reply, exit status and log.
fn fails(machine: Machine, how: &How) -> (String, String, Vec<String>) {
    let mut session = machine.start(how);
    session.send(REQUEST);
    let (reply, exit) = (session.reply(PATIENCE), session.exit());
    (reply, exit, machine.finish(&session))
}

#[test]
fn without_a_main_cf_the_client_is_told_and_so_is_the_log() {
    let machine = Machine::new(&[]);
    let main_cf = machine.instance.config_directory().join("main.cf");
    fs::remove_file(&main_cf).unwrap();
    let (reply, exit, log) = fails(machine, &How::default());
    let fatal = format!(
        "fatal: open {}: No such file or directory",
        main_cf.display()
    );
    assert_eq!(
        (reply.as_str(), exit.as_str(), log),
        (CONFIGURATION_ERROR, "1", vec![fatal, TOLD.to_owned()])
    );
}

/// A line of main.cf, arguments, and a part of the fatal line.
const BROKEN: &[(&str, &[&str], &str)] = &[
    (
        "qmqpd_timeout = x",
        &[],
        "parameter qmqpd_timeout: bad time value or unit: x",
    ),
    ("qmqpd_queue_method = pigeon", &[], "pigeon"),
    ("qmqpd_sandbox = perhaps", &[], "perhaps"),
    (
        "mail_owner = nobody-of-that-name",
        &[],
        "nobody-of-that-name",
    ),
    ("mail_owner = root", &[], "user root has privileged user ID"),
    (
        "queue_directory = /nowhere",
        &[],
        "chdir(\"/nowhere\"): No such file or directory",
    ),
    ("qmqpd_authorized_clients = !", &[], "no pattern after '!'"),
    ("", &["-c", "-o", "queue_directory=/nowhere"], "nowhere"),
    ("", &["-o", "qmqpd_error_delay=-1"], "qmqpd_error_delay"),
    ("", &["-o", "no-equals-sign"], "no-equals-sign"),
    ("", &["-t", "pigeon"], "pigeon"),
    ("", &["-x"], "invalid option"),
    ("", &["stray"], "unexpected command-line argument: stray"),
];

#[test]
fn a_broken_start_is_told_to_the_client_and_to_the_log() {
    if is_not_root("a_broken_start_is_told_to_the_client_and_to_the_log") {
        return;
    }
    for (conf, arguments, part) in BROKEN {
        let conf = if conf.is_empty() {
            Vec::new()
        } else {
            vec![*conf]
        };
        let machine = Machine::new(&conf);
        let stderr = machine.stderr();
        // What has no queue directory has no postlog socket there either: standard error has the line in any case.
        let arguments = [&["-V"], *arguments].concat();
        let how = How {
            arguments: &arguments,
            ..How::default()
        };
        let mut session = machine.start(&how);
        session.send(REQUEST);
        let (reply, exit) = (session.reply(PATIENCE), session.exit());
        let said = fs::read_to_string(stderr).unwrap();
        assert_eq!(
            (reply.as_str(), exit.as_str()),
            (CONFIGURATION_ERROR, "1"),
            "{conf:?} {arguments:?}: {said}"
        );
        // Of a command line that is not understood -V is no part, and the log has the line.
        let mut log = machine.finish(&session);
        let told = |line: &str| line.ends_with(TOLD);
        let count = log.iter().filter(|line| told(line)).count();
        assert!(count == 1 || said.contains("/nowhere"), "{log:?} {said}");
        log.retain(|line| !told(line));
        // Standard error is for people as well, in other words.
        let by_hand =
            |line: &str| line.starts_with("qmqpd: ") || line.starts_with("\"qmqpd --help\"");
        let is_usage = conf.is_empty() && !["nowhere", "qmqpd_error_delay"].contains(part);
        assert_eq!(said.lines().any(by_hand), is_usage, "{said}");
        let line = said.lines().rfind(|line| !told(line) && !by_hand(line));
        let line = line.or(log.last().map(String::as_str));
        let line = line
            .unwrap_or_default()
            .trim_start_matches("postfix/qmqpd: ");
        assert!(
            line.starts_with("fatal: ") && line.contains(part),
            "{conf:?} {arguments:?}: {said} {log:?}"
        );
        let logged = log.last().is_some_and(|last| last == line);
        assert!(
            logged || said.contains("/nowhere"),
            "{conf:?} {arguments:?}: {log:?}"
        );
    }
}

/// An ordinary user is not turned away, but a queue is no place for one.
#[test]
fn a_user_without_rights_hears_what_it_lacks() {
    if is_not_root("a_user_without_rights_hears_what_it_lacks") {
        return;
    }
    let machine = Machine::new(&[]);
    let cleanup = machine.cleanup(&[]);
    let public = machine.instance.queue_directory().join("public");
    let log_socket = machine.instance.dir.join("postlog");
    // The log is moved to where it can be reached.
    fs::hard_link(public.join("postlog"), &log_socket).unwrap();
    fs::set_permissions(&public, fs::Permissions::from_mode(0o710)).unwrap();
    let how = How {
        user: User::Other,
        arguments: &["-V"],
        ..How::default()
    };
    let begin = Instant::now();
    let mut session = machine.start(&how);
    session.send(REQUEST);
    assert_eq!(
        session.reply(PATIENCE),
        "33:ZError: queue service unavailable,"
    );
    let took = begin.elapsed();
    assert_eq!(session.exit(), "0");
    assert!(
        took < Duration::from_secs(3),
        "it is of no use to try again: {took:?}"
    );
    let said = fs::read_to_string(machine.stderr()).unwrap();
    let lacks = format!(
        "warning: connect #1 to subsystem public/cleanup: Permission denied (this process has uid {OTHER} and gid {OTHER}: \
         it must be $mail_owner's, or in the group $setgid_group)"
    );
    assert!(said.contains(&lacks), "{said}");
    fs::set_permissions(&public, fs::Permissions::from_mode(0o755)).unwrap();
    cleanup.finish();
    machine.finish(&session);
}

#[test]
fn a_user_without_rights_cannot_change_the_root_directory() {
    if is_not_root("a_user_without_rights_cannot_change_the_root_directory") {
        return;
    }
    let machine = Machine::new(&[]);
    let queue = machine.instance.queue_directory().display().to_string();
    let how = How {
        user: User::Other,
        arguments: &["-c"],
        ..How::default()
    };
    let (reply, exit, log) = fails(machine, &how);
    let fatal = format!("fatal: chroot({queue}): Operation not permitted");
    assert_eq!(
        (reply.as_str(), exit.as_str(), log),
        (CONFIGURATION_ERROR, "1", vec![fatal, TOLD.to_owned()])
    );
}

/// Runs the program for a person who reads what it says.
fn by_hand(words: &[&str]) -> Output {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    // Nothing of this machine's own mail system is asked.
    command.env("MAIL_CONFIG", "/nonexistent").output().unwrap()
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_qmqpd");

#[test]
fn help_and_version_are_on_standard_output() {
    for (option, start) in [("--help", "usage: qmqpd "), ("--version", "qmqpd 0.")] {
        let output = by_hand(&[PROGRAM, option]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{option}: {said}");
        assert!(said.starts_with(start), "{option}: {said}");
        assert!(output.stderr.is_empty(), "{option}");
    }
}

#[test]
fn on_a_terminal_it_says_what_it_is() {
    let begin = Instant::now();
    let output = by_hand(&[
        "script",
        "--quiet",
        "--return",
        "--command",
        PROGRAM,
        "/dev/null",
    ]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("do not run this command by hand"), "{said}");
    assert!(said.contains("\"qmqpd --help\""), "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

/// Who is at the other end of a pipe only the launcher knows.
#[test]
fn the_environment_names_the_client_of_a_pipe() {
    for (env, client) in [
        (
            &[("TCPREMOTEIP", "127.0.0.1"), ("TCPREMOTEPORT", "4711")][..],
            "localhost[127.0.0.1]:4711",
        ),
        (
            &[("TCPREMOTEIP", "192.0.2.1"), ("TCPREMOTEHOST", "localhost")],
            "unknown[192.0.2.1]:unknown",
        ),
        (&[("TCPREMOTEIP", "localhost")], "unknown[unknown]:unknown"),
        (&[("TCPREMOTEIP", "")], "unknown[unknown]:unknown"),
        (
            &[("REMOTE_ADDR", "2001:db8::1"), ("REMOTE_PORT", "x")],
            "unknown[2001:db8::1]:unknown",
        ),
        (
            &[("REMOTE_HOST", "192.0.2.3"), ("REMOTE_PORT", "99999")],
            "unknown[192.0.2.3]:unknown",
        ),
        (&[("TCPLOCALIP", "192.0.2.3")], "localhost[127.0.0.1]:0"),
    ] {
        let lookup = format!(
            "qmqpd_peername_lookup = {}",
            if client.starts_with("localhost") {
                "yes"
            } else {
                "no"
            }
        );
        let machine = Machine::new(&["qmqpd_client_port_logging = yes", &lookup]);
        let cleanup = machine.cleanup(&[]);
        let how = How {
            env,
            ..How::default()
        };
        let mut command = machine.command(&how);
        let (stdin, to_server) = pipe2(OFlag::O_CLOEXEC).unwrap();
        command.stdin(stdin).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        drop(command);
        let pid = child.id();
        std::io::Write::write_all(&mut File::from(to_server), REQUEST).unwrap();
        let reply = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let refused = format!("DError: {client} is not authorized to use this service");
        let refused = format!("{}:{refused},", refused.len());
        let expected = if client.starts_with("localhost") {
            ACCEPTED
        } else {
            &refused
        };
        assert_eq!(reply, expected, "{env:?}");
        cleanup.finish();
        let log = machine.log.finish();
        let line = format!("qmqpd[{pid}]: connect from {client}");
        assert!(
            log.iter()
                .any(|seen| String::from_utf8_lossy(seen).ends_with(&line)),
            "{env:?}"
        );
    }
}

/// Puts a filter of system calls in force, in which these calls fail with EPERM, and becomes the command that follows.
const FORBID: &str = r#"
my ($prctl, $first, $second) = splice(@ARGV, 0, 3);
my $filter = pack("SCCL" x 5, 0x20, 0, 0, 0, 0x15, 2, 0, $first, 0x15, 1, 0, $second, 0x06, 0, 0, 0x7fff0000,
    0x06, 0, 0, 0x00050001);
my $program = pack("S x6 P", 5, $filter);
syscall($prctl + 0, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";
syscall($prctl + 0, 22, 2, $program) == 0 or die "seccomp: $!";
exec @ARGV;
"#;

#[cfg(target_arch = "x86_64")]
const ALARM: libc::c_long = libc::SYS_alarm;
#[cfg(not(target_arch = "x86_64"))]
const ALARM: libc::c_long = libc::SYS_setitimer;

/// A client that says nothing more, and waits for nothing but the end: no alarm would end a wait for it.
#[test]
fn without_alarms_nobody_is_served() {
    let numbers = [libc::SYS_prctl, ALARM, libc::SYS_setitimer].map(|number| number.to_string());
    let mut through = vec!["perl", "-e", FORBID];
    through.extend(numbers.iter().map(String::as_str));
    for conf in [&[][..], &["qmqpd_log_stderr = yes"]] {
        let machine = Machine::new(conf);
        let how = How {
            through: &through,
            ..How::default()
        };
        let mut session = machine.start(&how);
        assert_eq!(session.reply(PATIENCE), CONFIGURATION_ERROR);
        assert_eq!(session.end(), "1");
        let fatal = "fatal: alarm(2), without which no wait ends: Operation not permitted";
        assert_eq!(machine.finish(&session), [fatal, TOLD]);
    }
}

/// Where Postfix waits for somebody to write, or reads without end.
#[test]
fn files_that_are_none_keep_nobody_waiting() {
    let not_regular = "not a regular file";
    for list in [
        "",
        "DIR/fifo",
        "texthash:DIR/fifo",
        "cidr:DIR/fifo",
        "regexp:/dev/zero",
        "cdb:DIR/fifo",
        "hash:DIR/fifo",
    ] {
        let machine = Machine::new(&[&format!("qmqpd_authorized_clients = {list}")]);
        let dir = &machine.instance.dir;
        let main_cf = machine.instance.config_directory().join("main.cf");
        let of_tables = ["fifo", "fifo.cdb", "fifo.db"].map(|name| dir.join(name));
        for path in &of_tables {
            mkfifo(path, Mode::from_bits_truncate(0o644)).unwrap();
        }
        if list.is_empty() {
            fs::remove_file(&main_cf).unwrap();
            mkfifo(&main_cf, Mode::from_bits_truncate(0o644)).unwrap();
        }
        let mut session = machine.start(&How::default());
        session.send(REQUEST);
        assert_eq!(session.reply(PATIENCE), CONFIGURATION_ERROR, "{list:?}");
        session.exit();
        let log = machine.finish(&session);
        let said = log.iter().any(|line| line.ends_with(not_regular));
        assert!(said, "{list:?} {log:?}");
    }
}
