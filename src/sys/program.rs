//! Runs another program once: starts it, writes all its input, and reads its output until it ends.
//!
//! The program has three pipes and no other descriptors, and the rights of a [`Confinement`]. If it has more rights
//! than this process, it cannot be killed from here: an alarm set at its start ends it in any case. Follows execve(2),
//! setresuid(2) and pipe(7). Input and output are the caller's.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::alarm::{self, Bounded};
use super::seccomp::{self, Instruction};
use super::{capability, ignore, memory};

/// The pause between two checks whether a program has ended.
const PAUSE: Duration = Duration::from_millis(1);

/// The time for a dismissed program to notice.
const DISMISSAL: Duration = Duration::from_secs(2);

/// The rights of a started program. It cannot gain others by running another program.
#[derive(Debug, Clone, Copy)]
pub enum Rights<'a> {
    /// Those of this process.
    Whole,
    /// Those of the user that this process runs as, without capabilities.
    User,
    /// Those of another account, without capabilities. If the account may not read `file`, the program is not started.
    Account {
        uid: Uid,
        gid: Gid,
        groups: &'a [Gid],
        file: Option<&'a Path>,
    },
}

/// The limits of a started program.
#[derive(Debug, Clone, Copy)]
pub struct Confinement<'a> {
    pub rights: Rights<'a>,
    /// The filter of its system calls; empty means none. It must allow execve(2).
    pub filter: &'a [Instruction],
}

impl Confinement<'_> {
    /// For a program that gets no data of a client.
    pub const NONE: Confinement<'static> = Confinement {
        rights: Rights::Whole,
        filter: &[],
    };
}

/// The prepared form of a [`Confinement`]: all memory that the child needs between fork and exec is allocated.
#[derive(Debug)]
struct Descent {
    account: Option<(Uid, Gid, Vec<Gid>)>,
    keeps_capabilities: bool,
    file: Option<CString>,
    filter: Vec<Instruction>,
}

impl Descent {
    fn to(Confinement { rights, filter }: Confinement<'_>) -> io::Result<Descent> {
        let (account, file) = match rights {
            Rights::Whole | Rights::User => (None, None),
            Rights::Account {
                uid,
                gid,
                groups,
                file,
            } => (Some((uid, gid, groups.to_vec())), file),
        };
        let file = file.map(|file| CString::new(file.as_os_str().as_bytes()));
        Ok(Descent {
            account,
            keeps_capabilities: matches!(rights, Rights::Whole),
            file: file.transpose()?,
            filter: filter.to_vec(),
        })
    }

    /// Gives up the rights that the program must not have. Between fork and exec: makes system calls, and allocates
    /// nothing.
    fn go(&self) -> io::Result<()> {
        if let Some((uid, gid, groups)) = &self.account {
            setgroups(groups)?;
            // All three ids at once, or an error: there is no way back.
            setresgid(*gid, *gid, *gid)?;
            setresuid(*uid, *uid, *uid)?;
        }
        if !self.keeps_capabilities {
            capability::drop_all()?;
        }
        prctl::set_no_new_privs()?;
        if let Some(file) = &self.file {
            // The kernel checks modes, access lists and directories by opening the file, which is closed at once.
            let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
            drop(open(file.as_c_str(), flags, Mode::empty())?);
        }
        if !self.filter.is_empty() {
            seccomp::install(&self.filter)?;
        }
        Ok(())
    }
}

/// A running program that waits for its input. It must be finished or dismissed, or its end is not noticed.
#[derive(Debug)]
pub struct Program {
    child: Child,
}

/// The result of a program.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// The program wrote more than is kept.
    pub cut: bool,
}

impl Program {
    /// Starts the program at the absolute `path` with these arguments and only `environment` as its environment. Its
    /// descriptors 0 to 2 are pipes, and it has no others; SIGALRM ends it after `fuse`. Returns an error also if the
    /// rights cannot be set or the filter is refused.
    pub fn start(
        path: &Path,
        arguments: &[&OsStr],
        environment: &[(&OsStr, &OsStr)],
        confinement: Confinement<'_>,
        fuse: Duration,
    ) -> io::Result<Program> {
        let seconds = u32::try_from(fuse.as_secs()).unwrap_or(u32::MAX).max(1);
        let mut command = Command::new(path);
        command
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let descent = Descent::to(confinement)?;
        let prepare = move || {
            // An alarm survives execve(2), its handler does not: the alarm then ends the process.
            nix::unistd::alarm::set(seconds);
            memory::unlimit_data();
            descent.go()
        };
        // SAFETY: between fork and exec `prepare` makes system calls and allocates nothing, because `Descent::to` has
        // allocated.
        unsafe { command.pre_exec(prepare) };
        Ok(Program {
            child: command.spawn()?,
        })
    }

    /// Writes the whole input, which must fit into a pipe (64 kB), and waits until the program ends, for `limit` at
    /// most (`TimedOut`). Keeps `kept` bytes of each output.
    pub fn finish(mut self, input: &[u8], limit: Duration, kept: usize) -> io::Result<Output> {
        let result = converse(&mut self.child, input, limit, kept);
        if result.is_err() && self.child.kill().is_ok() {
            ignore(self.child.wait());
        }
        // A program with rights that this process has given up cannot be killed; its fuse ends it.
        result
    }

