//! A process that has been taken over: what it tries is denied, in each kind of process that handles a stranger's bytes.
//!
//! Built for debugging, the program makes the attempt that the environment variable `QMQPD_ESCAPE` says, in the process that
//! it says: `PLACE:WAY` (`src/sys/escape.rs`). Each attempt is made once more where the wall is not, and then comes through: to
//! success, or to the kernel's answer to what was asked so as to do no harm. No release build has that: `scripts/check` looks,
//! and so does this with `cargo test --release`.

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
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::Path;
    use std::process::Command;

    use crate::harness::cleanup::Item;
    use crate::harness::instance::{install_program, mail_owner};
    use crate::harness::launchers::{connect_from, reply};
    use crate::harness::master::{self, Master, request};
    use crate::harness::skip_for_kernel;
    use crate::harness::trace::strace_knows;
    use crate::machine::{How, Machine, PATIENCE, REQUEST, User, is_not_root};

    /// What the wall makes of an attempt.
    #[derive(Debug, Clone, Copy)]
    enum Wall {
        /// The end of the process, which logs the number: of what the C library's function comes down to.
        Kills(libc::c_long),
        /// An error.
        Answers(&'static str),
    }

    use Wall::{Answers, Kills};

    /// An attempt: its way, what the wall makes of it, and how the kernel answers where there is none. Nothing is success;
    /// `*` is any answer but the wall's, where kernels differ.
    type Attack = (&'static str, Wall, &'static str);

    /// In a confined process.
    const SESSION: &[Attack] = &[
        ("open", Kills(libc::SYS_openat), ""),
        ("socket", Kills(libc::SYS_socket), ""),
        ("connect", Kills(libc::SYS_connect), "Invalid argument"),
        (
            "execve",
            Kills(libc::SYS_execve),
            "No such file or directory",
        ),
        ("fork", Kills(libc::SYS_clone), ""),
        ("ptrace", Kills(libc::SYS_ptrace), "No such process"),
        ("kill", Kills(libc::SYS_kill), ""),
        ("mmap", Kills(libc::SYS_mmap), ""),
        ("mprotect", Kills(libc::SYS_mprotect), ""),
    ];

    /// Besides these, with the method `file`: from its queue file to what else mail_owner has. The message in the deferred
    /// queue is there.
    const QUEUE: &[Attack] = &[
        ("mode", Kills(libc::SYS_fchmod), ""),
        ("map", Kills(libc::SYS_mmap), ""),
        (
            "remove-directory",
            Kills(libc::SYS_unlinkat),
            "Not a directory",
        ),
    ];

    /// The same where the process wakes the queue manager itself.
    const WAKING: &[Attack] = &[(
        "connect-bounce",
        Kills(libc::SYS_connect),
        "No such file or directory",
    )];

    /// The same where the kernel has Landlock, which ends no process.
    const REMOVE: Attack = ("remove", Answers("Permission denied"), "");

    /// What `-v` says where the kernel has none.
    const NO_LANDLOCK: &str = "no Landlock";

    /// A message of another client's.
    const OTHER: &str = "deferred/other";

    const NOT_PERMITTED: Wall = Answers("Operation not permitted");
    const NO_SUCH_CALL: Wall = Answers("Function not implemented");

    /// In each process in which the C library's resolver may run.
    const LIMITED: &[Attack] = &[
        ("execve", NOT_PERMITTED, "No such file or directory"),
        ("execveat", NOT_PERMITTED, "No such file or directory"),
        ("clone-user", NOT_PERMITTED, "*"),
        ("clone3", NO_SUCH_CALL, "Invalid argument"),
        ("unshare", NOT_PERMITTED, "*"),
        ("ptrace", NOT_PERMITTED, "No such process"),
        ("kill-group", NOT_PERMITTED, ""),
        ("pidfd", NOT_PERMITTED, ""),
        ("read-parent", NOT_PERMITTED, ""),
        ("priority", NOT_PERMITTED, ""),
        ("dumpable", NOT_PERMITTED, ""),
        ("owner", NOT_PERMITTED, ""),
        ("user", NOT_PERMITTED, ""),
        ("personality", NOT_PERMITTED, ""),
        ("perf", NOT_PERMITTED, "*"),
        ("io_uring", NOT_PERMITTED, "*"),
        ("faults", NOT_PERMITTED, "*"),
        ("key", NOT_PERMITTED, "*"),
        ("mount", NOT_PERMITTED, "Bad address"),
        ("ciphers", NOT_PERMITTED, "*"),
        ("listen", NOT_PERMITTED, "Bad file number"),
        ("link", NOT_PERMITTED, "No such file or directory"),
        ("symlink", NOT_PERMITTED, "No such file or directory"),
        ("mknod", NOT_PERMITTED, "No such file or directory"),
        ("chown", NOT_PERMITTED, "No such file or directory"),
    ];

    /// Besides these, in the child that looks a name up. Its parent is a process of the same user.
    const RESOLVER: &[Attack] = &[
        ("kill-parent", NOT_PERMITTED, ""),
        ("tgkill-parent", NOT_PERMITTED, ""),
        ("limit-parent", NOT_PERMITTED, ""),
        ("fork", NOT_PERMITTED, ""),
        ("kill", NOT_PERMITTED, ""),
        ("outlive", NOT_PERMITTED, ""),
        ("accept", NOT_PERMITTED, "Bad file number"),
        ("write", NOT_PERMITTED, ""),
        ("create", NOT_PERMITTED, "No such file or directory"),
        ("openat2", NO_SUCH_CALL, "Invalid argument"),
        ("truncate", NOT_PERMITTED, "No such file or directory"),
        ("unlink", NOT_PERMITTED, "No such file or directory"),
        ("rename", NOT_PERMITTED, "No such file or directory"),
        ("mkdir", NOT_PERMITTED, "No such file or directory"),
        ("chmod", NOT_PERMITTED, "No such file or directory"),
        ("times", NOT_PERMITTED, "No such file or directory"),
    ];

    fn of_resolver() -> impl Iterator<Item = Attack> {
        [LIMITED, RESOLVER].concat().into_iter()
    }

    /// The line that a process logs which an attempt has not ended; or its beginning, before an answer that is not known.
    fn line(way: &str, answer: &str) -> String {
        match answer {
            "" => format!("escape: {way}"),
            "*" => format!("escape: {way}: "),
            answer => format!("escape: {way}: {answer}"),
        }
    }

    /// Fails unless the log has what the wall has made of an attempt, or the kernel where there is none.
    fn check_line(log: &[String], (way, wall, open): Attack, walled: bool, case: &str) {
        let (has, lacks) = match (wall, walled) {
            (Kills(call), true) => (fatal(call), String::new()),
            (Kills(_), false) => (line(way, open), String::new()),
            (Answers(answer), true) => (line(way, answer), String::new()),
            (Answers(answer), false) if open == "*" => {
                (format!("escape: {way}"), line(way, answer))
            }
            (Answers(_), false) => (line(way, open), String::new()),
        };
        let is = |found: &str, wanted: &str| {
            let text = found.strip_prefix("warning: ").unwrap_or(found);
            text == wanted || open == "*" && !walled && text.starts_with(wanted)
        };
        assert!(
            log.iter().any(|found| is(found, &has)),
            "{case}: {way}: {log:?}"
        );
        let denied = |found: &String| !lacks.is_empty() && found.ends_with(&lacks);
        assert!(!log.iter().any(denied), "{case}: {way}: {log:?}");
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
        /// Whether the other message is still there.
        keeps_other: bool,
        /// How many files there are in the incoming queue.
        files: usize,
    }

    /// Puts a message of another client's into a queue directory.
    fn queue_another(queue: &Path) {
        let owner = mail_owner().unwrap();
        let directory = queue.join("deferred");
        fs::create_dir_all(&directory).unwrap();
        fs::write(queue.join(OTHER), "x").unwrap();
        for path in [directory, queue.join(OTHER)] {
            chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).unwrap();
        }
    }

    fn run(method: &str, way: &str, sandbox: &str) -> Seen {
        run_as(&How::default(), method, way, sandbox)
    }

    fn run_as(how: &How, method: &str, way: &str, sandbox: &str) -> Seen {
        let machine = Machine::new(&[method, sandbox]);
        queue_another(&machine.instance.queue_directory());
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
            env: &[("QMQPD_ESCAPE", &format!("session:{way}"))],
            ..*how
        };
        let mut session = machine.start(&how);
        session.send(REQUEST);
        let reply = session.reply(PATIENCE);
        let exit = session.exit();
        let received = cleanup.finish();
        let end_of_message = |item: &Item| matches!(item, Item::Record(b'E', _));
        let incoming = fs::read_dir(machine.instance.queue_directory().join("incoming")).unwrap();
        let incoming: Vec<fs::DirEntry> = incoming.map(Result::unwrap).collect();
        let files = incoming.len();
        let keeps_other = machine.instance.queue_directory().join(OTHER).exists();
        let queued = match method {
            CLEANUP => received.iter().any(end_of_message),
            FILE => incoming
                .iter()
                .map(|entry| entry.metadata().unwrap().permissions().mode())
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
            keeps_other,
            files,
        }
    }

    /// The attempts of a session of its own with each queue method.
    fn of_session() -> impl Iterator<Item = (&'static str, Attack)> {
        let all = METHODS.into_iter();
        let all = all.flat_map(|method| SESSION.iter().map(move |&attack| (method, attack)));
        let of_queue = QUEUE.iter().chain(WAKING);
        all.chain(of_queue.map(|&attack| (FILE, attack)))
    }

    #[test]
    fn whatever_a_session_tries_is_its_end() {
        if is_not_root("whatever_a_session_tries_is_its_end") {
            return;
        }
        for (method, attack) in of_session() {
            let (way, ..) = attack;
            let seen = run(method, way, "qmqpd_sandbox = yes");
            assert_eq!(seen.reply, "", "{method}: {way}");
            assert_eq!(seen.exit, "1", "{method}: {way}");
            assert_eq!(seen.log.len(), 2, "{method}: {way}: {:?}", seen.log);
            assert_eq!(seen.log[0], "connect from localhost[127.0.0.1]");
            check_line(&seen.log, attack, true, method);
            assert!(!seen.queued && seen.keeps_other, "{method}: {way}");
        }
    }

    /// Syslog daemons of old take streams, where a NUL ends a line.
    #[test]
    fn a_syslog_that_takes_streams_hears_of_it() {
        use std::io::Read;
        use std::os::unix::net::UnixListener;

        use crate::destination::OWN_DEV;

        if is_not_root("a_syslog_that_takes_streams_hears_of_it") {
            return;
        }
        let machine = Machine::new(&["maillog_file ="]);
        let dev = machine.instance.dir.join("dev");
        fs::create_dir(&dev).unwrap();
        fs::write(dev.join("null"), b"").unwrap();
        let log = UnixListener::bind(dev.join("log")).unwrap();
        fs::set_permissions(dev.join("log"), fs::Permissions::from_mode(0o666)).unwrap();
        let _cleanup = machine.cleanup(&[]);
        let how = How {
            through: OWN_DEV,
            env: &[("POSTLOG_SERVICE", ""), ("QMQPD_ESCAPE", "session:ptrace")],
            ..How::default()
        };
        let mut session = machine.start(&how);
        session.send(REQUEST);
        assert_eq!(session.exit(), "1");
        let mut heard = Vec::new();
        log.accept().unwrap().0.read_to_end(&mut heard).unwrap();
        let heard = String::from_utf8(heard).unwrap();
        let end = format!("]: {}\0", fatal(libc::SYS_ptrace));
        assert!(
            heard.starts_with("<22>") && heard.ends_with(&end),
            "{heard:?}"
        );
        assert_eq!(heard.matches('\0').count(), 2, "{heard:?}");
    }

    /// The kernel keeps a process to the directory of its queue file, where the filter sees no path.
    #[test]
    fn a_session_cannot_remove_another_message() {
        let test = "a_session_cannot_remove_another_message";
        if is_not_root(test) {
            return;
        }
        let open = run(FILE, REMOVE.0, "qmqpd_sandbox = no");
        check_line(&open.log, REMOVE, false, "no sandbox");
        assert!(open.queued && !open.keeps_other);
        let how = How {
            arguments: &["-S", "-v"],
            ..How::default()
        };
        let walled = run_as(&how, FILE, REMOVE.0, "qmqpd_sandbox = yes");
        if walled.log.iter().any(|line| line == NO_LANDLOCK) {
            return skip_for_kernel(test, "there is no Landlock");
        }
        check_line(&walled.log, REMOVE, true, "sandbox");
        // Its own message is as good as any.
        assert!(
            walled.reply.contains(":KOk: queued as "),
            "{}",
            walled.reply
        );
        assert!(walled.queued && walled.keeps_other);
    }

    /// What a process says that has used up its time on the processor.
    const WORN_OUT: &str = "fatal: limit of processor time exceeded";

    /// The launcher has left it less of that time than it would have.
    #[test]
    fn a_session_that_works_for_ever_ends_and_leaves_nothing() {
        if is_not_root("a_session_that_works_for_ever_ends_and_leaves_nothing") {
            return;
        }
        let how = How {
            through: &["prlimit", "--cpu=1:10"],
            ..How::default()
        };
        for method in METHODS {
            let seen = run_as(&how, method, "work", "qmqpd_sandbox = yes");
            assert_eq!((&*seen.reply, &*seen.exit), ("", "signal 24"), "{method}");
            let log = ["connect from localhost[127.0.0.1]", WORN_OUT];
            assert_eq!(seen.log, log, "{method}");
            assert!(!seen.queued, "{method}");
            assert_eq!(seen.files, 0, "{method}");
        }
    }

    /// It is the filter that has stopped them.
    #[test]
    fn without_the_sandbox_a_session_can_do_all_of_it() {
        if is_not_root("without_the_sandbox_a_session_can_do_all_of_it") {
            return;
        }
        for (method, attack) in of_session() {
            let (way, ..) = attack;
            let seen = run(method, way, "qmqpd_sandbox = no");
            assert!(seen.reply.contains(":KOk: queued as "), "{method}: {way}");
            assert_eq!(seen.exit, "0", "{method}: {way}");
            check_line(&seen.log, attack, false, method);
            assert!(seen.queued && seen.keeps_other, "{method}: {way}");
        }
    }

    /// An address without a name in the hosts file, so that the resolver has to be asked.
    const NAMELESS: &str = "127.0.0.9";

    #[test]
    fn what_the_child_tries_that_looks_a_name_up_is_denied() {
        if is_not_root("what_the_child_tries_that_looks_a_name_up_is_denied") {
            return;
        }
        for attack in of_resolver() {
            for (sandbox, walled) in [("yes", true), ("no", false)] {
                let machine = Machine::new(&[
                    &format!("qmqpd_sandbox = {sandbox}"),
                    &format!("qmqpd_authorized_clients = {NAMELESS}"),
                ]);
                let _cleanup = machine.cleanup(&[]);
                let escape = format!("resolver:{}", attack.0);
                let how = How {
                    user: User::Owner,
                    env: &[("QMQPD_ESCAPE", &escape)],
                    ..How::default()
                };
                let mut session = machine.start_tcp(&how, NAMELESS);
                session.send(REQUEST);
                // It is the child's affair alone.
                let reply = session.reply(PATIENCE);
                assert!(reply.contains(":KOk: queued as "), "{}: {reply}", attack.0);
                assert_eq!(session.exit(), "0", "{}", attack.0);
                check_line(&machine.finish(&session), attack, walled, sandbox);
            }
        }
    }

    /// The kernel says that it has no Landlock, where strace(1) has it do so: one wall of two is missing.
    #[test]
    fn without_landlock_the_child_that_looks_a_name_up_is_denied_the_same() {
        let test = "without_landlock_the_child_that_looks_a_name_up_is_denied_the_same";
        if is_not_root(test) {
            return;
        }
        if !Path::new("/usr/bin/strace").exists() {
            return crate::harness::skip(test, "strace is not installed");
        }
        if !strace_knows("landlock_create_ruleset") {
            return crate::harness::skip(test, "strace does not know Landlock");
        }
        let through = [
            "strace",
            "-f",
            "-qq",
            "-e",
            "inject=landlock_create_ruleset:error=ENOSYS",
            "-e",
            "trace=landlock_create_ruleset",
            "-o",
            "DIR/trace",
        ];
        for &attack in RESOLVER {
            let client = format!("qmqpd_authorized_clients = {NAMELESS}");
            let machine = Machine::new(&[&client, "qmqpd_log_stderr = yes"]);
            let _cleanup = machine.cleanup(&[]);
            let how = How {
                through: &through,
                env: &[("QMQPD_ESCAPE", &format!("resolver:{}", attack.0))],
                ..How::default()
            };
            let mut session = machine.start_tcp(&how, NAMELESS);
            session.send(REQUEST);
            let reply = session.reply(PATIENCE);
            assert!(reply.contains(":KOk: queued as "), "{}: {reply}", attack.0);
            session.exit();
            let trace = fs::read_to_string(machine.instance.dir.join("trace")).unwrap();
            assert!(trace.contains("(INJECTED)"), "{trace}");
            let log = fs::read_to_string(machine.stderr()).unwrap();
            let log: Vec<String> = log
                .lines()
                .filter_map(|line| Some(line.split_once(": ")?.1.to_owned()))
                .collect();
            check_line(&log, attack, true, "without Landlock");
        }
    }

    /// Puts scripts before our program that take the variable's value from the name by which they are called.
    fn write_wrappers(daemons: &Path, names: &[String]) {
        let script = format!(
            "#!/bin/sh\nQMQPD_ESCAPE=${{0##*/try-}} exec {} \"$@\"\n",
            env!("CARGO_BIN_EXE_qmqpd")
        );
        fs::write(daemons.join("draft"), script).unwrap();
        let wrapper = daemons.join("wrapper");
        let status = Command::new("install")
            .args(["-m", "755"])
            .args([&daemons.join("draft"), &wrapper])
            .status();
        assert!(status.unwrap().success());
        for name in names {
            symlink(&wrapper, daemons.join(format!("try-{name}"))).unwrap();
        }
    }

    /// A Postfix with two services for each attack, one of them without the sandbox, and their ports.
    fn services(
        place: &str,
        attacks: &[Attack],
        main_cf: &str,
    ) -> (Master, Vec<(Attack, [u16; 2])>) {
        let attacks = attacks.iter().map(|&attack| {
            let ports = [master::free_port(), master::free_port()];
            (attack, ports)
        });
        let attacks: Vec<_> = attacks.collect();
        let names = attacks
            .iter()
            .map(|(attack, _)| format!("{place}:{}", attack.0));
        let names: Vec<String> = names.collect();
        let lines = names.iter().zip(&attacks).map(|(name, (_, [port, open]))| {
            format!(
                "{port} inet n - n - 1 try-{name}\n\
                 {open} inet n - n - 1 try-{name} -o qmqpd_sandbox=no\n"
            )
        });
        let main_cf = format!("qmqpd_authorized_clients = 127.0.0.1 {NAMELESS}\n{main_cf}\n");
        let master = Master::start_with(&main_cf, &lines.collect::<String>(), |dir| {
            write_wrappers(&dir.join("daemons"), &names);
            queue_another(&dir.join("queue"));
        });
        (master, attacks)
    }

    fn message() -> Vec<u8> {
        request(
            b"Subject: t\n\nb\n",
            "s@client.example",
            &["r@rcpt.example"],
        )
    }

    /// The log of a service's processes about an attack, without date, host and tag.
    fn lines_about(master: &Master, way: &str) -> Vec<String> {
        let log = master.log();
        let lines = log.lines().filter_map(|line| line.split_once("]: "));
        let texts = lines.map(|(_, text)| text.to_owned());
        let part = format!("escape: {way}");
        texts
            .filter(|text| {
                let end = text.split_once(&part).map(|(_, end)| end);
                end.is_some_and(|end| end.is_empty() || end.starts_with(": "))
            })
            .collect()
    }

    #[test]
    fn whatever_a_child_of_master_s_tries_is_its_end_alone() {
        if master::is_missing("whatever_a_child_of_master_s_tries_is_its_end_alone") {
            return;
        }
        for (attacks, main_cf) in [(SESSION, ""), (QUEUE, FILE)] {
            try_as_children(attacks, main_cf);
        }
    }

    fn try_as_children(attacks: &[Attack], main_cf: &str) {
        let (master, attacks) = services("session", attacks, main_cf);
        for &((way, wall, answer), [port, open]) in &attacks {
            let Kills(call) = wall else {
                continue;
            };
            // There is one resident process for each port: the second client is served by the same one.
            for _ in 0..2 {
                let heard = reply(connect_from([127, 0, 0, 1], port), &message());
                assert_eq!(heard, "", "{way}");
            }
            let logged = || master.log().matches(&fatal(call)).count();
            master::until(PATIENCE, || logged() == 2);
            assert_eq!(logged(), 2, "{way}");
            let heard = reply(connect_from([127, 0, 0, 1], open), &message());
            assert!(heard.contains(":KOk: queued as "), "{way}: {heard}");
            master.wait_for_log(&line(way, answer));
        }
        assert_eq!(master.incoming().0.len(), attacks.len());
        let trouble = master.trouble();
        let only_these = |line: &String| line.contains("fatal: system call ");
        assert!(trouble.iter().all(only_these), "{trouble:?}");
        assert!(master.dir.join("queue").join(OTHER).exists());
    }

    #[test]
    fn a_child_of_master_s_that_works_for_ever_ends_alone() {
        if master::is_missing("a_child_of_master_s_that_works_for_ever_ends_alone") {
            return;
        }
        let port = master::free_port();
        let service = format!("{port} inet n - n - 1 try-session:work\n");
        let master = Master::start_with(FILE, &service, |dir| {
            let daemons = dir.join("daemons");
            let script = format!(
                "#!/bin/sh\nQMQPD_ESCAPE=session:work exec prlimit --cpu=1:10 {} \"$@\"\n",
                env!("CARGO_BIN_EXE_qmqpd")
            );
            fs::write(daemons.join("draft"), script).unwrap();
            install_program(&daemons.join("draft"), &daemons.join("try-session:work"));
        });
        for clients in 1..=2 {
            let heard = reply(connect_from([127, 0, 0, 1], port), &message());
            assert_eq!(heard, "");
            let logged = |part: &str| master.log().matches(part).count();
            let killed = || logged("killed by signal 24");
            assert!(
                master::until(PATIENCE, || killed() == clients),
                "{}",
                master.log()
            );
            assert_eq!(logged(WORN_OUT), clients);
        }
        let none = (Vec::new(), Vec::new());
        assert_eq!(master.incoming(), none);
    }

    #[test]
    fn a_child_of_master_s_cannot_remove_another_message() {
        let test = "a_child_of_master_s_cannot_remove_another_message";
        if master::is_missing(test) {
            return;
        }
        let main_cf = format!("{FILE}\ndebug_peer_list = 127.0.0.1\ndebug_peer_level = 1");
        let (master, attacks) = services("session", &[REMOVE], &main_cf);
        let other = master.dir.join("queue").join(OTHER);
        for (attack, [port, open]) in attacks {
            for (port, walled) in [(port, true), (open, false)] {
                let heard = reply(connect_from([127, 0, 0, 1], port), &message());
                assert!(heard.contains(":KOk: queued as "), "{heard}");
                if master.log_has(NO_LANDLOCK) {
                    return skip_for_kernel(test, "there is no Landlock");
                }
                let (_, Answers(denied), done) = attack else {
                    unreachable!()
                };
                master.wait_for_log(&line(attack.0, if walled { denied } else { done }));
                assert_eq!(other.exists(), walled);
            }
        }
    }

    /// The resident process before it accepts a client, and the child that looks a client's name up.
    #[test]
    fn what_a_resident_process_or_its_resolver_tries_is_denied_and_it_serves_on() {
        let test = "what_a_resident_process_or_its_resolver_tries_is_denied_and_it_serves_on";
        if master::is_missing(test) {
            return;
        }
        let of_resolver: Vec<Attack> = of_resolver().collect();
        for (place, attacks, client) in [
            ("resident", LIMITED, [127, 0, 0, 1]),
            ("resolver", &of_resolver, [127, 0, 0, 9]),
        ] {
            let (master, attacks) = services(place, attacks, "");
            for (attack, [port, open]) in attacks {
                let mut seen = 0;
                for (port, walled) in [(port, true), (open, false)] {
                    let heard = reply(connect_from(client, port), &message());
                    assert!(heard.contains(":KOk: queued as "), "{}: {heard}", attack.0);
                    let lines = || lines_about(&master, attack.0);
                    master::until(PATIENCE, || lines().len() > seen);
                    check_line(&lines()[seen..], attack, walled, place);
                    seen = lines().len();
                }
            }
        }
    }

    /// In the place of postmap(1): writes down which attempts it is denied. `data/id` is a program of root's that says as whom
    /// it runs.
    const TABLE_PROGRAM: &str = "#!/bin/sh
