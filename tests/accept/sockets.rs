//! Where the listening sockets come from, and what is said where there are none.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use crate::harness::launchers::{connect_from, reply};
use crate::harness::patience::{PATIENCE, output_of, until};
use crate::launcher::{LOCALHOST, Launcher, is_running, message, sees_descriptors};

/// Runs the program behind a shell that has prepared descriptors and environment; what it has said by its end.
fn said(prepare: &str, input: Stdio) -> String {
    let program = env!("CARGO_BIN_EXE_qmqpd");
    let child = Command::new("sh")
        .args([
            "-c",
            &format!("{prepare} exec {program} --accept -o qmqpd_log_stderr=yes -V"),
        ])
        .env("MAIL_CONFIG", "/nowhere")
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = output_of(child);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    // The launcher is no client.
    assert_eq!(output.stdout, b"", "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn without_a_listening_socket_it_says_what_to_type() {
    let nowhere = "no listening socket: a launcher has to pass one (systemd: a .socket unit with Accept=no; inetd: wait; \
                   xinetd: wait = yes)";
    let another =
        "no listening socket: systemd has passed its sockets to process 1, and this is process ";
    let (connected, _other) = UnixStream::pair().unwrap();
    for (prepare, input, expected) in [
        ("", Stdio::null(), nowhere),
        ("", OwnedFd::from(connected).into(), nowhere),
        ("LISTEN_FDS=1 LISTEN_PID=1", Stdio::null(), another),
        (
            "LISTEN_FDS=1 LISTEN_PID=$$",
            Stdio::null(),
            "LISTEN_FDS announces descriptor 3: Bad file descriptor",
        ),
        (
            "exec 3</dev/null; LISTEN_FDS=1 LISTEN_PID=$$",
            Stdio::null(),
            "descriptor 3 is not a listening stream socket",
        ),
    ] {
        let said = said(prepare, input);
        assert!(
            said.contains(&format!("fatal: --accept: {expected}")),
            "{prepare}: {said}"
        );
    }
}

/// With LISTEN_PID of another process, descriptor 0 is asked; here it has one.
#[test]
fn what_systemd_has_passed_to_another_process_is_left_alone() {
    let launcher = Launcher::start(&[]);
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    assert!(launcher.send().contains(":KOk: queued as "));
    let config = launcher.instance.config_directory();
    let mut child = Command::new("sh")
        .args([
            "-c",
            "exec 3<&0; LISTEN_FDS=1 LISTEN_PID=1 exec \"$0\" --accept",
        ])
        .arg(env!("CARGO_BIN_EXE_qmqpd"))
        .env("MAIL_CONFIG", config)
        .stdin(OwnedFd::from(other.try_clone().unwrap()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let port = other.local_addr().unwrap().port();
    let said = reply(connect_from(LOCALHOST, port), &message());
    assert!(said.contains(":KOk: queued as "), "{said}");
    // It serves what is on descriptor 0, and 3 is closed.
    let open = |number: u32| fs::read_link(format!("/proc/{}/fd/{number}", child.id()));
    if sees_descriptors("what_systemd_has_passed_to_another_process_is_left_alone") {
        let is_own = until(PATIENCE, || {
            open(0).is_ok_and(|to| to.as_os_str() == "/dev/null")
        });
        assert!(is_own);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn several_sockets_of_systemd_s_are_served() {
    let launcher = Launcher::start(&[]);
    let path = launcher.instance.dir.join("socket");
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    let port = tcp.local_addr().unwrap().port();
    let mut child = Command::new("sh")
        .args([
            "-c",
            "exec 3<&0 4<&1 0</dev/null 1>&2 5<&2; LISTEN_FDS=2 LISTEN_PID=$$ exec \"$0\" --accept",
        ])
        .arg(env!("CARGO_BIN_EXE_qmqpd"))
        .env("MAIL_CONFIG", launcher.instance.config_directory())
        .stdin(OwnedFd::from(tcp))
        .stdout(OwnedFd::from(unix))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..3 {
        let by_tcp = reply(connect_from(LOCALHOST, port), &message());
        assert!(by_tcp.contains(":KOk: queued as "), "{by_tcp}");
        let by_unix = reply(UnixStream::connect(&path).unwrap(), &message());
        assert!(by_unix.contains(":KOk: queued as "), "{by_unix}");
    }
    assert_eq!(launcher.queued(), 6);
    // What is not announced does not stay open.
    let open = |number: u32| fs::read_link(format!("/proc/{}/fd/{number}", child.id())).unwrap();
    if sees_descriptors("several_sockets_of_systemd_s_are_served") {
        assert_ne!(open(5).as_os_str(), "/dev/null");
    }
    assert!(is_running(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Where the launcher leaves the accepting to a program that was not told so, it says what there is to be told.
#[test]
fn a_listening_socket_without_the_option_is_a_mistake_of_the_launcher_s() {
    let launcher = Launcher::start(&[]);
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_qmqpd"))
        .env("MAIL_CONFIG", launcher.instance.config_directory())
        .stdin(OwnedFd::from(socket))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = output_of(child);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("standard input is a listening socket"),
        "{said}"
    );
    assert!(said.contains("--accept"), "{said}");
}
