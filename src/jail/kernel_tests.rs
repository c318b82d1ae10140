//! Tests of confinement and of giving up root, as the kernel enforces them.
//!
//! Both are permanent, so each case is a process: this test program again, with the act in the environment for the test
//! `in_a_process_of_its_own`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::wait::{WaitStatus, waitpid};

use super::*;
use crate::skip::skip;
use crate::sys::inherit::start_blocked;
use crate::sys::seccomp::try_call;
use crate::sys::{alarm, time};

const ACT: &str = "QMQPD_TEST_JAIL";

fn program(act: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "jail::kernel_tests::in_a_process_of_its_own"])
        .args(["--nocapture", "--test-threads=1"])
        .env(ACT, act)
        .env_remove("RUST_BACKTRACE")
        // Makes the test's thread allocate like a main thread, from the break.
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // Signals must reach the test's thread, not the thread that waits for it.
    start_blocked(&mut command, Signal::SIGALRM);
    start_blocked(&mut command, Signal::SIGXCPU);
    command
}

/// Runs an act to its end, with a directory of its own. Returns its status and its log.
fn run(act: &str) -> (ExitStatus, String) {
    let directory = temporary(&act.replace(' ', "-"));
    fs::create_dir(&directory).unwrap();
    let output = program(act).env("TMPDIR", &directory).output().unwrap();
    fs::remove_dir_all(&directory).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    // The process may have had children.
    let without_ids = stderr
        .split("qmqpd[")
        .map(|part| match part.split_once("]: ") {
            Some((id, text)) if id.bytes().all(|b| b.is_ascii_digit()) => format!("PID]: {text}"),
            _ => part.to_owned(),
        });
    let stderr = without_ids.collect::<Vec<_>>().join("qmqpd[");
    (output.status, stderr)
}

fn jailed(needs: &[Need<'_>]) {
    time::init();
    log::configure(
        "postfix/qmqpd",
        log::Destination::Stderr { journal: false },
        false,
    );
    log::connect();
    confine(needs).unwrap();
}

#[test]
fn in_a_process_of_its_own() {
    let Ok(act) = std::env::var(ACT) else {
        return;
    };
    nix::sys::signal::SigSet::empty().thread_set_mask().unwrap();
    match act.as_str() {
        "serve" => serve(),
        "status" => read_own_status(),
        "limits" => read_own_limits(),
        "work" => work(Duration::from_millis(900)),
        "work too long" => work(FOR_EVER),
        "work on" => work_on(),
        "sleep" => sleep_through_a_stop(),
        "abort" => abort_confined(),
        "file" => finish_a_file(),
        "wait" => wait_for_a_child(),
        "postlog" => break_out_under_postlog(),
        "drop" => become_a_user(),
        "resident" => serve_in_a_child(),
        "resident tries" => {
            confine_resident().unwrap();
            try_what_is_limited();
        }
        "resolver tries" => look_a_name_up(),
        "resolver without landlock" => {
            hide_landlock();
            look_a_name_up();
        }
        "chroot" => become_a_user_in_a_chroot(),
        "stay root" => refuse_to_stay_root(),
        _ => break_out(&act),
    }
    // The standard library's exit makes calls that the program does not.
    crate::sys::child::exit(0)
}

#[test]
fn a_session_runs_under_the_filter() {
    let (status, stderr) = run("serve");
    assert!(status.success(), "{status} {stderr}");
    assert_eq!(stderr, "postfix/qmqpd[PID]: warning: logged\n");
}

fn serve() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    alarm::init().unwrap();
    jailed(&[]);
    log::warning!("logged");
    let mut content = Vec::new();
    for _ in 0..1600 {
        content.extend_from_slice(&[b'x'; 65536]);
    }
    let small: Vec<Vec<u8>> = (0..4000).map(|size| vec![1; size]).collect();
    drop((content, small));

    (&theirs).write_all(b"5:hello,").unwrap();
    let mut buffer = [0; 8];
    assert_eq!(
        recv(ours.as_raw_fd(), &mut buffer, MsgFlags::MSG_PEEK),
        Ok(8)
    );
    (&ours).read_exact(&mut buffer).unwrap();
    let mut bounded = alarm::Bounded {
        fd: ours.into(),
        limit: Duration::from_secs(1),
    };
    assert_eq!(
        bounded.read(&mut buffer).unwrap_err().kind(),
        std::io::ErrorKind::TimedOut
    );
    bounded.write_all(b"3:Kok,").unwrap();
    alarm::disarm();
    sleep(Duration::from_millis(10));
    nix::sys::socket::shutdown(bounded.fd.as_raw_fd(), nix::sys::socket::Shutdown::Write).unwrap();
    assert!(time::Moment::now().secs > 0 && std::process::id() > 0);
    // The C library makes it only if the vDSO cannot.
    try_call(libc::SYS_clock_gettime, [0; 6]).unwrap_or(0);
    drop((bounded, theirs));
}

