//! Another program, asked once: started, given all its input, listened to until it ends.
//!
//! It gets no descriptors but three pipes, and the rights that it needs, [`Confinement`]. With more rights than this process
//! has when it listens it cannot be killed from here: an alarm that it is started with ends it in any case.

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

/// Between two looks at whether a program has ended.
const PAUSE: Duration = Duration::from_millis(1);

/// How long a program that is not needed may take to notice.
const DISMISSAL: Duration = Duration::from_secs(2);

/// The rights that a program is started with. It never gains any by running another program.
#[derive(Debug, Clone, Copy)]
pub enum Rights<'a> {
    /// Those of this process.
    Whole,
    /// Those of the user that this process runs as, without capabilities.
    User,
    /// Those of another account, without capabilities. The program is not started where the account may not read `file`.
    Account {
        uid: Uid,
        gid: Gid,
        groups: &'a [Gid],
        file: Option<&'a Path>,
    },
}

/// What a program may do.
#[derive(Debug, Clone, Copy)]
pub struct Confinement<'a> {
    pub rights: Rights<'a>,
    /// The filter of its system calls; with no instruction there is none. execve(2) has to get past it.
    pub filter: &'a [Instruction],
}

impl Confinement<'_> {
    /// For a program that is told nothing of a stranger's.
    pub const NONE: Confinement<'static> = Confinement {
        rights: Rights::Whole,
        filter: &[],
    };
}

/// What [`Confinement`] comes to, with all memory allocated that a child needs between fork and exec.
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

    /// Gives up what the program is not to have. Between fork and exec: makes system calls, and allocates nothing.
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
            // No guess at what modes, lists and the directories above come to: the kernel says it. Closed at once.
            let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
            drop(open(file.as_c_str(), flags, Mode::empty())?);
        }
        if !self.filter.is_empty() {
            seccomp::install(&self.filter)?;
        }
        Ok(())
    }
}

/// A program that runs, and waits for its input. It has to be finished or dismissed, or its end goes unnoticed.
#[derive(Debug)]
pub struct Program {
    child: Child,
}

/// What came of a program.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// It said more than is kept.
    pub cut: bool,
}

impl Program {
    /// Starts the program at the absolute `path` with these arguments and nothing in its environment but `environment`.
    /// It gets pipes for descriptors 0 to 2 and no others, and is ended by SIGALRM when `fuse` is over. An error also where
    /// the rights cannot be had, or given up, or the filter is not taken.
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
            // An alarm outlives execve(2), its handler does not: what is left is the end of the process.
            nix::unistd::alarm::set(seconds);
            memory::unlimit_data();
            descent.go()
        };
        // SAFETY: between fork and exec `prepare` makes system calls, and allocates nothing: `Descent::to` has done that.
        unsafe { command.pre_exec(prepare) };
        Ok(Program {
            child: command.spawn()?,
        })
    }

    /// Gives the program its whole input, which must fit a pipe (64 kB), and waits for its end, no longer than `limit`
    /// (`TimedOut`). Of each of its outputs `kept` bytes are kept.
    pub fn finish(mut self, input: &[u8], limit: Duration, kept: usize) -> io::Result<Output> {
        let result = converse(&mut self.child, input, limit, kept);
        if result.is_err() && self.child.kill().is_ok() {
            ignore(self.child.wait());
        }
        // One that has kept rights which this process has given up cannot be killed, and is left to its fuse.
        result
    }

    /// Ends the program, which is not going to be asked. One that cannot be killed ends by itself: there is no more input
    /// for it, and no reader of what it says.
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
        // The pipe may be smaller than it is by default.
        let mut stdin = Bounded {
            fd: stdin.into(),
            limit,
        };
        match stdin.write_all(input) {
            // It has ended without reading, and what it has said is the answer.
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
            // It has closed its output and is on its way out.
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
    /// Nothing when it has ended.
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
