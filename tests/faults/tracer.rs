//! What strace(1) cannot do to a system call: have the kernel carry it out, but with a shorter buffer, or with another
//! answer.
//!
//! A read or write that moves one byte is a real one, of one byte: the count is changed on the way into the kernel, and
//! nothing is invented. A close that fails has closed the descriptor, as Linux does whatever close(2) returns; strace would
//! leave it open. ptrace(2) on the machine whose registers are known here.

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What happens to all calls of a kind, from the program's first act on.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// Each read and each write moves one byte, but for lines of the log: a datagram cannot be sent in part.
    OneByte,
    /// Each close closes, and fails.
    CloseFails(Errno),
}

/// Whether registers can be read and written here.
pub const POSSIBLE: bool = cfg!(target_arch = "x86_64");

/// Stops itself, to be traced from there on, and then becomes the command that follows.
pub const COMMAND: [&str; 4] = ["sh", "-c", "kill -STOP $$; exec \"$@\"", "sh"];

/// Traces a process that is becoming [`COMMAND`] to its end, and says what that was.
pub fn trace(pid: Pid, change: Change) -> String {
    let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED));
    assert_eq!(stopped, Ok(WaitStatus::Stopped(pid, Signal::SIGSTOP)));
    ptrace::attach(pid).unwrap();
    waitpid(pid, None).unwrap();
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(pid, options).unwrap();
    nix::sys::signal::kill(pid, Signal::SIGCONT).unwrap();
    let mut calls = Calls::new(change);
    let mut signal = None;
    loop {
        // It may have been killed, because it took too long.
        let goes_on = ptrace::syscall(pid, signal.take());
        assert!(matches!(goes_on, Ok(()) | Err(Errno::ESRCH)), "{goes_on:?}");
        match waitpid(pid, None).unwrap() {
            WaitStatus::PtraceSyscall(_) => calls.stop(pid),
            // The stop that was asked for, and the one after execve(2).
            WaitStatus::Stopped(_, Signal::SIGSTOP | Signal::SIGTRAP) => {}
            WaitStatus::Stopped(_, other) => signal = Some(other),
            WaitStatus::Exited(_, code) => {
                assert!(calls.changed > 0, "no call was changed");
                return code.to_string();
            }
            WaitStatus::Signaled(_, signal, _) => return format!("signal {}", signal as i32),
            other @ (WaitStatus::PtraceEvent(..)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive) => panic!("{other:?}"),
        }
    }
}

/// Where in its calls the process is.
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "nothing is changed there")
)]
struct Calls {
    change: Change,
    /// Inside a call: the next stop is at its end.
    inside: bool,
    /// The program itself is at work, and no longer the loader.
    begun: bool,
    log: Option<u64>,
    changed: usize,
}

impl Calls {
    fn new(change: Change) -> Calls {
        Calls {
            change,
            inside: false,
            begun: false,
            log: None,
            changed: 0,
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn stop(&mut self, pid: Pid) {
        // Numbers of <asm/unistd_64.h>.
        const READ: u64 = 0;
        const WRITE: u64 = 1;
        const CLOSE: u64 = 3;
        const PREAD64: u64 = 17;
        const PWRITE64: u64 = 18;
        const SOCKET: u64 = 41;
        const SENDTO: u64 = 44;
        const RECVFROM: u64 = 45;
        const UMASK: u64 = 95;
        const SOCK_DGRAM: u64 = 2;

        self.inside = !self.inside;
        // An error is the end of the process.
        let Ok(mut regs) = ptrace::getregs(pid) else {
            return;
        };
        let call = regs.orig_rax;
        self.begun |= call == UMASK;
        if call == SOCKET && !self.inside && regs.rsi & 0xf == SOCK_DGRAM {
            self.log = Some(regs.rax);
        }
        let moves = [READ, WRITE, PREAD64, PWRITE64, SENDTO, RECVFROM].contains(&call);
        match self.change {
            Change::OneByte if self.inside && moves && Some(regs.rdi) != self.log => {
                regs.rdx = regs.rdx.min(1);
            }
            Change::CloseFails(errno) if !self.inside && call == CLOSE => {
                let number = (errno as i32).unsigned_abs();
                regs.rax = u64::from(number).wrapping_neg();
            }
            Change::OneByte | Change::CloseFails(_) => return,
        }
        if self.begun && ptrace::setregs(pid, regs).is_ok() {
            self.changed += 1;
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn stop(&mut self, _: Pid) {
        self.inside = !self.inside;
    }
}