#[test]
fn the_kernel_confirms_the_confinement() {
    let (status, stderr) = run("status");
    assert!(status.success(), "{status} {stderr}");
}

fn read_own_status() {
    let mut file = File::open("/proc/thread-self/status").unwrap();
    let mut buffer = [0; 8192];
    jailed(&[]);
    let length = file.read(&mut buffer).unwrap();
    let status = String::from_utf8_lossy(&buffer[..length]);
    assert!(status.contains("\nNoNewPrivs:\t1\n"), "{status}");
    assert!(status.contains("\nSeccomp:\t2\n"), "{status}");
}

#[test]
fn a_sleep_survives_being_stopped_and_continued() {
    let mut child = program("sleep").spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    child.stderr.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    for signal in [
        Signal::SIGSTOP,
        Signal::SIGCONT,
        Signal::SIGSTOP,
        Signal::SIGCONT,
    ] {
        sleep(Duration::from_millis(50));
        kill(pid, signal).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Stops in the sleep, or in the read that an alarm ends.
fn sleep_through_a_stop() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    alarm::init().unwrap();
    jailed(&[]);
    log::info!("ready");
    sleep(Duration::from_millis(120));
    let mut bounded = alarm::Bounded {
        fd: ours.into(),
        limit: Duration::from_secs(1),
    };
    let error = bounded.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn a_confined_process_can_still_abort() {
    let (status, stderr) = run("abort");
    assert_eq!(
        (status.signal(), stderr.as_str()),
        (Some(libc::SIGABRT), "")
    );
}

fn abort_confined() {
    jailed(&[]);
    std::process::abort()
}

#[test]
fn a_call_outside_the_table_is_logged_and_ends_the_process() {
    for &(act, call) in ESCAPES {
        let (status, stderr) = run(act);
        assert_eq!(status.code(), Some(1), "{act}: {status} {stderr}");
        assert_eq!(
            stderr,
            format!("postfix/qmqpd[PID]: fatal: system call {call} not allowed\n"),
            "{act}"
        );
    }
}

/// Bit 30 marks a call of the x32 architecture; this one would be read.
const X32: libc::c_long = 0x4000_0000;

const ESCAPES: &[(&str, libc::c_long)] = &[
    ("open", libc::SYS_openat),
    ("socket", libc::SYS_socket),
    ("connect", libc::SYS_connect),
    ("send to an address", libc::SYS_sendto),
    ("exec", libc::SYS_execve),
    ("fork", libc::SYS_clone),
    ("make memory executable", libc::SYS_mprotect),
    ("map executable memory", libc::SYS_mmap),
    ("trace", libc::SYS_ptrace),
    ("signal the parent", libc::SYS_tgkill),
    ("lift the filter", libc::SYS_prctl),
    ("fsync another file", libc::SYS_fsync),
    ("change a mode otherwise", libc::SYS_fchmod),
    ("remove a directory", libc::SYS_unlinkat),
    ("map a file", libc::SYS_mmap),
    ("connect elsewhere", libc::SYS_connect),
    ("connect another socket", libc::SYS_connect),
    ("wait for another child", libc::SYS_wait4),
    #[cfg(target_arch = "x86_64")]
    ("x32", X32),
];

/// The length of the address that a socket may be connected to.
const LENGTH: u32 = 15;

fn break_out(act: &str) {
    let null = File::open("/dev/null").unwrap();
    let root = File::open("/").unwrap();
    let parent = libc::c_long::from(std::os::unix::process::parent_id());
    let socket = UnixDatagram::unbound().unwrap();
    let null_again = File::open("/dev/null").unwrap();
    let number = |fd: &dyn AsRawFd| libc::c_long::from(fd.as_raw_fd());
    let needs = [
        Need::File(null.as_fd()),
        Need::Unlink(root.as_fd()),
        Need::Connect(socket.as_fd(), LENGTH),
        Need::Wait(Pid::from_raw(i32::MAX)),
    ];
    let elsewhere = [
        "fsync another file",
        "change a mode otherwise",
        "remove a directory",
        "map a file",
        "connect elsewhere",
        "connect another socket",
        "wait for another child",
    ];
    jailed(if elsewhere.contains(&act) {
        &needs
    } else {
        &[]
    });
    match act {
        "open" => drop(File::open("/dev/null")),
        "socket" => drop(UnixDatagram::unbound()),
        "connect" => drop(socket.connect("/dev/log")),
        "connect another socket" => {
            let length = LENGTH.into();
            attempt(libc::SYS_connect, [number(&null), 0, length, 0, 0, 0]);
        }
        "send to an address" => drop(socket.send_to(b"x", "/dev/log")),
        "exec" => attempt(libc::SYS_execve, [0; 6]),
        "fork" => attempt(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]),
        "make memory executable" => attempt(libc::SYS_mprotect, [0, 4096, 5, 0, 0, 0]),
        "map executable memory" => attempt(libc::SYS_mmap, [0, 4096, 5, 0x22, -1, 0]),
        "trace" => attempt(libc::SYS_ptrace, [0; 6]),
        "signal the parent" => attempt(libc::SYS_tgkill, [parent, parent, 6, 0, 0, 0]),
        "lift the filter" => attempt(libc::SYS_prctl, [22, 0, 0, 0, 0, 0]),
        "fsync another file" => drop(null_again.sync_all()),
        "change a mode otherwise" => attempt(libc::SYS_fchmod, [number(&null), 0o6755, 0, 0, 0, 0]),
        "remove a directory" => attempt(
            libc::SYS_unlinkat,
            [number(&root), 0, libc::AT_REMOVEDIR.into(), 0, 0, 0],
        ),
        "map a file" => attempt(libc::SYS_mmap, [0, 4096, 1, 2, number(&null), 0]),
        "connect elsewhere" => {
            let longer = libc::c_long::from(LENGTH) + 1;
            attempt(libc::SYS_connect, [number(&socket), 0, longer, 0, 0, 0]);
        }
        "wait for another child" => attempt(libc::SYS_wait4, [-1, 0, 0, 0, 0, 0]),
        "x32" => attempt(X32, [0; 6]),
        unknown => panic!("there is no act {unknown}"),
    }
    panic!("got out");
}

fn attempt(call: libc::c_long, arguments: [libc::c_long; 6]) {
    try_call(call, arguments).unwrap_or(-1);
}

#[test]
fn a_resident_process_looks_names_up_and_has_a_child_that_is_confined() {
    let (status, stderr) = run("resident");
    assert!(status.success(), "{status} {stderr}");
    let line = format!(
        "postfix/qmqpd[PID]: fatal: system call {} not allowed\n",
        libc::SYS_openat
    );
    assert_eq!(stderr, line);
}

fn serve_in_a_child() {
    use crate::sys::child::{Fork, bounded_child, die_with, fork, wait};

    let limit = Duration::from_secs(10);
    alarm::init().unwrap();
    time::init();
    log::configure(
        "postfix/qmqpd",
        log::Destination::Stderr { journal: false },
        false,
    );
    confine_resident().unwrap();
    match fork().unwrap() {
        Fork::Child { parent } => {
            die_with(parent).unwrap();
            let address = bounded_child(limit, || {
                use std::net::ToSocketAddrs;
                let found = ("localhost", 0).to_socket_addrs().unwrap();
                vec![u8::try_from(found.count()).unwrap()]
            });
            assert!(address.unwrap().is_some_and(|found| found[0] > 0));
            log::connect();
            confine(&[]).unwrap();
            drop(File::open("/dev/null"));
            panic!("got out");
        }
        Fork::Parent { child } => {
            let ended = WaitStatus::Exited(child, 1);
            assert_eq!(wait(child, limit).unwrap(), ended);
        }
    }
}

/// Fails as if the user had no right to it, which libraries can handle.
#[test]
fn a_process_with_limits_cannot_do_what_it_gave_up_and_lives() {
    for act in ["resident tries", "resolver tries"] {
        let (status, stderr) = run(act);
        assert!(status.success(), "{act}: {status} {stderr}");
    }
}

fn try_what_is_limited() {
    for call in [
        libc::SYS_execve,
        libc::SYS_ptrace,
        libc::SYS_mount,
        libc::SYS_setuid,
        libc::SYS_unshare,
        libc::SYS_bpf,
        libc::SYS_kill,
        libc::SYS_seccomp,
    ] {
        assert_eq!(try_call(call, [0; 6]), Err(Errno::EPERM), "{call}");
    }
    for call in [libc::SYS_clone3, 463, 1000] {
        assert_eq!(try_call(call, [0; 6]), Err(Errno::ENOSYS), "{call}");
    }
}

/// Reads files, starts a thread and finds a name; changes no file.
fn look_a_name_up() {
    let path = std::env::temp_dir().join("file");
    fs::write(&path, "x").unwrap();
    confine_resolver().unwrap();
    try_what_is_limited();
    assert_eq!(fs::read(&path).unwrap(), b"x");
    for refused in [
        fs::write(&path, "y"),
        File::create_new(path.with_extension("new")).map(drop),
        fs::remove_file(&path),
        fs::rename(&path, path.with_extension("new")),
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)),
        fs::create_dir(path.with_extension("new")),
        nix::unistd::truncate(&path, 0).map_err(Into::into),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    }
    assert_eq!(
        try_call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]),
        Err(Errno::EPERM)
    );
    let found = std::thread::spawn(|| {
        use std::net::ToSocketAddrs;
        ("localhost", 0).to_socket_addrs().unwrap().count()
    });
    assert!(found.join().unwrap() > 0);
}