    /// Ends a program that is not needed. If it cannot be killed, it ends by itself: its input and its outputs are
    /// closed.
    pub fn dismiss(mut self) {
        drop(self.child.stdin.take());
        drop(self.child.stdout.take());
        drop(self.child.stderr.take());
        let kill = self.child.kill();
        alarm::arm(DISMISSAL);
        while kill.is_ok() || !alarm::expired() {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(PAUSE),
                Ok(Some(_)) | Err(_) => break,
            }
        }
        alarm::disarm();
    }
}

fn converse(child: &mut Child, input: &[u8], limit: Duration, kept: usize) -> io::Result<Output> {
    let deadline = Instant::now() + limit;
    if let Some(stdin) = child.stdin.take() {
        // The pipe may be smaller than the default.
        let mut stdin = Bounded {
            fd: stdin.into(),
            limit,
        };
        match stdin.write_all(input) {
            // The program has ended without reading; its output is the answer.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let stdout = child.stdout.take().map(OwnedFd::from).map(File::from);
    let stderr = child.stderr.take().map(OwnedFd::from).map(File::from);
    let mut streams = [Stream::new(stdout, kept), Stream::new(stderr, kept)];
    while streams.iter().any(|stream| stream.from.is_some()) {
        wait_for_any(&streams, deadline)?;
        for stream in &mut streams {
            stream.read_arrived()?;
        }
    }
    alarm::arm(deadline.saturating_duration_since(Instant::now()));
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if alarm::expired() => return Err(io::ErrorKind::TimedOut.into()),
            // The program has closed its output and is about to end.
            None => std::thread::sleep(PAUSE),
        }
    };
    let [stdout, stderr] = streams;
    Ok(Output {
        status,
        cut: stdout.cut || stderr.cut,
        stdout: stdout.bytes,
        stderr: stderr.bytes,
    })
}

/// One of the program's outputs.
struct Stream {
    /// `None` after its end.
    from: Option<File>,
    bytes: Vec<u8>,
    limit: usize,
    cut: bool,
}

impl Stream {
    fn new(from: Option<File>, limit: usize) -> Stream {
        Stream {
            from,
            limit,
            bytes: Vec::new(),
            cut: false,
        }
    }

    /// Reads once, if that does not block.
    fn read_arrived(&mut self) -> io::Result<()> {
        let Some(from) = &mut self.from else {
            return Ok(());
        };
        if !is_readable(from, PollTimeout::ZERO)? {
            return Ok(());
        }
        let mut piece = [0; 4096];
        let length = from.read(&mut piece)?;
        if length == 0 {
            self.from = None;
        }
        let left = self.limit.saturating_sub(self.bytes.len());
        self.cut |= length > left;
        let kept = piece.get(..length.min(left)).unwrap_or_default();
        self.bytes.extend_from_slice(kept);
        Ok(())
    }
}

fn is_readable(from: &File, wait: PollTimeout) -> io::Result<bool> {
    let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, wait)? > 0)
}

fn wait_for_any(streams: &[Stream], deadline: Instant) -> io::Result<()> {
    let open = streams.iter().filter_map(|stream| stream.from.as_ref());
    let mut fds: Vec<PollFd<'_>> = open
        .map(|from| PollFd::new(from.as_fd(), PollFlags::POLLIN))
        .collect();
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    alarm::bounded(left, || poll(&mut fds, PollTimeout::NONE)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::tests::alone;

    const LIMIT: Duration = Duration::from_secs(60);
    const OUTPUT_LIMIT: usize = 1024 * 1024;

    fn shell(script: &str) -> Program {
        let (path, variable) = (Path::new("/bin/sh"), (OsStr::new("A"), OsStr::new("b")));
        let arguments = [OsStr::new("-c"), OsStr::new(script)];
        Program::start(path, &arguments, &[variable], Confinement::NONE, LIMIT).expect("sh")
    }

    #[test]
    fn input_output_and_status_come_through() {
        assert!(alone(|| {
            let output = shell("cat; echo $A >&2; exit 3").finish(b"in", LIMIT, OUTPUT_LIMIT);
            output.is_ok_and(|output| {
                (output.stdout, output.stderr) == (b"in".to_vec(), b"b\n".to_vec())
                    && output.status.code() == Some(3)
            })
        }));
    }

    #[test]
    fn a_program_that_says_much_on_both_sides_does_not_hang() {
        assert!(alone(|| {
            let script = "head -c 200000 /dev/zero >&2; head -c 1500000 /dev/zero; exec 1>&- 2>&-";
            let output = shell(script).finish(&[b'x'; 60000], LIMIT, OUTPUT_LIMIT);
            output.is_ok_and(|output| {
                (output.stdout.len(), output.stderr.len(), output.cut)
                    == (OUTPUT_LIMIT, 200_000, true)
            })
        }));
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed_and_reaped() {
        assert!(alone(|| {
            let begin = Instant::now();
            let output = shell("exec sleep 50").finish(b"", Duration::from_secs(1), OUTPUT_LIMIT);
            output.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
                && begin.elapsed() < Duration::from_secs(10)
                && nix::sys::wait::waitpid(None, None).is_err()
        }));
    }

    #[test]
    fn a_program_ends_when_its_fuse_is_over() {
        assert!(alone(|| {
            let (path, arguments) = (Path::new("/bin/sleep"), [OsStr::new("50")]);
            let fuse = Duration::from_secs(1);
            let user = Confinement {
                rights: Rights::User,
                filter: &[],
            };
            let program = Program::start(path, &arguments, &[], user, fuse);
            let output = program.and_then(|program| program.finish(b"", LIMIT, OUTPUT_LIMIT));
            output.is_ok_and(|output| output.status.code().is_none())
        }));
    }
}
