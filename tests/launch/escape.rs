//! A session that has been taken over: what it tries is its end, and nobody is told that his message is safe.
//!
//! Built for debugging, the program tries once it is confined what the environment variable `QMQPD_ESCAPE` says. No
//! release build has that: `scripts/check` looks, and so does this with `cargo test --release`.

#[cfg(not(debug_assertions))]
#[test]
fn a_release_build_does_not_try() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_qmqpd")).unwrap();
    let contains = |text: &[u8]| program.windows(text.len()).any(|window| window == text);
    // What is there in any case, so that it would be found.
    assert!(contains(b"QMQP"));
    assert!(!contains(b"QMQPD_ESCAPE"));
}

#[cfg(debug_assertions)]
mod tried {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::process::Command;

    use crate::harness::cleanup::Item;
    use crate::harness::launchers::reply;
    use crate::harness::master::{self, Master, request};
    use crate::machine::{How, Machine, PATIENCE, REQUEST, User, is_not_root};

    /// What is tried, and the number that is logged: of what the C library's function comes down to.
    const WAYS: [(&str, libc::c_long); 9] = [
        ("open", libc::SYS_openat),
        ("socket", libc::SYS_socket),
        ("connect", libc::SYS_connect),
        ("execve", libc::SYS_execve),
        ("fork", libc::SYS_clone),
        ("ptrace", libc::SYS_ptrace),
        ("kill", libc::SYS_kill),
        ("mmap", libc::SYS_mmap),
        ("mprotect", libc::SYS_mprotect),
    ];

    /// What the kernel says to those that are made so as to do no harm; the others succeed.
    fn answer(way: &str) -> &'static str {
        match way {
            "connect" => ": Invalid argument",
            "execve" => ": No such file or directory",
            "ptrace" => ": No such process",
            _ => "",
        }
    }

    fn fatal(call: libc::c_long) -> String {
        format!("fatal: system call {call} not allowed")
    }

    /// Takes the place of qmail-queue(8), which queues nothing without the end of the envelope.
    const RECORDER: &str = "#!/bin/sh
