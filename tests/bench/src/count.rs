//! What can be counted once, since it is the same each time: system calls and instructions.

use std::fs;
use std::io::{self, Error};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::instance::{Instance, mail_owner, until};
use crate::load;
use crate::measure::Metered;
use crate::programs::{Program, Programs};

/// System calls of one session, with those of its children.
pub fn system_calls(
    program: &Program,
    programs: &Programs,
    dir: &Path,
    request: &[u8],
) -> io::Result<f64> {
    let counts = dir.join("calls").display().to_string();
    let mut metered = Metered::start(
        program,
        programs,
        &["/usr/bin/strace", "-f", "-c", "-o", &counts],
    )?;
    metered.session(request)?;
    total_calls(&fs::read_to_string(&counts)?)
}

/// System calls of a service under master for each message, those of children included.
///
/// A resident process that is still busy when the next client comes makes master start another one. So clients come
/// slowly here.
pub fn resident_calls(
    instance: &Instance,
    port: u16,
    dir: &Path,
    request: &[u8],
) -> io::Result<f64> {
    let pids = instance.residents(port)?;
    let calls = calls_of(&pids, port, dir, request)?;
    if instance.residents(port)? != pids {
        return Err(Error::other("master has started one more process"));
    }
    Ok(calls)
}

/// The same of processes that serve a port, and their children.
pub fn calls_of(pids: &[u32], port: u16, dir: &Path, request: &[u8]) -> io::Result<f64> {
    const MESSAGES: usize = 10;
    let counts = dir.join("calls-resident");
    let mut strace = Strace::attach(pids, &counts)?;
    let mut sent = Ok(());
    for _ in 0..MESSAGES {
        sent = sent.and(load::message(port, request).map(drop));
        sleep(Duration::from_millis(100));
    }
    strace.finish()?;
    sent?;
    Ok(total_calls(&fs::read_to_string(&counts)?)? / MESSAGES as f64)
}

/// A strace(1) that counts what running processes do.
struct Strace(Child);

impl Strace {
    fn attach(pids: &[u32], counts: &Path) -> io::Result<Strace> {
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(counts);
        for pid in pids {
            command.args(["-p", &pid.to_string()]);
        }
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let strace = Strace(child);
        let traced = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.contains(&format!("TracerPid:\t{}\n", strace.0.id()))
        };
        if until(Duration::from_secs(5), || pids.iter().all(traced)) {
            Ok(strace)
        } else {
            Err(Error::other("strace does not attach"))
        }
    }

    /// Lets go of the processes; the counts are there then.
    fn finish(&mut self) -> io::Result<()> {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGINT)?;
        self.0.wait().map(drop)
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// From the last line of `strace -c`: time, seconds, time per call, calls, perhaps errors, `total`.
fn total_calls(table: &str) -> io::Result<f64> {
    let total = table.lines().find(|line| line.ends_with(" total"));
    let calls = total.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    calls.ok_or_else(|| Error::other("strace -c has no total"))
}

/// Instructions of one session outside of the kernel, with those of its children.
///
/// A forked process goes on counting from where its parent was. So there is a sum of its own before each fork, after
/// which both begin with zero.
pub fn instructions(
    program: &Program,
    programs: &Programs,
    dir: &Path,
    request: &[u8],
) -> io::Result<f64> {
    let sums = dir.join("valgrind");
    fs::create_dir(&sums)?;
    chown(&sums, Some(mail_owner()?.uid.as_raw()), None)?;
    let tracer = [
        "/usr/bin/valgrind",
        "--tool=callgrind",
        "--dump-before=*fork",
        &format!("--callgrind-out-file={}/%p", sums.display()),
    ];
    Metered::start(program, programs, &tracer)?.session(request)?;
    let mut sum = 0.0;
    for entry in fs::read_dir(&sums)? {
        let text = fs::read_to_string(entry?.path())?;
        let counts = text
            .lines()
            .filter_map(|line| line.strip_prefix("summary: "));
        sum += counts
            .filter_map(|count| count.trim().parse::<f64>().ok())
            .sum::<f64>();
    }
    fs::remove_dir_all(&sums)?;
    if sum > 0.0 {
        Ok(sum)
    } else {
        Err(Error::other("valgrind counts nothing"))
    }
}