/// Another filter of the test stands for a kernel without Landlock.
#[test]
fn without_landlock_a_resolver_has_all_its_other_limits() {
    let (status, stderr) = run("resolver without landlock");
    assert!(status.success(), "{status} {stderr}");
}

fn hide_landlock() {
    use crate::sys::seccomp::{Instruction, NO_SUCH_CALL, install};

    let call = u32::try_from(libc::SYS_landlock_create_ruleset).unwrap();
    let of = |code, k, jt, jf| Instruction { code, jt, jf, k };
    prctl::set_no_new_privs().unwrap();
    install(&[
        of(filter::LOAD, 0, 0, 0),
        of(filter::JUMP_EQUAL, call, 0, 1),
        of(filter::RETURN, NO_SUCH_CALL, 0, 0),
        of(filter::RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ])
    .unwrap();
    assert_eq!(landlock::version(), None);
    assert_eq!(landlock::forbid_changes(), Ok(false));
}

#[test]
fn the_last_line_goes_to_the_log_that_is_open() {
    let path = temporary("postlog");
    let postlogd = UnixDatagram::bind(&path).unwrap();
    postlogd
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut child = program("postlog").spawn().unwrap();
    let pid = child.id();
    writeln!(child.stdin.take().unwrap(), "{}", path.display()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(1), b"".as_slice())
    );
    let mut buffer = [0; 4096];
    let length = postlogd.recv(&mut buffer).unwrap();
    let line = std::str::from_utf8(&buffer[..length]).unwrap();
    let end = format!(
        " mail postfix/qmqpd[{pid}]: fatal: system call {} not allowed",
        libc::SYS_ptrace
    );
    assert!(line.ends_with(&end), "{line}");
    fs::remove_file(path).unwrap();
}