cat >DIR/out/message && cat <&1 >DIR/out/envelope
mv DIR/out/envelope DIR/out/done
";

    const CLEANUP: &str = "qmqpd_queue_method = cleanup";
    const FILE: &str = "qmqpd_queue_method = file";
    const QMAIL: &str = "qmqpd_queue_method = qmail:DIR/program";
    const METHODS: [&str; 3] = [CLEANUP, FILE, QMAIL];

    /// What came of a session: the reply, the exit status, the log, and whether there is a message in the queue.
    struct Seen {
        reply: String,
        exit: String,
        log: Vec<String>,
        queued: bool,
    }

    fn run(method: &str, way: &str, sandbox: &str) -> Seen {
        let machine = Machine::new(&[method, sandbox]);
        let out = machine.instance.dir.join("out");
        fs::create_dir(&out).unwrap();
        fs::set_permissions(&out, fs::Permissions::from_mode(0o777)).unwrap();
        let dir = machine.instance.dir.display().to_string();
        machine
            .instance
            .write_program("program", &RECORDER.replace("DIR", &dir));
        let cleanup = machine.cleanup(&[]);
        let how = How {
            user: User::Owner,
            env: &[("QMQPD_ESCAPE", way)],
            ..How::default()
        };
        let mut session = machine.start(&how);
        session.send(REQUEST);
        let reply = session.reply(PATIENCE);
        let exit = session.exit();
        let received = cleanup.finish();
        let end_of_message = |item: &Item| matches!(item, Item::Record(b'E', _));
        let incoming = fs::read_dir(machine.instance.queue_directory().join("incoming")).unwrap();
        let queued = match method {
            CLEANUP => received.iter().any(end_of_message),
            FILE => incoming
                .map(|entry| entry.unwrap().metadata().unwrap().permissions().mode())
                .any(|mode| mode & 0o100 != 0),
            _ => {
                assert!(master::until(PATIENCE, || out.join("done").exists()));
                fs::read(out.join("done")).unwrap().ends_with(b"\0\0")
            }
        };
        Seen {
            reply,
            exit,
            log: machine.finish(&session),
            queued,
        }
    }

    #[test]
    fn whatever_a_session_tries_is_its_end() {
        if is_not_root("whatever_a_session_tries_is_its_end") {
            return;
        }
        for method in METHODS {
            for (way, call) in WAYS {
                let seen = run(method, way, "qmqpd_sandbox = yes");
                assert_eq!(seen.reply, "", "{method}: {way}");
                assert_eq!(seen.exit, "1", "{method}: {way}");
                let log = ["connect from localhost[127.0.0.1]", &fatal(call)];
                assert_eq!(seen.log, log, "{method}: {way}");
                assert!(!seen.queued, "{method}: {way}");
            }
        }
    }

    /// It is the filter that has stopped them.
    #[test]
    fn without_the_sandbox_a_session_can_do_all_of_it() {
        if is_not_root("without_the_sandbox_a_session_can_do_all_of_it") {
            return;
        }
        for method in METHODS {
            for (way, _) in WAYS {
                let seen = run(method, way, "qmqpd_sandbox = no");
                assert!(seen.reply.contains(":KOk: queued as "), "{method}: {way}");
                assert_eq!(seen.exit, "0", "{method}: {way}");
                let line = format!("escape: {way}{}", answer(way));
                assert!(seen.log.contains(&line), "{method}: {way}: {:?}", seen.log);
                assert!(seen.queued, "{method}: {way}");
            }
        }
    }

    /// Puts a script before our program that takes the variable's value from the name by which it is called.
    fn write_wrappers(daemons: &Path) {
        let script = format!(
            "#!/bin/sh\nQMQPD_ESCAPE=${{0##*-}} exec {} \"$@\"\n",
            env!("CARGO_BIN_EXE_qmqpd")
        );
        fs::write(daemons.join("draft"), script).unwrap();
        let wrapper = daemons.join("wrapper");
        let status = Command::new("install")
            .args(["-m", "755"])
            .args([&daemons.join("draft"), &wrapper])
            .status();
        assert!(status.unwrap().success());
        for (way, _) in WAYS {
            symlink(&wrapper, daemons.join(format!("try-{way}"))).unwrap();
        }
    }

    #[test]
    fn whatever_a_child_of_master_s_tries_is_its_end_alone() {
        if master::is_missing("whatever_a_child_of_master_s_tries_is_its_end_alone") {
            return;
        }
        let ports = WAYS.map(|_| [master::free_port(), master::free_port()]);
        let lines = WAYS.iter().zip(ports).map(|((way, _), [port, open])| {
            format!(
                "{port} inet n - n - 1 try-{way}\n\
                 {open} inet n - n - 1 try-{way} -o qmqpd_sandbox=no\n"
            )
        });
        let master = Master::start_with("", &lines.collect::<String>(), |dir| {
            write_wrappers(&dir.join("daemons"));
        });
        let message = request(
            b"Subject: t\n\nb\n",
            "s@client.example",
            &["r@rcpt.example"],
        );
        let connect = |port: u16| {
            let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client
        };
        for ((way, call), [port, open]) in WAYS.into_iter().zip(ports) {
            // There is one resident process for each port: the second client is served by the same one.
            for _ in 0..2 {
                let heard = reply(connect(port), &message);
                assert_eq!(heard, "", "{way}");
            }
            let logged = || master.log().matches(&fatal(call)).count();
            master::until(PATIENCE, || logged() == 2);
            assert_eq!(logged(), 2, "{way}");
            let heard = reply(connect(open), &message);
            assert!(heard.contains(":KOk: queued as "), "{way}: {heard}");
            master.wait_for_log(&format!("escape: {way}{}", answer(way)));
        }
        assert_eq!(master.incoming().0.len(), WAYS.len());
        let trouble = master.trouble();
        let only_these = |line: &String| line.contains("fatal: system call ");
        assert!(trouble.iter().all(only_these), "{trouble:?}");
    }
}
