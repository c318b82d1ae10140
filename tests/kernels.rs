//! Kernels without close_range(2) (Linux before 5.9) and without seccomp(2) filters: simulated by a filter of this test's
//! own, which answers as they do.
//!
//! The filter is that of a thread. What the thread starts has it as well: the program as a launcher starts it, and a
//! Postfix of its own with all its services.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use harness::master::{self, Master, free_port, request, send, until};
use harness::patience::PATIENCE;
use harness::queue_file::start;

/// What a kernel lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    CloseRange,
    Filters,
}

/// The queue methods, as the parameter has them.
const METHODS: [&str; 3] = ["cleanup", "file", "qmail:DIR/qmail-queue"];

/// In place of qmail-queue. What is open in it was open in the session.
const QMAIL_QUEUE: &str = "#!/bin/sh
ls -l /proc/$$/fd >DIR/data/open
cat >/dev/null
cat <&1 >/dev/null
";

/// The client is in the second table. A child of each session asks a program for both.
const MAIN_CF: &str = "\
qmqpd_authorized_clients = pcre:others, pcre:clients
command_directory = DIR
";

/// In place of postmap(1).
const POSTMAP: &str = "#!/bin/sh
found=1
while read -r key; do
    if [ \"$3 $key\" = \"pcre:clients 127.0.0.1\" ]; then
        printf '%s\\tx\\n' \"$key\"
        found=0
    fi
done
exit $found
";

const REFUSED: &str = "34:ZError: server configuration error,";
const FATAL: &str = "fatal: prctl(PR_SET_SECCOMP): Invalid argument";

/// Opcodes of bpf(4): load a word, jump if it is equal to a constant, return a constant.
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Where struct seccomp_data has the number of the call, and the lower half of the first argument.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;

/// Answers as a kernel that lacks this, for what this thread does and starts from here on.
#[allow(unsafe_code, reason = "no package has a safe call for it")]
fn lack(lack: Lack) {
    let step = |code, k: u32, jt, jf| libc::sock_filter { code, jt, jf, k };
    let number = |call: libc::c_long| u32::try_from(call).unwrap();
    let fail = |errno: libc::c_int| {
        let answer = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
        step(RETURN, answer, 0, 0)
    };
    let allow = step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0);
    let mut program = match lack {
        Lack::CloseRange => vec![
            step(LOAD, NUMBER, 0, 0),
            step(JUMP_EQUAL, number(libc::SYS_close_range), 0, 1),
            fail(libc::ENOSYS),
            allow,
        ],
        Lack::Filters => vec![
            step(LOAD, NUMBER, 0, 0),
            step(JUMP_EQUAL, number(libc::SYS_seccomp), 0, 1),
            fail(libc::ENOSYS),
            step(JUMP_EQUAL, number(libc::SYS_prctl), 0, 3),
            step(LOAD, FIRST_ARGUMENT, 0, 0),
            step(JUMP_EQUAL, libc::PR_SET_SECCOMP.unsigned_abs(), 0, 1),
            fail(libc::EINVAL),
            allow,
        ],
    };
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `program` is live and leads to a live array of as many instructions as it says; the kernel reads both.
    let status = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
}

/// Runs a test on a machine with such a kernel: a Postfix with a service for each queue method, at these ports.
fn on_a_kernel_without(what: Lack, options: &str, test: impl FnOnce(&Master, [u16; 3]) + Send) {
    let ports = METHODS.map(|_| free_port());
    let services = METHODS.iter().zip(ports).map(|(method, port)| {
        let service = "inet n - n - - qmqpd -o qmqpd_queue_method";
        format!("127.0.0.1:{port} {service}={method} {options}\n")
    });
    let services: String = services.collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            lack(what);
            test(&Master::start_with(MAIN_CF, &services, prepare), ports);
        });
    });
}

fn prepare(dir: &Path) {
    for (name, text) in [("postmap", POSTMAP), ("qmail-queue", QMAIL_QUEUE)] {
        let path = dir.join(name);
        fs::write(&path, text.replace("DIR", &dir.display().to_string())).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn message() -> Vec<u8> {
    request(b"b\n", "s@x.example", &["r@y.example"])
}

/// The reply to a client of a launcher that leaves two descriptors open, and the exit status.
fn launched(master: &Master, method: &str, sandbox: &str) -> (String, Option<i32>) {
    launched_with(master, method, &format!("qmqpd_sandbox={sandbox}"))
}

fn launched_with(master: &Master, method: &str, option: &str) -> (String, Option<i32>) {
    let dir = master.dir.display().to_string();
    let leaves = ["sh", "-c", "exec \"$@\" 5</etc/passwd 9</etc/passwd", "sh"];
    let method = format!("qmqpd_queue_method={}", method.replace("DIR", &dir));
    let (mut child, stream) = start(master, &leaves, &[&method, option]);
    let reply = send(stream, &message()).unwrap();
    (reply, child.wait().unwrap().code())
}

fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).unwrap()
}