fn break_out_under_postlog() {
    let mut path = String::new();
    std::io::stdin().read_line(&mut path).unwrap();
    let destination = log::Destination::Postlog {
        socket: PathBuf::from(path.trim_end()),
        host: "mail".to_owned(),
    };
    log::configure("postfix/qmqpd", destination, false);
    log::connect();
    confine(&[]).unwrap();
    attempt(libc::SYS_ptrace, [0; 6]);
    panic!("got out");
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("qmqpd-jail-{name}-{}", std::process::id()))
}

#[test]
fn a_queue_file_can_be_finished_removed_and_announced() {
    let (status, stderr) = run("file");
    assert!(status.success(), "{status} {stderr}");
}

fn finish_a_file() {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrLike, UnixAddr, connect, socket,
    };

    let directory = temporary("queue");
    fs::create_dir(&directory).unwrap();
    let mut file = File::create_new(directory.join("file")).unwrap();
    let _other = File::create_new(directory.join("other")).unwrap();
    let path = temporary("qmgr");
    let qmgr = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let address = UnixAddr::new(&path).unwrap();
    fs::remove_file(directory.join("other")).unwrap();
    let held = File::open(&directory).unwrap();
    let trigger = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::empty(),
        None,
    )
    .unwrap();
    jailed(&[
        Need::File(file.as_fd()),
        Need::Unlink(held.as_fd()),
        Need::Connect(trigger.as_fd(), address.len()),
    ]);
    file.write_all(b"C     message").unwrap();
    file.write_all_at(b"12345", 1).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o700))
        .unwrap();
    file.sync_all().unwrap();
    nix::unistd::unlinkat(&held, "file", nix::unistd::UnlinkatFlags::NoRemoveDir).unwrap();
    connect(trigger.as_raw_fd(), &address).unwrap();
    nix::unistd::write(&trigger, b"W").unwrap();
    drop((file, held, trigger, qmgr));
}

