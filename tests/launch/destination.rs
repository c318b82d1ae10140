//! Where log lines go, and in which form.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::harness::server::{Server, why_no_postfix};
use crate::machine::{ACCEPTED, How, Machine, PATIENCE, REQUEST, User, is_not_root};

/// A /dev that has two entries: null, and a log that is the test's. Everything else stays as it is, and nobody else
/// sees it.
const OWN_DEV: &[&str] = &[
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount --bind /dev/null DIR/dev/null && mount --rbind DIR/dev /dev && exec \"$@\"",
    "sh",
];

/// A line of syslog(3) without the process id, and with a time that is the same in every run.
fn general(line: &str, pid: u32) -> String {
    let (start, rest) = line.split_once('>').unwrap();
    let (time, text) = rest.split_at(15);
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let shape = shape.replace(":00", ":NN");
    assert!(shape.ends_with(":NN:NN"), "{line:?}");
    format!("{start}>TIME{}", text.replace(&format!("[{pid}]"), "[PID]"))
}

/// One session with a /dev/log of its own: the datagrams.
fn syslog_of(server: Server, arguments: &[&str], conf: &[&str], zone: &str) -> (Vec<String>, u32) {
    let machine = Machine::new(conf);
    let dev = machine.instance.dir.join("dev");
    fs::create_dir(&dev).unwrap();
    fs::write(dev.join("null"), b"").unwrap();
    let log = UnixDatagram::bind(dev.join("log")).unwrap();
    let mut open = fs::metadata(dev.join("log")).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o666);
    fs::set_permissions(dev.join("log"), open).unwrap();
    log.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();

    let cleanup = machine.cleanup(&[]);
    let mut through = OWN_DEV.to_vec();
    if server == Server::Postfix {
        through.extend([
            "setpriv",
            "--reuid=postfix",
            "--regid=postfix",
            "--clear-groups",
        ]);
    }
    let how = How {
        server,
        user: User::Root,
        through: &through,
        arguments,
        env: &[("TZ", zone), ("POSTLOG_SERVICE", "")],
    };
    let mut session = machine.start(&how);
    session.send(REQUEST);
    let reply = session.reply(PATIENCE);
    session.exit();
    let stderr = fs::read_to_string(machine.stderr()).unwrap();
    assert_eq!((reply.as_str(), stderr.as_str()), (ACCEPTED, ""));
    cleanup.finish();
    let mut lines = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length) = log.recv(&mut buffer) {
        lines.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
    }
    let pid = session.child.id();
    assert!(machine.finish(&session).is_empty());
    (lines, pid)
}

#[test]
fn syslog_gets_datagrams_with_facility_and_local_time() {
    if is_not_root("syslog_gets_datagrams_with_facility_and_local_time") {
        return;
    }
    // With half an hour in it, so that it is nobody's by accident.
    let zone = "IST-5:30";
    let minute = || {
        let mut command = std::process::Command::new("date");
        let output = command.arg("+%b %e %H:%M").env("TZ", zone).output();
        String::from_utf8(output.unwrap().stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    };
    let conf = ["maillog_file =", "syslog_facility = local3"];
    let expected = [
        "<158>TIME postfix/qmqpd[PID]: connect from localhost[127.0.0.1]",
        "<158>TIME postfix/qmqpd[PID]: ABCDEF0123: client=localhost[127.0.0.1]",
        "<158>TIME postfix/qmqpd[PID]: disconnect from localhost[127.0.0.1]",
    ];
    // In a chroot there is no /dev/log: it has to be open by then.
    for arguments in [&["-S"][..], &["-c"]] {
        let before = minute();
        let (lines, pid) = syslog_of(Server::Ours, arguments, &conf, zone);
        let after = minute();
        let seen: Vec<String> = lines.iter().map(|line| general(line, pid)).collect();
        assert_eq!(seen, expected, "{arguments:?}");
        for line in &lines {
            let time = &line["<158>".len()..];
            let now = time.starts_with(&before) || time.starts_with(&after);
            assert!(now, "{line:?} is not of {before:?}");
        }
    }
}

#[test]
fn syslog_gets_from_us_what_it_gets_from_postfix() {
    if let Some(reason) = why_no_postfix() {
        return crate::harness::skip("syslog_gets_from_us_what_it_gets_from_postfix", reason);
    }
    for conf in [
        &["maillog_file =", "syslog_name = other/name"][..],
        &[
            "maillog_file =",
            "syslog_facility = news",
            "qmqpd_client_port_logging = yes",
        ],
    ] {
        let [ours, theirs] = [Server::Ours, Server::Postfix].map(|server| {
            let (lines, pid) = syslog_of(server, &["-S"], conf, "EST5");
            lines
                .iter()
                .map(|line| general(line, pid))
                .collect::<Vec<_>>()
        });
        assert_eq!(ours, theirs, "{conf:?}");
    }
}

#[test]
fn standard_error_gets_every_line_and_nothing_else_does() {
    let machine = Machine::new(&["qmqpd_log_stderr = yes"]);
    let cleanup = machine.cleanup(&[]);
    let mut session = machine.start(&How::default());
    session.send(REQUEST);
    assert_eq!(session.reply(PATIENCE), ACCEPTED);
    assert_eq!(session.exit(), "0");
    cleanup.finish();
    let expected = "\
postfix/qmqpd: connect from localhost[127.0.0.1]
postfix/qmqpd: ABCDEF0123: client=localhost[127.0.0.1]
postfix/qmqpd: disconnect from localhost[127.0.0.1]
";
    assert_eq!(fs::read_to_string(machine.stderr()).unwrap(), expected);
    assert!(machine.finish(&session).is_empty());
}

/// A log that is not there costs no mail.
#[test]
fn without_a_log_mail_is_taken_all_the_same() {
    let machine = Machine::new(&["postlog_service_name = nobody"]);
    let cleanup = machine.cleanup(&[]);
    let mut session = machine.start(&How::default());
    session.send(REQUEST);
    assert_eq!(session.reply(PATIENCE), ACCEPTED);
    assert_eq!(session.exit(), "0");
    cleanup.finish();
    assert!(machine.finish(&session).is_empty());
}