fn all_accept(master: &Master, ports: [u16; 3], sandbox: &str) {
    for (method, port) in METHODS.iter().zip(ports) {
        let (reply, status) = launched(master, method, sandbox);
        assert!(reply.contains(":KOk: queued as "), "{method}: {reply}");
        assert_eq!(status, Some(0), "{method}");
        let reply = send(connect(port), &message()).unwrap();
        assert!(reply.contains(":KOk: queued as "), "{method}: {reply}");
    }
    assert_eq!(master.trouble(), Vec::<String>::new());
    let (complete, partial) = master.incoming();
    assert_eq!((complete.len(), partial.len()), (4, 0));
}

/// What --check writes, and its exit status.
fn check(master: &Master) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_qmqpd"))
        .args(["--check", "-o", "qmqpd_peername_lookup=no"])
        .env("MAIL_CONFIG", master.dir.join("conf"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (text, output.status.code())
}

#[test]
fn without_close_range_nothing_else_is_different() {
    if master::is_missing("without_close_range_nothing_else_is_different") {
        return;
    }
    on_a_kernel_without(Lack::CloseRange, "", |master, ports| {
        all_accept(master, ports, "yes");
        let (reply, _) = launched(master, METHODS[2], "yes");
        assert!(reply.contains(":K"), "{reply}");
        let open = fs::read_to_string(master.dir.join("data/open")).unwrap();
        assert!(open.contains(" 0 -> "), "{open}");
        assert!(!open.contains("/etc/passwd"), "{open}");
        let (launched, _) = launched(master, METHODS[2], "yes");
        assert!(launched.contains(":K"), "{launched}");
        let open = fs::read_to_string(master.dir.join("data/open")).unwrap();
        assert!(
            open.contains(" 0 -> ") && !open.contains("/etc/passwd"),
            "{open}"
        );
        let (report, status) = check(master);
        assert!(
            report.contains("\nnote: The kernel has no close_range(2), "),
            "{report}"
        );
        assert_eq!(status, Some(0), "{report}");
    });
}

#[test]
fn without_filters_every_mode_serves_where_main_cf_says_so() {
    if master::is_missing("without_filters_every_mode_serves_where_main_cf_says_so") {
        return;
    }
    on_a_kernel_without(Lack::Filters, "-o qmqpd_sandbox=no", |master, ports| {
        all_accept(master, ports, "no");
    });
}

#[test]
fn without_filters_no_mode_serves_otherwise() {
    if master::is_missing("without_filters_no_mode_serves_otherwise") {
        return;
    }
    on_a_kernel_without(Lack::Filters, "", |master, [cleanup, file, qmail]| {
        for method in METHODS {
            // The program that is to be asked about the client can have no filter: the table is unavailable.
            let (reply, status) = launched(master, method, "yes");
            assert_eq!((reply.as_str(), status), (REFUSED, Some(0)), "{method}");
            let list = "qmqpd_authorized_clients=127.0.0.1";
            let (reply, status) = launched_with(master, method, list);
            assert_eq!((reply.as_str(), status), (REFUSED, Some(1)), "{method}");
        }
        let logged = || master.log().matches(FATAL).count();
        let all = until(PATIENCE, || logged() == METHODS.len());
        assert!(all, "{}", master.log());
        // Such a table, and a program for the queue, are in the way of a filter for the resident process.
        for port in [cleanup, file, qmail] {
            assert_eq!(send(connect(port), &message()).unwrap(), REFUSED);
        }
        assert_eq!(master.incoming(), (Vec::new(), Vec::new()));
        let (report, status) = check(master);
        let line = "\nerror: prctl(PR_SET_SECCOMP): Invalid argument\n    The kernel, or the container around the process, allows no";
        assert!(report.contains(line), "{report}");
        assert_eq!(status, Some(78));
    });
}

/// A resident process that cannot be confined ends before it accepts anything: master(8) starts the service again later.
#[test]
fn without_filters_a_resident_process_says_so_and_ends() {
    if master::is_missing("without_filters_a_resident_process_says_so_and_ends") {
        return;
    }
    let options = "-o qmqpd_authorized_clients=127.0.0.1";
    on_a_kernel_without(Lack::Filters, options, |master, [cleanup, _, _]| {
        connect(cleanup).write_all(&message()).unwrap();
        master.wait_for_log(FATAL);
        master.wait_for_log("qmqpd: bad command startup -- throttling");
        assert_eq!(master.incoming(), (Vec::new(), Vec::new()));
    });
}