const FOR_EVER: Duration = Duration::from_secs(60);

#[test]
fn the_processor_is_the_process_s_for_a_time() {
    for (act, signal, expected) in [
        ("limits", None, ""),
        ("work", None, ""),
        (
            "work too long",
            Some(libc::SIGXCPU),
            "postfix/qmqpd[PID]: fatal: limit of processor time exceeded\n",
        ),
        ("work on", Some(libc::SIGKILL), ""),
    ] {
        let (status, stderr) = run(act);
        assert_eq!(status.signal(), signal, "{act}: {status} {stderr}");
        assert_eq!(stderr, expected, "{act}");
    }
}

fn read_own_limits() {
    let mut file = File::open("/proc/thread-self/limits").unwrap();
    let mut buffer = [0; 8192];
    jailed(&[]);
    let length = file.read(&mut buffer).unwrap();
    let limits = String::from_utf8_lossy(&buffer[..length]);
    let line = limits.lines().find(|line| line.starts_with("Max cpu time"));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    let limit = PROCESSOR_LIMIT.as_secs();
    let (soft, hard) = (limit.to_string(), (limit + 2).to_string());
    assert_eq!(words[3..5], [soft.as_str(), &hard]);
}

/// Works for this time, with a limit of one second on the processor.
fn work(limit: Duration) {
    setrlimit(Resource::RLIMIT_CPU, 1, 4).unwrap();
    jailed(&[]);
    work_for(limit);
}