cd ${0%/*}
try() {
    way=$1
    shift
    if \"$@\" >/dev/null 2>&1; then echo \"$way: done\"; else echo \"$way: denied\"; fi
}
becomes_root() { [ $(data/id -u) = 0 ]; }
has_socket() {
    for fd in /proc/$$/fd/*; do [ -S $fd ] && return 0; done
    return 1
}
{
    try 'read a file of root' cat secret
    try 'run a set-uid program of root' becomes_root
    try 'write to a file of root' sh -c ': >>secret'
    try 'talk to the client' has_socket
    try 'signal the server' kill -0 $PPID
    try 'slow another process down' renice -n 19 -p $$
    try 'enter a namespace' unshare --user true
} >data/tried
mv data/tried data/done
cat >/dev/null
";

    #[test]
    fn what_a_table_program_tries_is_denied() {
        use std::os::fd::OwnedFd;
        use std::os::unix::net::UnixStream;

        if is_not_root("what_a_table_program_tries_is_denied") {
            return;
        }
        let machine = Machine::new(&[
            "qmqpd_authorized_clients = pcre:table",
            "command_directory = DIR",
        ]);
        let dir = &machine.instance.dir;
        let (data, done) = (dir.join("data"), dir.join("data/done"));
        fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(dir.join("secret"), "x").unwrap();
        fs::set_permissions(dir.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::copy("/usr/bin/id", data.join("id")).unwrap();
        fs::set_permissions(data.join("id"), fs::Permissions::from_mode(0o4755)).unwrap();
        machine.instance.write_program("postmap", TABLE_PROGRAM);
        let tried = |end: &str| {
            let found = fs::read_to_string(&done).unwrap();
            fs::remove_file(&done).unwrap();
            assert_eq!(found.lines().count(), 7, "{found}");
            assert!(found.lines().all(|line| line.ends_with(end)), "{found}");
        };
        let mut session = machine.start(&How::default());
        session.send(REQUEST);
        assert!(session.reply(PATIENCE).contains(" is not authorized "));
        tried(": denied");
        // Without what takes its rights away, and with a client.
        let (_, server) = UnixStream::pair().unwrap();
        let status = Command::new(dir.join("postmap"))
            .stdin(OwnedFd::from(server))
            .status();
        assert!(status.unwrap().success());
        tried(": done");
    }
}