/// On a busy machine the time on the processor is shorter.
fn work_for(limit: Duration) {
    let begin = std::time::Instant::now();
    while begin.elapsed() < limit {}
}

/// Works as a process under an attacker's control: it blocks all signals.
fn work_on() {
    setrlimit(Resource::RLIMIT_CPU, 1, 2).unwrap();
    jailed(&[]);
    nix::sys::signal::SigSet::all().thread_block().unwrap();
    work_for(FOR_EVER);
}

#[test]
fn the_child_that_was_started_before_can_be_waited_for() {
    let (status, stderr) = run("wait");
    assert!(status.success(), "{status} {stderr}");
}

#[allow(
    clippy::zombie_processes,
    reason = "waited for by its number, as a confined process does"
)]
fn wait_for_a_child() {
    let child = Command::new("/bin/sh")
        .args(["-c", "exit 31"])
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    jailed(&[Need::Wait(pid)]);
    assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 31)));
}

/// Runs an act that needs root, or says that it did not.
fn run_as_root(act: &str) {
    if nix::unistd::geteuid().is_root() {
        let (status, stderr) = run(act);
        assert!(status.success(), "{status} {stderr}");
    } else {
        skip(&format!("jail::kernel_tests ({act})"), "not root");
    }
}

fn user() -> Owner {
    let user = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    Owner {
        name: user.name,
        uid: user.uid,
        gid: user.gid,
        groups: vec![user.gid],
    }
}

#[test]
fn root_becomes_the_owner_for_good() {
    run_as_root("drop");
}

fn become_a_user() {
    let owner = user();
    drop_privileges(&owner, None).unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = |name: &str| {
        let rest = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        rest.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(line("Uid:"), vec![owner.uid.to_string(); 4]);
    assert_eq!(line("Gid:"), vec![owner.gid.to_string(); 4]);
    assert_eq!(line("Groups:"), [owner.gid.to_string()]);
    for set in ["CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(line(set), ["0000000000000000"]);
    }
    assert_eq!(setuid(Uid::from_raw(0)), Err(Errno::EPERM));
    assert_eq!(setgid(Gid::from_raw(0)), Err(Errno::EPERM));
    assert_eq!(prctl::get_dumpable(), Ok(false));
}

#[test]
fn the_owner_sees_the_new_root_directory_only() {
    run_as_root("chroot");
}

fn become_a_user_in_a_chroot() {
    let directory = temporary("root");
    let owner = user();
    assert_eq!(
        drop_privileges(&owner, Some(&directory))
            .unwrap_err()
            .to_string(),
        format!("chroot({}): No such file or directory", directory.display())
    );
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("here"), "").unwrap();
    drop_privileges(&owner, Some(&directory)).unwrap();
    assert!(Path::new("/here").exists() && Path::new("here").exists());
    assert!(!Path::new("/proc").exists());
    assert_eq!(nix::unistd::getresuid().unwrap().saved, owner.uid);
    assert_eq!(chroot("/").unwrap_err(), Errno::EPERM);
}

#[test]
fn an_owner_that_is_root_is_refused() {
    run_as_root("stay root");
}

fn refuse_to_stay_root() {
    let root = |gid| Owner {
        name: "root".to_owned(),
        uid: Uid::from_raw(0),
        gid,
        groups: vec![gid],
    };
    let refused = Err(Error::StillRoot(Uid::from_raw(0)));
    assert_eq!(drop_privileges(&root(Gid::from_raw(0)), None), refused);
    assert_eq!(drop_privileges(&root(user().gid), None), refused);
    let group = Owner {
        gid: Gid::from_raw(0),
        ..user()
    };
    assert_eq!(
        drop_privileges(&group, None),
        Err(Error::StillRoot(group.uid))
    );
    assert_eq!(
        drop_privileges(&group, None).unwrap_err().to_string(),
        "initgroups: Operation not permitted"
    );
}
